"""Submitting and accepting: idempotent, all or nothing, counted only once accepted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import DownloadQueue, Outcomes
from pairmill.workers.errors import Malformed
from pairmill.workers.queue import Claim
from support.database import DIMS, Database, outcomes, pair_rows, score_rows

URLS = [f"http://h{i % 7}.example/{i}.jpg" for i in range(20)]


@pytest.fixture
def leased(db: Database) -> tuple[DownloadQueue, Claim]:
    """A download worker with a batch of 20 URLs."""
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    return db.queue("download")[0], claim


def test_same_part_again_gets_the_same_answer(
    db: Database, leased: tuple[DownloadQueue, Claim]
) -> None:
    queue, claim = leased
    first = queue.submit_download(claim.lease_id, 0, outcomes([0, 1]))
    assert queue.submit_download(claim.lease_id, 0, outcomes([0, 1])) == first
    assert queue.submit_download(claim.lease_id, 0, outcomes([7], Outcome.TIMEOUT)) == first
    assert db.value("select count(*) from mill.thumbnail") == 2


def change(**columns: Any) -> Callable[[Outcomes], Outcomes]:
    return lambda o: replace(o, **columns)


MALFORMED: dict[str, Callable[[Outcomes], Outcomes]] = {
    "nothing": lambda o: outcomes([]),
    "lengths differ": change(outcome=[0]),
    "hashes are missing": change(md5=[]),
    "a position of no pair": lambda o: outcomes([0, 20]),
    "a negative position": lambda o: outcomes([-1, 0]),
    "a position twice": lambda o: outcomes([3, 3]),
    "null position": change(positions=[0, None]),
    "unknown outcome": change(outcome=[0, 5]),
    "null outcome": change(outcome=[0, None]),
    "negative size": change(sizes=[-1, 5]),
    "no width": change(width=[0, 5]),
    "status out of range": change(http_status=[99, 200]),
    "short sha1": change(sha1=[b"x" * 19, b"x" * 20]),
    "short sha256": change(sha256=[b"x" * 31, b"x" * 32]),
    "short pdq": change(pdq=[b"x" * 31, None]),
    "success without a hash": change(md5=[None, None]),
    "success without a SHA-1": change(sha1=[None, None]),
    "success without a thumbnail": change(thumbnail_positions=[0], thumbnails=[b"x"]),
    "thumbnail of a failure": change(outcome=[0, 24]),
    "thumbnail of another position": change(thumbnail_positions=[0, 5]),
    "thumbnail twice": change(thumbnail_positions=[0, 0]),
    "empty thumbnail": change(thumbnails=[b"x", b""]),
    "large thumbnail": change(thumbnails=[b"x", b"x" * 131_073]),
    "more thumbnails than positions": change(thumbnails=[b"x"] * 3),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_submission_changes_nothing(
    db: Database, leased: tuple[DownloadQueue, Claim], name: str
) -> None:
    queue, claim = leased
    with pytest.raises(Malformed):
        queue.submit_download(claim.lease_id, 0, MALFORMED[name](outcomes([0, 1])))
    assert db.value("select count(*) from mill.submission where state = 'received'") == 0
    assert db.value("select count(*) from mill.thumbnail") == 0
    assert len(queue.urls(claim.lease_id)) == 20
    queue.submit_download(
        claim.lease_id, 0, outcomes([0, 1])
    )  # and the part may be sent again, right


def test_two_dimensional_arrays_are_refused(
    db: Database, leased: tuple[DownloadQueue, Claim]
) -> None:
    queue, claim = leased
    with pytest.raises(Malformed):
        queue.submit_download(claim.lease_id, 0, replace(outcomes([0, 1]), positions=[[0], [1]]))  # type: ignore[list-item]


def test_covered_position_is_refused_under_another_part(
    leased: tuple[DownloadQueue, Claim],
) -> None:
    queue, claim = leased
    queue.submit_download(claim.lease_id, 0, outcomes([0, 1]))
    with pytest.raises(Malformed, match="submitted already"):
        queue.submit_download(claim.lease_id, 1, outcomes([1, 2]))


def test_part_of_a_lost_lease_stays_and_the_next_holder_gets_the_rest(
    db: Database, leased: tuple[DownloadQueue, Claim]
) -> None:
    queue, claim = leased
    steward, _ = db.queue("steward")
    queue.submit_download(claim.lease_id, 0, outcomes(range(5)))
    db.accept_all()
    queue.submit_download(claim.lease_id, 1, outcomes(range(5, 8), Outcome.TIMEOUT))
    db.admin.execute("update mill.lease set expires_at = now()")
    steward.maintain("expire_leases")
    again = db.claim("download", "another")
    assert again
    other, _ = db.queue("download", "another")
    assert [n for n, _ in other.urls(again.lease_id)] == list(range(8, 20))
    with pytest.raises(Malformed, match="12 positions were not submitted"):
        other.complete(again.lease_id)
    other.submit_download(again.lease_id, 0, outcomes(range(8, 20)))
    other.complete(again.lease_id)
    db.accept_all()
    assert db.rows("select n, outcome from mill.download order by n") == [
        (n, 24 if 5 <= n < 8 else 0) for n in range(20)
    ]
    # each worker gets credit for its own
    credit = dict(db.rows("select name, rows_accepted from report.worker where kind = 'download'"))
    assert sorted(credit.values()) == [8, 12]


def test_nothing_counts_before_acceptance_and_the_last_part_makes_the_score_task(
    db: Database, leased: tuple[DownloadQueue, Claim]
) -> None:
    db.add_model("d1")
    db.add_model("d2")
    queue, claim = leased
    queue.submit_download(claim.lease_id, 0, outcomes(range(10)))
    queue.submit_download(claim.lease_id, 1, outcomes(range(10, 20), Outcome.DNS_FAILED))
    queue.complete(claim.lease_id)
    assert db.rows("select outcome, pairs from report.pair_count") == [("waiting", 20)]
    assert queue.me()["rows_accepted"] == 0
    steward, _ = db.queue("steward")
    steward.accept_next()
    assert db.value("select count(*) from mill.task where kind = 'score'") == 0
    steward.accept_next()
    assert db.value("select count(*) from mill.task where kind = 'score' and state = 'ready'") == 2
    assert db.rows("select outcome, pairs from report.pair_count order by 1") == [
        ("dns_failed", 10), ("success", 10),
    ]  # fmt: skip
    assert queue.me()["rows_accepted"] == 20
    assert steward.accept_next() is None


def test_batch_without_a_success_makes_no_score_task(db: Database) -> None:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download(Outcome.DNS_FAILED)
    assert db.value("select count(*) from mill.task where kind = 'score'") == 0


def test_accepted_rows_are_what_was_submitted(
    db: Database, leased: tuple[DownloadQueue, Claim]
) -> None:
    queue, claim = leased
    sent = replace(outcomes([4]), width=[640], height=[480], dhash=[-(2**63)], sizes=[2**31 - 1])
    queue.submit_download(claim.lease_id, 3, sent)
    db.accept_all()
    (row,) = db.rows(
        "select n, attempt, outcome, http_status, bytes, width, height, md5, sha1, sha256, dhash, pdq"
        " from mill.download"
    )
    hashes = sent.md5[0], sent.sha1[0], sent.sha256[0], -(2**63), sent.pdq[0]
    assert row == (4, 1, 0, 200, 2**31 - 1, 640, 480, *hashes)


def test_score_submission_that_is_wrong_changes_nothing(db: Database) -> None:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim
    queue, _ = db.queue("score")
    lease = claim.lease_id
    (good,) = score_rows(lease, 0, [0])
    wrong = {
        "no such position": [(lease, 0, 99, *good[3:])],
        "position twice": [good, good],
        "NaN": [(*good[:4], float("nan"), *good[5:])],
        "beyond 1": [(*good[:4], 6016.0, *good[5:])],
        "other dims": [(*good[:5], b"\0" * (2 * DIMS + 2), *good[6:])],
        "scored without a similarity": [(*good[:4], None, *good[5:])],
        "failed with a similarity": [(*good[:3], 1, *good[4:])],
        "fewer tokens than none": [(*good[:7], -1)],
        "unknown outcome": [(*good[:3], 9, None, None, None, 5)],
    }
    for part, (name, rows) in enumerate(wrong.items()):
        queue.copy_scores([(r[0], part, *r[2:]) for r in rows])
        with pytest.raises(Malformed):
            queue.submit_score(lease, part, len(rows))
            pytest.fail(name)
    with pytest.raises(Malformed, match="another number was copied"):
        queue.submit_score(lease, 50, 1)
    assert db.value("select count(*) from mill.submission where state = 'received'") == 0
    queue.copy_scores(score_rows(lease, 60, range(20)))
    first = queue.submit_score(lease, 60, 20)
    assert queue.submit_score(lease, 60, 20) == first
    queue.complete(lease)
    db.accept_all()
    assert db.rows("select model, outcome, pairs from report.score_count") == [
        ("model-d1", "scored", 20)
    ]
    # what was copied and never submitted is swept away
    assert db.queue("steward")[0].maintain("sweep_inbox") == 10
    assert db.value("select count(*) from inbox.score") == 0


def test_scores_of_a_lost_lease_stay_and_the_next_holder_gets_the_rest(db: Database) -> None:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim
    assert claim.payload["count"] == 20
    queue, _ = db.queue("score")
    queue.copy_scores(score_rows(claim.lease_id, 0, range(12)))
    queue.submit_score(claim.lease_id, 0, 12)
    db.admin.execute("update mill.lease set expires_at = now()")
    db.queue("steward")[0].maintain("expire_leases")
    again = db.claim("score", digest="d1")
    assert again
    assert again.payload["count"] == 8
    assert [row[0] for row in queue.thumbnails(again.lease_id, 0, 100)] == list(range(12, 20))
    queue.copy_scores(score_rows(again.lease_id, 0, range(12, 20)))
    queue.submit_score(again.lease_id, 0, 8)
    queue.complete(again.lease_id)
    db.accept_all()
    assert db.value("select count(*) from mill.score") == 20
    assert db.value("select count(*) from mill.embedding") == 20


def test_thumbnails_come_with_their_text_in_ranges(db: Database) -> None:
    db.add_model()
    db.extract(URLS, texts="a caption")
    db.close_batches()
    db.download(thumbnail=b"the image")
    claim = db.claim("score", digest="d1")
    assert claim
    queue, _ = db.queue("score")
    dhashes = dict(db.rows("select n, dhash from mill.download"))
    assert queue.thumbnails(claim.lease_id, 3, 5) == [
        (3, "a caption", b"the image", dhashes[3]), (4, "a caption", b"the image", dhashes[4]),
    ]  # fmt: skip


def test_unacceptable_submission_is_rejected_and_asked_for_again(db: Database) -> None:
    """A constraint that no check foresaw: here, the same extraction's rows in two places."""
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    rows = pair_rows(claim.lease_id, URLS)
    queue.copy_pairs(rows)
    queue.submit_extract(claim.lease_id, 20, [("image", "links", "", 20)])
    db.admin.execute("alter table mill.pair add constraint odd check (url not like '%/7.jpg')")
    ((_, kind, count, why),) = db.accept_all()
    assert (kind, count) == ("extract", 20)
    assert "odd" in (why or "")
    assert db.value("select count(*) from mill.pair") == 0
    assert db.value("select count(*) from mill.seen_url") == 0
    assert db.rows("select state, attempts from mill.task") == [("ready", 1)]
    assert db.rows("select state from mill.submission") == [("rejected",)]
    assert db.value("select count(*) from inbox.pair") == 0
