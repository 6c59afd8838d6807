"""Taggers: their tags come in the pass of their clip model, or as tasks of their own."""

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pairmill.workers.errors import LeaseLost, Malformed, Refused
from pairmill.workers.queue import Claim
from pairmill.workers.score.calls import ScoreQueue
from support.database import DIMS, Database, score_rows

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]
VECTOR = b"\x00\x3c" * DIMS


@pytest.fixture
def downloaded(db: Database) -> Database:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    db.download()
    return db


def tag_rows(
    lease_id: int, part: int, model_id: int, positions: Sequence[int], value: float | None = 0.5
) -> list[tuple[Any, ...]]:
    return [(lease_id, part, model_id, n, None, value) for n in positions]


def claimed(db: Database, digest: str) -> tuple[ScoreQueue, Claim]:
    claim = db.claim("score", digest=digest)
    assert claim is not None
    return db.queue("score")[0], claim


def score_with_tags(db: Database, *taggers: int, digest: str = "d1") -> None:
    queue, claim = claimed(db, digest)
    positions = [row[0] for row in queue.thumbnails(claim.lease_id, 0, 100)]
    queue.copy_scores(score_rows(claim.lease_id, 0, positions))
    for tagger in taggers:
        queue.copy_tags(tag_rows(claim.lease_id, 0, tagger, positions))
    queue.submit_score(claim.lease_id, 0, len(positions), len(taggers) * len(positions))
    queue.complete(claim.lease_id)
    db.accept_all()


def tag(db: Database, tagger: int, digest: str = "t1", value: float = 0.25) -> Claim:
    """A head's own task, from embeddings."""
    queue, claim = claimed(db, digest)
    found = queue.embeddings(claim.lease_id, 0, 100)
    assert len(found) == claim.payload["count"]
    assert all(image == VECTOR for _, image in found)
    queue.copy_tags(tag_rows(claim.lease_id, 0, tagger, [n for n, _ in found], value))
    queue.submit_score(claim.lease_id, 0, 0, len(found))
    queue.complete(claim.lease_id)
    db.accept_all()
    return claim


def tags(db: Database) -> list[tuple[Any, ...]]:
    return db.rows("select model, value, count(*) from report.tag group by 1, 2 order by 1, 2")


def submission(db: Database, digest: str) -> int:
    found: int = db.value(
        "select max(submission_id) from mill.submission join mill.task using (task_id)"
        " join mill.model using (model_id) where digest = %s", digest,
    )  # fmt: skip
    return found


def score_tasks(db: Database) -> list[tuple[str, str]]:
    return db.rows(
        "select m.digest, t.state from mill.task t join mill.model m using (model_id) order by 1"
    )


def test_tags_in_the_pass_of_their_model_leave_no_task_of_their_own(downloaded: Database) -> None:
    db = downloaded
    one, two = db.add_tagger(), db.add_tagger(digest="t2")
    score_with_tags(db, one, two)
    assert tags(db) == [("tagger-t1", 0.5, 6), ("tagger-t2", 0.5, 6)]
    assert score_tasks(db) == [("d1", "done")]
    assert db.value("select count(*) from inbox.tag") == 0
    assert db.value("select rows_accepted from report.worker where kind = 'score'") == 6


def test_a_scorer_without_a_taggers_weights_leaves_its_task_to_others(downloaded: Database) -> None:
    db = downloaded
    one, two = db.add_tagger(), db.add_tagger(digest="t2")
    score_with_tags(db, one)
    assert score_tasks(db) == [("d1", "done"), ("t2", "ready")]
    assert tag(db, two, "t2").payload["count"] == 6
    assert tags(db) == [("tagger-t1", 0.5, 6), ("tagger-t2", 0.25, 6)]
    assert score_tasks(db) == [("d1", "done"), ("t2", "done")]


def test_a_tagger_added_later_reads_the_embeddings_after_the_thumbnails_are_gone(
    downloaded: Database,
) -> None:
    db = downloaded
    db.score()
    assert db.queue("steward")[0].maintain("empty_slots") == 1
    head = db.add_tagger()
    assert db.value("select count(*) from mill.thumbnail") == 0
    tag(db, head)
    assert tags(db) == [("tagger-t1", 0.25, 6)]
    # and holds no thumbnails back
    assert db.value("select count(*) from mill.thumbnail_slot where state <> 'empty'") == 0


