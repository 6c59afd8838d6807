"""Failed URLs are tried again as later tasks of their own."""

import json

import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(6)]


@pytest.fixture
def failed(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A batch of six: two succeeded, two timed out, two are not there."""
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    # the command wants a migrated database; this one was made directly
    monkeypatch.setattr("pairmill.ops.admin.migrate.require_current", lambda connection: None)
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes([0, 1]))
    queue.submit_download(claim.lease_id, 1, outcomes([2, 3], Outcome.TIMEOUT))
    queue.submit_download(claim.lease_id, 2, outcomes([4, 5], Outcome.HTTP_ERROR))
    queue.complete(claim.lease_id)
    db.accept_all()
    return db


def retry(*options: str) -> str:
    done = CliRunner().invoke(app, ["retry", *options])
    assert done.exit_code == 0, done.output
    return done.output


def queued(db: Database) -> list[tuple[object, ...]]:
    return db.rows(
        "select attempt, positions, ready_at > now() from mill.task where kind = 'download' and state = 'ready'"
    )


def test_what_a_retry_can_help_is_queued_for_later(failed: Database) -> None:
    would = retry("--dry-run")
    assert would.startswith("would queue 2 URLs of 1 batches again: timeout 2; from 20")
    assert would.endswith(" on, after their back-off (--now: at once)\n")
    assert queued(failed) == []
    assert retry() == would.replace("would queue", "queued")
    assert queued(failed) == [(2, [2, 3], True)]
    again = retry()
    assert again.startswith("queued 0 URLs of 0 batches again\n1 batches left out")


def test_a_rehearsal_tells_what_each_option_changes(failed: Database) -> None:
    """One sentence for all of them would let an admin believe in a back-off that --now leaves out."""
    said = {
        options: retry("--dry-run", *options).partition("again")[2].strip()
        for options in ((), ("--now",), ("--doubted",), ("--outcome", "http_error", "--now"))
    }
    assert len(set(said.values())) == 4
    assert said["--now",] == ": timeout 2; at once"
    assert said["--doubted",].endswith("for workers of another, at once")
    assert " of those numbered 0-9 again" in retry("--dry-run", "--batches", "0-9")


def test_a_retry_replaces_the_outcome_and_ends(failed: Database) -> None:
    for attempt in (2, 3):
        told = json.loads(retry("--now", "--json"))
        assert (told["batches"], told["urls"], told["busy"], told["dry_run"]) == (1, 2, 0, False)
        assert told["outcomes"] == {"timeout": 2}
        assert queued(failed) == [(attempt, [2, 3], False)]
        failed.download(Outcome.TIMEOUT if attempt == 2 else Outcome.SUCCESS)
    assert dict(failed.rows("select outcome, pairs from report.pair_count")) == {
        "success": 4,
        "http_error": 2,
    }
    assert retry("--now") == "queued 0 URLs of 0 batches again\n"
    for _ in range(2):  # of both attempts that gave images
        failed.score()
    assert dict(failed.rows("select outcome, pairs from report.score_count")) == {"scored": 4}


def test_attempts_are_the_urls_own_and_removed_ones_are_left_alone(failed: Database) -> None:
    retry("--now", "--outcome", "http_error")  # attempt 2, of others
    failed.download(Outcome.HTTP_ERROR)
    retry("--now", "--outcome", "timeout")  # attempt 3
    failed.download(Outcome.TIMEOUT)
    assert retry("--now", "--dry-run").startswith("would queue 2 URLs")  # tried twice
    failed.admin.execute(
        "with r as (insert into mill.removal (source, md5, reason)"
        " select 'x', url_key, 'asked' from mill.pair where n = 2 returning removal_id)"
        " insert into mill.removed_pair (batch_id, n, removal_id)"
        " select batch_id, n, removal_id from r, mill.pair where n = 2"
    )
    assert retry("--now", "--dry-run").startswith("would queue 1 URLs")


def test_no_url_is_tried_more_often_than_the_setting_says(failed: Database) -> None:
    for _ in range(2):
        retry("--now")
        failed.download(Outcome.TIMEOUT)
    assert retry("--now") == (
        "queued 0 URLs of 0 batches again\n"
        "2 URLs left out: they had mill.setting.url_attempts attempts\n"
    )
    failed.admin.execute("update mill.setting set url_attempts = 4")
    assert retry("--now") == "queued 2 URLs of 1 batches again: timeout 2; at once\n"


def test_outcomes_and_batches_may_be_named(failed: Database) -> None:
    assert retry("--outcome", "http_error", "--batches", "7-9", "--now").startswith("queued 0 URLs")
    batch = failed.value("select batch_id from mill.batch where pair_count > 0")
    assert retry("--outcome", "http_error", "--batches", str(batch), "--now").startswith(
        "queued 2 URLs"
    )
    assert queued(failed) == [(2, [4, 5], False)]


def test_what_is_wrong_is_said(failed: Database) -> None:
    for options, sentence in (
        (("--outcome", "nonsense"), "no such outcome: nonsense"),
        (("--outcome", "success"), "success is no failure"),
        (("--outcome", "success"), "pairmill model backfill"),
        (("--batches", "x"), "--batches is FIRST-LAST"),
        (("--batches", "9-7"), "the first is above the last"),
        (("--batches", "9" * 30), "no batch has such a number"),
        (("--doubted", "--now"), "--doubted chooses by itself"),
    ):
        done = CliRunner().invoke(app, ["retry", *options])
        assert sentence in str(done.exception)
    listed = retry("--outcome", "list")
    assert "timeout              a retry can help\n" in listed
    assert "http_error\n" in listed
    assert "success              no failure, never retried: `pairmill model backfill" in listed
