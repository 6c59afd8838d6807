"""Dedupe at the door, and the dealing of new pairs over open batches."""

import pytest
from database import Database, key, pair_rows

from pairmill.workers.errors import Malformed


def urls(first: int, last: int, hosts: int = 10) -> list[str]:
    return [f"http://h{i % hosts}.example/{i}.jpg" for i in range(first, last)]


def small_batches(db: Database, size: int = 10, open_at_most: int = 4) -> None:
    db.admin.execute(
        "update mill.setting set batch_size = %s, open_batches_max = %s, pairs_per_wat = 30",
        (size, open_at_most),
    )


def counts(db: Database, stage: str) -> int:
    return db.value(
        "select coalesce(sum(count), 0)::int from report.link_count where stage = %s", stage
    )


def test_duplicates_within_and_across_files(db: Database) -> None:
    db.extract([*urls(0, 10), *urls(0, 5)], "a")
    assert (counts(db, "pair"), counts(db, "duplicate")) == (10, 5)
    db.extract(urls(5, 15), "b")
    assert (counts(db, "pair"), counts(db, "duplicate")) == (15, 10)
    assert counts(db, "links") == counts(db, "pair") + counts(db, "duplicate") + counts(
        db, "dropped"
    )
    assert db.value("select count(*) from mill.seen_url") == 15


def test_the_first_of_equal_urls_is_kept(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    rows = [
        (claim.lease_id, i, key("http://a/"), "http://a/", text, None, 0.5, None)
        for i, text in enumerate(["first", "second", "third"])
    ]
    queue.copy_pairs(rows[::-1])
    queue.submit_extract(claim.lease_id, 3, [("links", "", 3)])
    db.accept_all()
    assert db.rows("select text from mill.pair") == [("first",)]


def test_file_extracted_twice_adds_nothing(db: Database) -> None:
    db.extract(urls(0, 10))
    db.admin.execute("update mill.task set state = 'ready'")
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, urls(0, 10)))
    queue.submit_extract(claim.lease_id, 10, [("links", "", 10)])
    db.accept_all()
    assert db.value("select count(*) from mill.pair") == 10
    assert db.value("select count(*) from mill.seen_url") == 10


def test_file_added_twice_is_one_file(db: Database) -> None:
    assert db.value("select mill.add_wat('CC-MAIN-2024-51', '{a,b,a}')") == 2
    assert db.value("select mill.add_wat('CC-MAIN-2024-51', '{b,c}')") == 1
    assert db.rows("select location, crawl, state from report.wat order by wat_id") == [
        (name, "CC-MAIN-2024-51", "ready") for name in "abc"
    ]


def test_removed_urls_do_not_come_in(db: Database) -> None:
    db.admin.execute(
        "insert into mill.removal (source, md5, reason) values ('x', %s, '')", (key(urls(3, 4)[0]),)
    )
    db.extract(urls(0, 10))
    assert counts(db, "pair") == 9
    assert db.rows("select name, count from report.link_count where stage = 'dropped'") == [
        ("removed", 1)
    ]
    assert counts(db, "duplicate") == 0
    assert db.value("select count(*) from mill.seen_url") == 9


def test_counts_that_do_not_add_up_are_refused(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, urls(0, 3)))
    links = ("links", "", 3)
    for rows, stages in (
        (4, [("links", "", 4)]),  # not what was copied
        (3, [("links", "", 5)]),
        (3, [("links", "", 3), ("dropped", "no_text", 1)]),
        (3, [("links", "", 4), ("dropped", "no such reason", 1)]),
        (3, [links, ("pair", "en", 3)]),
        (3, [links, ("records", "", -1)]),
        (3, [("records", "", 1)]),
    ):
        with pytest.raises(Malformed):
            queue.submit_extract(claim.lease_id, rows, stages)
    good = [("links", "", 5), ("dropped", "no_text", 2), ("records", "", 1)]
    first = queue.submit_extract(claim.lease_id, 3, good)
    assert queue.submit_extract(claim.lease_id, 3, good) == first  # the answer was lost


