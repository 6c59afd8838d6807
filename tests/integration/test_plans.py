"""The plans of the calls that are made all day, in a database that has a history.

auto_explain says how each statement within a function was run; it comes with the embedded server.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from pairmill.schema.outcomes import Outcome
from support.database import DIMS, QUEUES, Database, new_database, outcomes, pair_rows, score_rows

ROWS = 400  # of a batch
REAL, READY, DONE = 60, 60, 20_000  # batches: with rows, to be done, done and without rows
BUSY = 200  # leases that are live, and submissions that wait, when the statistics are made
CALLS = 8  # from the sixth on, a session may use a plan that is made for any argument
BIG = re.compile(r"task|lease|submission|batch|(pair|download|score|embedding|tag)_b\d+")


@dataclass(frozen=True)
class Scan:
    how: str
    table: str
    index: str
    by: str  # the index condition
    is_sorted: bool  # what it gives is sorted afterwards: all of it is read


class Watched:
    """A worker's queue, with the scans of every statement that its calls ran."""

    def __init__(self, db: Database, kind: str) -> None:
        dsn = db.login(kind)
        login = psycopg.conninfo.conninfo_to_dict(dsn)["user"]
        db.admin.execute("load 'auto_explain'")  # or its settings would not be known
        for setting in (
            "session_preload_libraries = 'auto_explain'",
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_format = json",
            "auto_explain.log_level = notice",
        ):
            db.admin.execute(f'alter role "{login}" set {setting}')
        self.queue = QUEUES[kind](dsn)
        self.connection = self.queue._connected()
        self._plans: list[dict[str, Any]] = []
        self.connection.add_notice_handler(self._keep)
        self.instance = self.queue.register().instance_id
        self.forget()

    def _keep(self, notice: psycopg.errors.Diagnostic) -> None:
        _, found, plan = (notice.message_primary or "").partition("plan:\n")
        if found:
            self._plans.append(json.loads(plan)["Plan"])

    def forget(self) -> None:
        self._plans = []

    def scans(self) -> set[Scan]:
        """Of all statements since the last time."""
        plans, self._plans = self._plans, []
        assert plans, "auto_explain said nothing"
        return {scan for plan in plans for scan in scans_of(plan)}


def scans_of(node: dict[str, Any], is_sorted: bool = False) -> Iterator[Scan]:
    is_sorted = is_sorted or node["Node Type"] == "Sort"
    if node["Node Type"].endswith("Scan"):
        names = (node.get(key, "") for key in ("Relation Name", "Index Name", "Index Cond"))
        yield Scan(node["Node Type"], *names, is_sorted)
    for child in node.get("Plans", ()):
        yield from scans_of(child, is_sorted)


def indexes(scans: set[Scan]) -> set[str]:
    """The names of the indexes that were used; no big table was read whole."""
    whole = {s.table for s in scans if s.how == "Seq Scan" and BIG.fullmatch(s.table)}
    assert not whole, f"read whole: {whole}"
    return {s.index for s in scans if s.index}


@pytest.fixture(scope="module")
def history(server: str) -> Iterator[Database]:
    """Many done tasks, few ready ones; the rows of some, in one partition."""
    with new_database(server) as db:
        fill(db)
        yield db


