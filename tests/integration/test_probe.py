"""The probe before the upload: it saves work, and changes nothing that is kept or counted."""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, LiteralString, cast
from unittest.mock import MagicMock

import psycopg
import pytest
import trio

from pairmill.ops.admin import removal
from pairmill.workers.daemon import Job
from pairmill.workers.errors import LeaseLost, Malformed
from pairmill.workers.extract import rows
from pairmill.workers.extract.extract import Counts, Pair
from pairmill.workers.extract.probe import UrlProbe
from pairmill.workers.extract.worker import Extract, new_pairs
from pairmill.workers.steward.calls import StewardQueue
from pairmill.workers.steward.url_filter import UrlFilter
from support.database import Database, key, pair_rows
from support.template import Template
from support.wats import image, packed, page

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(12)]
PART = 20  # pairs of a part, in place of 20,000


# ---- through the worker, with and without --------------------------------------------------------


def wats() -> list[bytes]:
    """Files that share their links: images and songs, short texts, pages that opt out."""
    rng = random.Random(17)
    images = [f"http://h{i % 9}.example/{i}.jpg" for i in range(120)]
    songs = [f"http://h{i % 9}.example/{i}.mp3" for i in range(20)]

    def one_page(number: int) -> Any:
        links = [
            image(url, rng.choice(["日本", f"picture {url}"])) for url in rng.sample(images, 9)
        ]
        links += [{"path": "A@/href", "url": url, "text": "a song"} for url in rng.sample(songs, 2)]
        refusal = {"Metas": [{"name": "robots", "content": "noai"}]} if number % 4 == 0 else {}
        return page(f"http://page.example/{rng.randrange(10**6)}", links, **refusal)

    return [packed(one_page(number) for number in range(8)) for _ in range(5)]


def work(db: Database, worker: Extract) -> None:
    """Do the next file, and have it accepted."""
    queue, _ = db.queue("extract")
    claim = db.claim("extract")
    assert claim
    trio.run(worker.work, Job(claim, queue, MagicMock()))
    assert [accepted[3] for accepted in db.accept_all()] == [None]


def line(db: Database, files: Sequence[Path]) -> dict[str, list[tuple[Any, ...]]]:
    """Extract them, with removals after the second and a withdrawal after the fourth; the last is
    extracted twice. What is kept and counted in the end."""
    worker = Extract()
    for number, file in enumerate((*files, files[-1])):
        if number == 2:
            removal.add(db.admin, ["h3.example", "http://h1.example/1.jpg"], "asked", False)
        if number == len(files):  # under another name
            file = file.rename(file.with_name("again.wat"))
        db.admin.execute(
            "select mill.add_wat('CC-MAIN-2024-51', %s, '{image,audio}')", ([str(file)],)
        )
        work(db, worker)
        if number == 3:
            first = db.value("select min(submission_id) from mill.submission")
            db.admin.execute("select mill.withdraw(%s, 'a test')", (first,))
            work(db, worker)
    file.rename(files[-1])
    of = "join mill.wat_file f using (wat_id)"
    return {
        name: db.rows(f"select {columns} from {tables} order by {columns}")
        for name, columns, tables in (
            ("pairs", "url, text, language, license, page, location, link_kind, submission_id",
             f"mill.pair {of} join mill.batch using (batch_id)"),
            ("pages", "location, page, url, crawled_at", f"mill.page {of}"),
            ("opt-outs", "p.url, signal, value, source",
             "mill.opt_out join mill.pair p using (batch_id, n)"),
            ("known", "url_key, url", "mill.seen_url join mill.pair using (batch_id, n, url_key)"),
            ("files", "location, link_kind, stage, name, count",
             "(select location, w.link_kind, stage, name, sum(count) as count"
             f"   from mill.wat_count w {of} group by 1, 2, 3, 4) x"),
            ("crawl", "link_kind, stage, name, count", "mill.crawl_count"),
            ("days", "stage, link_kind, name, count", "mill.daily_count"),
        )
    }  # fmt: skip


