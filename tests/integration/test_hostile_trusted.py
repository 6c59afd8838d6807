"""Logins that may copy into an inbox, extract's and score's, in the hands of somebody who means ill.

Beside what any worker's login may do (test_hostile_volunteer.py). CASES is the table of what was
tried, see tests/support/hostile_login.py; docs/security.md shows the same, and the last test compares them.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString, cast

import psycopg
import pytest

from pairmill.workers.errors import LeaseLost, Malformed
from pairmill.workers.extract.calls import COPY_PAIRS, PAIR_TYPES
from support.database import DIMS, Database, new_database, page_row, pair_rows, score_rows
from support.hostile_login import (
    BLOCKED,
    BOUNDED,
    BUSY,
    IDLE,
    OPEN,
    REFUSED,
    Cases,
    OnSession,
    Stage,
    on_stage,
    refused_each,
    state_of,
    value,
)
from support.hostile_probe import CASES as PROBES
from support.line import wait_until

CASES = Cases(PROBES)
KINDS = dict.fromkeys(PROBES, "extract")
URLS = [f"http://h{n}.example/{n}.jpg" for n in range(8)]
Attempt = Callable[[Stage], None]


def by(kind: str) -> Callable[..., Callable[[Attempt], Attempt]]:
    def case(name: str, verdict: str, what: str = "") -> Callable[[Attempt], Attempt]:
        KINDS[name] = kind
        return CASES.case(name, verdict, what)

    return case


extract, score = by("extract"), by("score")


@pytest.fixture(scope="module")
def database(server: str) -> Iterator[Database]:
    with new_database(server) as db:
        yield db


def file(s: Stage, session: psycopg.Connection[Any], instance: int) -> int:
    """The lease of a session on a file of its own."""
    s.db.add_wat(f"{session.info.user}-{s.db.value('select count(*) from mill.wat_file')}.wat")
    return s.claim(session, instance)


def scoring(s: Stage) -> tuple[OnSession, int]:
    """eve with a lease on a scoring of eight."""
    s.db.add_model()
    s.batches()
    s.db.download()
    query = "select lease_id from api.claim_v1(%s, 'd1')"
    return OnSession(s.eve), int(value(s.eve, query, s.eve_instance))


def kept(s: Stage, table: str = "pair") -> int:
    return int(s.db.value(f"select count(*) from inbox.{table}"))


MANY = (
    "insert into inbox.pair (lease_id, ordinal, url_key, url, text, language_probability)"
    " select {lease}, n, md5(u)::uuid, u, repeat('x', 1000), 0"
    " from generate_series(1, {rows}) n, lateral (select 'http://h.example/' || n as u) v"
)


# ---- inboxes ------------------------------------------------------------------------------------


@extract("reading, changing, emptying or locking an inbox, naming another sender", REFUSED, "42501")
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    OnSession(s.eve).copy_pairs(pair_rows(lease, URLS))
    values = f"({lease}, 0, md5('http://a/')::uuid, 'http://a/', 'text', 0"
    columns = "lease_id, ordinal, url_key, url, text, language_probability"
    refused_each(
        s.eve, "42501",
        "select * from inbox.pair", "table inbox.pair", "select ctid from inbox.pair",
        "copy inbox.pair to stdout", "copy inbox.pair from stdin",
        "copy inbox.pair (lease_id, worker) from stdin",
        f"insert into inbox.pair ({columns}, worker) values {values}, '{s.names['other']}')",
        f"insert into inbox.pair ({columns}) values {values}) returning *",
        f"insert into inbox.pair ({columns}) values {values}) returning tableoid",
        "update inbox.pair set text = ''", "delete from inbox.pair", "truncate inbox.pair",
        "merge into inbox.pair t using (select 1) x on true when matched then delete",
        "alter table inbox.pair disable trigger all", "drop trigger enforce_quota on inbox.pair",
        "create rule r as on insert to inbox.pair do instead nothing", "drop table inbox.pair",
        "insert into inbox.score (lease_id, part, n, outcome) values (1, 0, 0, 0)",
        "select * from inbox.score", "select mill.enforce_quota()",
    )  # fmt: skip
    s.eve.execute("begin")
    refused_each(s.eve, "42501", "lock table inbox.pair in access exclusive mode")
    s.eve.execute("rollback")
    assert kept(s) == 8


@extract(
    "rows under another's lease, an ended or late one, or a number not yet issued", REFUSED, "PM001"
)
def _(s: Stage) -> None:
    bobs = file(s, s.bob, s.bob_instance)
    mine = file(s, s.eve, s.eve_instance)
    queue = OnSession(s.eve)
    for number in (bobs, mine + 1, mine + 2**40, 0, -1, 2**63 - 1, -(2**63)):
        with pytest.raises(LeaseLost):
            queue.copy_pairs(pair_rows(number, URLS))
        with pytest.raises(LeaseLost):
            queue.copy_pages([page_row(number, 0, "http://a/")])
    queue.copy_pairs(pair_rows(mine, URLS))
    queue.submit_extract(mine, 8, [("image", "links", "", 8)])
    with pytest.raises(LeaseLost):  # after the submission
        queue.copy_pairs(pair_rows(mine, URLS))
    late = file(s, s.eve, s.eve_instance)
    s.admin.execute("update mill.lease set expires_at = now() where lease_id = %s", (late,))
    with pytest.raises(LeaseLost):
        queue.copy_pairs(pair_rows(late, URLS))
    assert kept(s) == 8
    assert [a[3] for a in s.db.accept_all()] == [None]


@extract("rows of several leases in one statement", REFUSED, "PM003")
def _(s: Stage) -> None:
    leases = [file(s, s.eve, s.eve_instance) for _ in range(2)]
    with pytest.raises(Malformed):
        OnSession(s.eve).copy_pairs(pair_rows(leases[0], URLS) + pair_rows(leases[1], URLS))
    assert kept(s) == 0


@extract(
    "rows that are no pairs: a key that is not the URL's, another scheme, too long, negative, NaN, NUL, ill-formed text",
    REFUSED,
    "23514 22021 23502",
)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    (good,) = pair_rows(lease, URLS[:1])

    def pair(url: str) -> tuple[Any, ...]:
        return pair_rows(lease, [url])[0]

    ill = [
        (*good[:2], pair(URLS[1])[2], *good[3:]),
        *(pair(url) for url in ("javascript:alert(1)", "file:///etc/passwd", "http:/a", "", "http://" + "x" * 2042)),
        (lease, -1, *good[2:]), (*good[:4], "x" * 2001, *good[5:]), (*good[:5], "x" * 36, *good[6:]),
        *((*good[:6], p, *good[7:]) for p in (math.nan, math.inf, -math.inf, -0.1, 2.0)),
        (*good[:7], "x" * 2049, *good[8:]), (*good[:8], "x" * 21, *good[9:]),
        (None, *good[1:]), (*good[:3], None, *good[4:]),
    ]  # fmt: skip
    for row in ill:
        try:
            with s.eve.cursor() as cursor, cursor.copy(COPY_PAIRS) as copy:
                copy.set_types(PAIR_TYPES)
                copy.write_row(row)
        except psycopg.Error as error:
            assert error.sqlstate in ("23514", "23502"), row
        else:
            pytest.fail(str(row))
    for text in (b"a\\000b", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80"):
        line = b"%d\t0\t%s\thttp://a/\t%s\t0\n"
        statement = "copy inbox.pair (lease_id, ordinal, url_key, url, text, language_probability) from stdin"
        with (
            pytest.raises(psycopg.Error) as refused,
            s.eve.cursor() as cursor,
            cursor.copy(statement) as copy,
        ):
            copy.write(line % (lease, b"0" * 32, text))
        assert refused.value.sqlstate == "22021"
    assert kept(s) == 0


@extract(
    "a flood of rows under its own lease",
    BOUNDED,
    "inbox_mb_per_lease (1,000 MB), whatever is submitted",
)
def _(s: Stage) -> None:
    assert s.db.value("select inbox_mb_per_lease from mill.setting") == 1000
    s.admin.execute("update mill.setting set inbox_mb_per_lease = 1")
    lease = file(s, s.eve, s.eve_instance)
    assert state_of(s.eve, MANY.format(lease=lease, rows=1000)) == "PM003"
    assert kept(s) == 0
    for _ in range(4):
        s.eve.execute(cast(LiteralString, MANY.format(lease=lease, rows=200)))
    other = s.session(s.eve_dsn)
    assert state_of(other, MANY.format(lease=lease, rows=200)) == "PM003"
    assert kept(s) == 800
    # what it gives back or loses goes with the steward's next sweep
    s.eve.execute("select api.release_v1(%s)", (lease,))
    assert s.db.queue("steward")[0].maintain("sweep_inbox") == 800


@extract("a statement that inserts without end", BOUNDED, "temp_file_limit (1 GB), or its memory")
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    assert value(s.eve, "show temp_file_limit") == "1GB"
    s.admin.execute(cast(LiteralString, f"alter role {s.names['me']} set temp_file_limit = '4MB'"))
    assert state_of(s.session(s.eve_dsn), MANY.format(lease=lease, rows=100_000)) == "53400"
    assert kept(s) == 0


@extract("a flood that it rolls back, again and again", OPEN)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    size = "select pg_relation_size('inbox.pair')"
    before = s.db.value(size)
    s.eve.execute("begin")
    s.eve.execute(cast(LiteralString, MANY.format(lease=lease, rows=2000)))
    s.eve.execute("rollback")
    assert s.db.value(size) > before + 2_000_000  # until autovacuum has been there
    assert s.db.value("select copied_bytes from mill.lease where lease_id = %s", lease) == 0


@extract("a COPY that it never ends", BOUNDED, BUSY)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    with pytest.raises(psycopg.Error), s.eve.cursor() as cursor, cursor.copy(COPY_PAIRS) as copy:
        copy.set_types(PAIR_TYPES)
        for row in pair_rows(lease, URLS):
            copy.write_row(row)
        s.watchdog(600, 0)
    assert kept(s) == 0


@extract(
    "an open transaction after a COPY: a migration waits, its lease does not end", BOUNDED, IDLE
)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin")
    OnSession(s.eve).copy_pairs(pair_rows(lease, URLS))
    admin = s.impatient(s.db.dsn)
    assert state_of(admin, "truncate inbox.pair") == BLOCKED
    bobs = file(s, s.bob, s.bob_instance)
    OnSession(s.bob).copy_pairs(pair_rows(bobs, URLS))
    OnSession(s.bob).submit_extract(bobs, 8, [("image", "links", "", 8)])
    assert [a[3] for a in s.db.accept_all()] == [None]  # the work of others goes on
    s.watchdog()
    assert state_of(admin, "truncate inbox.pair") == "00000"


@extract(
    "rows from an open transaction, after the submission",
    BOUNDED,
    "its own extraction, which is rejected",
)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    OnSession(s.eve).copy_pairs(pair_rows(lease, URLS[:4]))
    second = s.session(s.eve_dsn)
    s.eve.execute("begin")
    OnSession(s.eve).copy_pairs(pair_rows(lease, URLS[4:]))
    with ThreadPoolExecutor() as pool:
        counts = [("image", "links", "", 4)]
        submitted = pool.submit(OnSession(second).submit_extract, lease, 4, counts)
        waits = "select wait_event_type = 'Lock' from pg_stat_activity where pid = %s"
        wait_until(lambda: s.db.value(waits, second.info.backend_pid), "the submission")
        s.eve.execute("commit")
        assert submitted.result(60)
    assert [a[3] for a in s.db.accept_all()] == ["4 rows were submitted and 8 are there"]
    assert s.db.value("select count(*) from mill.pair") == 0


# ---- extractions --------------------------------------------------------------------------------


@extract(
    "counts that are none: overflowing, negative, NULL, of unknown names, too many, not those of the rows",
    REFUSED,
    "PM003",
)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    queue = OnSession(s.eve)
    queue.copy_pairs(pair_rows(lease, URLS))
    links = ("image", "links", "", 8)
    for rows, counts in (
        *((8, [links, ("", "records", "", n)]) for n in (2**63 - 1, -(2**63), -1, 10**9 + 1, None)),
        (8, [links, ("image", "dropped", "no_text", 2**63 - 1)]),
        (8, [links, ("image", "links", "", 2**63 - 9)]),
        (8, [links, ("", "no such stage", "", 1)]), (8, [links, ("image", "pair", "en", 8)]),
        (8, [links, ("audio", "links", "", 8)]), (8, [links, ("", "bad_record", "x" * 201, 1)]),
        (8, [links, *(("", "bad_record", str(n), 1) for n in range(1000))]),
        (9, [("image", "links", "", 9)]), (-1, [("image", "links", "", -1)]), (0, [("", "records", "", 1)]),
    ):  # fmt: skip
        with pytest.raises(Malformed):
            queue.submit_extract(lease, rows, counts)  # type: ignore[arg-type]
    assert s.db.value("select count(*) from mill.submission") == 0


@extract("URLs that an admin had removed", BOUNDED, "dropped at the merge: a key is its URL's")
def _(s: Stage) -> None:
    s.admin.execute(
        "insert into mill.removal (source, md5, reason) values (%s, md5(%s)::uuid, '')",
        (URLS[0], URLS[0]),
    )
    lease = file(s, s.eve, s.eve_instance)
    OnSession(s.eve).copy_pairs(pair_rows(lease, URLS))
    OnSession(s.eve).submit_extract(lease, 8, [("image", "links", "", 8)])
    s.db.accept_all()
    assert s.db.value("select count(*) from mill.pair") == 7
    assert s.db.value("select count from mill.wat_count where name = 'removed'") == 1


@extract("links that no file has", OPEN)
def _(s: Stage) -> None:
    lease = file(s, s.eve, s.eve_instance)
    victim = [f"http://victim.example/{n}" for n in range(1000)]
    OnSession(s.eve).copy_pairs(pair_rows(lease, victim))
    OnSession(s.eve).submit_extract(lease, 1000, [("image", "links", "", 1000)])
    s.db.accept_all()
    assert s.db.value("select count(*) from mill.pair") == 1000
    # what helps afterwards
    s.admin.execute("select mill.quarantine_worker('eve-volunteer', null, 'it lied')")
    assert s.db.value("select count(*) from mill.seen_url") == 0


# ---- scorings -----------------------------------------------------------------------------------


@score(
    "thumbnails, submission and completion of another's lease, of an ended one or another kind's",
    REFUSED,
    "PM001",
)
def _(s: Stage) -> None:
    _, lease = scoring(s)
    s.batches()
    downloads = s.db.claim("download")
    assert downloads
    s.eve.execute("select api.release_v1(%s)", (lease,))
    bobs = int(value(s.bob, "select lease_id from api.claim_v1(%s, 'd1')", s.bob_instance))
    for number in (lease, bobs, downloads.lease_id, bobs + 10, -1):
        refused_each(
            s.eve, "PM001", f"select * from api.thumbnails_v1({number}, 0, 9)",
            f"select api.submit_score_v1({number}, 0, 8, 0)", f"select api.complete_v1({number})",
        )  # fmt: skip
        with pytest.raises(LeaseLost):
            OnSession(s.eve).copy_scores(score_rows(number, 0, range(8)))
        with pytest.raises(LeaseLost):
            OnSession(s.eve).thumbnails(number, 0, 9)
    assert len(OnSession(s.bob).thumbnails(bobs, 0, 9)) == 8
    assert kept(s, "score") == 0


@score("a model that the database does not know", REFUSED, "PM006")
def _(s: Stage) -> None:
    _, lease = scoring(s)
    s.eve.execute("select api.release_v1(%s)", (lease,))
    for digest in ("'d2'", "''", "null", "'D1'", "'d1 '", "repeat('x', 10000000)"):
        assert state_of(s.eve, f"select * from api.claim_v1({s.eve_instance}, {digest})") == "PM006"


@score(
    "scores that are none: NaN, infinite, unknown outcomes, other dims, positions of others or twice",
    REFUSED,
    "PM003 23514",
)
def _(s: Stage) -> None:
    queue, lease = scoring(s)
    vector = b"\x00\x3c" * DIMS
    ill: list[list[tuple[Any, ...]]] = [
        [(lease, 0, 0, 0, similarity, vector, vector, 5)] for similarity in (math.nan, math.inf, -math.inf, 1.1, -1.1, None)
    ]  # fmt: skip
    ill += [[(lease, 0, 0, outcome, 0.5, vector, vector, 5)] for outcome in (-1, 99, 1)]
    ill += [[(lease, 0, 0, 0, 0.5, v, vector, 5)] for v in (None, b"", vector[:-2], vector * 2)]
    ill += [score_rows(lease, 0, n) for n in ([-1], [8], [2**31 - 1], [0, 0])]
    for part, rows in enumerate(ill):
        queue.copy_scores([(lease, part, *row[2:]) for row in rows])
        with pytest.raises(Malformed):
            queue.submit_score(lease, part, len(rows))
    with pytest.raises(Malformed):
        queue.copy_scores([(lease, 99, 0, 0, 0.5, b"x" * 65_537, vector, 5)])
    for part, count in (("null", 1), (500, 1), (500, 0), (500, -1), (500, "null"), (0, 2)):
        assert (
            state_of(s.eve, f"select api.submit_score_v1({lease}, {part}, {count}, 0)") == "PM003"
        )
    assert s.db.value("select count(*) from mill.submission where lease_id = %s", lease) == 0


@score(
    "tags that are none: of another model's tagger, of positions not scored, twice, not finite",
    REFUSED,
    "PM003",
)
def _(s: Stage) -> None:
    queue, lease = scoring(s)
    own = s.db.add_tagger()
    s.db.add_model("d2")
    strange = s.db.add_tagger(base="d2", digest="t2")
    ill: list[list[tuple[int, int, int | None, float]]] = [
        [(strange, 0, None, 0.5)], [(99, 0, None, 0.5)], [(own, 1, None, 0.5)],
        [(own, 0, None, 0.5), (own, 0, None, 0.25)], [(own, 0, 0, 0.5)],
        [(own, 0, None, math.nan)], [(own, 0, None, -math.inf)],
    ]  # fmt: skip
    for part, rows in enumerate(ill):
        queue.copy_scores(score_rows(lease, part, [0]))
        queue.copy_tags([(lease, part, *row) for row in rows])
        with pytest.raises(Malformed):
            queue.submit_score(lease, part, 1, len(rows))
    assert s.db.value("select count(*) from mill.submission where lease_id = %s", lease) == 0


@score(
    "negative and countless parts",
    BOUNDED,
    "the positions of its task: one submission each at the most",
)
def _(s: Stage) -> None:
    queue, lease = scoring(s)
    for n, part in enumerate((-1, -(2**31), 2**31 - 1, 0, 1, 2, 3, 4)):
        queue.copy_scores(score_rows(lease, part, [n]))
        assert queue.submit_score(lease, part, 1) == queue.submit_score(lease, part, 1)
    queue.copy_scores(score_rows(lease, 99, [0]))
    with pytest.raises(Malformed):
        queue.submit_score(lease, 99, 1)
    queue.complete(lease)
    s.db.accept_all()
    assert s.db.value("select count(*) from mill.score") == 8


@score("rows of a part that it has submitted", BOUNDED, "its own part, which is rejected")
def _(s: Stage) -> None:
    queue, lease = scoring(s)
    queue.copy_scores(score_rows(lease, 0, range(8)))
    queue.submit_score(lease, 0, 8)
    queue.copy_scores(score_rows(lease, 0, range(8)))
    assert [a[3] is not None for a in s.db.accept_all()] == [True]
    assert kept(s, "score") == 0


@score(
    "a flood of scores under its own lease",
    BOUNDED,
    "inbox_mb_per_lease (1,000 MB), whatever is submitted",
)
def _(s: Stage) -> None:
    queue, lease = scoring(s)
    s.admin.execute("update mill.setting set inbox_mb_per_lease = 1")
    large = [(lease, 0, n, 0, 0.5, b"x" * 10_000, b"x" * 10_000, 5) for n in range(40)]
    queue.copy_scores(large)
    with pytest.raises(Malformed, match="more than 1 MB were copied under lease"):
        queue.copy_scores(large)
    assert kept(s, "score") == 40


@score("tasks of every model, by its digest", OPEN)
def _(s: Stage) -> None:
    s.db.add_model("d2")
    scoring(s)
    assert value(s.eve, "select lease_id from api.claim_v1(%s, 'd2')", s.eve_instance)


@score("false scores and embeddings, not numbers among them", OPEN)
def _(s: Stage) -> None:
    queue, lease = scoring(s)
    nan = b"\x00\x7e" * DIMS
    queue.copy_scores([(lease, 0, n, 0, 1.0, nan, nan, 5) for n in range(8)])
    queue.submit_score(lease, 0, 8)
    queue.complete(lease)
    s.db.accept_all()
    assert s.db.value("select count(*) from mill.current_score where similarity = 1") == 8
    # what helps afterwards
    s.admin.execute("select mill.quarantine_worker('eve-volunteer', null, 'it lied')")
    assert s.db.value("select count(*) from mill.current_score") == 0


@pytest.mark.parametrize("name", CASES)
def test_attempt(database: Database, name: str) -> None:
    attempt = CASES[name].attempt
    assert attempt is not None
    with on_stage(database, KINDS[name]) as stage:
        attempt(stage)


def test_the_page_shows_these_cases() -> None:
    CASES.check("What was tried with extract and score logins")
