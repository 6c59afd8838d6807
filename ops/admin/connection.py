"""The admin's connection: to DATABASE_URL, or to the embedded server of PAIRMILL_HOME."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pairmill.ops.admin import migrate
from pairmill.ops.errors import UserError
from pairmill.ops.server.embedded import EmbeddedServer, embedded
from pairmill.workers.dsn import WORKER_DSN, checked_admins
from pairmill.workers.session import NO_CONVERSION, encoding_sentence, open_session
from pairmill.workers.trouble import trouble_of

NO_DATABASE = (
    "there is no database: an admin sets DATABASE_URL, or makes one in this folder with `pairmill"
    " migrate`; a worker's DSN is for `pairmill work` and `pairmill worker me`, in"
    f" {WORKER_DSN} or after --dsn"
)
NO_ADMIN = (
    "the login {} of DATABASE_URL has no admin's rights on this database: name a superuser or a"
    f" member of the database's owner; a worker's DSN goes into {WORKER_DSN} or after --dsn"
)


def home() -> Path:
    """Folder of the embedded server and of local workers' logins; absolute."""
    return Path(os.environ.get("PAIRMILL_HOME", ".pairmill")).absolute()


def has_database() -> bool:
    """Whether an admin's database is named or is there: asking makes none."""
    return bool(os.environ.get("DATABASE_URL")) or EmbeddedServer(home()).is_made()


@contextmanager
def admin_dsn(*, make: bool = False) -> Iterator[str]:
    """The admin's DSN. Starts the embedded server if DATABASE_URL names no other, and stops it
    afterwards if nobody else uses it.

    make: whether a first embedded server may be made; else UserError where there is none.
    """
    if url := os.environ.get("DATABASE_URL"):
        yield checked_admins(url)
    elif make or has_database():
        with embedded(home()) as url:
            yield url
    else:
        raise UserError(NO_DATABASE)


def connect(dsn: str) -> psycopg.Connection:
    """An autocommit session of SETTINGS. dsn: DATABASE_URL's, checked, or the embedded server's.
    Raises UserError where there is none to be had."""
    try:
        return open_session(dsn, connect_timeout=10, application_name="pairmill")
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        _, found, encoding = said.partition(NO_CONVERSION)
        if found and encoding.split():
            database = conninfo_to_dict(dsn).get("dbname")
            raise UserError(encoding_sentence(str(database), encoding.split()[0])) from None
        why = trouble_of(error, dsn, admin=True).sentence
        raise UserError(f"cannot connect to the database: {why}") from None


@contextmanager
def admin(*, migrated: bool = True) -> Iterator[psycopg.Connection]:
    """An autocommit connection as the admin, to a database of exactly this code's schema."""
    with admin_dsn() as dsn, connect(dsn) as connection:
        if migrated:
            try:
                migrate.require_current(connection)
            except psycopg.errors.InsufficientPrivilege:
                raise UserError(NO_ADMIN.format(connection.info.user)) from None
        yield connection
