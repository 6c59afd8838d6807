"""The Bloom filter in front of the known URLs: what it saves, and what it costs when it errs."""

import os
from pathlib import Path

import pytest
from rbloom import Bloom

from pairmill.workers.steward.calls import StewardQueue
from pairmill.workers.steward.url_filter import FALSE_POSITIVES, Filtered, UrlFilter
from support.database import Database, key, outcomes, pair_rows


def urls(first: int, last: int) -> list[str]:
    return [f"http://h.example/{i}.jpg" for i in range(first, last)]


def stage(db: Database, some: list[str], location: str) -> int:
    """Extract a file with these links, up to where it waits for acceptance."""
    db.add_wat(location)
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, some))
    return queue.submit_extract(claim.lease_id, len(some), [("image", "links", "", len(some))])


def accept(db: Database, url_filter: UrlFilter) -> Filtered:
    filtered = url_filter.accept_next(steward(db))
    assert filtered
    return filtered


def steward(db: Database) -> StewardQueue:
    return db.queue("steward")[0]


def known(db: Database) -> int:
    pairs: int = db.value("select count(*) from mill.pair")
    assert pairs == db.value("select count(distinct url_key) from mill.pair")
    assert pairs == db.value("select count(*) from mill.seen_url")
    return pairs


@pytest.fixture
def url_filter(tmp_path: Path) -> UrlFilter:
    return UrlFilter(tmp_path / "urls.bloom")


class Everything:
    """A filter that is so full that it has seen everything."""

    def __contains__(self, key: bytes) -> bool:
        return True

    def add(self, key: bytes) -> None:
        pass


def test_it_lets_in_what_the_table_would(db: Database, url_filter: UrlFilter) -> None:
    expected = 0
    for number, (first, last, new) in enumerate([(0, 50, 50), (30, 70, 20), (0, 70, 0)]):
        stage(db, urls(first, last), f"{number}.wat")
        filtered = accept(db, url_filter)
        assert filtered.used
        assert filtered.asked == last - first
        assert new - 2 <= filtered.unknown <= new
        expected += new
        assert known(db) == expected
    assert url_filter.accept_next(steward(db)) is None
    assert db.value("select count from report.link_count where stage = 'duplicate'") == 90


def test_a_false_positive_costs_a_look(db: Database, url_filter: UrlFilter) -> None:
    url_filter.build(steward(db))
    url_filter._bloom = Everything()
    stage(db, urls(0, 20), "a")
    assert accept(db, url_filter) == Filtered((1, "extract", 20, None), 20, 0, True)
    assert known(db) == 20


def test_a_false_positive_of_a_trusted_filter_costs_the_url(db: Database, tmp_path: Path) -> None:
    url_filter = UrlFilter(tmp_path / "urls.bloom", trusted=True)
    stage(db, urls(0, 20), "a")
    accept(db, url_filter)
    before = known(db)
    url_filter._bloom = Everything()
    stage(db, urls(10, 40), "b")
    accept(db, url_filter)
    assert known(db) == before
    assert (
        db.value("select count from report.link_count where stage = 'duplicate'")
        == 30 + 20 - before
    )


def test_a_filter_that_is_behind_is_made_anew(db: Database, url_filter: UrlFilter) -> None:
    stage(db, urls(0, 20), "a")
    first = accept(db, url_filter).accepted[0]
    stage(db, urls(20, 40), "b")
    assert steward(db).accept_next()  # by another steward
    stage(db, urls(10, 50), "c")
    assert accept(db, url_filter).unknown <= 10
    assert known(db) == 50
    db.admin.execute("select mill.withdraw(%s, 'a test')", (first,))
    assert db.value("select count(*) from mill.seen_url") == 30
    stage(db, urls(0, 30), "d")
    assert accept(db, url_filter).unknown >= 18  # what was withdrawn may come in again
    assert db.value("select count(*) from mill.seen_url") == 50


def test_a_merge_between_the_question_and_the_acceptance_counts(
    db: Database, url_filter: UrlFilter
) -> None:
    queue = steward(db)
    url_filter.build(queue)
    stage(db, urls(0, 20), "a")
    submission = stage(db, urls(10, 30), "b")
    number = queue.merge_number()
    assert queue.accept_next()
    new = b"".join(key(url).bytes for url in urls(10, 30))
    accepted, used = queue.accept_filtered(submission, number, new, trusted=False)
    assert accepted
    assert not used
    assert known(db) == 30


def test_a_filter_that_forgot_lets_nothing_in_twice(db: Database, url_filter: UrlFilter) -> None:
    stage(db, urls(0, 20), "a")
    accept(db, url_filter)
    url_filter._bloom = Bloom(1000, FALSE_POSITIVES, hash)
    stage(db, urls(10, 40), "b")
    filtered = accept(db, url_filter)
    assert filtered.accepted[2:] == (30, None)
    assert not filtered.used
    assert known(db) == 40
    stage(db, urls(35, 45), "c")
    assert accept(db, url_filter).used
    assert known(db) == 45


def test_rows_that_nothing_lets_in_are_rejected_all_the_same(
    db: Database, url_filter: UrlFilter
) -> None:
    stage(db, urls(0, 5), "a")
    db.admin.execute("delete from inbox.pair where ordinal = 0")
    filtered = accept(db, url_filter)
    assert filtered.accepted[3] == "5 rows were submitted and 4 are there"
    assert url_filter.accept_next(steward(db)) is None


def test_other_submissions_pass_it_by(db: Database, url_filter: UrlFilter) -> None:
    stage(db, urls(0, 5), "a")
    accept(db, url_filter)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes(range(5)))
    queue.complete(claim.lease_id)
    stage(db, urls(5, 9), "b")
    assert accept(db, url_filter).accepted[1] == "download"
    assert accept(db, url_filter).used
    assert db.value("select count(*) from mill.download") == 5


def test_it_is_kept_between_runs(
    db: Database, url_filter: UrlFilter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage(db, urls(0, 20), "a")
    accept(db, url_filter)
    url_filter.save()

    def read(self: StewardQueue, remainder: int) -> None:
        raise AssertionError("the table was read")

    with monkeypatch.context() as patched:
        patched.setattr(StewardQueue, "known_keys", read)
        again = UrlFilter(tmp_path / "urls.bloom")
        stage(db, urls(10, 30), "b")
        assert accept(db, again).unknown <= 10
    assert known(db) == 30
    stage(db, urls(20, 40), "c")
    assert accept(db, UrlFilter(tmp_path / "urls.bloom")).used  # the saved one is behind
    again.save()
    (tmp_path / "urls.bloom").write_bytes(b"damaged")
    stage(db, urls(0, 50), "d")
    assert accept(db, UrlFilter(tmp_path / "urls.bloom")).used
    assert known(db) == 50


def test_it_is_made_anew_when_it_is_full(
    db: Database, url_filter: UrlFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pairmill.workers.steward.url_filter.HEADROOM", 10)
    for number in range(5):
        stage(db, urls(20 * number, 20 * number + 20), f"{number}.wat")
        assert accept(db, url_filter).used
    assert known(db) == 100
    assert url_filter._capacity >= 100 or url_filter._bloom is None


def test_it_errs_as_rarely_as_it_says(db: Database, url_filter: UrlFilter) -> None:
    url_filter.build(steward(db))
    full = url_filter._capacity
    url_filter._add(os.urandom(16) for _ in range(full))
    bloom = url_filter._bloom
    assert bloom is not None
    wrong = sum(os.urandom(16) in bloom for _ in range(20_000))
    assert wrong / 20_000 < 1.5 * FALSE_POSITIVES
