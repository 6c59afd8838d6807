"""Withdrawing a submission: it stops counting, and what it gave is done again."""

import pytest

from pairmill.schema.outcomes import Outcome
from support.database import Database, pair_rows

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]


@pytest.fixture
def done(db: Database) -> Database:
    """One file through the whole line."""
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download()
    db.score()
    return db


def submission(db: Database, kind: str) -> int:
    found: int = db.value(
        "select submission_id from mill.submission join mill.task using (task_id)"
        " where kind = %s order by 1 desc limit 1", kind,
    )  # fmt: skip
    return found


def withdraw(db: Database, kind: str) -> None:
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (submission(db, kind),))


def test_withdrawn_download_takes_its_scores_with_it_and_is_fetched_again(done: Database) -> None:
    db = done
    withdraw(db, "download")
    assert db.rows("select outcome, pairs from report.pair_count") == [("waiting", 6)]
    assert db.rows("select * from report.score_count") == []
    again = db.download(Outcome.HTTP_ERROR)
    assert again.payload["attempt"] == 2
    assert db.rows("select outcome, pairs from report.pair_count") == [("http_error", 6)]
    # nothing was overwritten
    assert db.value("select count(*) from mill.download") == 12
    assert db.value("select count(*) from mill.score") == 6
    assert db.value("select rows_accepted from report.worker where kind = 'download'") == 6


def test_withdrawn_later_attempt_leaves_the_earlier_one_current(done: Database) -> None:
    db = done
    withdraw(db, "download")
    db.download(Outcome.HTTP_ERROR)
    withdraw(db, "download")
    assert db.rows("select outcome, pairs from report.pair_count") == [("waiting", 6)]
    db.download()
    db.score(similarity=0.25)
    assert db.rows("select distinct similarity from report.score") == [(0.25,)]


def test_withdrawn_scores_are_given_again(done: Database) -> None:
    db = done
    withdraw(db, "score")
    assert db.rows("select outcome, pairs from report.score_count") == [("waiting", 6)]
    db.score(similarity=0.125)
    assert db.rows("select outcome, pairs from report.score_count") == [("scored", 6)]
    assert db.rows("select distinct similarity from report.score") == [(0.125,)]


def test_withdrawn_extraction_leaves_its_pairs_and_frees_its_urls(done: Database) -> None:
    db = done
    withdraw(db, "extract")
    assert db.rows("select * from report.pair_count") == []
    assert db.rows("select * from report.link_count") == []
    assert db.value("select count(*) from mill.pair") == 6
    assert db.value("select count(*) from mill.seen_url") == 0
    # the same file again, by somebody else
    claim = db.claim("extract", "another")
    assert claim
    other, _ = db.queue("extract", "another")
    other.copy_pairs(pair_rows(claim.lease_id, URLS))
    other.submit_extract(claim.lease_id, 6, [("image", "links", "", 6)])
    db.accept_all()
    assert db.rows("select outcome, pairs from report.pair_count") == [("waiting", 6)]
    assert db.value("select count(*) from mill.pair") == 12


def test_urls_of_a_withdrawn_extraction_are_not_fetched(db: Database) -> None:
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    withdraw(db, "extract")
    assert queue.urls(claim.lease_id) == []
    queue.complete(claim.lease_id)


def test_withdrawing_twice_and_withdrawing_nothing(done: Database) -> None:
    db = done
    withdraw(db, "download")
    first = submission(db, "download")
    db.admin.execute("select mill.withdraw(%s, 'again')", (first,))
    assert db.value("select count(*) from mill.task where kind = 'download'") == 2
    with pytest.raises(Exception, match="is not an accepted one"):
        db.admin.execute("select mill.withdraw(999999, 'x')")
