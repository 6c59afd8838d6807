"""A login in the hands of somebody who means ill: the stage for it, and the table of what was tried.

A case is REFUSED by the server, BOUNDED by something that holds, or OPEN, not defended today. What
is open is asserted to be open, so that the day it changes is noticed.

Nothing sleeps: who is blocked has a lock_timeout, what would run for long a statement_timeout.
"""

import re
import uuid
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg

from pairmill.schema.scripts import sql
from pairmill.workers.download.calls import DownloadQueue
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.steward.watchdog import EVERY_SECONDS
from support.database import Database
from support.line import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
REFUSED, BOUNDED, OPEN = "refused", "bounded", "**not defended**"
BLOCKED = "55P03"  # lock_not_available: its lock_timeout ended a wait
Session = psycopg.Connection[Any]
BOUNDS = re.findall(r"p_(?:idle|busy)_seconds integer default (\d+)", sql("core/steward"))
IDLE, BUSY = (
    f"the watchdog ends it within {ceil(int(seconds) + EVERY_SECONDS)} seconds"
    for seconds in BOUNDS
)


class OnSession(ExtractQueue, DownloadQueue, ScoreQueue):
    """The worker's calls on a session that the test has in hand."""

    def __init__(self, session: Session) -> None:
        super().__init__("")
        self._session = session

    def _connected(self) -> Session:
        return self._session


class Stage:
    """A secured database: eve means ill, bob is another volunteer, ``admin`` a superuser."""

    def __init__(self, db: Database, kind: str = "download") -> None:
        self.db, self.admin = db, db.admin
        self.admin.execute(sql("secure"))
        self.admin.execute("update mill.setting set batch_size = 8, open_batches_max = 1")
        self.eve_dsn, self.bob_dsn = (
            db.login(kind, f"{name}-volunteer") for name in ("eve", "bob")
        )
        self._sessions: list[Session] = []
        self.eve, self.bob = self.session(self.eve_dsn), self.session(self.bob_dsn)
        self.eve_instance, self.bob_instance = self.register(self.eve), self.register(self.bob)
        self.names = {
            "me": self.eve.info.user, "other": self.bob.info.user, "db": self.admin.info.dbname,
            "pid": str(self.bob.info.backend_pid),
        }  # fmt: skip
        self._batches = 0

    def session(self, dsn: str) -> Session:
        session = psycopg.connect(dsn, autocommit=True)
        self._sessions.append(session)
        return session

    def impatient(self, dsn: str) -> Session:
        """A session that would rather be refused than wait for a lock."""
        session = self.session(dsn)
        session.execute("set lock_timeout = '50ms'")
        return session

    def register(self, session: Session) -> int:
        return int(value(session, "select instance_id from api.register_v1('0', 1)"))

    def batches(self, count: int = 1, size: int = 8) -> None:
        """So many download tasks more."""
        for _ in range(count):
            self._batches += 1
            place = f"secret-host-{self._batches}.example"
            self.db.extract(
                [f"http://{place}/{n}.jpg" for n in range(size)], location=f"{place}.wat.gz"
            )
            self.db.close_batches()

    def claim(self, session: Session, instance: int) -> int:
        return int(value(session, "select lease_id from api.claim_v1(%s)", instance))

    def lease(self) -> tuple[OnSession, int]:
        """eve with a lease on a batch of eight."""
        self.batches()
        return OnSession(self.eve), self.claim(self.eve, self.eve_instance)

    def steward_value(self, query: str) -> Any:
        return value(self.session(self.db.login("steward", f"watch-{uuid.uuid4().hex[:6]}")), query)

    def watchdog(self, idle: int = 0, busy: int = 600) -> None:
        """As the steward's, without one of its patiences; eve's session is gone then."""
        assert self.steward_value("select api.watchdog_v1(600, 600)") == 0
        assert self.steward_value(f"select api.watchdog_v1({idle}, {busy})") == 1
        pid = self.eve.info.backend_pid
        wait_until(
            lambda: self.db.value("select count(*) = 0 from pg_stat_activity where pid = %s", pid),
            "the end of eve's session",
        )

    def close(self) -> None:
        for session in self._sessions:
            session.close()


def value(session: Session, query: str, *arguments: Any) -> Any:
    row = session.execute(cast(LiteralString, query), arguments or None).fetchone()
    return row[0] if row else None


def state_of(session: Session, query: str, *arguments: Any) -> str:
    """The SQLSTATE that a statement ends with; 00000 where it succeeds."""
    try:
        session.execute(cast(LiteralString, query), arguments or None)
    except psycopg.Error as error:
        return error.sqlstate or "no SQLSTATE"
    return "00000"


def refused_each(session: Session, allowed: str, *statements: str) -> None:
    found = {s: state_of(session, s) for s in statements}
    assert found and {s: c for s, c in found.items() if c not in allowed.split()} == {}


@contextmanager
def on_stage(database: Database, kind: str = "download") -> Iterator[Stage]:
    """A database that is used again, as new and with other logins."""
    tables = database.value(
        "select string_agg(oid::regclass::text, ', ') from pg_class"
        " where relnamespace in ('mill'::regnamespace, 'inbox'::regnamespace) and relkind in ('r', 'p') and not relispartition"
        " and relname not in ('outcome', 'score_outcome', 'drop_reason', 'worker_kind', 'task_kind', 'thumbnail_slot', 'audit_entry')"  # the last lets nobody empty it
    )
    database.admin.execute(cast(LiteralString, f"truncate {tables} restart identity cascade"))
    database.admin.execute("insert into mill.setting (only_row) values (1)")
    database.admin.execute("update mill.thumbnail_slot set state = 'empty', batches = 0")
    made = Stage(database, kind)
    try:
        yield made
    finally:
        made.close()
        for queue, _ in database._queues.values():
            queue.close()
        database._queues.clear()


@dataclass(frozen=True)
class Case:
    verdict: str
    by: str  # the SQLSTATEs, or what bounds it; empty where nothing does
    attempt: Callable[[Stage], None] | None = None


class Cases(UserDict[str, Case]):
    """By what is attempted."""

    def case(
        self, name: str, verdict: str, by: str = ""
    ) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
        def register(attempt: Callable[[Stage], None]) -> Callable[[Stage], None]:
            assert name not in self
            self[name] = Case(verdict, by, attempt)
            return attempt

        return register

    def check(self, heading: str) -> None:
        """The table below this heading of docs/security.md shows these cases and no others."""
        (section,) = re.findall(
            rf"^## {re.escape(heading)}$(.*?)^## ", PAGE.read_text(), re.M | re.S
        )
        rows = re.findall(
            r"^\| ([^|]+) \| (refused|bounded|\*\*not defended\*\*)([^|]*) \|", section, re.M
        )
        shown = {n: (verdict, by.removeprefix(": ").replace("`", "")) for n, verdict, by in rows}
        assert len(shown) == len(rows)
        assert shown == {
            name: (c.verdict, ", ".join(c.by.split()) if c.verdict == REFUSED else c.by) for name, c in self.items()
        }  # fmt: skip
