"""Fixtures: one PostgreSQL for the whole run, a database of its own for each test."""

import os
from collections.abc import Iterator

import pytest
from database import Database, new_database
from states import recording

from pairmill.ops.server.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a superuser on a real server: PAIRMILL_TEST_SERVER, or an embedded one."""
    if url := os.environ.get("PAIRMILL_TEST_SERVER"):
        yield url
        return
    embedded = EmbeddedServer(tmp_path_factory.mktemp("postgresql"))
    embedded.start()
    try:
        yield embedded.url()
    finally:
        embedded.stop()


@pytest.fixture
def db(server: str) -> Iterator[Database]:
    """A database with the schema in it, dropped after the test."""
    with new_database(server) as database:
        yield database


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[tuple[str, str]]:
    """The server, and a database to be copied that records its changes of state."""
    with recording(server) as made:
        yield made
