"""docs/states.md is complete: every arrow of it happens, and no other."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes
from support.line import wait_until
from support.states import (
    RECORDED,
    arrows_of_the_page,
    batches,
    leased,
    newest_submission,
    walked,
)
from support.stories import STORIES
from support.template import Template


def test_every_arrow_of_the_page_happens_and_no_other(recorder: Template) -> None:
    page = arrows_of_the_page()
    assert Counter(a.machine for a in page).keys() == set(RECORDED.values())
    found = set()
    for story in STORIES:
        with recorder.copy() as db:
            story(db)
            found |= walked(db, page)
    assert sorted(page - found) == []


def test_a_strange_arrow_is_noticed(recorder: Template) -> None:
    page = arrows_of_the_page()
    with recorder.copy() as db:
        db.add_wat()
        db.admin.execute("update mill.task set state = 'done'")
        with pytest.raises(AssertionError, match="task: ready -> done by nobody"):
            walked(db, page)
    with recorder.copy() as db:
        db.add_wat()
        with pytest.raises(AssertionError, match=r"task: \(new\) -> ready by \['add_wat'\]"):
            walked(db, {a for a in page if a.function != "mill.add_wat"})


# ---- races that the machine does not run into ----------------------------------------------------

WAITING = "select count(*) > 0 from pg_locks where not granted"


def test_full_ring_lets_what_has_its_slot_go_on(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    batches(db, 9)
    # the oldest has had no slot yet, and waits, as those of retry_outcomes do
    db.admin.execute(
        "update mill.task set ready_at = now() + interval '1 hour'"
        " where task_id = (select min(task_id) from mill.task where kind = 'download')"
    )
    for claim in [leased(db, "download")[1] for _ in range(8)]:
        db.queue("download")[0].release(claim.lease_id)
    db.admin.execute("update mill.task set ready_at = now()")
    assert db.queue("steward")[0].maintain("empty_slots") == 0
    assert db.claim("download")


def test_quarantine_leaves_alone_what_another_claims_meanwhile(db: Database) -> None:
    batches(db, 2)
    (eve, first), (_, second) = leased(db, "download", "eve"), leased(db, "download", "eve")
    db.queue("download", "ada")
    with (
        psycopg.connect(db.dsn) as other,
        psycopg.connect(db.dsn, autocommit=True) as admin,
        ThreadPoolExecutor() as pool,
    ):
        other.execute("select from mill.task where task_id = %s for update", (first.task_id,))
        quarantine = pool.submit(
            lambda: admin.execute("select mill.quarantine_worker('eve', null, 'lies')")
        )
        wait_until(lambda: db.value(WAITING), "the quarantine to wait")
        eve.release(second.lease_id)
        _, claim = leased(db, "download", "ada")
        assert claim.task_id == second.task_id
        other.commit()
        quarantine.result()
    assert db.value("select state from mill.task where task_id = %s", claim.task_id) == "leased"
    # else this fails for everybody, for as long as ada has it
    leased(db, "download", "bob")


def test_thumbnails_of_what_awaits_acceptance_are_kept_or_fetched_again(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set discarded_hold_seconds = 0")
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.submit_download(claim.lease_id, 0, outcomes([0]))
    queue.fail(claim.lease_id, "why", retry=False)
    db.queue("steward")[0].maintain("empty_slots")
    db.admin.execute("select mill.retry_task(%s)", (claim.task_id,))
    db.accept_all()
    db.download()
    queue, claim = leased(db, "score")
    if len(queue.thumbnails(claim.lease_id, 0, 100)) < claim.payload["count"]:
        queue.fail(claim.lease_id, "fewer thumbnails than were promised", retry=False)
        assert (
            db.value("select mill.retry_task(%s)", claim.task_id) == "download"
        )  # and not score, for ever


def test_two_attempts_are_withdrawn_at_once(db: Database) -> None:
    withdrawal = "select mill.withdraw(%s, 'why')"
    batches(db, 1)
    db.download(Outcome.TIMEOUT)
    first = newest_submission(db, "download")
    db.admin.execute("select mill.retry_outcomes(null, 0, 100, true)")
    db.download(Outcome.TIMEOUT)
    second = newest_submission(db, "download")
    with (
        psycopg.connect(db.dsn) as one,
        psycopg.connect(db.dsn, autocommit=True) as other,
        ThreadPoolExecutor() as pool,
    ):
        one.execute(withdrawal, (first,))
        waiting = pool.submit(lambda: other.execute(withdrawal, (second,)))
        wait_until(lambda: waiting.done() or db.value(WAITING), "the other withdrawal to wait")
        one.commit()
        waiting.result()
