"""The functions of schema ``api`` that every kind of worker calls, as methods.

The calls of one kind are methods of its own class, in its ``calls.py``, on top of this one.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.json import Jsonb

from pairmill import __version__
from pairmill.workers.errors import LeaseLost, Malformed, Refused, Unreachable, WorkerError
from pairmill.workers.reach import WORK, Reach, unready
from pairmill.workers.safe_text import plain
from pairmill.workers.session import open_session, wrong_encoding
from pairmill.workers.trouble import trouble_of

PROTOCOL = 1
PATIENCE = 15.0  # seconds to wait for a database at the start
# SQLSTATEs of schema/sql/guards.sql
ERRORS: dict[str, type[WorkerError]] = {
    "PM001": LeaseLost,
    "PM002": Refused,
    "PM003": Malformed,
    "PM004": Refused,
    "PM005": Malformed,
    "PM006": Refused,
    "23514": Malformed,  # check_violation: a row that an inbox does not take
    "57014": Malformed,  # statement_timeout: the same call would only take as long again
}
NO_WORKER = (
    "this login is not a worker's, and may call no function of theirs: is it the DSN of a"
    " researcher, or of another database? Ask the admin for a worker's"
)
Returned = TypeVar("Returned")


@dataclass(frozen=True)
class Registration:
    """A process of a worker, as the database knows it. heartbeat_seconds: how often its leases are
    to be renewed."""

    instance_id: int
    name: str
    kind: str
    heartbeat_seconds: int


@dataclass(frozen=True)
class Claim:
    lease_id: int
    task_id: int
    payload: dict[str, Any]
    model_digest: str | None = None


class Queue:
    """One connection to the database, shared by the threads of a process one call at a time.

    A call that loses its connection is made again on a new one: every function may be
    repeated. A repeated ``complete`` or ``release`` whose first answer was lost raises
    LeaseLost: the lease has ended.

    Raises Refused, Malformed or LeaseLost where the database says so, Unreachable when it
    cannot be reached for ``patience`` seconds. reach: told how each attempt ended. serving: whether
    the database has taken this login before; what it lacks then may come back (a restore).
    """

    asker = WORK

    def __init__(self, dsn: str, *, patience: float = PATIENCE) -> None:
        self._dsn = dsn
        self.patience = patience
        self.reach = Reach()
        self.serving = False
        self._hurry, self._abandoned = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def close(self) -> None:
        # a call that was abandoned closes its connection itself, and nobody waits for it
        if self._lock.acquire(blocking=not self._abandoned.is_set()):
            try:
                self._disconnect()
            finally:
                self._lock.release()

    def hurry(self) -> None:
        """From now on, give up at the first failed connection: the process is ending."""
        self._hurry.set()

    def cut(self) -> None:
        """Break the connection under a call that waits, from another thread."""
        if (connection := self._connection) is not None:
            with (
                suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as own,
            ):
                own.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """End the call of another thread, for which nobody waits, as soon as it can be ended."""
        self._abandoned.set()  # before cut, which sees no connection while one is being made
        self.hurry()
        self.cut()

    def register(self) -> Registration:
        row = self._one("select * from api.register_v1(%s, %s)", (__version__, PROTOCOL))
        return Registration(*row)

    def claim(
        self, instance_id: int, model_digest: str | None = None, kind: str | None = None
    ) -> Claim | None:
        """A task of a kind that this login may claim; None: of the login's own name."""
        call = "select * from api.claim_v1(%s, %s, %s)"
        row = self._row(call, (instance_id, model_digest, kind))
        return Claim(row[0], row[1], row[2], model_digest) if row else None

    def heartbeat(self, lease_id: int) -> int:
        return int(self._one("select api.heartbeat_v1(%s)", (lease_id,))[0])

    def release(self, lease_id: int) -> None:
        self._one("select api.release_v1(%s)", (lease_id,))

    def fail(self, lease_id: int, reason: str, *, retry: bool) -> None:
        self._one("select api.fail_v1(%s, %s, %s)", (lease_id, plain(reason), retry))

    def complete(self, lease_id: int) -> None:
        self._one("select api.complete_v1(%s)", (lease_id,))

    def drained(self, model_digest: str | None = None, kind: str | None = None) -> bool:
        """Whether nothing is left to claim of a kind (and model), here and upstream."""
        return bool(self._one("select api.drained_v1(%s, %s)", (model_digest, kind))[0])

    def submit_item(self, lease_id: int, result: dict[str, Any]) -> int:
        """Hand over the result of a task that is about an item, 1 MB of JSON at most."""
        call = "select api.submit_item_v1(%s, %s)"
        return int(self._one(call, (lease_id, Jsonb(result)))[0])

    def me(self, *, with_rank: bool = False) -> dict[str, Any]:
        """The columns of api.me_v1; told to a disabled worker, too. with_rank: its place among
        the workers of its kind, for which the submissions of all are read."""
        row = self._one("select to_json(m) from api.me_v1(%s) m", (with_rank,))
        return dict(row[0])

    def show_name(self, shown: bool) -> str:
        """Be named on the public page, or no more. Returns the worker's name."""
        return str(self._one("select api.show_name_v1(%s)", (shown,))[0])

    # ---- for the kinds' own calls ----------------------------------------------------------------

    def _one(self, call: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
        row = self._row(call, arguments)
        assert row is not None, f"{call} returned no row"
        return row

    def _row(self, call: str, arguments: Sequence[Any]) -> tuple[Any, ...] | None:
        rows = self._rows(call, arguments)
        return rows[0] if rows else None

    def _rows(self, call: str, arguments: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._retrying(lambda c: c.execute(call, arguments).fetchall())

    def _copy_in(
        self, statement: str, types: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Write rows by a binary COPY; types: PostgreSQL's, of its columns."""

        def write(connection: psycopg.Connection[Any]) -> None:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)

        self._retrying(write)

    def _copy_out(
        self, function: str, numbers: Sequence[int], types: Sequence[str]
    ) -> list[tuple[Any, ...]]:
        """Rows of ``api.function(numbers…)``, by binary COPY."""
        # COPY takes no parameters: literals
        arguments = ", ".join(str(int(number)) for number in numbers)
        statement = f"copy (select * from api.{function}({arguments})) to stdout (format binary)"

        def read(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.set_types(types)
                return list(copy.rows())

        return self._retrying(read)

    def _stream_lines(self, query: str) -> Iterator[bytes]:
        """The rows of a query of one column, in COPY's text format, in constant memory. It is not
        repeated when the connection breaks: rows already yielded cannot be taken back.

        Raises psycopg.OperationalError then, else as every call.
        """
        with (
            self._lock, self._translated(), self._connected().cursor() as cursor,
            cursor.copy(f"copy ({query}) to stdout (format text)") as copy,
        ):  # fmt: skip
            rest = b""
            for data in copy:
                lines = (rest + bytes(data)).split(b"\n")
                rest = lines.pop()
                yield from lines

    def _retrying(self, work: Callable[[psycopg.Connection[Any]], Returned]) -> Returned:
        give_up = time.monotonic() + self.patience
        delay = 0.2
        with self._lock:
            while True:
                try:
                    with (
                        self._translated(), self.reach.asking(self.asker, served=self.serving),
                    ):  # fmt: skip
                        return self._permitted(work, self._connected())
                except psycopg.OperationalError as error:
                    self._disconnect()
                    if self._hurry.wait(delay) or time.monotonic() > give_up:
                        why = trouble_of(error, self._dsn).sentence
                        raise Unreachable(f"cannot reach the database: {why}") from None
                delay = min(2 * delay, 5.0)

    def _permitted(
        self,
        work: Callable[[psycopg.Connection[Any]], Returned],
        connection: psycopg.Connection[Any],
    ) -> Returned:
        """Work; where that is not permitted, ask whether the login is disabled."""
        try:
            return work(connection)
        except psycopg.errors.InsufficientPrivilege:
            if why := self._why(connection):
                raise Refused(why) from None
            raise

    def _why(self, connection: psycopg.Connection[Any]) -> str | None:
        """Why this login may not do what a worker's may; None where the database cannot say."""
        try:
            row = connection.execute("select why from api.me_v1()").fetchone()
        except psycopg.Error:
            return None if self.serving else NO_WORKER
        return row[0] if row else None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            if self.serving and (why := unready(error)):
                raise psycopg.OperationalError(why) from None
            kind = ERRORS.get(error.sqlstate or "")
            if kind is not None:
                raise kind(error.diag.message_primary or str(error)) from None
            if error.sqlstate in ("3F000", "42883"):  # no such schema, no such function
                raise Refused(
                    "this database lacks what the worker calls; an admin runs: pairmill migrate"
                ) from None
            raise

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None or self._connection.closed:
            try:
                connection = open_session(
                    self._dsn,
                    prepare_threshold=None,  # a pooler in transaction mode keeps no statements
                    row_factory=tuple_row,
                    connect_timeout=10,
                    application_name=f"pairmill/{__version__}",
                )
            except psycopg.OperationalError as error:
                trouble = trouble_of(error, self._dsn)
                if trouble.ends or (trouble.final and not self.serving):
                    raise Refused(trouble.sentence) from None
                raise
            if wrong := wrong_encoding(connection):
                connection.close()
                raise Refused(wrong)
            self._connection = connection
            if self._abandoned.is_set():
                raise psycopg.OperationalError("nobody waits for this call")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