def test_what_is_kept_and_counted_is_the_same_without_it(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a link, page, opt-out or count that is lost on the way, the first short text in
    place of a longer one, and a removed URL that counts as a duplicate."""
    monkeypatch.setattr(rows, "PAIRS_PER_PART", PART)
    files = [tmp_path / f"{number}.wat" for number in range(5)]
    for file, content in zip(files, wats(), strict=True):
        file.write_bytes(content)
    found = []
    for asks in (False, True):
        monkeypatch.setattr(UrlProbe, "wanted", lambda self, asks=asks: asks)
        with template.copy() as db:
            found.append(line(db, files))
            probed, sent, links = (
                db.value(f"select coalesce(sum({column}), 0) from mill.{table}")
                for column, table in (
                    ("probed", "lease"), ("row_count", "submission"),
                    ("case when stage = 'links' then count else 0 end", "wat_count"),
                )
            )  # fmt: skip
            assert bool(probed) == asks
            assert (sent < links / 2) == asks, "it saved nothing"
    without, with_it = found
    assert {("image", "dropped", "removed"), ("audio", "duplicate", "")} <= {
        row[:3] for row in without["crawl"]
    }, "the files have no such case"
    for name, expected in without.items():
        assert with_it[name] == expected, name


# ---- by its calls --------------------------------------------------------------------------------


def keys(urls: Sequence[str]) -> list[bytes]:
    return [key(url).bytes for url in urls]


def hold_back(db: Database) -> None:
    """The next file to be claimed is the one that is added next."""
    db.admin.execute("update mill.task set ready_at = 'infinity' where state = 'ready'")


def begun(db: Database, urls: Sequence[str], location: str, name: str) -> tuple[int, list[str]]:
    """A file that is probed and copied: its lease, and what was unknown."""
    hold_back(db)
    db.add_wat(location)
    claim = db.claim("extract", name)
    assert claim
    assert claim.payload["location"] == location
    queue, _ = db.queue("extract", name)
    known = queue.probe(claim.lease_id, keys(urls))
    new = [url for url, is_known in zip(urls, known, strict=True) if not is_known]
    queue.copy_pairs(pair_rows(claim.lease_id, new))
    return claim.lease_id, new


def submit(db: Database, lease_id: int, links: int, kept: int, name: str) -> None:
    queue, _ = db.queue("extract", name)
    counts = [("image", "links", "", links), ("image", "duplicate", "", links - kept)]
    queue.submit_extract(lease_id, kept, counts)


def again(db: Database, files: dict[str, Sequence[str]], name: str) -> list[str]:
    """Extract all that is ready, at once; the files."""
    db.admin.execute("update mill.task set ready_at = now()")
    queue, _ = db.queue("extract", name)
    done = []
    while claim := db.claim("extract", name):
        urls = files[claim.payload["location"]]
        new = [
            url
            for url, known in zip(urls, queue.probe(claim.lease_id, keys(urls)), strict=True)
            if not known
        ]
        queue.copy_pairs(pair_rows(claim.lease_id, new))
        submit(db, claim.lease_id, len(urls), len(new), name)
        assert [accepted[3] for accepted in db.accept_all()] == [None]
        done.append(claim.payload["location"])
    return done


def impatient(db: Database, kind: str, name: str) -> Any:
    """A queue that would rather be refused than wait for a lock."""
    queue, _ = db.queue(kind, name)
    login = queue._connected().info.user
    db.admin.execute(cast(LiteralString, f"alter role {login} set lock_timeout = '1s'"))
    queue.close()
    queue.patience = 0.0
    return queue


def counted_urls(db: Database) -> list[str]:
    return [
        url
        for (url,) in db.rows(
            "select url from mill.pair p"
            " where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)"
            " order by url"
        )
    ]


WITHDRAWALS = {
    "withdraw": "select mill.withdraw(1, 'a test')",
    "wat remove": "select mill.remove_wats('{1}', 'a test')",
    "quarantine": "select mill.quarantine_worker('ada', null, 'a test')",
}


@pytest.mark.parametrize("how", WITHDRAWALS)
def test_what_is_withdrawn_after_the_probe_is_not_lost(db: Database, how: str) -> None:
    """Would catch URLs that were known to a probe, and to nobody from the withdrawal on: of a file
    that waits for its merge, and of one that is handed over later. Nor does it cost an attempt."""
    files = {"a": URLS[:6], "submitted": URLS[:8], "copied": URLS[4:10], "new": URLS[10:]}
    lease, _ = begun(db, files["a"], "a", "ada")
    submit(db, lease, 6, 6, "ada")
    db.accept_all()
    leases = {}
    for name, new in (("submitted", 2), ("copied", 4), ("new", 2)):
        leases[name], sent = begun(db, files[name], name, "bob")
        assert len(sent) == new
    submit(db, leases["submitted"], 8, 2, "bob")
    db.admin.execute(WITHDRAWALS[how])
    submit(db, leases["copied"], 6, 4, "bob")
    submit(db, leases["new"], 2, 2, "bob")
    reasons = [accepted[3] for accepted in db.accept_all()]
    assert [bool(reason) for reason in reasons] == [True, True, False], "nothing was known of new"
    assert "withdrawn" in str(reasons[0])
    assert db.rows(
        "select location, state, attempts from mill.task join mill.wat_file using (wat_id)"
        " where location <> 'a' order by 1"
    ) == [("copied", "ready", 0), ("new", "done", 0), ("submitted", "ready", 0)]
    expected = {"submitted", "copied"} | ({"a"} if how != "wat remove" else set())
    assert set(again(db, files, "bob")) == expected
    assert counted_urls(db) == sorted(set(URLS))
    assert db.value("select count(*) from mill.seen_url") == len(URLS)


def test_what_is_rejected_so_does_not_cost_the_stewards_filter(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a filter that is taken for wrong, and read anew from all known URLs, for each file
    under way at a withdrawal."""
    lease, _ = begun(db, URLS[:6], "a", "ada")
    submit(db, lease, 6, 6, "ada")
    db.accept_all()
    for name in "bcd":
        lease, _ = begun(db, URLS[:6], name, "bob")
        submit(db, lease, 6, 0, "bob")
    db.admin.execute(WITHDRAWALS["withdraw"])
    builds = []
    build = UrlFilter.build

    def counted(self: UrlFilter, queue: StewardQueue) -> None:
        builds.append(queue)
        build(self, queue)

    monkeypatch.setattr(UrlFilter, "build", counted)
    url_filter = UrlFilter(tmp_path / "urls.bloom")
    queue: StewardQueue = db.queue("steward")[0]
    for _ in "bcd":
        rejected = url_filter.accept_next(queue)
        assert rejected
        assert "withdrawn" in str(rejected.accepted[3])
    assert len(builds) == 1


def test_a_question_that_is_refused_costs_only_its_savings() -> None:
    """Would catch a file that fails for a probe, which may only save work."""
    queue, counts, probe = MagicMock(), Counts(), UrlProbe()
    queue.probe.side_effect = Malformed("canceling statement due to statement timeout")
    new = new_pairs(queue, 1, probe, counts)
    pairs = [Pair(b"k", "u", "t", "image", MagicMock())]
    assert new(pairs) == new(pairs) == pairs
    assert queue.probe.call_count == 1, "once a file"
    new_pairs(queue, 2, probe, counts)(pairs)
    assert queue.probe.call_count == 2


def test_a_withdrawal_under_way_is_noticed_and_waited_for_by_nobody(db: Database) -> None:
    """Would catch a number that rises before the keys are gone, and a probe that waits."""
    db.extract(URLS[:6], "a")
    with psycopg.connect(db.dsn) as admin:
        admin.execute("select mill.withdraw(1, 'a test')")
        impatient(db, "extract", "bob")
        lease, new = begun(db, URLS[:8], "b", "bob")
        assert new == URLS[6:8], "it is not committed"
        late, _ = begun(db, URLS[:8], "c", "bob")
        admin.commit()
    submit(db, lease, 8, 2, "bob")
    assert [bool(accepted[3]) for accepted in db.accept_all()] == [True]
    # asked once more, everything is unknown; but what was said before stands in its counts
    queue, _ = db.queue("extract", "bob")
    assert queue.probe(late, keys(URLS[:8])) == [False] * 8
    submit(db, late, 8, 2, "bob")
    assert [bool(accepted[3]) for accepted in db.accept_all()] == [True]


def test_a_withdrawal_that_was_taken_back_or_came_before_asks_for_nothing(db: Database) -> None:
    """Would catch files that are extracted again for nothing."""
    db.extract(URLS[:3], "a")
    db.extract(URLS[3:6], "b")
    db.admin.execute("select mill.withdraw(1, 'a test')")
    lease, new = begun(db, URLS[:8], "c", "bob")
    assert new == [*URLS[:3], *URLS[6:8]]
    with psycopg.connect(db.dsn) as admin:
        admin.execute("select mill.withdraw(2, 'a test')")
        admin.rollback()
    hold_back(db)
    db.extract([], "empty")
    db.admin.execute("select mill.withdraw(3, 'a test')")  # of no pairs
    submit(db, lease, 8, 5, "bob")
    assert [accepted[3] for accepted in db.accept_all()] == [None]


def test_a_probe_and_a_merge_wait_for_neither(db: Database) -> None:
    """Would catch a lock of mill.seen_url, and a URL that counts as known before it is."""
    first, _ = begun(db, URLS[:6], "a", "ada")
    submit(db, first, 6, 6, "ada")
    second, new = begun(db, URLS[3:9], "b", "bob")
    assert new == URLS[3:9], "not merged, not known"
    queue = impatient(db, "extract", "bob")
    with psycopg.connect(db.login("steward")) as merging:
        assert merging.execute("select api.accept_next_v1()").fetchall()
        assert queue.probe(second, keys(URLS)) == [False] * 12
    assert queue.probe(second, keys(URLS)) == [True] * 6 + [False] * 6
    submit(db, second, 6, 6, "bob")
    third, new = begun(db, URLS[:10], "c", "ada")
    assert new == URLS[6:10]
    with psycopg.connect(db.login("extract", "cid")) as asking:
        (instance,) = asking.execute("select instance_id from api.register_v1('', 1)").fetchall()[0]
        asking.commit()
        db.add_wat("d")
        claim = "select lease_id from api.claim_v1(%s)"
        (lease,) = asking.execute(claim, (instance,)).fetchall()[0]
        asking.commit()
        asking.execute("select api.probe_v1(%s, %s)", (lease, b"".join(keys(URLS))))
        impatient(db, "steward", "steward")
        assert [accepted[3] for accepted in db.accept_all()] == [None]
    submit(db, third, 10, 4, "ada")
    db.accept_all()
    assert counted_urls(db) == sorted(URLS[:10])
    assert db.value("select sum(count) from mill.wat_count where stage = 'duplicate'") == 3 + 6 + 3


def test_a_lease_that_was_lost_after_the_probe_leaves_nothing(db: Database) -> None:
    """Would catch a probe that marks URLs as somebody's."""
    db.extract(URLS[:4], "a")
    db.add_wat("b")
    claim = db.claim("extract", "ada")
    assert claim
    ada, _ = db.queue("extract", "ada")
    assert ada.probe(claim.lease_id, keys(URLS)) == [True] * 4 + [False] * 8
    db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    for call in (
        partial(ada.probe, claim.lease_id, keys(URLS)),
        partial(ada.copy_pairs, pair_rows(claim.lease_id, URLS[4:])),
    ):
        with pytest.raises(LeaseLost):
            call()
    db.queue("steward")[0].maintain("expire_leases")
    assert again(db, {"b": URLS}, "bob") == ["b"]
    assert counted_urls(db) == sorted(URLS)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 250])
