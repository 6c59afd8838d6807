"""Short stories, one for each arrow of docs/states.md."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from pairmill.ops.admin import removal
from pairmill.schema.outcomes import Outcome
from pairmill.workers.queue import Claim
from pairmill.workers.score.calls import ScoreQueue
from support.database import Database, outcomes, outcomes_of, pair_rows, score_rows
from support.states import (
    batches,
    late,
    leased,
    withdraw,
)

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(60)]


def the_line(db: Database) -> None:
    db.admin.execute("select mill.ensure_slots(9::smallint)")
    db.add_model()
    batches(db, 1)
    db.download()
    db.score()
    db.queue("steward")[0].maintain("empty_slots")


def a_batch_fills_up(db: Database) -> None:
    db.admin.execute("update mill.setting set batch_size = 2")
    db.extract(URLS[:5])


def a_model_comes_later(db: Database) -> None:
    batches(db, 1)
    db.download()
    db.add_model()


def handed_back(db: Database) -> None:
    batches(db, 1)
    for retry in (None, True, False):
        queue, claim = leased(db, "download")
        if retry is None:
            queue.release(claim.lease_id)
        else:
            queue.fail(claim.lease_id, "why", retry=retry)
        db.admin.execute("update mill.task set ready_at = now()")
    db.admin.execute("select mill.retry_task(%s)", (claim.task_id,))


def late_and_late_again(db: Database) -> None:
    db.admin.execute("update mill.setting set max_attempts = 2")
    batches(db, 1)
    for _ in range(2):
        leased(db, "download")
        late(db)


def discarded_by_an_admin(db: Database) -> None:
    batches(db, 2)
    _, claim = leased(db, "download")
    db.admin.execute(
        "select mill.discard_task(task_id, 'why') from mill.task where kind = 'download'"
    )
    assert db.rows("select distinct state from mill.task where kind = 'download'") == [
        ("discarded",)
    ]
    assert db.value("select ended_as from mill.lease where lease_id = %s", claim.lease_id)


def the_ring_is_full(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set batches_per_slot = 2")
    batches(db, 10)
    db.download()  # filling
    db.download()  # full
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    for _ in range(7):
        db.download()
    assert db.claim("download") is None
    for _ in range(9):
        db.score()
    db.queue("steward")[0].maintain("empty_slots")
    db.download()


def extractions_are_rejected(db: Database) -> None:
    db.admin.execute("update mill.setting set max_attempts = 2, retry_seconds = 0")
    db.admin.execute("alter table mill.pair add constraint odd check (url not like '%/7.jpg')")
    db.add_wat()
    for _ in range(2):
        queue, claim = leased(db, "extract")
        queue.copy_pairs(pair_rows(claim.lease_id, URLS[:8]))
        queue.submit_extract(claim.lease_id, 8, [("image", "links", "", 8)])
        assert [a[3] is not None for a in db.accept_all()] == [True]


def downloads_are_rejected(db: Database) -> None:
    db.admin.execute("update mill.setting set max_attempts = 2, retry_seconds = 0")
    db.admin.execute("alter table mill.download add constraint odd check (http_status <> 999)")
    batches(db, 1)
    for _ in range(2):
        queue, claim = leased(db, "download")
        queue.submit_download(claim.lease_id, 0, replace(outcomes([0, 1]), http_status=[200, 999]))
        queue.complete(claim.lease_id)
        assert [a[3] is not None for a in db.accept_all()] == [True]


def withdrawn(db: Database) -> None:
    the_line(db)
    withdraw(db, "score")
    withdraw(db, "download")
    withdraw(db, "extract")


def scores_of_a_discarded_task_are_withdrawn(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    queue, claim = leased(db, "score")
    queue.copy_scores(score_rows(claim.lease_id, 0, [0]))
    queue.submit_score(claim.lease_id, 0, 1)
    db.accept_all()
    db.admin.execute("select mill.discard_task(%s, 'why')", (claim.task_id,))
    withdraw(db, "score")


def tag(db: Database) -> None:
    """A tagger's task, as far as there are embeddings."""
    queue, claim = leased_tagger(db)
    found = [n for n, _ in queue.embeddings(claim.lease_id, 0, 100)]
    if found:
        queue.copy_tags([(claim.lease_id, 0, 2, n, None, 0.5) for n in found])
        queue.submit_score(claim.lease_id, 0, 0, len(found))
    queue.complete(claim.lease_id)
    db.accept_all()


def leased_tagger(db: Database) -> tuple[ScoreQueue, Claim]:
    claim = db.claim("score", digest="t1")
    assert claim
    return db.queue("score")[0], claim


