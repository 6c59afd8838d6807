"""Pairs that were downloaded before a model was there are scored by it too, and lose nothing by that."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.schema.outcomes import Outcome
from pairmill.workers.queue import Claim
from support.database import Database, outcomes_of, say_migrated, score_rows
from support.states import BROKEN, withdraw

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]
HASHES = [hashlib.sha256(str(i).encode()).digest() for i in range(6)]
ALIKE = (
    bytes([HASHES[1][0] ^ 3]) + HASHES[1][1:8] + b"re-encoded".ljust(24)
)  # 2 of the dHash's bits
OTHER = hashlib.sha256(b"another image").digest()


@pytest.fixture
def scored(db: Database) -> Database:
    """A batch of six that one model has scored, and whose thumbnails are gone; another model."""
    db.add_model("old")
    db.extract(URLS)
    db.close_batches()
    download(db, HASHES)
    db.score(0.25, "old")
    empty(db)
    db.add_model("new")
    return db


def empty(db: Database) -> None:
    assert db.queue("steward")[0].maintain("empty_slots") == 1


def download(db: Database, found: Sequence[bytes | Outcome], name: str | None = None) -> Claim:
    """Claim a download and hand over what is found at each of the six positions."""
    claim = db.claim("download", name)
    assert claim
    queue, _ = db.queue("download", name)
    given = [n for n, _ in queue.urls(claim.lease_id)]
    if given:
        queue.submit_download(claim.lease_id, 0, outcomes_of(given, [found[n] for n in given]))
    queue.complete(claim.lease_id)
    assert {a[3] for a in db.accept_all()} <= {None}
    return claim


def backfill(db: Database, name: str = "model-new", last: int = 2**62) -> tuple[Any, ...]:
    """(batches, urls, bytes, score tasks, URLs in vain, batches that are busy)"""
    query = "select b.* from mill.model, mill.backfill_model(model_id, 0, %s) b where name = %s"
    return db.rows(query, last, name)[0]


def scores(db: Database, name: str) -> list[tuple[int, float]]:
    return db.rows("select n, similarity from report.score where model = %s order by n", name)


def outcomes(db: Database) -> list[tuple[int, str, int]]:
    return db.rows("select n, outcome, attempt from report.pair order by n")


TODAY = [HASHES[0], ALIKE, OTHER, Outcome.TIMEOUT, Outcome.HTTP_ERROR, HASHES[5]]


def test_what_was_had_before_goes_on_to_count(scored: Database) -> None:
    """A host that is down today, or an image that has changed, takes no score away that was there."""
    assert backfill(scored) == (1, 6, 36_000, 0, 0, 0)
    assert backfill(scored) == (0, 0, 0, 0, 0, 1)
    download(scored, TODAY)
    claim = scored.score(0.75, "new")
    assert outcomes(scored) == [(n, "success", 1) for n in range(6)]
    assert scores(scored, "model-old") == [(n, 0.25) for n in range(6)]
    assert scores(scored, "model-new") == [(n, 0.75) for n in (0, 1, 5)]  # the same images
    assert claim.payload["attempt"] == 2
    assert (
        scored.claim("score", digest="old") is None
    )  # what it has scored it scores no second time
    assert scored.rows(BROKEN) == []
    empty(scored)
    # another image and a final failure are not asked for a second time
    assert backfill(scored) == (1, 1, 6_000, 0, 2, 0)
    download(scored, HASHES)
    scored.score(0.5, "new")
    assert [n for n, _ in scores(scored, "model-new")] == [0, 1, 3, 5]
    assert backfill(scored) == (0, 0, 0, 0, 2, 0)
    assert scored.rows("select count(*) from mill.embedding group by attempt") == [(10,)]
    assert scored.rows(BROKEN) == []


def test_a_url_that_gives_no_answer_is_given_up_after_url_attempts(scored: Database) -> None:
    for _ in range(3):
        assert backfill(scored)[1] == 6
        download(scored, [Outcome.TIMEOUT] * 6)
        empty(scored)
    assert backfill(scored) == (0, 0, 0, 0, 6, 0)
    assert outcomes(scored) == [(n, "success", 1) for n in range(6)]


def test_an_opt_out_of_today_counts_until_it_is_withdrawn(scored: Database) -> None:
    """A site's new wish is heard; a liar's is forgotten, and the download before it counts again."""
    backfill(scored)
    claim = scored.claim("download")
    assert claim
    queue, _ = scored.queue("download")
    given = outcomes_of(range(6), [*HASHES[:5], Outcome.OPTED_OUT])
    given.refused_positions, given.signal, given.value = [5], ["robots.txt"], ["Disallow: /"]
    given.source, given.age = [URLS[5]], [0.0]
    queue.submit_download(claim.lease_id, 0, given)
    queue.complete(claim.lease_id)
    scored.accept_all()
    scored.score(0.75, "new")
    assert outcomes(scored)[5] == (5, "opted_out", 2)
    assert scored.rows("select n, signal from report.opt_out") == [(5, "robots.txt")]
    assert len(scores(scored, "model-old")) == len(scores(scored, "model-new")) == 5
    withdraw(scored, "download")
    assert outcomes(scored)[5] == (5, "success", 1)
    assert len(scores(scored, "model-old")) == 6
    assert scored.value("select count(*) from mill.task where state <> 'done'") == 0
    assert backfill(scored)[:2] == (1, 1)


@pytest.mark.parametrize("who", ["the first downloader", "the second"])
def test_a_worker_that_lied_takes_its_own_work_along(scored: Database, who: str) -> None:
    """The new scores are of the first download: they go with it, and not with the second fetch."""
    backfill(scored)
    download(scored, HASHES, "second")
    scored.score(0.75, "new")
    name = "second" if who == "the second" else scored.value(
        "select name from mill.worker where kind = 'download' and name <> 'second'"
    )  # fmt: skip
    scored.admin.execute("select mill.quarantine_worker(%s, null, 'lies')", (name,))
    left = 6 if who == "the second" else 0
    assert [len(scores(scored, f"model-{m}")) for m in ("old", "new")] == [left, left]
    assert scored.value(
        "select count(*) from mill.task where kind = 'download' and state = 'ready'"
    ) == int(left == 0)
    assert scored.rows(BROKEN) == []


def test_taggers_of_the_new_model_tag_in_the_name_of_the_download_that_counts(
    scored: Database,
) -> None:
    scored.add_tagger("new", "head", "h")
    backfill(scored)
    download(scored, TODAY)
    scored.score(0.75, "new")  # without the tags: a task is made for them
    claim = scored.claim("score", digest="h")
    assert claim and claim.payload["count"] == 3
    queue, _ = scored.queue("score")
    found = [n for n, _ in queue.embeddings(claim.lease_id, 0, 100)]
    head = scored.value("select model_id from mill.model where digest = 'h'")
    queue.copy_tags([(claim.lease_id, 0, head, n, None, 0.5) for n in found])
    queue.submit_score(claim.lease_id, 0, 0, len(found))
    queue.complete(claim.lease_id)
    scored.accept_all()
    assert scored.rows("select n from report.tag order by n") == [(0,), (1,), (5,)]
    # one that is added later reads the stored embeddings at once, and has nothing to be fetched
    scored.add_tagger("new", "head", "later")
    later = scored.claim("score", digest="later")
    assert later and later.payload["count"] == 3
    assert backfill(scored, "tagger-later") == (0, 0, 0, 0, 0, 0)
    scored.add_tagger("old", "head", "of old")
    scored.admin.execute(
        "delete from mill.task where model_id = (select max(model_id) from mill.model)"
    )
    assert backfill(scored, "tagger-of old") == (0, 0, 0, 1, 0, 0)


def test_a_tagger_of_pixels_that_came_later_has_its_thumbnails_fetched(scored: Database) -> None:
    pixels = scored.add_tagger("old", "pixels", "p")
    assert backfill(scored, "tagger-p")[:2] == (1, 6)
    download(scored, TODAY)
    claim = scored.claim("score", digest="p")
    assert claim and claim.payload["count"] == 3
    queue, _ = scored.queue("score")
    read = queue.thumbnails(claim.lease_id, 0, 100)
    # the hash to compare it with is the first download's
    assert [row[3] for row in read] == [
        int.from_bytes(HASHES[n][:8], signed=True) for n in (0, 1, 5)
    ]
    queue.copy_tags([(claim.lease_id, 0, pixels, row[0], None, 0.5) for row in read])
    queue.submit_score(claim.lease_id, 0, 0, 3)
    queue.complete(claim.lease_id)
    scored.accept_all()
    assert scored.rows("select n from report.tag order by n") == [(0,), (1,), (5,)]
    scored.score(0.75, "new")  # the other model has these thumbnails as well
    assert scored.rows(BROKEN) == []


def test_new_downloads_go_first(scored: Database) -> None:
    """A backfill of a whole crawl would hold new pairs up for weeks."""
    backfill(scored)
    scored.extract(["http://new.example/1.jpg"], "b.wat.gz")
    scored.close_batches()
    assert [scored.claim("download").payload["attempt"] for _ in range(2)] == [1, 2]  # type: ignore[union-attr]


def test_a_discarded_scoring_is_fetched_again_without_a_loss(scored: Database) -> None:
    """`task retry` of a score task whose thumbnails are gone once made dead links of what it had."""
    scored.extract(["http://new.example/1.jpg"], "b.wat.gz")
    scored.close_batches()
    scored.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    download(scored, HASHES)
    scored.score(0.25, "old")
    claim = scored.claim("score", digest="new")
    assert claim
    scored.queue("score")[0].fail(claim.lease_id, "out of memory", retry=False)
    empty(scored)
    assert scored.value("select mill.retry_task(%s)", claim.task_id) == "download"
    download(scored, [Outcome.TIMEOUT] * 6)
    assert {outcome for _, outcome, _ in outcomes(scored)} == {"success"}
    assert len(scores(scored, "model-old")) == 7
    assert scored.rows(BROKEN) == []


def test_two_tasks_that_score_one_download_give_one_score(scored: Database) -> None:
    """Score tasks of two models were retried, each with a backfill: a release had each pair twice."""
    scored.admin.execute("select mill.withdraw(max(submission_id), 'x') from mill.score")
    tasks = scored.rows("select task_id from mill.task where kind = 'score'")
    (batch,) = scored.rows("select batch_id from mill.batch")[0]
    assert len(tasks) == 1
    scored.admin.execute(
        "insert into mill.task (kind, batch_id, attempt, model_id)"
        " select 'score', %s, 1, model_id from mill.model where digest = 'new'",
        (batch,),
    )
    scored.admin.execute(
        "select mill.discard_task(task_id, 'x') from mill.task where state = 'ready'"
    )
    scored.admin.execute(
        "select mill.retry_task(task_id) from mill.task where kind = 'score' and state = 'discarded'"
    )
    download(scored, HASHES)
    download(scored, HASHES)
    leases = []
    for name in ("ada", "bob"):
        claim = scored.claim("score", name, "new")
        assert claim
        leases.append((scored.queue("score", name)[0], claim.lease_id))
    for queue, lease in leases:
        read = [row[0] for row in queue.thumbnails(lease, 0, 100)]
        assert read == list(range(6))
        queue.copy_scores(score_rows(lease, 0, read))
        queue.submit_score(lease, 0, 6)
        queue.complete(lease)
    assert [why is None for _, _, _, why in scored.accept_all()] == [True, False]
    assert [n for n, _ in scores(scored, "model-new")] == list(range(6))
    done = "select count(*) from mill.task where kind = 'score' and model_id = 2 and state = 'done'"
    assert scored.value(done) == 3  # the second is asked for nothing more
    assert scored.rows(BROKEN) == []


def test_a_model_that_is_retired_waits_for_nothing(scored: Database) -> None:
    """Its tasks stand in no queue, hold no thumbnails and no drain; added again it goes on."""
    model = scored.value("select model_id from mill.model where digest = 'new'")
    backfill(scored)
    scored.extract(["http://new.example/1.jpg"], "b.wat.gz")
    scored.close_batches()
    download(scored, HASHES)
    scored.score(0.25, "old")
    assert scored.rows("select * from mill.retire_model(%s)", model) == [(0, 2)]
    assert scored.rows("select * from report.waiting") == []
    steward, _ = scored.queue("steward")
    empty(scored)  # its discarded task needs them no more
    assert steward.drained()
    # scores of it that are withdrawn are not made again
    assert scored.rows("select outcome from report.score_count where model = 'model-new'") == []
    added = scored.rows("select queued, unreachable from mill.add_model('model-new', '', 'new', 4)")
    assert added == [(0, 2)]  # the thumbnails are gone; its backfill is ready again
    assert scored.rows("select purpose, model, tasks from report.waiting") == [
        ("backfill", "model-new", 1)
    ]
    assert backfill(scored)[:2] == (1, 1)  # the batch that came while it was retired
    assert {
        c.payload["attempt"] for c in (scored.claim("download"), scored.claim("download")) if c
    } == {2}


def test_a_withdrawn_score_of_a_retired_model_is_not_made_again(
    scored: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored.admin.execute("select mill.retire_model(model_id) from mill.model where digest = 'old'")
    withdraw(scored, "score")
    assert scored.rows("select state, reason from mill.task where kind = 'score'") == [
        ("discarded", "its model was retired")
    ]
    monkeypatch.setenv("DATABASE_URL", scored.dsn)
    say_migrated(scored.admin)
    done = CliRunner().invoke(app, ["task", "retry", "--all"])
    assert "`pairmill model add` with the same weights" in str(done.exception)


def test_the_command(scored: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", scored.dsn)
    say_migrated(scored.admin)

    def run(*options: str) -> str:
        done = CliRunner().invoke(app, ["model", "backfill", *options])
        return done.stdout if done.exit_code == 0 else str(done.exception)

    would = run("model-new", "--dry-run")
    assert would.startswith(
        "model-new: 6 images of 1 batches would be queued to be fetched again and scored,"
        " 36.0 kB when they came first; at the last day's rate that takes 1.0 days\n"
        "no worker with the weights of model-new was seen in the last ten minutes"
    )
    assert scored.value("select count(*) from mill.task where for_model_id is not null") == 0
    assert "nothing was done: --yes" in run("model-new")
    assert "--json asks no question" in run("model-new", "--json")
    scored.claim("score", digest="new")
    assert run("model-new", "--batches", "7", "--dry-run") == "model-new: nothing to queue\n"
    told = json.loads(run("model-new", "--yes", "--json"))
    assert told == {
        "model": "model-new", "digest": "new", "dry_run": False, "batches": 1, "urls": 6,
        "bytes": 36_000, "score_tasks": 0, "in_vain": 0, "busy": 0, "days": 1.0, "has_worker": True,
    }  # fmt: skip
    assert run("model-new") == (
        "model-new: nothing to queue\n"
        "1 batches left out: their backfill, or their scoring, is under way or parked\n"
    )
    assert "no model 'nobody'" in run("nobody", "--yes")
    scored.admin.execute("select mill.retire_model(model_id) from mill.model where digest = 'new'")
    assert "makes it active again" in run("model-new", "--yes")
