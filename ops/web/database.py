"""A page's connections: few, bounded in time, and read-only unless it says otherwise."""

import logging
import time
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from pairmill.workers.safe_text import say
from pairmill.workers.session import SETTINGS

WAIT_SECONDS = 2.0  # for a free connection, or the first one
GIVE_UP_SECONDS = 5.0  # of attempts to connect; the next request begins anew
SAID_SECONDS = 60.0  # between two lines that the database is away


class _Said(logging.Handler):
    """What the pool says of failed connections, as lines that are safe, and not one a second."""

    last = float("-inf")

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() - self.last > SAID_SECONDS:
            self.last = time.monotonic()
            say(record.getMessage(), err=True)


def pool(
    dsn: str, *, size: int = 4, timeout_ms: int = 5_000, read_only: bool = True
) -> ConnectionPool[psycopg.Connection[TupleRow]]:
    """An open pool that connects at its first use, so that a page starts while its database is
    away; autocommit. A statement and a lock take timeout_ms at most, then psycopg.OperationalError;
    a free connection is waited for WAIT_SECONDS at most, then psycopg_pool.PoolTimeout, which is
    one. Pages answer both by 503.

    The settings are set as ``session`` sets its own, and hold for a server's connection: behind
    PgBouncer, the page's database has pool_mode = session.
    """
    settings = SETTINGS | {
        "statement_timeout": str(timeout_ms),
        "lock_timeout": str(timeout_ms),
        "idle_in_transaction_session_timeout": str(2 * timeout_ms),
        "default_transaction_read_only": "on" if read_only else "off",
    }

    def configure(connection: psycopg.Connection[Any]) -> None:
        calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
        given = [text for pair in settings.items() for text in pair]
        connection.execute(f"select {calls}", given)

    logger = logging.getLogger("psycopg.pool")
    if not any(isinstance(handler, _Said) for handler in logger.handlers):
        logger.addHandler(_Said())
        logger.propagate = False
    return ConnectionPool(
        dsn,
        min_size=0,
        max_size=size,
        open=True,
        timeout=WAIT_SECONDS,
        max_idle=60,
        reconnect_timeout=GIVE_UP_SECONDS,
        configure=configure,
        check=ConnectionPool.check_connection,
        kwargs={
            "autocommit": True,
            "client_encoding": "UTF8",
            "connect_timeout": 5,
            "application_name": "pairmill web",
        },
    )