def embeddings_are_tagged_later(db: Database) -> None:
    the_line(db)
    db.add_tagger()  # its task is made by it
    tag(db)
    withdraw(db, "score")  # the tags
    tag(db)


def embeddings_of_tags_are_withdrawn(db: Database) -> None:
    db.add_model()
    db.add_tagger()
    batches(db, 1)
    db.download()
    db.score()  # without tags: a task is made for them
    tag(db)
    scores = db.value("select min(submission_id) from mill.score")
    db.admin.execute("select mill.withdraw(%s, 'why')", (scores,))
    tag(db)  # there is nothing to tag
    db.score()
    queue, claim = leased_tagger(db)
    queue.fail(claim.lease_id, "why", retry=False)
    for _ in range(2):
        scores = db.value("select max(submission_id) from mill.score")
        db.admin.execute("select mill.withdraw(%s, 'why')", (scores,))
        db.score()
        leased_tagger(db)


def a_model_is_retired_and_added_again(db: Database) -> None:
    model = db.add_model()
    batches(db, 1)
    db.download()
    assert db.rows("select * from mill.retire_model(%s)", model) == [(0, 1)]
    db.add_model()
    db.score()


def backfill(db: Database) -> None:
    db.admin.execute("select mill.backfill_model(max(model_id), 0, 100) from mill.model")


def a_model_comes_too_late(db: Database) -> None:
    the_line(db)
    db.add_model("late")
    backfill(db)
    db.download()
    db.score(digest="late")


