"""A page's connections: few, bounded in time, and read-only unless it says otherwise."""

import psycopg
from psycopg_pool import ConnectionPool


def pool(
    dsn: str, *, size: int = 4, timeout_ms: int = 5_000, read_only: bool = True
) -> "ConnectionPool[psycopg.Connection]":
    """A pool that connects at its first use, so that a page starts while its database is away; a
    checkout waits timeout_ms at most, then psycopg_pool.PoolTimeout, which pages answer by 503."""
    settings = (
        f"-c statement_timeout={timeout_ms} -c lock_timeout={timeout_ms}"
        f" -c idle_in_transaction_session_timeout={2 * timeout_ms}"
        f" -c default_transaction_read_only={'on' if read_only else 'off'}"
    )
    return ConnectionPool(
        dsn,
        min_size=0,
        max_size=size,
        open=True,
        timeout=timeout_ms / 1000,
        max_idle=60,
        check=ConnectionPool.check_connection,
        kwargs={
            "autocommit": True,
            "connect_timeout": 5,
            "application_name": "pairmill web",
            "options": settings,
        },
    )
