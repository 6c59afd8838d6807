"""What an admin does by the page: shown first, confirmed, done as the command does it, and logged."""

import json
from collections.abc import Iterator
from html import unescape

import psycopg
import pytest
from typer.testing import CliRunner

from pairmill.ops.admin import removal_requests
from pairmill.ops.cli import app as command_line
from pairmill.ops.errors import UserError
from pairmill.ops.web.console import act_on_tasks
from pairmill.ops.web.console.act import ACTIONS
from pairmill.ops.web.console.confirmations import SECONDS, Confirmations
from support.console import Person, hidden, logged_in, served
from support.database import Database, new_database, outcomes

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(12)]
Pair = tuple[Person, Person]
Still = tuple[Database, Person, Person]


@pytest.fixture
def people(db: Database) -> Iterator[Pair]:
    with served(db) as found:
        yield found


def states(db: Database) -> str:
    return " ".join(s for (s,) in db.rows("select state from mill.task order by task_id"))


def log(db: Database, subject: str) -> list[tuple[object, ...]]:
    return db.rows(
        "select actor, origin, action, outcome, affected from mill.audit"
        " where starts_with(action, %s) order by audit_id", subject + ".",
    )  # fmt: skip


def test_tasks_are_shown_confirmed_done_and_logged(db: Database, people: Pair) -> None:
    ada, vera = people
    for i in range(4):
        db.add_wat(f"{i}.wat")
    before = states(db)
    shown = ada.get("/act/task.park", state="ready")
    assert "4 tasks would be parked" in shown.text
    assert states(db) == before  # a rehearsal
    assert log(db, "task") == []
    done = ada.post("/act/task.park", hidden(shown) | {"why": "the disk is full"})
    assert "4 tasks parked" in done.text
    assert states(db) == "parked parked parked parked"
    assert db.value("select reason from mill.task where task_id = 1") == "the disk is full"
    assert "1 task would be queued again" in ada.get("/act/task.unpark", id="2").text
    assert "2 tasks queued again" in ada.act("task.retry", id="1,3").text
    assert "1 task discarded" in ada.act("task.discard", {"why": "broken"}, id="4").text
    assert states(db) == "ready parked ready discarded"
    assert log(db, "task") == [
        ("ada", "page", "task.park", "done", 4),
        ("ada", "page", "task.retry", "done", 2),
        ("ada", "page", "task.discard", "done", 1),
    ]
    # the failures' page has what the group's button needs
    page = vera.get("/failures").text
    assert "broken" in page
    assert "/act/" not in page
    assert 'name="alike" value="broken"' in ada.get("/failures").text
    assert "1 task queued again" in ada.act("task.retry", kind="extract", alike="broken").text


