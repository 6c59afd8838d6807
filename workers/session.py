"""Sessions of the database, with the settings on which results depend.

The environment (PGDATESTYLE, PGTZ, PGCLIENTENCODING, PGOPTIONS), a role, a database and the server
may each have another value for them. They are set once the session is there, and not among its
options: PgBouncer refuses the startup parameter `options`. It carries the first four from one
server's connection to the next, and IntervalStyle since 1.20.
"""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg

# of a server that took the login, and then stands still; as PgBouncer's query_wait_timeout, since
# behind it the first statement waits for one of the login's connections to the server
ANSWER_SECONDS = 120.0
SETTINGS = {
    "DateStyle": "ISO, MDY",  # psycopg reads no other
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",  # else a backslash in a script's literal is an escape
    "client_encoding": "UTF8",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",  # with 0, a float in text has fewer digits than it needs
}
_SET = "select " + ", ".join(f"set_config('{k}', '{v}', false)" for k, v in SETTINGS.items())
# PostgreSQL converts every encoding to UTF8 but this: the login itself fails
NO_CONVERSION = "conversion between UTF8 and"


def open_session(
    dsn: str, *, autocommit: bool = True, **options: Any
) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection with SETTINGS, whatever else asks for other values. options: of
    ``psycopg.connect``. Raises psycopg.Error."""
    # before the first answer, so that an error's words are read rightly
    asked = {"client_encoding": "UTF8"} | options
    connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(dsn, autocommit=True, **asked)
    try:
        with answer_within(connection, ANSWER_SECONDS):
            connection.execute(_SET)  # outside a transaction, whose end could take it back
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def answer_within(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Break the connection where the block has not ended after so long. Raises
    psycopg.OperationalError then."""
    # a descriptor of its own: libpq's may be closed, and be another file's, when the time is over
    own = socket.socket(fileno=os.dup(connection.fileno()))
    late = threading.Event()

    def cut() -> None:
        late.set()
        with suppress(OSError):
            own.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except psycopg.OperationalError:
        if late.is_set():
            raise psycopg.OperationalError(f"no answer within {seconds:.0f} s") from None
        raise
    finally:
        timer.cancel()
        timer.join()  # it has not begun, or ends at once
        own.close()


def wrong_encoding(connection: psycopg.Connection[Any]) -> str | None:
    """The sentence for a database of another encoding than UTF8, which cannot hold the texts of the
    web: SQL_ASCII takes any bytes, others lack characters. None where the encoding is right."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding in (None, "UTF8"):  # a pooler may not say it
        return None
    return encoding_sentence(connection.info.dbname, encoding)


def encoding_sentence(database: str, encoding: str) -> str:
    # another locale than C may want an encoding of its own; the name is taken
    name = f"{database}_utf8" if database.isidentifier() else f'"{database}_utf8"'
    return (
        f"the database {database} has the encoding {encoding}, and Pairmill needs UTF8: make"
        f" another, by `create database {name} encoding 'UTF8' locale 'C' template template0`"
    )
