"""Dedupe at the door, and the dealing of new pairs over open batches."""

import pytest

from pairmill.workers.errors import LeaseLost, Malformed
from support.database import Database, key, pair_rows


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
        (
            claim.lease_id,
            i,
            key("http://a/").bytes,
            "http://a/",
            text,
            None,
            0.5,
            None,
            "image",
            None,
        )
        for i, text in enumerate(["first", "second", "third"])
    ]
    queue.copy_pairs(rows[::-1])
    queue.submit_extract(claim.lease_id, 3, [("image", "links", "", 3)])
    db.accept_all()
    assert db.rows("select text from mill.pair") == [("first",)]


def test_a_text_of_five_characters_goes_before_a_shorter_one(db: Database) -> None:
    """Fault: a recipe that counts characters loses a URL whose first text is a short Japanese one."""
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    rows = pair_rows(claim.lease_id, ["http://a/"] * 4)
    texts = ["写真", "a photo", "another photo", "猫の写真"]
    queue.copy_pairs([(*row[:4], text, *row[5:]) for row, text in zip(rows, texts, strict=True)])
    queue.submit_extract(claim.lease_id, 4, [("image", "links", "", 4)])
    db.accept_all()
    assert db.rows("select text from mill.pair") == [("a photo",)]
    assert counts(db, "duplicate") == 3


def test_file_extracted_twice_adds_nothing(db: Database) -> None:
    db.extract(urls(0, 10))
    db.admin.execute("update mill.task set state = 'ready'")
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, urls(0, 10)))
    queue.submit_extract(claim.lease_id, 10, [("image", "links", "", 10)])
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
    links = ("image", "links", "", 3)
    for rows, stages in (
        (4, [("image", "links", "", 4)]),  # not what was copied
        (3, [("image", "links", "", 5)]),
        (3, [("image", "links", "", 3), ("image", "dropped", "no_text", 1)]),
        (3, [("image", "links", "", 4), ("image", "dropped", "no such reason", 1)]),
        (3, [links, ("image", "pair", "en", 3)]),
        (3, [links, ("image", "records", "", 1)]),
        (3, [links, ("image", "duplicate", "", 1)]),
        (3, [links, ("audio", "links", "", 0)]),  # the file is to give images only
        (3, [("", "links", "", 3)]),
        (3, [links, ("", "records", "", -1)]),
        (3, [("", "records", "", 1)]),
        (3, [links, ("", "records", "", 10**9 + 1)]),
        (3, [links, *(("", "bad_record", str(n), 1) for n in range(1000))]),
    ):
        with pytest.raises(Malformed):
            queue.submit_extract(claim.lease_id, rows, stages)
    good = [(*links[:3], 6), ("image", "dropped", "no_text", 2), ("", "records", "", 1)]
    good.append(("image", "duplicate", "", 1))
    first = queue.submit_extract(claim.lease_id, 3, good)
    assert queue.submit_extract(claim.lease_id, 3, good) == first  # the answer was lost


def test_rows_under_anothers_lease_are_refused_and_would_not_count(db: Database) -> None:
    for name in "ab":
        db.add_wat(name)
    claim, eves = db.claim("extract", "ada"), db.claim("extract", "eve")
    assert claim
    assert eves
    eve, _ = db.queue("extract", "eve")
    with pytest.raises(LeaseLost):
        eve.copy_pairs(pair_rows(claim.lease_id, urls(0, 1)))
    db.smuggle_pairs(eves.lease_id, urls(0, 1))
    db.admin.execute("update inbox.pair set lease_id = %s", (claim.lease_id,))
    ada, _ = db.queue("extract", "ada")
    with pytest.raises(Malformed):
        ada.submit_extract(claim.lease_id, 1, [("image", "links", "", 1)])
    ada.copy_pairs(pair_rows(claim.lease_id, urls(1, 3)))
    ada.submit_extract(claim.lease_id, 2, [("image", "links", "", 2)])
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
        "update mill.task set state = 'discarded' where state = 'ready' and kind = 'extract'"
    )
    db.close_batches()
    shares = db.rows(
        "select count(*) / 20.0 from mill.pair join mill.batch using (batch_id)"
        " where pair_count = 20 group by batch_id, wat_id"
    )
    assert max(share for (share,) in shares) <= 0.65