def test_a_tagger_of_pixels_needs_thumbnails_and_says_what_only_a_download_gives(
    downloaded: Database,
) -> None:
    db = downloaded
    first = db.add_tagger(kind="pixels", digest="w1")
    score_with_tags(db)
    queue, claim = claimed(db, "w1")
    positions = [row[0] for row in queue.thumbnails(claim.lease_id, 0, 100)]
    assert len(positions) == claim.payload["count"] == 6
    queue.copy_tags(tag_rows(claim.lease_id, 0, first, positions))
    queue.submit_score(claim.lease_id, 0, 0, 6)
    # its task keeps the thumbnails until it is done
    assert db.queue("steward")[0].maintain("empty_slots") == 0
    queue.complete(claim.lease_id)
    db.accept_all()
    assert tags(db) == [("tagger-w1", 0.5, 6)]
    assert db.queue("steward")[0].maintain("empty_slots") == 1
    (found,) = db.rows(
        "select queued, unreachable from mill.add_model('late', '', 'w2', 0, 'pixels', 1)"
    )
    assert found == (0, 1)


def test_withdrawn_embeddings_take_the_tags_with_them_that_were_made_of_them(
    downloaded: Database,
) -> None:
    db = downloaded
    db.score()
    head = db.add_tagger()
    tag(db, head)
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (submission(db, "d1"),))
    assert tags(db) == []
    assert score_tasks(db) == [("d1", "ready"), ("t1", "ready")]
    # its task finds nothing to do yet; and again once there are embeddings
    queue, claim = claimed(db, "t1")
    assert claim.payload["count"] == 0
    queue.complete(claim.lease_id)
    db.score()
    assert score_tasks(db) == [("d1", "done"), ("t1", "ready")]
    tag(db, head, value=0.75)
    assert tags(db) == [("tagger-t1", 0.75, 6)]


def test_tags_of_embeddings_that_were_withdrawn_meanwhile_are_not_taken(
    downloaded: Database,
) -> None:
    db = downloaded
    db.score()
    head = db.add_tagger()
    queue, claim = claimed(db, "t1")
    queue.copy_tags(tag_rows(claim.lease_id, 0, head, range(6)))
    queue.submit_score(claim.lease_id, 0, 0, 6)
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (submission(db, "d1"),))
    assert db.value("select state from mill.submission order by 1 desc limit 1") == "rejected"
    score_with_tags(db, head)
    db.accept_all()
    assert tags(db) == [("tagger-t1", 0.5, 6)]


def test_withdrawn_tags_are_given_again(downloaded: Database) -> None:
    db = downloaded
    db.score()
    head = db.add_tagger()
    tag(db, head)
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (submission(db, "t1"),))
    assert tags(db) == []
    tag(db, head, value=0.75)
    assert tags(db) == [("tagger-t1", 0.75, 6)]


def test_a_discarded_task_of_a_head_is_queued_again_without_a_download(
    downloaded: Database,
) -> None:
    db = downloaded
    db.score()
    db.queue("steward")[0].maintain("empty_slots")
    db.add_tagger()
    queue, claim = claimed(db, "t1")
    queue.fail(claim.lease_id, "no", retry=False)
    assert score_tasks(db) == [("d1", "done"), ("t1", "discarded")]
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "score"
    assert score_tasks(db) == [("d1", "done"), ("t1", "ready")]