def fill(db: Database) -> None:
    db.admin.execute("update mill.setting set leases_per_worker = 1000")
    db.add_model()
    # workers with earlier processes, which hold nothing any more
    for kind in ("extract", "download", "score"):
        db.login(kind, f"earlier {kind}")
    db.admin.execute(
        "insert into mill.instance (worker_id, version, protocol)"
        " select worker_id, '', 1 from mill.worker, generate_series(1, 100)"
    )
    db.admin.execute(
        "insert into mill.wat_file (location) select 'f' || f from generate_series(1, %s) f",
        (DONE // 3,),
    )
    db.admin.execute(
        "insert into mill.batch (batch_id, bucket, pair_count, closed_at)"
        " select b, 0, %s, now() from generate_series(0, %s) b",
        (ROWS, REAL + READY + DONE - 1),
    )
    db.admin.execute("select setval(pg_get_serial_sequence('mill.batch', 'batch_id'), 900000)")
    # the ready tasks last, as the newest are: all but the batches from REAL on, READY of them
    done = "select 'done', b from mill.batch x (b) where b < %(real)s or b >= %(real)s + %(ready)s"
    ready = (
        "select 'ready', b from mill.batch x (b) where b >= %(real)s and b < %(real)s + %(ready)s"
    )
    numbers = {"real": REAL, "ready": READY}
    db.admin.execute(
        "insert into mill.task (kind, state, wat_id)"
        " select 'extract', case when wat_id > %s then 'ready' else 'done' end, wat_id"
        " from mill.wat_file order by 3",
        (DONE // 3 - READY,),
    )
    for batches in (done, ready):
        db.admin.execute(
            "insert into mill.task (kind, state, batch_id)"
            f" select 'download', x.state, x.b from ({batches}) x (state, b) order by x.b",
            numbers,
        )
    db.admin.execute(
        "insert into mill.task (kind, state, batch_id, model_id)"
        f" select 'score', x.state, x.b, model_id from ({done}) x (state, b), mill.model order by x.b",
        numbers,
    )
    db.admin.execute(
        "insert into mill.lease"
        " (lease_id, task_id, instance_id, expires_at, deadline, ended_at, ended_as)"
        " select (1::bigint << 40) + nextval('mill.lease_number'), task_id,"
        " 1 + task_id % (select count(*) from mill.instance), now(), now(), now(), 'completed'"
        " from mill.task where state = 'done'"
    )
    db.admin.execute(
        "insert into mill.submission"
        " (task_id, lease_id, part, worker_id, state, row_count, decided_at)"
        " select task_id, lease_id, 0, instance.worker_id, 'accepted', %s, now()"
        " from mill.lease join mill.instance using (instance_id)",
        (ROWS,),
    )
    db.admin.execute(
        "insert into mill.pair"
        " select b, n, null, 0, 0, md5(b || '/' || n)::uuid, 'https://host.example/' || b || '/' || n,"
        " 'a text', 'en', 0.9, null from generate_series(0, %s - 1) b, generate_series(0, %s - 1) n",
        (REAL + READY, ROWS),
    )
    db.admin.execute(
        "insert into mill.download (batch_id, n, attempt, outcome, http_status, submission_id)"
        " select t.batch_id, n, 1, 45, 200, s.submission_id"
        " from mill.task t join mill.submission s using (task_id), generate_series(0, %s - 1) n"
        " where t.kind = 'download' and t.state = 'done' and t.batch_id < %s",
        (ROWS, REAL),
    )
    db.admin.execute(
        "insert into mill.score"
        " select batch_id, n, attempt, 1, 0, 0.3, submission_id from mill.download"
    )
    db.admin.execute(
        "insert into mill.embedding"
        " select batch_id, n, attempt, 1, %(vector)s, %(vector)s, submission_id from mill.download",
        {"vector": b"\x00\x3c" * DIMS},
    )
    for digest in ("own", "pass"):
        tagger = db.add_tagger(digest=digest)
        db.admin.execute("update mill.task set state = 'done' where model_id = %s", (tagger,))
        db.admin.execute(
            "insert into mill.tag (batch_id, model_id, attempt, n, value, submission_id)"
            " select batch_id, %s, attempt, n, 0.5, submission_id from mill.download",
            (tagger,),
        )
    # the statistics are of a busy hour; then those who were at work go
    db.admin.execute(
        "update mill.lease set ended_at = null where lease_id in"
        " (select lease_id from mill.lease order by 1 desc limit %s)",
        (BUSY,),
    )
    db.admin.execute(
        "update mill.submission set state = 'received' where submission_id in"
        " (select submission_id from mill.submission order by 1 desc limit %s)",
        (BUSY,),
    )
    db.admin.execute("vacuum analyze")
    db.admin.execute("update mill.lease set ended_at = now() where ended_at is null")
    db.admin.execute("update mill.submission set state = 'accepted' where state = 'received'")


@contextmanager
def taken(watched: Watched) -> Iterator[int]:
    """A lease; released again."""
    claim = watched.queue.claim(watched.instance)
    assert claim
    watched.forget()
    yield claim.lease_id
    watched.queue.release(claim.lease_id)
    watched.forget()


@pytest.mark.parametrize("kind", ["extract", "download"])
def test_a_claim_stops_at_the_first_ready_task(history: Database, kind: str) -> None:
    worker = Watched(history, kind)
    for _ in range(CALLS):
        claim = worker.queue.claim(worker.instance)
        assert claim
        scans = worker.scans()
        assert {"task_ready_idx", "task_pkey"} <= indexes(scans)
        picks = [s for s in scans if s.index == "task_ready_idx"]
        assert all("kind = " in s.by and not s.is_sorted for s in picks), "read all that is ready"
        counted = {s for s in scans if s.table == "lease"}
        hour = {s for s in counted if s.index == "lease_unfinished_idx"}
        assert all("ended_at" in s.by for s in hour), "read all that failed ever"
        live = {s.index for s in counted - hour}
        assert live <= {"lease_live_idx", "lease_holder_idx"}, "read leases that have ended"
        worker.queue.release(claim.lease_id)
        assert {"task_pkey", "lease_pkey"} <= indexes(worker.scans())


def test_a_heartbeat_finds_its_lease_by_key(history: Database) -> None:
    worker = Watched(history, "download")
    with taken(worker) as lease:
        for _ in range(CALLS):
            worker.queue.heartbeat(lease)
        assert "lease_pkey" in indexes(worker.scans())


def test_late_leases_are_found_among_live_ones(history: Database) -> None:
    worker, steward = Watched(history, "download"), Watched(history, "steward")
    for _ in range(CALLS):
        assert worker.queue.claim(worker.instance)
        history.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
        assert steward.queue.maintain("expire_leases")
    used = indexes(steward.scans())
    assert used & {"lease_live_idx", "lease_holder_idx"}
    assert {"task_pkey", "lease_pkey"} <= used


def test_a_download_is_handed_back_by_indexes(history: Database) -> None:
    """urls, submit, complete and acceptance read the rows of one batch, of one partition."""
    worker, steward = Watched(history, "download"), Watched(history, "steward")
    step = ROWS // 4
    for _ in range(CALLS):
        claim = worker.queue.claim(worker.instance)
        assert claim
        worker.forget()
        for part in range(4):
            left = [n for n, _ in worker.queue.urls(claim.lease_id)]
            used = indexes(worker.scans())
            assert "pair_b000000_pkey" in used
            assert "download_b000000_pkey" in used
            assert "submission_task_id_idx" in used
            columns = outcomes(left[:step], Outcome.TOO_THIN)
            worker.queue.submit_download(claim.lease_id, part, columns)
            used = indexes(worker.scans())
            assert {"download_b000000_pkey", "submission_lease_id_part_key"} <= used
            assert "pair_b000000_pkey" not in used, "what is open is known without the URLs"
        worker.queue.complete(claim.lease_id)
        indexes(worker.scans())
        for _ in range(4):
            accepted = steward.queue.accept_next()
            assert accepted
            assert accepted[3] is None
            used = indexes(steward.scans())
            assert {"submission_received_idx", "submission_task_id_idx"} <= used
        assert (
            history.value("select state from mill.task where task_id = %s", claim.task_id) == "done"
        )


def test_a_score_is_handed_back_by_indexes(history: Database) -> None:
    download, score = Watched(history, "download"), Watched(history, "score")
    steward = Watched(history, "steward")
    for _ in range(CALLS):
        claim = download.queue.claim(download.instance)
        assert claim
        good = outcomes([n for n, _ in download.queue.urls(claim.lease_id)])
        download.queue.submit_download(claim.lease_id, 0, good)
        download.queue.complete(claim.lease_id)
        assert steward.queue.accept_next()
        steward.forget()
        claim = score.queue.claim(score.instance, "d1")
        assert claim
        assert {"task_ready_idx", "download_b000000_pkey"} <= indexes(score.scans())
        positions = [row[0] for row in score.queue.thumbnails(claim.lease_id, 0, ROWS)]
        assert len(positions) == ROWS
        assert "pair_b000000_pkey" in indexes(score.scans())
        score.queue.copy_scores(score_rows(claim.lease_id, 0, positions))
        score.queue.submit_score(claim.lease_id, 0, ROWS)
        score.queue.complete(claim.lease_id)
        assert "download_b000000_pkey" in indexes(score.scans())
        assert steward.queue.accept_next()
        assert "submission_received_idx" in indexes(steward.scans())


def test_tags_are_handed_back_by_indexes(history: Database) -> None:
    """In the pass of their model, and as a task of a tagger's own."""
    download, score = Watched(history, "download"), Watched(history, "score")
    steward = Watched(history, "steward")
    own, tagger = (
        history.value("select model_id from mill.model where digest = %s", digest)
        for digest in ("own", "pass")
    )
    for _ in range(CALLS):
        claim = download.queue.claim(download.instance)
        assert claim
        good = outcomes([n for n, _ in download.queue.urls(claim.lease_id)])
        download.queue.submit_download(claim.lease_id, 0, good)
        download.queue.complete(claim.lease_id)
        assert steward.queue.accept_next()
        claim = score.queue.claim(score.instance, "d1")
        assert claim
        score.queue.copy_scores(score_rows(claim.lease_id, 0, range(ROWS)))
        score.queue.copy_tags([(claim.lease_id, 0, tagger, n, None, 0.5) for n in range(ROWS)])
        score.forget()
        score.queue.submit_score(claim.lease_id, 0, ROWS, ROWS)
        score.queue.complete(claim.lease_id)
        assert "tag_lease_id_part_idx" in indexes(score.scans())
        steward.forget()
        assert steward.queue.accept_next()
        used = indexes(steward.scans())
        assert {"tag_b000000_pkey", "embedding_b000000_pkey", "tag_lease_id_part_idx"} <= used
        claim = score.queue.claim(score.instance, "own")
        assert claim
        assert {"embedding_b000000_pkey", "tag_b000000_pkey"} <= indexes(score.scans())
        found = score.queue.embeddings(claim.lease_id, 0, ROWS)
        assert len(found) == claim.payload["count"] == ROWS
        assert "embedding_b000000_pkey" in indexes(score.scans())
        score.queue.copy_tags([(claim.lease_id, 0, own, n, None, 0.5) for n, _ in found])
        score.queue.submit_score(claim.lease_id, 0, 0, ROWS)
        score.queue.complete(claim.lease_id)
        indexes(score.scans())
        steward.forget()
        assert steward.queue.accept_next()
        assert {"tag_b000000_pkey", "embedding_b000000_pkey"} <= indexes(steward.scans())


def test_an_extraction_is_handed_back_by_indexes(history: Database) -> None:
    worker, steward = Watched(history, "extract"), Watched(history, "steward")
    for number in range(CALLS):
        claim = worker.queue.claim(worker.instance)
        assert claim
        urls = [f"https://new.example/{number}/{i}" for i in range(50)]
        worker.queue.copy_pairs(pair_rows(claim.lease_id, urls))
        worker.queue.submit_extract(claim.lease_id, 50, [("image", "links", "", 50)])
        assert {"task_ready_idx", "submission_lease_id_part_key"} <= indexes(worker.scans())
        assert steward.queue.accept_next()
        assert {"submission_received_idx", "batch_open_idx"} <= indexes(steward.scans())


@pytest.mark.parametrize("removals", [False, True])
def test_a_probe_looks_each_key_up_whatever_the_statistics_say(
    history: Database, removals: bool
) -> None:
    """Would catch a plan that reads the known URLs whole, 10^9 of them, for 20,000 keys: of tables
    that were empty when they were analysed, that nobody analysed since, and as they are."""
    worker = Watched(history, "extract")
    if removals:
        history.admin.execute(
            "insert into mill.removal (source, host, reason) select h, h, '' from"
            " (select 'h' || g || '.example' as h from generate_series(1, 2000) g) x"
        )
        history.admin.execute(
            "with image as (insert into mill.removal (source, sha256, reason) values ('i', '', '') returning removal_id)"
            " insert into mill.removed_pair select batch_id, n, removal_id, 1 from mill.pair, image"
        )
    history.admin.execute("truncate mill.seen_url")
    history.admin.execute("analyze mill.seen_url, mill.removal")
    history.admin.execute(
        "insert into mill.seen_url select url_key, batch_id, n from mill.pair order by 1"
    )
    keys = [key.bytes for (key,) in history.rows("select url_key from mill.seen_url limit 500")]
    with taken(worker) as lease:
        for analysed in (False, True):
            if analysed:
                history.admin.execute("analyze mill.seen_url, mill.removal")
            for asked in (keys, keys[:1], keys * 10):
                assert worker.queue.probe(lease, asked) == [True] * len(asked)
                scans = worker.scans()
                assert "lease_pkey" in indexes(scans)
                looked = {s for s in scans if re.match("seen_url|removed|removal|pair", s.table)}
                assert {s.table for s in looked} >= {f"seen_url_h{i:02}" for i in range(16)}
                reading = {s for s in looked if "key = " not in s.by and "batch_id = " not in s.by}
                assert {s.table for s in reading} <= {"removal"}, f"read whole: {reading}"
    history.admin.execute("delete from mill.removal")


PLANS = {
    "read whole": {"indexscan": "Seq Scan", "bitmapscan": "", "indexonlyscan": ""},
    "bitmap": {"indexscan": "Bitmap Heap Scan", "seqscan": "", "indexonlyscan": ""},
    "joined without loops": {"nestloop": "", "mergejoin": ""},
    "joined by loops": {"hashjoin": "", "mergejoin": "", "material": "", "memoize": ""},
    "merged": {"hashjoin": "", "nestloop": ""},
    # the one that took all ready tasks where mill.pick_task was written with IN (subselect)
    "asked for every row": {"hashjoin": "", "material": "", "hashagg": "", "sort": ""},
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_claim_takes_one_task_under_every_plan(history: Database, plan: str) -> None:
    worker = Watched(history, "download")
    # in the order of their numbers, as they were made: a task that was claimed has moved to the
    # end, and behind the others it ends a scan that would have taken them
    history.admin.execute("cluster mill.task using task_pkey")
    for name in PLANS[plan]:
        worker.connection.execute(f"set enable_{name} = off")
    worker.forget()
    leased = "select task_id from mill.task where state = 'leased'"
    before = history.rows(leased)
    for _ in range(CALLS):
        claim = worker.queue.claim(worker.instance)
        assert claim
        ways = {s.how for s in worker.scans() if s.table == "task"}
        assert {how for how in PLANS[plan].values() if how} <= ways, "the plan was not another"
        assert set(history.rows(leased)) - set(before) == {(claim.task_id,)}
        worker.queue.release(claim.lease_id)
        worker.forget()
