"""What the views and the steward's numbers say of the queue."""

from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(8)]


def numbers(db: Database) -> dict[tuple[str, str], float]:
    return {(kind, what): value for kind, what, value in db.queue("steward")[0].counts()}


def test_queue_in_numbers(db: Database) -> None:
    assert numbers(db)["download", "ready"] == 0
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.admin.execute(
        "update mill.task set ready_at = now() - interval '90 s' where state = 'ready'"
    )
    found = numbers(db)
    assert found["extract", "done"] == 1
    assert found["download", "ready"] == 1
    assert 89 <= found["download", "oldest_ready_seconds"] <= 120
    claim = db.claim("download", "ada")
    assert claim
    queue, _ = db.queue("download", "ada")
    queue.submit_download(claim.lease_id, 0, outcomes(range(5)))
    db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    found = numbers(db)
    assert (found["download", "leased"], found["download", "late_leases"]) == (1, 1)
    assert found["download", "waiting_submissions"] == 1
    assert found["thumbnails", "slots_in_use"] == 1
    assert found["download", "oldest_ready_seconds"] == 0


def test_leaderboard_counts_what_was_accepted_and_still_counts(db: Database) -> None:
    db.extract(URLS)
    db.close_batches()
    for name, positions in (("ada", range(5)), ("eve", range(5, 8))):
        claim = db.claim("download", name)
        assert claim
        queue, _ = db.queue("download", name)
        queue.submit_download(claim.lease_id, 0, outcomes(positions, Outcome.TIMEOUT))
        assert dict(db.rows("select name, urls from report.leaderboard")).get(name) is None
        queue.release(claim.lease_id)
        db.accept_all()
    assert db.rows("select rank, name, urls, urls_last_day from report.leaderboard order by 1") == [
        (1, "ada", 5, 5), (2, "eve", 3, 3),
    ]  # fmt: skip
    assert db.value("select sum(rows) from report.rate where kind = 'download'") == 8
    number = db.value("select min(submission_id) from mill.submission where row_count = 5")
    db.admin.execute("select mill.withdraw(%s, 'test')", (number,))
    assert db.rows("select name, urls from report.leaderboard") == [("eve", 3)]
    assert db.value("select sum(rows) from report.rate where kind = 'download'") == 3


def test_sizes_are_of_whole_tables(db: Database) -> None:
    sizes = {table: (parts, size) for table, parts, size in db.rows(
        'select "table", partitions, bytes from report.table_size'
    )}  # fmt: skip
    assert sizes["mill.seen_url"][0] == 16
    assert sizes["mill.task"][0] == 1
    assert all(size >= 0 for _, size in sizes.values())