def test_no_more_than_a_thousand_at_a_time(
    db: Database, people: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a slip that discards a queue of a million."""
    ada, _ = people
    monkeypatch.setattr(act_on_tasks, "AT_ONCE", 3)
    for i in range(5):
        db.add_wat(f"{i}.wat")
    shown = ada.get("/act/task.discard", state="ready")
    assert "3 tasks would be discarded" in shown.text
    assert "5 tasks are chosen: 3 are done at a time" in shown.text
    ada.post("/act/task.discard", hidden(shown))
    assert states(db) == "discarded discarded discarded ready ready"
    assert "3 tasks would be queued" in ada.get("/act/task.retry", id="1 2 3 4 5").text


def test_a_changed_count_asks_again(db: Database, people: Pair) -> None:
    """Would catch: one more task than was confirmed that is discarded with the others."""
    ada, _ = people
    db.add_wat("1.wat")
    shown = ada.get("/act/task.discard", state="ready")
    db.add_wat("2.wat")
    again = ada.post("/act/task.discard", hidden(shown))
    assert "Look again" in again.text
    assert "2 tasks would be discarded" in again.text
    assert states(db) == "ready ready"
    assert log(db, "task") == [("ada", "page", "task.discard", "refused", None)]
    ada.post("/act/task.discard", hidden(again))
    assert states(db) == "discarded discarded"


@pytest.mark.parametrize(
    ("action", "form"),
    [
        ("task.discard", {"id": "1"}),  # of another task
        ("task.park", {}),  # another action
        ("task.discard", {"confirmation": ""}),
        ("task.discard", {"confirmation": "9" * 14 + ".x.y"}),
        ("task.discard", {"state": "leased"}),
    ],
)
def test_a_confirmation_is_good_for_what_was_shown(
    still: Still, action: str, form: dict[str, str]
) -> None:
    db, ada, _ = still
    db.add_wat("confirmed.wat")
    number = db.value("select max(task_id) from mill.task")
    shown = hidden(ada.get("/act/task.discard", id=str(number)))
    answer = ada.post(f"/act/{action}", shown | form)
    assert answer.status_code == 409
    assert "nothing was done" in answer.text
    assert "discarded" not in states(db)
    assert "parked" not in states(db)


def test_a_confirmation_and_a_result_are_one_sessions(db: Database, people: Pair) -> None:
    """Would catch: somebody else's confirmation, or result, by its address (IDOR)."""
    ada, vera = people
    db.add_wat("1.wat")
    begun = ada.ask("GET", "/act/task.discard", params={"id": "1"}).headers["location"]
    shown = hidden(ada.get(begun))
    other = logged_in(str(ada.http.base_url), db, "bob")
    assert other.get(begun).status_code == 404
    assert vera.get(begun).status_code == 403
    assert other.post("/act/task.discard", shown).status_code == 409
    assert vera.post("/act/task.discard", shown).status_code == 403
    assert states(db) == "ready"


def test_a_confirmation_is_over_after_ten_minutes() -> None:
    now = 1000.0
    made = Confirmations(lambda: now)
    token = made.token("session 1", "task.park", {"id": "1"}, "f")
    assert made.shown(token, "session 1", "task.park", {"id": "1"}) == "f"
    now += SECONDS + 1
    with pytest.raises(UserError, match="ten minutes"):
        made.shown(token, "session 1", "task.park", {"id": "1"})


def stock(db: Database) -> None:
    """A batch of twelve URLs, of which eve has handed some in."""
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    claim = db.claim("download", "eve")
    assert claim
    queue, _ = db.queue("download", "eve")
    queue.submit_download(claim.lease_id, 0, outcomes(range(5)))
    db.accept_all()


@pytest.fixture(scope="module")
def still(server: str) -> Iterator[Still]:
    """One such database, with an admin and a viewer, for all tests that need no fresh one."""
    with new_database(server) as database, served(database) as people:
        stock(database)
        yield database, *people


@pytest.fixture
def shop(db: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Such a database, on which the command works, too."""
    monkeypatch.setenv("DATABASE_URL", db.dsn)
    monkeypatch.setattr("pairmill.ops.admin.migrate.require_current", lambda connection: None)
    stock(db)
    return db


def command(*words: str) -> str:
    done = CliRunner().invoke(command_line, words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_a_quarantine_has_the_commands_numbers(shop: Database, people: Pair) -> None:
    ada, _ = people
    planned = command("worker", "quarantine", "eve", "--dry-run").strip()
    shown = ada.get("/act/worker.quarantine", name="eve")
    assert planned in unescape(shown.text)
    assert shop.value("select disabled_at is null from mill.worker where name = 'eve'")
    done = ada.post("/act/worker.quarantine", hidden(shown) | {"reason": "she lies"})
    assert planned.replace("would be ", "") in unescape(done.text)
    assert log(shop, "worker") == [("ada", "page", "worker.quarantine", "done", 5)]
    assert shop.value("select disabled_because from mill.worker where name = 'eve'") == "she lies"


def test_a_worker_that_goes_on_is_stopped_and_counted_once_more(
    shop: Database, people: Pair
) -> None:
    """Would catch: a worker that is never quarantined, since it hands something in each time."""
    ada, _ = people
    shown = ada.get("/act/worker.quarantine", name="eve")
    lease = shop.value("select lease_id from mill.lease where ended_at is null")
    shop.queue("download", "eve")[0].submit_download(lease, 1, outcomes([7, 8]))
    again = ada.post("/act/worker.quarantine", hidden(shown))
    assert "the worker is disabled, and nothing else was done" in again.text
    assert shop.value("select count(*) from mill.withdrawn") == 0
    done = ada.post("/act/worker.quarantine", hidden(again))
    assert "5 rows of 1 submissions withdrawn, 1 submissions rejected" in done.text


def test_workers_are_stopped_proven_and_noted(still: Still) -> None:
    shop, ada, _ = still
    shop.login("download", "bob", checked=True)
    assert "bob is proven" in ada.act("worker.prove", name="bob").text
    assert "so already" in ada.get("/act/worker.prove", name="bob").text
    assert "bob is not proven" in ada.act("worker.unprove", name="bob").text
    ada.act("worker.network", name="bob", network="home")
    assert "home" in ada.get("/worker", name="bob").text
    ada.act("worker.disable", {"reason": "too slow"}, name="bob")
    assert "too slow" in ada.get("/workers").text
    assert "may work again" in ada.act("worker.enable", name="bob").text
    assert "there is no worker" in ada.get("/act/worker.disable", name="nobody").text
    assert [entry[2] for entry in log(shop, "worker")] == [
        "worker.prove", "worker.unprove", "worker.network", "worker.disable", "worker.enable",
    ]  # fmt: skip


def test_failed_downloads_are_queued_again(still: Still) -> None:
    _, ada, _ = still
    assert "no such outcome" in ada.get("/act/urls.retry", outcome="nonsense").text
    assert "Would queue 0 URLs" in ada.get("/act/urls.retry", now="1").text


def test_a_request_is_approved_with_the_numbers_that_were_shown(
    shop: Database, people: Pair
) -> None:
    ada, vera = people
    noted = removal_requests.add(
        shop.admin, [URLS[0], "h1.example"], requester="me@x.example", evidence="it is my face"
    )
    number = str(noted["request_id"])
    assert "me@x.example" in ada.get(f"/requests/{number}").text
    for_viewer = vera.get(f"/requests/{number}").text
    assert "me@x.example" not in for_viewer
    assert "my face" not in for_viewer
    shown = ada.get("/act/request.approve", request=number)
    assert "name 2 known pairs" in shown.text
    assert shop.value("select count(*) from mill.removal") == 0
    # one more comes in before the button is pressed
    shop.extract(["http://h1.example/other.jpg"], location="b.wat.gz")
    again = ada.post("/act/request.approve", hidden(shown))
    assert "there are 3 known pairs now" in again.text
    assert shop.value("select count(*) from mill.removal") == 0  # taken back
    done = ada.post("/act/request.approve", hidden(again) | {"why": "granted"})
    assert f"Request {number} is approved" in done.text
    assert removal_requests.get(shop.admin, int(number))["why"] == "granted"
    assert shop.value("select count(distinct (batch_id, n)) from mill.removed_pair") == 3
    assert [entry[3:] for entry in log(shop, "request")] == [("refused", None), ("done", 3)]


def test_a_refusal_needs_words(still: Still) -> None:
    shop, ada, _ = still
    noted = removal_requests.add(shop.admin, [URLS[0]], requester="me@x.example")
    number = str(noted["request_id"])
    assert "a refusal needs" in ada.act("request.refuse", request=number).text
    ada.act("request.refuse", {"why": "not yours"}, request=number)
    assert removal_requests.get(shop.admin, int(number))["state"] == "refused"
    assert [entry[3] for entry in log(shop, "request")] == ["refused", "done"]


def test_models_and_sessions_end(still: Still) -> None:
    _, ada, vera = still
    assert "is retired" in ada.act("model.retire", model="model-d1").text
    ada.act("session.end", session="2")
    assert vera.get("/").status_code == 401


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_an_action_without_arguments_says_what_is_missing(still: Still, name: str) -> None:
    """Would catch: an action that takes nothing for everything, or fails with a traceback."""
    answer = still[1].get(f"/act/{name}")
    assert answer.status_code == (200 if name == "urls.retry" else 409)
    assert 'class="confirm"' not in answer.text


def test_commands_are_in_the_same_log_and_nobody_changes_it(shop: Database) -> None:
    command("worker", "prove", "eve")
    command("task", "park", "--all")
    command("task", "retry", "--all", "--dry-run")
    (entry, *others) = json.loads(command("web", "audit", "--action", "task", "--json"))
    assert others == []  # a rehearsal changes nothing, and is not noted
    assert (entry["action"], entry["outcome"], entry["origin"]) == ("task.park", "done", "command")
    assert "@" in entry["actor"]
    assert len(json.loads(command("web", "audit", "--json"))) == 2
    for change in (
        "update mill.audit_entry set actor = 'nobody'",
        "delete from mill.audit_entry",
        "truncate mill.audit_entry cascade",
    ):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            shop.admin.execute(change)


def test_what_failed_is_logged_as_well(shop: Database) -> None:
    """Would catch: an attempt that leaves no trace, since its transaction was rolled back."""
    done = CliRunner().invoke(command_line, ["worker", "prove", "nobody"])
    assert done.exit_code == 1
    assert [entry[2:4] for entry in log(shop, "worker")] == [("worker.prove", "refused")]