def test_malformed_tags_are_refused_and_change_nothing(downloaded: Database) -> None:
    db = downloaded
    head = db.add_tagger()
    zero = db.add_tagger(kind="zero-shot", digest="z1", labels=["a", "b"])
    other = db.add_model("d2")
    stranger = db.add_tagger(base="d2", digest="s1")
    queue, claim = claimed(db, "d1")
    lease = claim.lease_id
    bad: list[list[tuple[Any, ...]]] = [
        [(lease, 0, head, 0, None, float("nan"))],
        [(lease, 0, head, 0, None, float("inf"))],
        [(lease, 0, head, 0, 1, 0.5)],  # a label of a tagger that has none
        [(lease, 0, zero, 0, None, 0.5)],  # none of one that has them
        [(lease, 0, zero, 0, 2, 0.5)],
        [(lease, 0, zero, 0, -1, 0.5)],
        [(lease, 0, head, 0, None, 0.5)] * 2,
        [(lease, 0, head, 5, None, 0.5)],  # not scored in this part
        [(lease, 0, stranger, 0, None, 0.5)],
        [(lease, 0, other, 0, None, 0.5)],
        [(lease, 0, 999, 0, None, 0.5)],
    ]
    for part, rows in enumerate(bad):
        queue.copy_scores(score_rows(lease, part, [0]))
        queue.copy_tags([(r[0], part, *r[2:]) for r in rows])
        with pytest.raises(Malformed):
            queue.submit_score(lease, part, 1, len(rows))
    with pytest.raises(Malformed, match="announced"):
        queue.submit_score(lease, 0, 1, 2)
    with pytest.raises(Malformed, match="one score or more"):
        queue.submit_score(lease, 50, 0, 1)
    queue.copy_scores(score_rows(lease, 60, range(6)))
    queue.copy_tags([(lease, 60, zero, n, 1, 0.5) for n in range(5)])
    queue.copy_tags([(lease, 60, zero, 5, None, None)])  # it gave NaN
    queue.submit_score(lease, 60, 6, 6)
    queue.complete(lease)
    db.accept_all()
    assert db.rows("select label, value, count(*) from report.tag group by 1, 2 order by 1") == [
        ("b", 0.5, 5), (None, None, 1),
    ]  # fmt: skip


def test_a_tagger_is_added_while_its_models_task_is_being_finished(downloaded: Database) -> None:
    """Whichever comes first, its task is made."""
    db = downloaded
    queue, claim = claimed(db, "d1")
    queue.copy_scores(score_rows(claim.lease_id, 0, range(6)))
    queue.submit_score(claim.lease_id, 0, 6)
    queue.complete(claim.lease_id)
    head = db.add_tagger()
    db.accept_all()
    assert score_tasks(db) == [("d1", "done"), ("t1", "ready")]
    tag(db, head)


def test_what_a_scorer_is_told_of_taggers(downloaded: Database) -> None:
    db = downloaded
    head = db.add_tagger()
    queue, _ = db.queue("score")
    (found,) = queue.taggers("d1")
    assert (found.model_id, found.name, found.kind, found.digest) == (
        head, "tagger-t1", "head", "t1",
    )  # fmt: skip
    assert queue.weights("t1") == b"weights"
    assert queue.weights("d1") is None
    assert queue.taggers("d2") == []


def test_tags_of_pixels_that_are_there_are_not_given_twice(downloaded: Database) -> None:
    """Its scores are withdrawn and made again, by a scorer that has the weights; a release would
    have each pair twice."""
    db = downloaded
    pixels = db.add_tagger(kind="pixels", digest="w1")
    score_with_tags(db)
    tag_pixels(db, pixels)
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (submission(db, "d1"),))
    score_with_tags(db, pixels)
    assert tags(db) == [("tagger-w1", 0.25, 6)]
    assert score_tasks(db) == [("d1", "done"), ("w1", "done")]


def tag_pixels(db: Database, tagger: int, digest: str = "w1") -> None:
    """A tagger's own task, from thumbnails."""
    queue, claim = claimed(db, digest)
    positions = [row[0] for row in queue.thumbnails(claim.lease_id, 0, 100)]
    queue.copy_tags(tag_rows(claim.lease_id, 0, tagger, positions, 0.25))
    queue.submit_score(claim.lease_id, 0, 0, len(positions))
    queue.complete(claim.lease_id)
    db.accept_all()


def test_tags_of_withdrawn_embeddings_do_not_pass_for_tags_of_the_next(
    downloaded: Database,
) -> None:
    """Read before they were withdrawn, and submitted after the next were accepted."""
    db = downloaded
    db.score()
    head = db.add_tagger()
    queue, claim = claimed(db, "t1")
    assert len(queue.embeddings(claim.lease_id, 0, 100)) == 6
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (submission(db, "d1"),))
    score_with_tags(db)
    with pytest.raises(LeaseLost):
        queue.heartbeat(claim.lease_id)
    with pytest.raises(LeaseLost):
        queue.copy_tags(tag_rows(claim.lease_id, 0, head, range(6), 0.75))
    assert db.value("select attempts from mill.task where task_id = %s", claim.task_id) == 0
    tag(db, head)
    assert tags(db) == [("tagger-t1", 0.25, 6)]