def test_a_host_has_no_more_of_a_batch_than_of_what_is_dealt_together(db: Database) -> None:
    """Open batches x batch size pairs are dealt together: 8 x 250, of which one file of 500 is a
    quarter. That file is of one host alone, and no batch of 250 has more than a third of it."""
    small_batches(db, size=250, open_at_most=8)
    db.admin.execute(
        "select mill.add_wat(null, array(select 'later' || i from generate_series(1, 9) i))"
    )
    db.admin.execute("update mill.task set ready_at = 'infinity' where state = 'ready'")
    for i in range(8):
        host = "big" if i in (2, 6) else f"small{i}-{{}}"
        db.extract([f"http://{host.format(n)}.example/{i}/{n}.jpg" for n in range(500)], f"{i}.wat")
    shares = db.rows(
        "select count(*) filter (where url like 'http://big%%') / 250.0 from mill.pair"
        " join mill.batch using (batch_id) where closed_at is not null group by batch_id"
    )
    assert len(shares) >= 8
    assert max(share for (share,) in shares) <= 1 / 3


def test_other_kinds_of_links_have_batches_of_their_own(db: Database) -> None:
    db.admin.execute("select mill.add_wat('CC-MAIN-2024-51', '{a}', '{image,audio}')")
    claim = db.claim("extract")
    assert claim
    assert claim.payload["link_kinds"] == ["image", "audio"]
    queue, _ = db.queue("extract")
    images, songs = (pair_rows(claim.lease_id, urls(*some)) for some in ((0, 5), (5, 8)))
    queue.copy_pairs(images + [(*row[:8], "audio", None) for row in songs])
    both = [("image", "links", "", 5), ("audio", "links", "", 4), ("audio", "duplicate", "", 1)]
    with pytest.raises(Malformed, match="5 image links are not 5 kept and 1 dropped"):
        queue.submit_extract(claim.lease_id, 8, [*both, ("image", "dropped", "no_text", 1)])
    with pytest.raises(Malformed, match="0 audio links are not 3 kept"):
        queue.submit_extract(claim.lease_id, 8, both[:1])
    queue.submit_extract(claim.lease_id, 8, both)
    db.accept_all()
    assert db.close_batches() == 2
    assert db.rows(
        "select link_kind, pair_count, t.kind from mill.batch left join mill.task t using (batch_id)"
        " order by 1"
    ) == [("audio", 3, None), ("image", 5, "download")]
    assert db.rows("select link_kind, count(*) from report.pair group by 1 order by 1") == [
        ("audio", 3),
        ("image", 5),
    ]
    assert db.rows(
        "select stage, count from report.link_count where link_kind = 'audio' order by stage"
    ) == [("duplicate", 1), ("links", 4), ("pair", 3)]


def test_counts_without_a_kind_of_links_are_kept_apart(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, urls(0, 3)))
    queue.submit_extract(
        claim.lease_id,
        3,
        [("", "records", "", 7), ("image", "links", "", 5), ("image", "dropped", "no_text", 2)],
    )
    db.accept_all()
    assert db.rows("select link_kind, stage, count from report.link_count order by stage") == [
        ("image", "dropped", 2),
        ("", "files", 1),
        ("image", "links", 5),
        ("image", "pair", 3),
        ("", "records", 7),
    ]


