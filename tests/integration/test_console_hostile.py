"""The admin's page among hostile texts, odd parameters, and a database that is slow."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pairmill.ops.web.console.console_app import PAGES
from support.console import Person, console, logged_in
from support.database import Database, new_database
from support.hostile_text import HOSTILE, RAW, columns, disarm, plant
from support.pages import browsing

READ = [p for method, p, _, _ in PAGES if method == "GET" and "{" not in p and p != "/worker"]


@pytest.fixture(scope="module")
def ada(server: str) -> Iterator[tuple[Database, Person]]:
    """An admin at the page of a database in which every text is hostile."""
    with new_database(server) as db:
        app = console(db)
        with browsing(app) as client:
            url = str(client.base_url)
            for i in range(3):
                db.add_wat(f"{i}.wat")
            db.claim("extract", "eve")
            db.admin.execute("select mill.discard_task(2, 'x')")
            db.admin.execute("update mill.task set attempts = 1, reason = 'x' where task_id = 3")
            person = logged_in(url, db)
            disarm(db)
            for column in columns(db):
                kept = ("admin_session", "admin_link", "task_kind", "worker_kind")
                if not column["closed"] and column["name"] not in kept:
                    plant(db, column)
            db.admin.execute("update mill.admin_session set name = %s", (HOSTILE,))
            yield db, person


def check(page: str) -> None:
    """A hidden field has the text as it is, or it would name another worker; nobody sees it."""
    page = re.sub(r'<input type="hidden"[^>]*>', "", page)
    assert not (found := RAW.search(page.replace("\n", ""))), page[
        found.start() - 300 : found.end()
    ]
    assert "<script>alert" not in page
    assert "{0}" not in page or "&lt;script&gt;" in page


@pytest.mark.parametrize("path", READ)
def test_no_text_of_outside_is_markup_or_reorders_a_page(
    ada: tuple[Database, Person], path: str
) -> None:
    """Would catch: a cell without the filter that shows bidi controls as escapes, or an unescaped
    attribute."""
    page = ada[1].get(path)
    assert page.status_code == 200, page.text[-500:]
    check(page.text)


def test_a_worker_a_task_and_a_request_of_any_name_have_a_page(
    ada: tuple[Database, Person],
) -> None:
    db, person = ada
    name = db.value("select name from mill.worker limit 1")
    number = db.value("select request_id from mill.removal_request limit 1")
    for page in (
        person.get("/worker", name=name),
        person.get("/tasks/2"),
        person.get(f"/requests/{number}"),
        person.get("/act/worker.quarantine", name=name),
        person.get("/act/task.retry", id="2"),
    ):
        assert page.status_code in (200, 409), page.text[-500:]
        check(page.text)
    assert "&lt;script&gt;" in person.get("/worker", name=name).text


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tasks?kind=%00", 400),
        ("/tasks?kind=" + "x" * 10_001, 414),
        ("/tasks?batch=1.5", 400),
        ("/tasks?batch=" + "9" * 30, 400),
        ("/tasks?batch=%C2%B2", 400),
        ("/tasks?state=nonsense", 400),
        ("/tasks/" + "9" * 30, 404),
        ("/tasks/" + "9" * 5_000, 404),  # Python reads no number of more than 4,300 digits
        ("/tasks?batch=" + "0" * 30 + "9" * 5_000, 400),
        ("/act/urls.retry?batches=1-" + "9" * 5_000, 409),
        ("/act/worker.quarantine?name=x&since=9999-12-31T23:00-14:00", 409),
        ("/tasks/999", 404),
        ("/tasks/-1", 404),
        ("/requests/999999", 404),
        ("/worker?name=nobody", 404),
        ("/worker", 404),
        ("/checks?state=x", 400),
        ("/act/nonsense", 404),
        ("/act/task.retry?id=1;drop", 409),
        ("/act/task.retry?id=" + "9" * 30, 409),
        ("/act/task.retry?state=%27--", 409),
        ("/act/request.approve?request=x", 409),
        ("/act/worker.quarantine?name=nobody&since=yesterday", 409),
        ("/work/nothing", 404),
    ],
)
def test_odd_parameters_are_answered(ada: tuple[Database, Person], path: str, status: int) -> None:
    """Would catch: an error of the database's that becomes a fault of the program's."""
    assert ada[1].get(path).status_code == status


def test_a_moment_of_another_zone_is_shown_in_utc(ada: tuple[Database, Person]) -> None:
    """Would catch: a quarantine that is confirmed for hours other than those it takes back."""
    name = ada[0].value("select name from mill.worker limit 1")
    page = ada[1].get("/act/worker.quarantine", name=name, since="2026-11-27T12:00+05:00")
    assert "since 2026-11-27 07:00 UTC" in page.text


@contextmanager
def slow(server: str, milliseconds: int, locked: str) -> Iterator[Person]:
    """An admin whose page waits so long for its numbers, in vain for those of locked tables."""
    with new_database(server) as db:
        app = console(db)
        with browsing(app) as client:
            person = logged_in(str(client.base_url), db)
            with app.state.readings._pool.connection() as connection:  # the one that there is
                connection.execute(f"set statement_timeout = {milliseconds}")
            db.admin.execute("begin")
            db.admin.execute(f"lock table {locked} in access exclusive mode")
            yield person
            db.admin.execute("rollback")


def test_a_count_that_takes_too_long_is_said(server: str) -> None:
    """Would catch: a page that hangs, or fails as a whole, at 10^6 tasks."""
    with slow(server, 1, "mill.replication") as person:
        page = person.get("/checks")
        assert page.status_code == 200
        assert "Not up to date: the database takes longer than" in page.text


def test_numbers_that_are_not_known_pass_for_none(server: str) -> None:
    """Would catch: a second look that shows no requests, no tasks and no steward as if that were
    so, or fails, after counts that took too long."""
    with slow(server, 50, "mill.removal_request, mill.worker") as person:
        for _ in range(2):  # the second look is within ten seconds
            page = person.get("/")
            assert page.status_code == 200
            assert page.text.count("Not up to date: the database takes longer than") >= 2
            assert "No steward is at work" not in page.text