def test_rows_of_another_worker_do_not_count(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract", "ada")
    assert claim
    eve, _ = db.queue("extract", "eve")
    eve.copy_pairs(pair_rows(claim.lease_id, urls(0, 1)))
    ada, _ = db.queue("extract", "ada")
    with pytest.raises(Malformed):
        ada.submit_extract(claim.lease_id, 1, [("links", "", 1)])
    ada.copy_pairs(pair_rows(claim.lease_id, urls(1, 3)))
    ada.submit_extract(claim.lease_id, 2, [("links", "", 2)])
    db.accept_all()
    assert sorted(db.rows("select url from mill.pair")) == [(u,) for u in urls(1, 3)]
    assert counts(db, "pair") == 2


def test_every_batch_is_whole(db: Database) -> None:
    small_batches(db)
    for i in range(8):
        db.extract(urls(i * 23, i * 23 + 37), f"{i}.wat")
    db.close_batches()
    assert db.value("select count(*) from mill.pair") == 7 * 23 + 37
    for batch, pairs, closed in db.rows(
        "select batch_id, pair_count, closed_at is not null from mill.batch"
    ):
        positions = db.rows("select n from mill.pair where batch_id = %s order by n", batch)
        assert positions == [(n,) for n in range(pairs)]
        assert 0 < pairs <= 10
        assert closed
        assert (
            db.value(
                "select count(*) from mill.task where kind = 'download' and batch_id = %s", batch
            )
            == 1
        )
    # every known URL leads to its pair
    assert db.value(
        "select count(*) from mill.seen_url s join mill.pair p using (url_key, batch_id, n)"
    ) == db.value("select count(*) from mill.pair")


def test_batches_mix_files_and_hosts(db: Database) -> None:
    small_batches(db, size=20)
    db.admin.execute("select mill.add_wat(null, '{later1,later2,later3}')")
    for i in range(4):
        # one file is of one host only
        db.admin.execute("update mill.task set ready_at = 'infinity' where state = 'ready'")
        db.extract([f"http://host{i}.example/{n}.jpg" for n in range(30)], f"{i}.wat")
    db.admin.execute(
        "update mill.task set state = 'parked' where state = 'ready' and kind = 'extract'"
    )
    db.close_batches()
    shares = db.rows(
        "select count(*) / 20.0 from mill.pair join mill.batch using (batch_id)"
        " where pair_count = 20 group by batch_id, wat_id"
    )
    assert max(share for (share,) in shares) <= 0.65


def test_number_of_open_batches_follows_what_is_expected(db: Database) -> None:
    small_batches(db, size=10, open_at_most=4)
    assert db.value("select mill.open_batches(5)") == 1
    assert db.value("select mill.open_batches(11)") == 2
    assert db.value("select mill.open_batches(1000)") == 4
    db.admin.execute("select mill.add_wat(null, '{a,b}')")  # one more than the one being accepted
    assert db.value("select mill.open_batches(5)") == 4


def test_short_batches_close_when_nothing_more_will_come(db: Database) -> None:
    small_batches(db)
    db.admin.execute("select mill.add_wat(null, '{z}')")
    db.admin.execute("update mill.task set ready_at = 'infinity'")
    db.extract(urls(0, 3))
    assert db.close_batches() == 0
    db.admin.execute("update mill.batch set opened_at = now() - interval '7 hours'")
    assert db.close_batches() >= 1  # open too long
    assert db.value("select count(*) from mill.task where kind = 'download'") >= 1
    db.extract(urls(3, 5), "b.wat")
    assert db.close_batches() == 0
    db.admin.execute(
        "update mill.task set state = 'parked' where kind = 'extract' and state = 'ready'"
    )
    assert db.close_batches() >= 1
    assert (
        db.value("select count(*) from mill.batch where closed_at is null and pair_count > 0") == 0
    )


def test_partitions_are_made_ahead(db: Database) -> None:
    steward, _ = db.queue("steward")
    db.admin.execute("select setval('mill.batch_batch_id_seq', 1600)")
    steward.steward("ensure_partitions")
    db.extract(urls(0, 5))
    assert db.rows("select distinct batch_id from mill.pair") == [(1601,)]
    assert db.value("select tableoid::regclass::text from mill.pair limit 1") == "mill.pair_b000001"
    steward.steward("ensure_partitions")
    assert db.value("select to_regclass('mill.embedding_b000002') is not null")


def test_rows_copied_after_the_submission_reject_it(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, urls(0, 3)))
    queue.submit_extract(claim.lease_id, 3, [("links", "", 3)])
    queue.copy_pairs(pair_rows(claim.lease_id, urls(3, 9)))
    ((_, _, _, why),) = db.accept_all()
    assert why == "3 rows were submitted and 9 are there"
    assert db.value("select count(*) from mill.pair") == 0
    assert db.rows("select state, tries from mill.task") == [("ready", 1)]
