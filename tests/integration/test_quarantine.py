"""Taking a worker's contributions back, new passwords, and the state after a restore."""

import json
from datetime import datetime

import psycopg
import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import DownloadQueue
from pairmill.workers.errors import LeaseLost, Refused
from pairmill.workers.queue import Claim, Queue
from support.database import Database, outcomes

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(12)]


@pytest.fixture
def shop(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Two batches of twelve URLs; the command works on this database."""
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    # the command wants a migrated database; this one was made directly
    monkeypatch.setattr("pairmill.ops.admin.migrate.require_current", lambda connection: None)
    db.add_model()
    for number in range(2):
        urls = [url.replace("example", f"s{number}.example") for url in URLS]
        db.extract(urls, location=f"{number}.wat.gz")
        db.close_batches()
    return db


def leased(db: Database, name: str) -> tuple[DownloadQueue, Claim]:
    claim = db.claim("download", name)
    assert claim
    return db.queue("download", name)[0], claim


def command(*words: str) -> str:
    done = CliRunner().invoke(app, ["worker", *words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def counts(db: Database) -> dict[str, int]:
    return dict(db.rows("select outcome, sum(pairs)::int from report.pair_count group by 1"))


def do_everything(db: Database, name: str, outcome: Outcome) -> int:
    """Claim and finish all downloads that are ready; returns how many tasks there were."""
    tasks = 0
    while claim := db.claim("download", name):
        queue, _ = db.queue("download", name)
        positions = [n for n, _ in queue.urls(claim.lease_id)]
        queue.submit_download(claim.lease_id, 0, outcomes(positions, outcome))
        queue.complete(claim.lease_id)
        db.accept_all()
        tasks += 1
    return tasks


def test_everything_is_taken_back_and_done_again_by_another(shop: Database) -> None:
    # eve has finished one batch, in three parts; of the other she has submitted a part and holds it
    eve, first = leased(shop, "eve")
    for part in range(3):
        eve.submit_download(first.lease_id, part, outcomes(range(4 * part, 4 * part + 4)))
    eve.complete(first.lease_id)
    shop.accept_all()
    eve, second = leased(shop, "eve")
    eve.submit_download(second.lease_id, 0, outcomes([0, 1]))
    shop.accept_all()
    eve.submit_download(second.lease_id, 1, outcomes([2, 3], Outcome.TIMEOUT))

    planned = command("quarantine", "eve", "--dry-run")
    assert planned == (
        "eve: 14 rows of 4 submissions would be withdrawn, 1 submissions would be rejected,"
        " 1 leases would be ended; 2 tasks would be queued again\n"
    )
    assert counts(shop) == {"success": 14, "waiting": 10}
    eve.heartbeat(second.lease_id)  # a rehearsal ends nothing

    found = json.loads(command("quarantine", "eve", "--yes", "--json", "--reason", "lies"))
    assert found == {"leases": 1, "rejected": 1, "withdrawn": 4, "rows": 14, "tasks": 2}
    assert counts(shop) == {"waiting": 24}
    with pytest.raises(Refused, match=r"eve was disabled by an admin on .*: lies; ask the admin"):
        eve.urls(second.lease_id)
    assert shop.value("select disabled_at is not null from mill.worker where name = 'eve'")

    assert do_everything(shop, "ada", Outcome.SUCCESS) == 3  # one a batch, and what was never done
    assert counts(shop) == {"success": 24}
    credit = dict(
        shop.rows("select name, rows_accepted from report.worker where kind = 'download'")
    )
    assert credit == {"eve": 0, "ada": 24}
    again = json.loads(command("quarantine", "eve", "--yes", "--json"))
    assert again == {"leases": 0, "rejected": 0, "withdrawn": 0, "rows": 0, "tasks": 0}


def test_only_what_came_in_since_then(shop: Database) -> None:
    do = do_everything(shop, "eve", Outcome.HTTP_ERROR)
    assert do == 2
    shop.admin.execute(
        "update mill.submission set received_at = now() - interval '2 days'"
        " where submission_id = (select min(submission_id) from mill.submission s join mill.task using (task_id) where kind = 'download')"
    )
    yesterday = datetime.now().strftime("%Y-%m-%d")
    found = json.loads(command("quarantine", "eve", "--since", yesterday, "--yes", "--json"))
    assert (found["withdrawn"], found["rows"], found["tasks"]) == (1, 12, 1)
    assert counts(shop) == {"http_error": 12, "waiting": 12}


def test_what_others_have_done_since_is_not_done_again(shop: Database) -> None:
    do_everything(shop, "eve", Outcome.TIMEOUT)
    shop.admin.execute("select * from mill.retry_outcomes(null, 0, 100, true)")
    do_everything(shop, "ada", Outcome.SUCCESS)
    found = json.loads(command("quarantine", "eve", "--yes", "--json"))
    assert (found["withdrawn"], found["tasks"]) == (2, 0)
    assert counts(shop) == {"success": 24}


def test_extractions_and_scores_are_taken_back_too(shop: Database) -> None:
    do_everything(shop, "ada", Outcome.SUCCESS)
    shop.score()
    assert shop.value("select count(*) from report.score") == 12
    scorer, extractor = (
        shop.value("select name from mill.worker where kind = %s", kind)
        for kind in ("score", "extract")
    )
    found = json.loads(command("quarantine", scorer, "--yes", "--json"))
    assert (found["withdrawn"], found["tasks"]) == (1, 1)
    assert shop.value("select count(*) from report.score") == 0
    found = json.loads(command("quarantine", extractor, "--yes", "--json"))
    assert found["tasks"] == 2
    assert shop.value("select count(*) from report.pair") == 0


def test_nothing_is_done_without_a_yes(shop: Database) -> None:
    do_everything(shop, "eve", Outcome.SUCCESS)
    asked = CliRunner().invoke(app, ["worker", "quarantine", "eve"])
    assert asked.exit_code == 1
    assert "nothing was done" in str(asked.exception)
    assert counts(shop) == {"success": 24}
    unknown = CliRunner().invoke(app, ["worker", "quarantine", "nobody", "--yes"])
    assert "there is no worker 'nobody'" in str(unknown.exception)


def test_new_password_ends_the_old_one_and_keeps_the_lease(shop: Database) -> None:
    eve, claim = leased(shop, "eve")
    old = eve._dsn
    new = command("rotate", "eve").splitlines()[0]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(old)
    queue = Queue(new)
    assert queue.heartbeat(claim.lease_id) > 0
    queue.close()
    unknown = CliRunner().invoke(app, ["worker", "rotate", "nobody"])
    assert "there is no worker 'nobody'" in str(unknown.exception)


def test_after_a_restore_no_lease_from_before_is_held_or_given_again(shop: Database) -> None:
    queue, claim = leased(shop, "ada")
    before = shop.value("select epoch from mill.setting")
    # the backup is older than the sequence: a number could come again
    shop.admin.execute("select setval('mill.lease_number', 1, false)")
    done = CliRunner().invoke(app, ["db", "restored"])
    assert done.output == f"epoch {before + 1}; 1 leased tasks returned to the queue\n"
    with pytest.raises(LeaseLost):
        queue.heartbeat(claim.lease_id)
    with pytest.raises(LeaseLost):
        queue.submit_download(claim.lease_id, 0, outcomes([0]))
    again = shop.claim("download", "ada")
    assert again
    assert again.lease_id >> 40 == before + 1
    assert again.task_id == claim.task_id
