"""The admin's connection: to DATABASE_URL, or to the embedded server of PAIRMILL_HOME."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

from pairmill.ops.admin import migrate
from pairmill.ops.errors import UserError
from pairmill.ops.server.embedded import embedded
from pairmill.workers.session import NO_CONVERSION, encoding_sentence, open_session


def home() -> Path:
    """Folder of the embedded server and of local workers' logins; absolute."""
    return Path(os.environ.get("PAIRMILL_HOME", ".pairmill")).absolute()


@contextmanager
def admin_dsn() -> Iterator[str]:
    """The admin's DSN. Starts the embedded server if DATABASE_URL names no other, and stops it
    afterwards if nobody else uses it."""
    if url := os.environ.get("DATABASE_URL"):
        # SQLAlchemy's way of naming a driver means nothing to libpq
        yield url.replace("postgresql+psycopg://", "postgresql://", 1)
    else:
        with embedded(home()) as url:
            yield url


def connect(dsn: str) -> psycopg.Connection:
    """An autocommit session of SETTINGS. Raises UserError where there is none to be had."""
    try:
        return open_session(dsn, connect_timeout=10, application_name="pairmill")
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        _, found, encoding = said.partition(NO_CONVERSION)
        if found and encoding.split():
            database = conninfo_to_dict(dsn).get("dbname")
            raise UserError(encoding_sentence(str(database), encoding.split()[0])) from None
        raise UserError(f"cannot connect to the database: {said}") from None


@contextmanager
def admin(*, migrated: bool = True) -> Iterator[psycopg.Connection]:
    """An autocommit connection as the admin, to a database of exactly this code's schema."""
    with admin_dsn() as dsn, connect(dsn) as connection:
        if migrated:
            migrate.require_current(connection)
        yield connection


def rows(connection: psycopg.Connection, query: str, *arguments: Any) -> list[dict[str, Any]]:
    """The rows of a query, as dictionaries by column name."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, arguments).fetchall()
