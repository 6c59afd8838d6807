"""The settings and the encoding on which results depend, whatever the environment, a role or a
database asks for."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pairmill.ops.admin import migrate
from pairmill.ops.admin.connection import connect
from pairmill.ops.errors import UserError
from pairmill.workers.errors import Refused
from pairmill.workers.queue import Queue
from pairmill.workers.session import SETTINGS, open_session
from support.database import Database, empty_database, say_migrated
from support.line import Line, sentence

OPTIONS = (
    "-c datestyle=German -c timezone=Asia/Kolkata -c intervalstyle=iso_8601 -c client_encoding=LATIN1"
    " -c standard_conforming_strings=off -c extra_float_digits=-3"
)
ENVIRONMENTS = [
    {},
    {"PGDATESTYLE": "German"},
    {"PGDATESTYLE": "SQL, DMY"},
    {"PGDATESTYLE": "Postgres, DMY"},
    {"PGTZ": "Asia/Kolkata"},
    {"PGCLIENTENCODING": "LATIN1"},
    {"PGCLIENTENCODING": "SQL_ASCII"},
    {"PGCLIENTENCODING": "SJIS"},
    {"PGOPTIONS": OPTIONS},
]
READ = (
    "select timestamptz '2026-03-01 12:00+01', date '2026-03-02', interval '1 day 02:00:01',"
    " 0.1::float8 + 0.2, 0.3::real, 'ü€漢', length('a\\nb')"
)
RIGHT = (
    datetime(2026, 3, 1, 11, tzinfo=UTC), datetime(2026, 3, 2).date(),
    timedelta(days=1, hours=2, seconds=1), 0.1 + 0.2, 0.3, "ü€漢", 4,
)  # fmt: skip


def check(dsn: str) -> None:
    with open_session(dsn) as connection:
        row = connection.execute(READ).fetchone()
        assert row == RIGHT
        assert row[0].utcoffset() == timedelta()
        names = ", ".join(f"current_setting('{name}')" for name in SETTINGS)
        assert connection.execute(f"select {names}").fetchone() == tuple(SETTINGS.values())


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=str)
def test_environment_changes_no_result(
    server: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    """Would catch: NotImplementedError for German dates, times of another zone, rounded floats."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    check(server)


def test_database_and_role_change_no_result(server: str) -> None:
    """Would catch: settings that are given as the session's defaults, which a role's overrule."""
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        asked = [part.split("=") for part in OPTIONS.removeprefix("-c ").split(" -c ")]
        for number, (name, value) in enumerate(asked):
            whose = f"{'database' if number % 2 else 'role pairmill_admin in database'}"
            admin.execute(f"alter {whose} {admin.info.dbname} set {name} = '{value}'")
        check(dsn)


def test_settings_outlive_a_transaction_that_fails(server: str) -> None:
    """Would catch: SET within the first transaction, which its rollback takes back."""
    with open_session(server, autocommit=False) as connection:
        connection.execute("set datestyle = German")
        with pytest.raises(psycopg.Error):
            connection.execute("no SQL")
        connection.rollback()
        assert connection.execute(READ).fetchone() == RIGHT


def test_commands_and_workers_under_a_hostile_environment(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a traceback of `PGDATESTYLE=German pairmill worker list`."""
    db.extract(["http://a.example/ü.jpg"])
    say_migrated(db.admin)
    login = db.login("download", "ada-€")
    line = Line(db.dsn, tmp_path)
    commands = [
        ("worker", "list"), ("task", "list"), ("status",), ("worker", "me", "--dsn", login),
        ("wat", "list"), ("doctor",),
    ]  # fmt: skip
    before = [json.loads(line.here(*command, "--json").stdout) for command in commands]
    monkeypatch.setenv("PGDATESTYLE", "German")
    monkeypatch.setenv("PGOPTIONS", OPTIONS)
    hostile = Line(db.dsn, tmp_path)
    for command, right in zip(commands, before, strict=True):
        done = hostile.here(*command, "--json")
        assert "Traceback" not in done.stderr
        found = json.loads(done.stdout)
        if command[0] != "status":  # which has the time in it
            assert found == right
    assert "ada-€" in hostile.here("worker", "list").stdout


@contextmanager
def encoded(server: str, encoding: str) -> Iterator[str]:
    with psycopg.connect(server, autocommit=True) as admin:
        name = f"test_{encoding.lower()}"
        admin.execute(f"drop database if exists {name}")
        admin.execute(f"create database {name} encoding '{encoding}' locale 'C' template template0")
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            admin.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "EUC_JP", "MULE_INTERNAL"])
def test_database_of_another_encoding_is_refused(
    server: str, tmp_path: Path, encoding: str
) -> None:
    """Would catch: a traceback, or tables in which half of the web's texts cannot be."""
    with encoded(server, encoding) as dsn:
        line = Line(dsn, tmp_path)
        name = f"test_{encoding.lower()}"
        right = (
            f"the database {name} has the encoding {encoding}, and Pairmill needs UTF8: make"
            f" another, by `create database {name}_utf8 encoding 'UTF8' locale 'C' template template0`"
        )
        for command in (("migrate",), ("status",), ("worker", "list")):
            assert sentence(line.run(*command)) == f"pairmill: {right}"
        doctor = line.run("doctor", "--json")
        assert doctor.returncode == 1
        if encoding == "MULE_INTERNAL":  # no session is to be had
            assert sentence(doctor) == f"pairmill: {right}"
        else:
            said = [f["text"] for f in json.loads(doctor.stdout) if f["ok"] is False]
            assert said == [right]
            with pytest.raises(Refused, match=f"has the encoding {encoding}"):
                Queue(dsn).me()
            with pytest.raises(UserError, match=f"has the encoding {encoding}"):
                migrate.upgrade(dsn)
            with connect(dsn) as connection:
                made = "select count(*) from pg_namespace where nspname in ('mill', 'api')"
                assert connection.execute(made).fetchone() == (0,)


def test_what_the_sentence_says_makes_a_database_that_is_taken(server: str) -> None:
    """Would catch: advice that PostgreSQL refuses, as for a name that is taken."""
    with encoded(server, "SQL_ASCII") as wrong, connect(wrong) as connection:
        with pytest.raises(UserError) as refused:
            migrate.require_utf8(connection)
        advice = str(refused.value).split("`")[1]
        try:
            connection.execute(advice)
            with connect(make_conninfo(server, dbname="test_sql_ascii_utf8")) as made:
                migrate.require_utf8(made)
        finally:
            connection.execute("drop database if exists test_sql_ascii_utf8")