def what_was_given_up_is_wanted_again(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    for _ in range(2):  # its thumbnails are still there
        queue, claim = leased(db, "score")
        queue.fail(claim.lease_id, "out of memory", retry=False)
        backfill(db)
    queue, claim = leased(db, "score")
    queue.fail(claim.lease_id, "out of memory", retry=False)
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    db.queue("steward")[0].maintain("empty_slots")
    backfill(db)


def scores_of_a_retired_model_are_withdrawn(db: Database) -> None:
    the_line(db)
    db.admin.execute("select mill.retire_model(model_id) from mill.model")
    withdraw(db, "score")


def tried_again(db: Database) -> None:
    batches(db, 1)
    db.download(Outcome.TIMEOUT)
    db.admin.execute("select mill.retry_outcomes(null, 0, 100, true)")


def parked(db: Database) -> None:
    db.add_model()
    batches(db, 3)
    _, claim = leased(db, "download")
    parks = (
        "select mill.park_task(task_id, 'why') from mill.task where state in ('ready', 'leased')"
    )
    db.admin.execute(parks)
    db.admin.execute("select mill.retry_task(%s)", (claim.task_id,))
    db.admin.execute(
        "select mill.discard_task(task_id, 'why') from mill.task where state = 'parked'"
    )
    db.download()
    db.admin.execute(parks)  # the scoring
    db.admin.execute("select mill.retire_model(model_id) from mill.model")


def parked_until_its_thumbnails_were_gone(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    db.admin.execute("select mill.park_task(task_id, 'why') from mill.task where kind = 'score'")
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    assert db.queue("steward")[0].maintain("empty_slots") == 1
    db.admin.execute("select mill.retry_task(task_id) from mill.task where kind = 'score'")


def wat_files_are_taken_back(db: Database) -> None:
    batches(db, 1)  # done
    for name in ("leased", "given back", "discarded", "parked", "new"):
        db.add_wat(name)
    queue, _ = leased(db, "extract")
    for retry in (True, False, True):
        queue, claim = leased(db, "extract")
        queue.fail(claim.lease_id, "why", retry=retry)
    db.admin.execute("select mill.park_task(%s, 'why')", (claim.task_id,))
    db.admin.execute("select mill.remove_wats(array_agg(wat_id), 'why') from mill.wat_file")
    assert (
        db.value("select count(*) from mill.task where kind = 'extract' and state <> 'done'") == 0
    )


def a_removal_is_taken_back(db: Database) -> None:
    batches(db, 1)
    removal.add(db.admin, ["b0.example"], "", False)
    claim = db.claim("download")
    assert claim
    db.queue("download")[0].complete(claim.lease_id)
    db.admin.execute("select mill.undo_removals(array_agg(removal_id), '') from mill.removal")


def a_pair_is_scored_after_its_removal(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    removal.add(db.admin, ["http://b0.example/0.jpg"], "", False)
    db.score()
    db.admin.execute("select mill.undo_removals(array_agg(removal_id), '') from mill.removal")
    backfill(db)
    db.score()


def discarded_until_its_thumbnails_were_gone(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.submit_download(claim.lease_id, 0, outcomes([0]))
    db.accept_all()
    queue.fail(claim.lease_id, "why", retry=False)
    assert db.queue("steward")[0].maintain("empty_slots") == 1
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "download"


def discarded_with_nothing_submitted(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.fail(claim.lease_id, "why", retry=False)
    db.queue("steward")[0].maintain("empty_slots")


def quarantined(db: Database) -> None:
    batches(db, 2)
    eve, first = leased(db, "download", "eve")
    eve.submit_download(first.lease_id, 0, outcomes([0]))
    db.accept_all()
    eve.submit_download(first.lease_id, 1, outcomes([1]))
    db.admin.execute("select mill.quarantine_worker('eve', null, 'lies')")
    db.admin.execute("select mill.disable_worker('eve')")
    db.admin.execute("select mill.enable_worker('eve')")


def restored(db: Database) -> None:
    batches(db, 1)
    leased(db, "download")
    db.admin.execute("select mill.restored()")


def checked(db: Database, *answers: str) -> None:
    """A batch is downloaded, and repeated twice if need be: so many say the same of it."""
    names = ["ada", "bob", "eve"]
    for name in names:
        db.queue("download", name)
    db.admin.execute("update mill.worker set streak = 0 where kind = 'download'")
    batches(db, 1, size=6)
    for name, answer in zip(names, answers, strict=False):
        queue, claim = leased(db, "download", name)
        positions = [n for n, _ in queue.urls(claim.lease_id)]
        said = [hashlib.sha256(f"{n} {answer}".encode()).digest() for n in positions]
        found = (
            outcomes(positions, Outcome.TIMEOUT)
            if answer == "timeout"
            else outcomes_of(positions, said)
        )
        queue.submit_download(claim.lease_id, 0, found)
        queue.complete(claim.lease_id)
        db.accept_all()
        db.queue("steward")[0].maintain("judge_replications")


def a_check_agrees(db: Database) -> None:
    checked(db, "a", "a")


def a_check_fails_by_two(db: Database) -> None:
    checked(db, "a", "b", "b")


def a_checker_is_wrong(db: Database) -> None:
    checked(db, "a", "b", "a")


def three_say_three_things(db: Database) -> None:
    checked(db, "a", "b", "c")


def a_check_tells_nothing(db: Database) -> None:
    checked(db, "a", "timeout")


def a_friend_is_replicated_again(db: Database) -> None:
    checked(db, "a", "a")
    db.admin.execute(
        "select mill.count_replication(worker_id, (select min(task_id) from mill.task where is_replica), 10, 0, false)"
        " from mill.worker where name = 'bob'"
    )


def gold_questions_fail(db: Database) -> None:
    db.admin.execute(
        "insert into mill.gold_question (url, by_admin)"
        " select 'http://c.example/' || i, true from generate_series(1, 5) i"
    )
    db.queue("download", "ada")
    db.admin.execute("update mill.worker set streak = 0 where kind = 'download'")
    batches(db, 1, size=100)
    queue, claim = leased(db, "download", "ada")
    given = [n for n, _ in queue.urls(claim.lease_id)]
    queue.submit_download(claim.lease_id, 0, outcomes(given))
    queue.complete(claim.lease_id)
    db.queue("steward")[0].maintain("judge_replications")


def dead_links_are_doubted(db: Database) -> None:
    batches(db, 1)
    db.download(Outcome.HTTP_ERROR)
    db.admin.execute("select mill.retry_doubted(0, 100)")


STORIES: list[Callable[[Database], None]] = [
    the_line, a_batch_fills_up, a_model_comes_later, handed_back, late_and_late_again, discarded_by_an_admin,
    the_ring_is_full, extractions_are_rejected, downloads_are_rejected, withdrawn,
    scores_of_a_discarded_task_are_withdrawn, embeddings_are_tagged_later,
    embeddings_of_tags_are_withdrawn, a_model_is_retired_and_added_again, a_model_comes_too_late,
    what_was_given_up_is_wanted_again, scores_of_a_retired_model_are_withdrawn, tried_again, discarded_until_its_thumbnails_were_gone,
    parked, parked_until_its_thumbnails_were_gone, wat_files_are_taken_back, a_removal_is_taken_back,
    a_pair_is_scored_after_its_removal,
    discarded_with_nothing_submitted, quarantined,
    restored, a_check_agrees, a_check_fails_by_two, a_checker_is_wrong, three_say_three_things,
    a_check_tells_nothing, a_friend_is_replicated_again, gold_questions_fail, dead_links_are_doubted,
]  # fmt: skip
