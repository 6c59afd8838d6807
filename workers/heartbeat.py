"""The heartbeat: keeps the lease, and asks whether the database answers where nothing else does.

One thread a process, on a connection of its own, so that neither a busy event loop nor a long COPY
can starve it. The connection is open while a task is held, or while the work's own connection
waits; an idle worker has one connection only.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg

from pairmill.workers.errors import Unreachable, WorkerError
from pairmill.workers.queue import Queue, Returned
from pairmill.workers.reach import PROBE, Reach
from pairmill.workers.session import answer_within

STALL_SECONDS = 300.0  # no progress for this long: no more heartbeats
# A worker says within ten seconds that the database is away: 3.5 of silence, two looks of 0.5, and
# 5 for the answer. An idle one asks for work every 1 to 3 s, which is all the asking it needs.
SILENT_SECONDS = 3.5
LOOK_SECONDS = 0.5
ANSWER_SECONDS = 5.0
AGAIN_SECONDS = 1.0, 5.0  # after the first attempt in vain, and at most


class Held(Protocol):
    """A task that is under way. last_progress: of time.monotonic."""

    lease_id: int
    last_progress: float


@dataclass
class _Lease:
    task: Held
    lost: Callable[[], None]
    due: float


class Probe(Queue):
    """A queue whose calls are made once, and end after some seconds without an answer: its socket
    is shut down then, since a server that is stopped keeps it open for ever."""

    asker = PROBE

    def __init__(self, dsn: str, reach: Reach) -> None:
        super().__init__(dsn, patience=0.0)
        self.reach = reach
        self.serving = True

    def ask(self) -> None:
        """0.1 ms of the server's time: 1,000 workers that compute, and ask for nothing else, take
        3 % of one of its cores."""
        self._one("select 1", ())

    def _retrying(self, work: Callable[[psycopg.Connection[Any]], Returned]) -> Returned:
        def limited(connection: psycopg.Connection[Any]) -> Returned:
            with answer_within(connection, ANSWER_SECONDS):
                return work(connection)

        return super()._retrying(limited)


class Heartbeat(threading.Thread):
    """Beats for the task that is held, every ``interval`` seconds. It stops beating when the work
    reports no progress, so that a worker that hangs loses its lease."""

    def __init__(self, dsn: str, reach: Reach, interval: float) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self._queue = Probe(dsn, reach)
        self._reach = reach
        self._interval = interval
        self._lease: _Lease | None = None
        self._ended = threading.Event()  # not _stop, which is Thread's own
        self._not_before = 0.0
        self._pause = AGAIN_SECONDS[0]

    def hold(self, task: Held, lost: Callable[[], None]) -> None:
        """Keep this task's lease. lost: called once, from the thread, if it is gone."""
        self._lease = _Lease(task, lost, time.monotonic() + self._interval)

    def let_go(self) -> None:
        self._lease = None

    def stop(self) -> None:
        self._ended.set()
        self._queue.hurry()

    def run(self) -> None:
        while not self._ended.wait(min(LOOK_SECONDS, self._interval)):
            self._look(time.monotonic())
        self._queue.close()

    def _look(self, now: float) -> None:
        lease = self._lease
        beats = lease is not None and now - lease.task.last_progress <= STALL_SECONDS
        due = lease if lease is not None and beats and now >= lease.due else None
        if due is None and self._reach.silent < SILENT_SECONDS:
            if not beats:
                self._queue.close()
        elif now >= self._not_before:
            self._ask(due)

    def _ask(self, due: _Lease | None) -> None:
        try:
            if due is None:
                self._queue.ask()
            else:
                self._queue.heartbeat(due.task.lease_id)
                due.due = time.monotonic() + self._interval
            self._pause = AGAIN_SECONDS[0]
            return
        except (Unreachable, psycopg.Error):
            pass  # the lease may well outlive this; the next beat will tell
        except WorkerError:
            if due is not None and self._lease is due:
                self._lease = None
                due.lost()
                return
        # jitter: a fleet that lost its database together must not ask together
        self._not_before = time.monotonic() + self._pause * random.uniform(0.5, 1.5)
        self._pause = min(2 * self._pause, AGAIN_SECONDS[1])
