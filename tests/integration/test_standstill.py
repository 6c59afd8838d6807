"""`status` names what stands still, and why."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from pairmill.ops.admin import standstill
from pairmill.ops.cli import app
from pairmill.schema.outcomes import Outcome
from support.database import Database, pair_rows, say_migrated
from support.states import batches, leased

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]


def waits(db: Database) -> list[tuple[str, str, str | None, str, int]]:
    return db.rows(
        "select kind, purpose, model, waits_for, tasks from report.waiting order by 1, 2, 3"
    )


def nobody_is_there(db: Database) -> None:
    batches(db, 1)
    db.admin.execute("update mill.instance set last_seen_at = now() - interval '11 minutes'")


def somebody_asked(db: Database) -> None:
    batches(db, 2)
    assert db.claim("download")


def its_worker_was_disabled(db: Database) -> None:
    somebody_asked(db)
    db.admin.execute("select mill.disable_worker(name) from mill.worker where kind = 'download'")
    db.admin.execute("update mill.task set state = 'discarded' where state = 'leased'")


def it_failed(db: Database) -> None:
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.fail(claim.lease_id, "no network", retry=True)


def nobody_has_the_model(db: Database) -> None:
    batches(db, 1)
    db.add_model("other")
    db.add_model("d1")
    db.download()
    assert db.claim("score", digest="other")


def its_scorer_is_at_work(db: Database) -> None:
    """A scorer that is busy asks for nothing for minutes: it is there all the same."""
    db.add_model("d1")
    batches(db, 2)
    db.download()
    db.download()
    assert db.claim("score", digest="d1")
    db.admin.execute("update mill.presence set asked_at = now() - interval '1 hour'")


def its_own_worker_may_not_check(db: Database) -> None:
    db.queue("download")
    db.admin.execute("update mill.worker set streak = 0 where kind = 'download'")
    batches(db, 1, size=6)
    db.download()


def a_stranger_may_check(db: Database) -> None:
    its_own_worker_may_not_check(db)
    db.queue("download", "stranger")


def only_its_network_is_there(db: Database) -> None:
    batches(db, 1)
    db.download(Outcome.HTTP_ERROR)
    db.admin.execute("update mill.worker set network = 'home'")
    db.admin.execute("select mill.retry_doubted(0, 100)")


def failed_urls_are_tried_again(db: Database) -> None:
    batches(db, 1)
    db.download(Outcome.TIMEOUT)
    db.admin.execute("select mill.retry_outcomes(null, 0, 100, true)")


def the_ring_is_full(db: Database) -> None:
    db.add_model("d1")
    batches(db, 1)
    db.queue("download")
    db.admin.execute("update mill.thumbnail_slot set state = 'full'")


def a_kind_of_an_older_version(db: Database) -> None:
    db.admin.execute(
        "insert into mill.task_kind select 'caption', subject, needs_model, '{}', false, false, false, null, null, worker_kind"
        " from mill.task_kind where name = 'extract'"
    )
    db.add_wat()
    db.admin.execute("update mill.task set kind = 'caption'")


NO_MODEL = None
SITUATIONS: list[tuple[Callable[[Database], None], list[tuple[str, str, str | None, str, int]]]] = [
    (nobody_is_there, [("download", "work", NO_MODEL, "a worker", 1)]),
    (somebody_asked, [("download", "work", NO_MODEL, "its turn", 1)]),
    (its_worker_was_disabled, [("download", "work", NO_MODEL, "a worker", 1)]),
    (it_failed, [("download", "work", NO_MODEL, "its back-off", 1)]),
    (nobody_has_the_model, [("score", "work", "model-d1", "a worker with its model", 1)]),
    (its_scorer_is_at_work, [("score", "work", "model-d1", "its turn", 1)]),
    (its_own_worker_may_not_check, [("download", "check", NO_MODEL, "another worker or network", 1)]),
    (a_stranger_may_check, [("download", "check", NO_MODEL, "its turn", 1)]),
    (only_its_network_is_there, [("download", "retry", NO_MODEL, "another worker or network", 1)]),
    (failed_urls_are_tried_again, [("download", "retry", NO_MODEL, "its turn", 1)]),
    (the_ring_is_full, [("download", "work", NO_MODEL, "scoring: the ring is full", 1)]),
    (a_kind_of_an_older_version, [("caption", "work", NO_MODEL, "a version that knows its kind", 1)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("situation", "expected"), SITUATIONS, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_ready_task_says_what_it_waits_for(
    db: Database, situation: Callable[[Database], None], expected: list[tuple[Any, ...]]
) -> None:
    """Each reason why no worker claims it; without, an admin waits for what never comes."""
    situation(db)
    assert waits(db) == expected
    (line,) = standstill.waiting(standstill.gather(as_admin(db))["waiting"]) or [""]
    plain = expected[0][1] == "work" and expected[0][3] == "its turn"
    assert (expected[0][3] in line) is not plain
    with db.admin.transaction(
        force_rollback=True
    ):  # a researcher has no right to what the views call
        db.admin.execute(f'set local role "{db.group("researcher")}"')
        assert waits(db) == expected


def as_admin(db: Database) -> Any:
    return db.admin


def status(db: Database, monkeypatch: pytest.MonkeyPatch, *options: str) -> str:
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    if not db.value("select to_regclass('mill.migration')"):
        say_migrated(db.admin)
    done = CliRunner().invoke(app, ["status", *options], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.exception
    return done.output


def test_a_file_that_fails_holds_no_batch_up(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failing WAT files once kept 40,000 pairs of others from the downloads for hours."""
    db.admin.execute("update mill.setting set max_attempts = 9")
    db.extract(URLS, "good.wat.gz")
    for name in ("bad.wat.gz", "slow.wat.gz"):
        db.add_wat(name)
    told = json.loads(status(db, monkeypatch, "--json"))["open_batches"]
    assert (told["batches"] > 0, told["pairs"], told["awaited_files"], told["awaited_wat_ids"]) == (
        True,
        6,
        2,
        [2, 3],
    )
    page = status(db, monkeypatch)
    assert "with 6 pairs since" in page and "more may come of 2 WAT files (2, 3);" in page
    assert db.close_batches() == 0  # they may bring more
    queue, bad = leased(db, "extract")
    queue.fail(bad.lease_id, "it is cut off", retry=True)  # in its back-off
    _, slow = leased(db, "extract")
    assert slow.payload["location"] == "slow.wat.gz"
    assert db.close_batches() == 0
    queue.fail(slow.lease_id, "it is slow", retry=True)
    assert db.close_batches() == told["batches"]
    assert waits(db)[-1] == ("extract", "work", None, "its back-off", 2)