def test_what_was_scored_of_a_task_whose_thumbnails_are_gone_is_tagged(
    downloaded: Database,
) -> None:
    db = downloaded
    head = db.add_tagger()
    queue, claim = claimed(db, "d1")
    queue.copy_scores(score_rows(claim.lease_id, 0, [0, 1]))
    queue.submit_score(claim.lease_id, 0, 2)
    db.accept_all()
    queue.fail(claim.lease_id, "no", retry=False)
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    assert db.queue("steward")[0].maintain("empty_slots") == 1
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "download"
    assert score_tasks(db) == [("d1", "done"), ("t1", "ready")]
    assert tag(db, head).payload["count"] == 2


def test_a_tagger_has_not_run_dry_while_its_models_tasks_are_open(downloaded: Database) -> None:
    db = downloaded
    db.add_tagger()
    queue, claim = claimed(db, "d1")
    assert not queue.drained("t1")
    queue.copy_scores(score_rows(claim.lease_id, 0, range(6)))
    queue.submit_score(claim.lease_id, 0, 6)
    queue.complete(claim.lease_id)
    assert not queue.drained("t1")
    db.accept_all()
    assert queue.drained("d1")
    assert not queue.drained("t1")


def test_a_tagger_that_is_added_again_keeps_what_was_said_of_it(downloaded: Database) -> None:
    db = downloaded
    add = "select model_id from mill.add_model(%s, '', 'h', 4, 'head', 1, null, %s, %s, %s, 'weights')"
    first = db.value(add, "taste", "2", "MIT", Jsonb({"mae": 0.5}))
    assert db.value(add, "new", "", "", Jsonb({})) == first
    said = db.rows("select name, revision, licence, metrics from report.model where digest = 'h'")
    assert said == [("new", "2", "MIT", {"mae": 0.5})]


def test_a_quarantined_scorer_takes_with_it_what_others_made_of_its_embeddings(
    downloaded: Database,
) -> None:
    db = downloaded
    ada, _ = db.queue("score", "ada")
    claim = db.claim("score", "ada", "d1")
    assert claim
    ada.copy_scores(score_rows(claim.lease_id, 0, range(6)))
    ada.submit_score(claim.lease_id, 0, 6)
    ada.complete(claim.lease_id)
    db.accept_all()
    head, other = db.add_tagger(), db.add_tagger(digest="t2")
    tag(db, head)
    queue, held = claimed(db, "t2")
    queue.copy_tags(tag_rows(held.lease_id, 0, other, range(3)))
    queue.submit_score(held.lease_id, 0, 0, 3)
    (found,) = db.rows(
        "select leases, rejected, withdrawn from mill.quarantine_worker('ada', null, 'it lied')"
    )
    assert found == (0, 0, 1)
    assert tags(db) == []
    assert score_tasks(db) == [("d1", "ready"), ("t1", "ready"), ("t2", "ready")]
    assert db.accept_all() == []
    with pytest.raises(LeaseLost):
        queue.submit_score(held.lease_id, 1, 0, 3)
    score_with_tags(db, head)
    assert tag(db, other, "t2").payload["count"] == 6
    assert tags(db) == [("tagger-t1", 0.5, 6), ("tagger-t2", 0.25, 6)]