def test_counts_of_a_crawl_are_the_sums_of_its_files(db: Database) -> None:
    db.admin.execute("select mill.add_wat('CC-MAIN-2024-51', '{a,b}')")
    for some in (urls(0, 6), urls(4, 9)):
        claim = db.claim("extract")
        assert claim
        queue, _ = db.queue("extract")
        queue.copy_pairs(pair_rows(claim.lease_id, some))
        counted = [("image", "links", "", len(some) + 3), ("image", "dropped", "no_text", 3)]
        broken = ("", "bad_record", "not_json", 2), ("", "ended_early", "after 5 records: cut", 1)
        queue.submit_extract(claim.lease_id, len(some), [*counted, ("", "records", "", 7), *broken])
        db.accept_all()
    db.extract(urls(8, 20), "alone")
    crawls = db.rows("select crawl, links, dropped, duplicates, pairs, languages from report.crawl")
    assert sorted(crawls) == [
        ("", 12, {}, 1, 11, {"en": 11}),
        ("CC-MAIN-2024-51", 17, {"no_text": 6}, 2, 9, {"en": 9}),
    ]
    assert db.rows("select pairs, languages, dropped from report.wat order by wat_id") == [
        (6, {"en": 6}, {"no_text": 3}),
        (3, {"en": 3}, {"no_text": 3}),
        (11, {"en": 11}, None),
    ]
    assert ("ended_early", "cut", 2) in db.rows("select stage, name, count from report.link_count")
    summed = (
        "select coalesce(crawl_id, 0), link_kind, stage, sum(count) from mill.wat_count"
        " join mill.wat_file using (wat_id) group by 1, 2, 3 order by 1, 2, 3"
    )
    kept = (
        "select crawl_id, link_kind, stage, sum(count) from mill.crawl_count where stage <> 'files'"
        " group by 1, 2, 3 having sum(count) > 0 order by 1, 2, 3"
    )
    assert db.rows(summed) == db.rows(kept)
    first = db.value("select min(submission_id) from mill.submission")
    db.admin.execute("select mill.withdraw(%s, 'a test')", (first,))
    assert db.rows(summed) == db.rows(kept)
    assert db.rows("select links, pairs from report.crawl where crawl <> ''") == [(8, 3)]


def test_number_of_open_batches_follows_what_is_expected(db: Database) -> None:
    small_batches(db, size=10, open_at_most=4)
    assert db.value("select mill.open_batches('image', 5)") == 1
    assert db.value("select mill.open_batches('image', 11)") == 2
    assert db.value("select mill.open_batches('image', 1000)") == 4
    db.admin.execute("select mill.add_wat(null, '{a,b}')")  # one more than the one being accepted
    assert db.value("select mill.open_batches('image', 5)") == 4


def test_short_batches_close_when_nothing_more_will_come(db: Database) -> None:
    small_batches(db)
    db.admin.execute("select mill.add_wat(null, '{z}')")
    assert db.claim("extract", "another")  # of a file that is awaited
    db.extract(urls(0, 3))
    assert db.close_batches() == 0
    db.admin.execute("update mill.batch set opened_at = now() - interval '7 hours'")
    assert db.close_batches() >= 1  # open too long
    assert db.value("select count(*) from mill.task where kind = 'download'") >= 1
    db.extract(urls(3, 5), "b.wat")
    assert db.close_batches() == 0
    db.admin.execute(
        "update mill.task set state = 'discarded' where kind = 'extract' and state = 'leased'"
    )
    assert db.close_batches() >= 1
    assert (
        db.value("select count(*) from mill.batch where closed_at is null and pair_count > 0") == 0
    )


def test_partitions_are_made_ahead(db: Database) -> None:
    steward, _ = db.queue("steward")
    db.admin.execute("select setval('mill.batch_batch_id_seq', 1600)")
    steward.maintain("ensure_partitions")
    db.extract(urls(0, 5))
    assert db.rows("select distinct batch_id from mill.pair") == [(1601,)]
    assert db.value("select tableoid::regclass::text from mill.pair limit 1") == "mill.pair_b000001"
    steward.maintain("ensure_partitions")
    assert db.value("select to_regclass('mill.embedding_b000002') is not null")


def test_rows_copied_after_the_submission_reject_it(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, urls(0, 3)))
    queue.submit_extract(claim.lease_id, 3, [("image", "links", "", 3)])
    with pytest.raises(LeaseLost):
        queue.copy_pairs(pair_rows(claim.lease_id, urls(3, 9)))
    db.smuggle_pairs(claim.lease_id, urls(3, 9))
    ((_, _, _, why),) = db.accept_all()
    assert why == "3 rows were submitted and 9 are there"
    assert db.value("select count(*) from mill.pair") == 0
    assert db.rows("select state, attempts from mill.task") == [("ready", 1)]
