"""Migrations: a database's revision, its upgrade to this code's schema, and its downgrade."""

from collections.abc import Callable
from importlib.resources import files
from typing import TYPE_CHECKING

import psycopg

from pairmill.ops.errors import UserError
from pairmill.schema.scripts import sql

# Alembic and SQLAlchemy are imported where they are needed: a volunteer's installation lacks them
if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

# The schemas before this one know no checks: a check's rows would count, and numbers that a lease
# with canaries was given would be taken for the batch's.
CHECKS = "0006"
TOO_NEW = "this database is at revision {}, which is newer than this code: upgrade pairmill"


def _config(connection: "Connection | None" = None) -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(files("pairmill.migrations")))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """The revisions that this code knows, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config())
    return [script.revision for script in reversed(list(scripts.walk_revisions()))]


def current(connection: psycopg.Connection) -> str | None:
    """The revision of a database; None where it has never been migrated."""
    if connection.execute("select to_regclass('mill.migration')").fetchone() == (None,):
        return None
    row = connection.execute("select version_num from mill.migration").fetchone()
    return row[0] if row else None


def require_current(connection: psycopg.Connection) -> None:
    """Raise UserError unless the database is exactly at this code's newest revision."""
    at, known = current(connection), revisions()
    if at is None:
        raise UserError("this database has no Pairmill schema yet: run `pairmill migrate`")
    if at not in known:
        raise UserError(TOO_NEW.format(at))
    if at != known[-1]:
        raise UserError(
            f"this database is at revision {at} and the code needs {known[-1]}:"
            " run `pairmill migrate`"
        )


def _migrate(dsn: str, step: Callable[["Config"], None]) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            step(_config(connection))
            connection.commit()
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        raise UserError(f"the migration failed and changed nothing: {said}") from None


def upgrade(dsn: str, revision: str = "head") -> None:
    from alembic import command

    _migrate(dsn, lambda config: command.upgrade(config, revision))


def downgrade(dsn: str, revision: str) -> None:
    """Go back to an earlier revision. Raises UserError, and changes nothing, while the
    database holds work that the earlier code would misread."""
    from alembic import command

    def step(config: "Config") -> None:
        if revision < CHECKS:
            _refuse_open_checks(config.attributes["connection"])
        command.downgrade(config, revision)

    _migrate(dsn, step)


def _refuse_open_checks(connection: "Connection") -> None:
    from sqlalchemy import text

    if connection.execute(text("select to_regclass('mill.assignment')")).scalar() is None:
        return
    # until the migration has its own locks: nobody claims or submits meanwhile
    connection.execute(text("lock table mill.lease, mill.submission in share row exclusive mode"))
    query = (files("pairmill.ops.admin") / "sql" / "open_checks.sql").read_text("utf-8")
    if connection.execute(text(query)).scalar():
        raise UserError(
            "workers hold leases with canaries, or a check awaits acceptance: stop the download"
            " workers, leave a steward on for a few minutes, and migrate again"
        )


def secure(connection: psycopg.Connection) -> bool:
    """Revoke the rights of PUBLIC that no worker needs; False unless this user is a superuser."""
    (superuser,) = connection.execute("select current_setting('is_superuser')").fetchone() or (
        "off",
    )
    if superuser != "on":
        return False
    connection.execute(sql("secure"))
    return True
