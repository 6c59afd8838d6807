"""The ring of thumbnail slots: bounded, emptied by truncation, never under a reader."""

import psycopg

from support.database import Database, outcomes

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(5)]


def batches(db: Database, count: int) -> None:
    """So many closed batches of five pairs, each from a file of its own."""
    for i in range(count):
        db.extract([f"{url}?{i}" for url in URLS], f"{i}.wat")
        db.close_batches()


def empty(db: Database) -> int:
    return db.queue("steward")[0].maintain("empty_slots")


def thumbnails(db: Database) -> int:
    return db.value("select count(*) from mill.thumbnail")


def test_full_ring_stops_claims_until_scoring_has_caught_up(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    db.add_model()
    batches(db, 9)
    for _ in range(8):
        db.download()
    assert db.claim("download") is None
    assert (
        db.value("select count(*) from mill.task where state = 'ready' and kind = 'download'") == 1
    )
    assert empty(db) == 0
    db.score()
    assert empty(db) == 1
    assert thumbnails(db) == 35
    db.download()
    assert thumbnails(db) == 40


def test_batches_share_a_slot(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 3")
    db.add_model()
    batches(db, 4)
    for _ in range(4):
        db.download()
    assert db.rows("select state, batches from mill.thumbnail_slot where batches > 0 order by slot") == [
        ("full", 3), ("filling", 1),
    ]  # fmt: skip
    for _ in range(2):
        db.score()
    assert empty(db) == 0
    db.score()
    assert empty(db) == 1


def test_slot_is_kept_while_anything_of_it_is_pending(db: Database) -> None:
    db.add_model("d1")
    db.add_model("d2")
    batches(db, 1)
    claim = db.claim("download")
    assert claim
    assert empty(db) == 0  # a download is under way
    db.queue("download")[0].release(claim.lease_id)
    db.download()
    db.score(digest="d1")
    assert empty(db) == 0  # the other model has not scored it
    db.claim("score", "slow", "d2")
    assert empty(db) == 0  # it is being read
    db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    db.queue("steward")[0].maintain("expire_leases")
    db.score(digest="d2")
    assert empty(db) == 1
    assert thumbnails(db) == 0
    assert db.value("select count(*) from mill.score") == 10


def test_without_a_model_nothing_is_thrown_away(db: Database) -> None:
    batches(db, 1)
    db.download()
    assert empty(db) == 0
    row = db.admin.execute("select * from mill.add_model('late', '', 'd1', 4)").fetchone()
    assert row is not None
    assert row[1] == 1  # the batch is queued for it, without a new download
    db.score()
    assert empty(db) == 1


def test_reader_holds_the_truncation_up_and_nothing_else(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    db.score()
    with psycopg.connect(db.dsn) as reader:
        reader.execute("select count(*) from mill.thumbnail")
        assert empty(db) == 0  # after a second of lock_timeout
        assert thumbnails(db) == 5
    assert empty(db) == 1


def test_scorer_that_finds_fewer_than_counted_can_tell(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim
    db.admin.execute("truncate mill.thumbnail")
    assert claim.payload["count"] == 5
    assert db.queue("score")[0].thumbnails(claim.lease_id, 0, 100) == []


def test_discarded_score_task_holds_its_slot_for_a_time_and_is_then_downloaded_again(
    db: Database,
) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim
    db.queue("score")[0].fail(claim.lease_id, "out of memory", retry=False)
    assert empty(db) == 0
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    assert empty(db) == 1
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "download"
    again = db.download()
    assert again.payload["attempt"] == 2
    db.score()
    assert db.rows("select attempt, count(*) from mill.score group by 1") == [
        (1, 5)
    ]  # in the name of the download that counts
    assert db.rows("select outcome, pairs from report.score_count") == [("scored", 5)]


def test_discarded_score_task_is_retried_from_its_thumbnails_while_they_are_there(
    db: Database,
) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim
    db.queue("score")[0].fail(claim.lease_id, "out of memory", retry=False)
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "score"
    db.score()
    assert db.value("select count(*) from mill.score where attempt = 1") == 5


def fail(db: Database, *, submitted: int) -> int:
    """A download that is discarded at once, after so many positions; returns its task."""
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    if submitted:
        queue.submit_download(claim.lease_id, 0, outcomes(range(submitted)))
        db.accept_all()
    queue.fail(claim.lease_id, "why", retry=False)
    return claim.task_id


def slots(db: Database) -> list[tuple[str, int]]:
    return db.rows(
        "select state, batches from mill.thumbnail_slot where state <> 'empty' order by slot"
    )


def test_discarded_download_keeps_no_place_where_nothing_was_submitted(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 3")
    db.add_model()
    batches(db, 5)
    nothing, something, _ = fail(db, submitted=0), fail(db, submitted=2), db.download()
    assert slots(db) == [("full", 3)]
    assert empty(db) == 0
    assert slots(db) == [("filling", 2)]
    db.download()
    assert slots(db) == [("full", 3)]
    # one that is tried again takes a place as any other
    assert db.value("select mill.retry_task(%s)", nothing) == "download"
    db.admin.execute("update mill.task set ready_at = now() + interval '1 hour' where task_id > %s and state = 'ready'", (nothing,))  # fmt: skip
    assert db.download().task_id == nothing
    assert slots(db) == [("full", 3), ("filling", 1)]
    # and one of which something is there goes on where it stopped
    assert db.value("select mill.retry_task(%s)", something) == "download"
    claim = db.claim("download")
    assert claim and claim.task_id == something
    assert [n for n, _ in db.queue("download")[0].urls(claim.lease_id)] == [2, 3, 4]


def test_a_retry_under_way_keeps_the_place(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    db.add_model()
    batches(db, 1)
    task = fail(db, submitted=0)
    with psycopg.connect(db.dsn) as admin:
        admin.execute("select mill.retry_task(%s)", (task,))
        assert empty(db) == 0
    assert empty(db) == 0
    assert slots(db) == [("full", 1)]
    assert db.download().task_id == task


def test_discarded_downloads_stop_nobody_and_what_they_lack_is_fetched_anew(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    db.add_model()
    batches(db, 9)
    discarded = [fail(db, submitted=2) for _ in range(8)]
    assert db.claim("download") is None
    with psycopg.connect(db.dsn) as admin:
        admin.execute("select mill.retry_task(%s)", (discarded[0],))
        # the first one's thumbnails are kept: it may be tried again by now. One place is enough
        assert empty(db) == 1
    assert db.value("select state from mill.task where task_id = %s", discarded[0]) == "ready"
    assert db.value("select count(*) from mill.thumbnail where batch_id = 0") == 2
    assert db.download().task_id == discarded[0]
    assert db.download()
    assert db.claim("download") is None
    assert db.value("select mill.retry_task(%s)", discarded[1]) == "download"
    assert empty(db) == 1
    assert db.download().payload == {"batch_id": 1, "attempt": 2}


def test_discarded_scores_keep_their_thumbnails_though_the_ring_is_full(db: Database) -> None:
    """They would be downloaded in vain, and discarded again."""
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    db.add_model()
    batches(db, 9)
    for _ in range(8):
        db.download()
    for _ in range(8):
        claim = db.claim("score", digest="d1")
        assert claim
        db.queue("score")[0].fail(claim.lease_id, "out of memory", retry=False)
    assert db.claim("download") is None
    assert empty(db) == 0
    assert thumbnails(db) == 40
