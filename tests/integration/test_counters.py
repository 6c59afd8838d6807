"""The counters of the funnel against the rows that they stand for."""

import json
import threading

import psycopg
import pytest
from typer.testing import CliRunner

from pairmill.ops.admin.recount import sample
from pairmill.ops.cli import app
from support.counted import miscounted
from support.database import Database, say_migrated

WAITS = "select exists (select from pg_locks where not granted and pid <> pg_backend_pid())"


def test_an_acceptance_beside_a_withdrawal_counts_what_that_left(db: Database) -> None:
    """Without the batch's lock, the score would be counted of a download that is withdrawn."""
    db.add_model("d1")
    db.extract([f"https://a.example/{n}.jpg" for n in range(5)])
    db.close_batches()
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim is not None
    queue, _ = db.queue("score")
    queue.copy_scores([(claim.lease_id, 0, n, 0, 0.5, b"\0" * 8, b"\0" * 8, 5) for n in range(5)])
    queue.submit_score(claim.lease_id, 0, 5, 0)
    queue.complete(claim.lease_id)
    steward, _ = db.queue("steward")
    accepting = threading.Thread(target=steward.accept_next)
    with psycopg.connect(db.dsn) as admin:
        admin.execute(
            "select mill.withdraw(submission_id, '') from mill.submission"
            " join mill.task using (task_id) where kind = 'download'"
        )
        accepting.start()
        while accepting.is_alive() and not db.value(WAITS):
            pass
    accepting.join()
    assert miscounted(db) == {}
    assert db.rows("select outcome, pairs from report.pair_count") == [("waiting", 5)]
    assert db.rows("select * from report.score_count") == []


def test_sums_are_added_up_once_and_by_one_alone(db: Database) -> None:
    """One that finds another at it must leave the changes, or both would add them."""
    db.extract(["https://a.example/1.jpg"])
    with psycopg.connect(db.dsn) as other:
        other.execute("select mill.fold_counts()")
        db.admin.execute("select mill.fold_counts()")
        assert db.value("select count(*) from mill.funnel_change") == 1
    db.admin.execute("select mill.fold_counts()")
    assert db.value("select count(*) from mill.funnel_change") == 0
    assert db.rows("select * from report.pair_count") == [("en", "waiting", 1, "image")]


WRONG = (
    "update mill.batch_count set count[1] = count[1] + 7 where batch_id = 0 and attempt = 0",
    "update mill.funnel_count set count = count + 3",
    "update mill.done_count set count = 0",
    "update mill.credit set rows = 5",
)


def test_wrong_counters_are_found_and_mended(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["db", "recount", *words])
        return done.exit_code, done.output if done.exit_code == 0 or done.output else str(
            done.exception
        )

    monkeypatch.setenv("DATABASE_URL", db.dsn)
    say_migrated(db.admin)
    db.extract([f"https://a.example/{n}.jpg" for n in range(3)])
    db.admin.execute("select mill.fold_counts(), mill.fold_credit()")
    for change in WRONG:
        db.admin.execute(change)
    assert sample(db.admin).first_wrong == [0], "the doctor would not see it"
    code, said = run("--check")
    assert code == 1
    assert (
        "(0), 1 sum over all batches, 1 count of done tasks and the credit of 1 worker"
        in " ".join(said.split())
    )
    assert miscounted(db), "a check mends nothing"
    code, said = run("--json")
    assert code == 0
    assert json.loads(said)["first_wrong"] == [0]
    assert miscounted(db) == {}
    assert run("--check", "--batches", "0-0")[0] == 0
    assert "the first number comes first" in run("--batches", "9-3")[1]


def test_counters_of_a_batch_whose_rows_are_gone_stay(db: Database) -> None:
    """As of a partition that was archived and detached: a recount that took its counts would lose them."""
    db.extract(["https://a.example/1.jpg"])
    db.admin.execute("delete from mill.pair")
    assert db.rows("select * from mill.recount(0, 10)") == [(1, 0)]
    assert db.rows("select * from report.pair_count") == [("en", "waiting", 1, "image")]