HOLDS: list[tuple[str, str]] = [
    ("is in work again", "update mill.task set attempts = 1"),
    ("was lost in an outage", "update mill.task set excused = 1"),
    ("makes no progress", "update mill.batch set dealt_at = now() - interval '16 minutes'"),
    ("comes and goes for ever", "update mill.batch set opened_at = now() - interval '7 hours'"),
]


@pytest.mark.parametrize(
    ("file", "update"), HOLDS, ids=[name.replace(" ", "-") for name, _ in HOLDS]
)
def test_a_file_holds_no_batch_up_that(db: Database, file: str, update: str) -> None:
    db.extract(URLS, "good.wat.gz")
    db.add_wat("bad.wat.gz")
    leased(db, "extract")
    assert db.close_batches() == 0
    where = " where state = 'leased'" if "mill.task" in update else ""
    db.admin.execute(update + where)
    assert db.close_batches() > 0


def test_a_rejected_extraction_holds_no_batch_up(db: Database) -> None:
    db.extract(URLS, "good.wat.gz")
    db.admin.execute("alter table mill.pair add constraint odd check (url not like '%odd%')")
    db.add_wat("odd.wat.gz")
    queue, claim = leased(db, "extract")
    queue.copy_pairs(pair_rows(claim.lease_id, ["http://odd.example/1.jpg"]))
    queue.submit_extract(claim.lease_id, 1, [("image", "links", "", 1), ("", "records", "", 1)])
    assert db.close_batches() == 0  # it awaits acceptance
    assert [a[3] is not None for a in db.accept_all()] == [True]
    assert db.close_batches() > 0


def test_the_page_groups_what_was_given_up_and_names_who_works(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        db.add_wat(f"{name}.wat.gz")
    for number in range(2):
        queue, claim = leased(db, "extract")
        queue.fail(claim.lease_id, f"record {number + 7} of 9 is cut off", retry=False)
    leased(db, "extract")
    db.add_wat("d.wat.gz")
    db.admin.execute("select mill.park_task(max(task_id), 'until Monday') from mill.task")
    db.login("download", "idle")
    told = json.loads(status(db, monkeypatch, "--json"))
    assert [(d["kind"], d["reason"], d["tasks"], d["task_ids"]) for d in told["discarded"]] == [
        ("extract", "record 7 of 9 is cut off", 2, [1, 2])
    ]
    assert {(t["kind"], t["purpose"], t["state"], t["tasks"]) for t in told["live_tasks"]} == {
        ("extract", "work", "discarded", 2), ("extract", "work", "leased", 1), ("extract", "work", "parked", 1),
    }  # fmt: skip
    workers = {w["name"]: w for w in told["workers"]}
    assert workers["extract-1"]["holds"] == ["extract of WAT file 3"]
    assert workers["extract-1"]["version"]
    assert (workers["idle"]["last_seen_at"], workers["idle"]["is_here"]) == (None, None)
    assert [(p["reason"], p["task_ids"]) for p in told["parked"]] == [("until Monday", [4])]
    page = status(db, monkeypatch)
    assert "parked: 1 extract: until Monday (task 4)" in page
    assert "discarded: 2 extract: record 7 of 9 is cut off (tasks 1, 2)" in page
    assert "workers: 1 of 2 seen in the last 10 minutes" in page
    assert re.search(r"^idle +download +never", page, re.M)


def test_presence_is_written_once_a_minute_and_leaves_nothing_to_vacuum(db: Database) -> None:
    """An idle scorer asks every few seconds: 1,000 of them would make a million dead rows an hour."""
    db.add_model("d1")
    asked = "select ctid, asked_at from mill.presence"
    assert db.claim("score", digest="d1") is None
    first = db.rows(asked)
    for _ in range(5):
        db.claim("score", digest="d1")
    assert db.rows(asked) == first
    for _ in range(300):  # five hours of it: 14 kB of versions, were they not HOT
        db.admin.execute("update mill.presence set asked_at = now() - interval '2 minutes'")
        db.admin.execute("select mill.note_presence(worker_id, model_id) from mill.presence")
    assert db.value("select pg_relation_size('mill.presence')") == 8192
    assert db.value("select asked_at > now() - interval '1 minute' from mill.presence")
