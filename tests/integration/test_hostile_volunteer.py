"""A volunteer's login, on a secured database, in the hands of somebody who means ill.

The table of what was tried is in tests/support/volunteer, a file a theme. docs/security.md shows the same
table; the last test compares them.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest

from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.steward.calls import StewardQueue
from pairmill.workers.steward.watchdog import Watchdog
from support.database import Database, new_database
from support.hostile_login import (
    Stage,
    on_stage,
    state_of,
)
from support.line import wait_until
from support.volunteer import CASES
from support.volunteer.statements import REFUSALS, lines


@pytest.fixture(scope="module")
def database(server: str) -> Iterator[Database]:
    with new_database(server) as db:
        yield db


@pytest.fixture
def stage(database: Database) -> Iterator[Stage]:
    """Each time as new, with other logins: a database of its own would cost five times as much."""
    with on_stage(database) as made:
        yield made


@pytest.fixture(scope="module")
def shared(server: str) -> Iterator[Stage]:
    """One database for all that is refused and changes nothing."""
    with new_database(server) as db:
        made = Stage(db)
        made.batches()
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize(
    ("group", "statement"), [(g, s) for g, r in REFUSALS.items() for s in lines(r)]
)
def test_statement_is_refused(shared: Stage, group: str, statement: str) -> None:
    if "{" in statement:
        statement = statement.format(**shared.names)
    assert state_of(shared.eve, statement) in REFUSALS[group].states.split()


def test_nothing_of_what_was_refused_left_a_trace(shared: Stage) -> None:
    assert shared.db.rows("select extname from pg_extension") == [("plpgsql",)]
    owned = "select from pg_{0} where {1}owner = (select oid from pg_roles where rolname = %s)"
    for catalog, prefix in (
        ("class", "rel"), ("proc", "pro"), ("type", "typ"), ("namespace", "nsp"), ("operator", "opr"),
    ):  # fmt: skip
        assert shared.db.rows(owned.format(catalog, prefix), shared.names["me"]) == []


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.attempt])
def test_attempt(stage: Stage, name: str) -> None:
    attempt = CASES[name].attempt
    assert attempt is not None
    attempt(stage)


def test_the_stewards_thread_ends_it_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no patience instead of the 15 seconds, else the real thing."""
    impatient = "select api.watchdog_v1(0, 600)"
    monkeypatch.setattr(StewardQueue, "watchdog", lambda self: self._one(impatient, ())[0])
    said: list[str] = []
    line = SimpleNamespace(say=said.append, metrics=Metrics("steward"))
    dsn = stage.db.login("steward", "watchful")
    watchdog = Watchdog(dsn, cast(Progress, line), every=0.1)
    try:
        stage.eve.execute("begin")
        stage.eve.execute("select 1")
        watchdog.start()
        wait_until(lambda: bool(said), "the watchdog")
        assert said[0] == "ended 1 sessions of workers with a transaction left open"
        with pytest.raises(psycopg.OperationalError):
            stage.eve.execute("select 1")
    finally:
        watchdog.stop()
        watchdog.join(30)


def test_a_watchdog_without_the_right_says_so_once(db: Database) -> None:
    said: list[str] = []
    line = SimpleNamespace(say=said.append, metrics=Metrics("steward"))
    watchdog = Watchdog(db.login("steward"), cast(Progress, line), every=0.02)
    watchdog.start()
    wait_until(lambda: bool(said), "the watchdog")
    watchdog.stop()
    watchdog.join(30)
    assert ["pairmill db secure" in words for words in said] == [True]


def test_the_page_shows_these_cases() -> None:
    CASES.check("What was tried")