def test_each_key_has_its_bit(db: Database, count: int) -> None:
    """Would catch bits in another order, a last byte that is cut, and answers in the keys' order."""
    rng = random.Random(count)
    urls = [f"http://h.example/{i}" for i in range(count)]
    known = {url for url in urls if rng.random() < 0.5}
    db.extract(sorted(known), "a")
    db.add_wat("b")
    claim = db.claim("extract", "bob")
    assert claim
    rng.shuffle(urls)
    twice = urls + urls[:3]
    answer = db.queue("extract", "bob")[0].probe(claim.lease_id, keys(twice))
    assert answer == [url in known for url in twice]


def test_a_removed_url_is_never_known(db: Database) -> None:
    """Would catch a removed URL that counts as a duplicate, where the merge says: removed; and one
    whose image is removed, which the merge does not know of."""
    names = ("url", "host", "below", "searched", "image", "undone", "other")
    urls = [f"http://{name}.example/{name}.jpg" for name in names]
    urls[2] = "http://www.host.example/below.jpg"
    db.extract(urls, "a")
    removal.add(db.admin, [urls[0], "*.host.example"], "asked", False)
    removal.add(db.admin, [urls[5], "undone.example"], "asked", False)
    db.admin.execute(
        "select mill.undo_removals(array(select removal_id from mill.removal where source ~ 'undone'), '')"
    )
    # its search was interrupted, or is under way
    db.admin.execute(
        "insert into mill.removal (source, host, reason) values ('searched.example', 'searched.example', '')"
    )
    image_of = db.value(
        "insert into mill.removal (source, sha256, reason, found_at) values ('an image', '\\x00', '', now())"
        " returning removal_id"
    )
    db.admin.execute(
        "insert into mill.removed_pair (batch_id, n, removal_id, submission_id)"
        " select batch_id, n, %s, 1 from mill.pair where url = %s", (image_of, urls[4]),
    )  # fmt: skip
    db.add_wat("b")
    claim = db.claim("extract", "bob")
    assert claim
    known = db.queue("extract", "bob")[0].probe(claim.lease_id, keys(urls))
    assert [name for name, is_known in zip(names, known, strict=True) if is_known] == [
        "image", "undone", "other",
    ]  # fmt: skip
