"""Bring a database to the schema of this code, and say how far it is from it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from pairmill import migrations
from pairmill.ops.errors import UserError
from pairmill.schema import routines
from pairmill.schema.scripts import sql
from pairmill.workers.session import open_session, wrong_encoding

# Alembic and SQLAlchemy are imported where they are needed: a volunteer's installation lacks them
if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import Script
    from sqlalchemy import Connection

Returned = TypeVar("Returned")
LOCK_SECONDS = 30
ATTEMPTS = 10
TOO_NEW = "this database is at revision {}, which is newer than this code: upgrade pairmill"


def config(connection: "Connection | None" = None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations.HERE))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, migrations.VERSIONS)))
    config.attributes["connection"] = connection
    return config


def scripts() -> "list[Script]":
    """The revisions that this code knows, oldest first."""
    from alembic.script import ScriptDirectory

    return list(ScriptDirectory.from_config(config()).walk_revisions())[::-1]


def current(connection: psycopg.Connection) -> str | None:
    """The revision of a database; None where it has never been migrated."""
    if connection.execute("select to_regclass('mill.migration')").fetchone() == (None,):
        return None
    row = connection.execute("select version_num from mill.migration").fetchone()
    return row[0] if row else None


def require_utf8(connection: psycopg.Connection) -> None:
    if wrong := wrong_encoding(connection):
        raise UserError(wrong)


def require_current(connection: psycopg.Connection) -> None:
    """Raise UserError unless a database has exactly this code's tables, functions and views, and
    the encoding UTF8."""
    require_utf8(connection)
    at, known = current(connection), migrations.revisions()
    if at is None:
        raise UserError("this database has no Pairmill schema yet: run `pairmill migrate`")
    if at not in known:
        raise UserError(TOO_NEW.format(at))
    if at != known[-1]:
        raise UserError(
            f"this database is at revision {at} and the code needs {known[-1]}:"
            " run `pairmill migrate`"
        )
    if not has_our_routines(connection):
        raise UserError(
            "this database has the functions and views of another version of pairmill:"
            " run `pairmill migrate`"
        )


def has_our_routines(connection: psycopg.Connection) -> bool:
    if connection.execute("select to_regprocedure('mill.version()')").fetchone() == (None,):
        return False
    return connection.execute("select mill.version()").fetchone() == (routines.version(),)


def upgrade(dsn: str, revision: str = "head") -> bool:
    """Make the schema in an empty database, or bring it to a revision; False if it was there.

    One transaction: tables change, functions and views are made anew around them, and workers
    that hold leases go on after it. Raises UserError, and changes nothing, where that cannot be.
    """
    return in_transaction(dsn, lambda connection: _upgrade(connection, revision))


def _upgrade(connection: "Connection", revision: str) -> bool:
    from alembic import command

    from pairmill.schema import create

    known = migrations.revisions()
    target = known[-1] if revision == "head" else revision
    if current(driver(connection)) is None:
        if target != known[-1]:
            raise UserError(f"an empty database is made at revision {known[-1]}, and no other")
        create.create(connection)
        command.stamp(config(connection), target)
        return True
    if _is_at(connection, target):
        return False
    lock_tables(connection)
    if _is_at(connection, target):  # by another migration, for which this one waited
        return False
    at = current(driver(connection))
    passed = [script for script in scripts() if str(at) < script.revision <= target]
    with routines_made_anew(connection, routines.script()):
        command.upgrade(config(connection), target)
    for script in passed:
        if post := getattr(script.module, "post", None):
            post(connection)
    return True


def _is_at(connection: "Connection", target: str) -> bool:
    """Whether a database has the tables of a revision or of a newer one, and our routines."""
    at = current(driver(connection))
    if at not in migrations.revisions():
        raise UserError(TOO_NEW.format(at))
    return at >= target and has_our_routines(driver(connection))


def step_down(connection: "Connection", step: "Script") -> None:
    """Undo one revision, at which the database is."""
    from alembic import command

    command.downgrade(config(connection), str(step.down_revision))


def in_transaction(
    dsn: str, work: "Callable[[Connection], Returned]", *, rehearsal: bool = False
) -> "Returned":
    """Work in one transaction, as the owner of the schema; rolled back where it is a rehearsal.

    Raises UserError for what fails in the database. Of two transactions that wait for each other
    PostgreSQL ends one: where that is ours it is begun again, as a worker's call would be.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    from pairmill.schema.create import prepare, run

    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: open_session(dsn, autocommit=False),
        poolclass=NullPool,
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with engine.connect() as connection, connection.begin() as transaction:
                require_utf8(driver(connection))
                run(connection, f"set local lock_timeout = '{LOCK_SECONDS}s'")
                prepare(connection)
                done = work(connection)
                if rehearsal:
                    transaction.rollback()
                return done
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, psycopg.errors.DeadlockDetected) and attempt < ATTEMPTS:
                continue
            said = " ".join(str(cause).split())
            if isinstance(cause, psycopg.errors.LockNotAvailable):
                said = f"a session kept a table locked for {LOCK_SECONDS} s, try again ({said})"
            raise UserError(f"the migration failed and changed nothing: {said}") from None
    raise AssertionError("the last attempt returns or raises")


def lock_tables(connection: "Connection") -> None:
    from pairmill.schema.create import run

    run(connection, migrations.script("lock_tables"))


@contextmanager
def routines_made_anew(connection: "Connection", script: str) -> "Iterator[None]":
    """Functions, views and triggers are gone within the block, and made by the script after it."""
    from pairmill.schema.create import run

    session = driver(connection)
    granted = session.execute(migrations.script("granted")).fetchall()
    run(connection, migrations.script("drop_routines"))
    yield
    run(connection, script)
    query = "select viewname from pg_views where schemaname = 'report'"
    views = {name for (name,) in session.execute(query)}
    for view, grant in granted:
        if view in views:
            session.execute(grant)


def driver(connection: "Connection") -> psycopg.Connection[Any]:
    """The psycopg connection below one of SQLAlchemy's."""
    found = connection.connection.driver_connection
    assert isinstance(found, psycopg.Connection)
    return found


def secure(connection: psycopg.Connection) -> bool:
    """Take from PUBLIC what no worker needs; False where this user is no superuser."""
    (superuser,) = connection.execute("select current_setting('is_superuser')").fetchone() or (
        "off",
    )
    if superuser != "on":
        return False
    connection.execute(sql("secure"))
    return True
