"""A page's connections to its database."""

import logging

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from pairmill.ops.web import database
from pairmill.ops.web.database import pool
from pairmill.ops.web.serve import listening


def test_a_pages_connections_are_bounded(server: str) -> None:
    """Would catch: a page that writes, or a query of a visitor that runs for ever; one connection's
    end that the next visitor sees."""
    with pool(server, size=1, timeout_ms=50) as pages:
        with pages.connection() as connection:
            first = connection.info.backend_pid
            assert connection.execute("show application_name").fetchone() == ("pairmill web",)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("create table t ()")
            with pytest.raises(psycopg.errors.QueryCanceled):
                connection.execute("select pg_sleep(60)")
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(%s, 20000)", (first,))
        with pages.connection() as connection:
            assert connection.execute("select 1").fetchone() == (1,)
            assert connection.info.backend_pid != first
    with pool(server, read_only=False) as pages, pages.connection() as connection:
        connection.execute("create temporary table t ()")


def test_a_database_away_is_no_crash_and_said_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Would catch: a page that does not start, or a log that an outage fills."""
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(logging.getLogger("psycopg.pool"), "handlers", [])
    with listening("127.0.0.1:0") as free:
        port = free.getsockname()[1]
    with pool(f"postgresql://u:secret@127.0.0.1:{port}/d") as pages:
        for _ in range(3):
            with pytest.raises(PoolTimeout), pages.connection():
                pass
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1
    assert "secret" not in err