def test_quarantines_of_two_scorers_wait_for_each_other(downloaded: Database) -> None:
    """Each tagged what the other had scored."""
    db = downloaded
    db.extract([f"http://more.example/{i}.jpg" for i in range(6)], location="b.wat.gz")
    db.close_batches()
    db.download()
    for name in ("ada", "bob"):
        score_by(db, name)
    db.add_tagger()
    for name in ("bob", "ada"):  # the batch that the other scored
        claim = db.claim("score", name, "t1")
        assert claim
        queue, _ = db.queue("score", name)
        positions = [n for n, _ in queue.embeddings(claim.lease_id, 0, 100)]
        queue.copy_tags(
            tag_rows(claim.lease_id, 0, db.value("select max(model_id) from mill.model"), positions)
        )
        queue.submit_score(claim.lease_id, 0, 0, len(positions))
        queue.complete(claim.lease_id)
    db.accept_all()
    quarantine = "select mill.quarantine_worker(%s, null, 'it lied')"
    with psycopg.connect(db.dsn) as first, psycopg.connect(db.dsn) as second:
        first.execute(quarantine, ("ada",))
        # waits before it holds anything that the first may want
        second.execute("set lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            second.execute(quarantine, ("bob",))
        second.rollback()
        first.commit()
        second.execute(quarantine, ("bob",))
    assert tags(db) == []
    assert db.value("select count(*) from mill.current_score") == 0


def score_by(db: Database, name: str) -> None:
    claim = db.claim("score", name, "d1")
    assert claim
    queue, _ = db.queue("score", name)
    positions = [row[0] for row in queue.thumbnails(claim.lease_id, 0, 100)]
    queue.copy_scores(score_rows(claim.lease_id, 0, positions))
    queue.submit_score(claim.lease_id, 0, len(positions))
    queue.complete(claim.lease_id)
    db.accept_all()


def test_a_retired_tagger_is_computed_no_more_and_holds_nothing_back(downloaded: Database) -> None:
    db = downloaded
    pixels = db.add_tagger(kind="pixels", digest="w1")
    db.score()
    assert score_tasks(db) == [("d1", "done"), ("w1", "ready")]
    queue, claim = claimed(db, "w1")
    assert db.rows("select * from mill.retire_model(%s)", pixels) == [(1, 0)]  # it is at work
    queue.release(claim.lease_id)
    assert db.rows("select * from mill.retire_model(%s)", pixels) == [(0, 1)]
    assert score_tasks(db) == [("d1", "done"), ("w1", "discarded")]
    with pytest.raises(Refused, match="or it was retired"):
        db.claim("score", digest="w1")
    assert queue.taggers("d1") == []
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    assert db.queue("steward")[0].maintain("empty_slots") == 1
    # of the next batch it is not asked for
    db.extract(["http://new.example/1.jpg"], location="b.wat.gz")
    db.close_batches()
    db.download()
    db.score()
    assert score_tasks(db) == [("d1", "done"), ("d1", "done"), ("w1", "discarded")]


def test_a_retired_model_scores_nothing_until_it_is_added_again(downloaded: Database) -> None:
    db = downloaded
    model = db.value("select model_id from mill.model")
    assert db.rows("select * from mill.retire_model(%s)", model) == [(0, 1)]
    assert db.rows("select retired_at is null from report.model") == [(False,)]
    db.add_model()
    db.score()
    assert db.rows("select outcome, pairs from report.score_count") == [("scored", 6)]


def test_a_tagger_of_pixels_may_say_it_in_words_and_another_may_not(downloaded: Database) -> None:
    """Would catch: a caption that is lost on its way, or one from a head that cannot have any."""
    db = downloaded
    words = db.add_tagger(kind="pixels", digest="words")
    number = db.add_tagger()
    queue, claim = claimed(db, "d1")
    queue.copy_scores(score_rows(claim.lease_id, 0, range(6)))
    copy = "insert into inbox.tag (lease_id, part, model_id, n, value, text, worker) values (%s, 0, %s, %s, null, %s, %s)"
    login = db.value("select login from mill.worker where kind = 'score'")
    for n in range(3):
        db.admin.execute(copy, (claim.lease_id, words, n, f"a red square, {n}", login))
    db.admin.execute(copy, (claim.lease_id, number, 0, "words", login))
    with pytest.raises(Malformed, match="only a tagger of pixels gives a text"):
        queue.submit_score(claim.lease_id, 0, 6, 4)
    db.admin.execute("delete from inbox.tag where model_id = %s", (number,))
    queue.submit_score(claim.lease_id, 0, 6, 3)
    queue.complete(claim.lease_id)
    db.accept_all()
    assert db.rows("select n, text from report.tag order by n") == [
        (n, f"a red square, {n}") for n in range(3)
    ]
    with pytest.raises(psycopg.errors.CheckViolation):
        db.admin.execute(copy, (claim.lease_id, words, 0, "x" * 2001, login))
