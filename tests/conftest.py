"""Fixtures: one PostgreSQL for the whole run, a database of its own for each test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest

from pairmill.ops.server.embedded import EmbeddedServer
from support.database import Database
from support.states import record
from support.template import Template

# A process of tests takes one core, since others run beside it: threads of one that wait for those
# of another spin, and twenty images then take a minute. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a busy machine is no reason to fail
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

MEMORY = Path("/dev/shm")
# Nobody pulls the plug, and nobody guesses passwords: each of a thousand logins costs its hash.
# Tests of what survives a crash have servers of their own.
SETTINGS = (
    "scram_iterations = 1",
    "fsync = off",
    "full_page_writes = off",
    "synchronous_commit = off",
    "max_wal_size = '256MB'",
)


@pytest.fixture(scope="session", autouse=True)
def cores() -> Iterator[None]:
    """What is done in a process of tests counts one core."""
    with pytest.MonkeyPatch.context() as patch:
        mine = {min(os.sched_getaffinity(0))}
        patch.setattr(os, "sched_getaffinity", lambda pid: mine)
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """URL of a superuser on a real server: PAIRMILL_TEST_SERVER, or an embedded one."""
    if url := os.environ.get("PAIRMILL_TEST_SERVER"):
        yield url
        return
    # In memory where 4 GB of it are free: a copy of 330 files takes 0.06 s there, and 0.1 to 1.3 on
    # a disk: ext4 gives no inode out again in the five seconds after its file was removed.
    memory = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4e9 else None
    with tempfile.TemporaryDirectory(prefix="pairmill-tests-", dir=memory) as folder:
        embedded = EmbeddedServer(Path(folder))
        embedded.start()
        try:
            with psycopg.connect(embedded.url(), autocommit=True) as admin:
                for setting in SETTINGS:
                    admin.execute(f"alter system set {setting}")
                admin.execute("select pg_reload_conf()")
            yield embedded.url()
        finally:
            embedded.stop()


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[Template]:
    """The schema, to be copied."""
    made = Template(server)
    yield made
    made.close()


@pytest.fixture
def db(template: Template) -> Iterator[Database]:
    """A database with the schema in it, dropped after the test."""
    with template.copy() as database:
        yield database


@pytest.fixture(scope="session")
def recorder(server: str) -> Iterator[Template]:
    """The schema, to be copied, in a database that records its changes of state."""
    made = Template(server, record)
    yield made
    made.close()
