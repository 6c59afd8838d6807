"""Work that may take longer than a browser waits: threads, each with a connection of its own."""

import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import psycopg
from starlette.exceptions import HTTPException

from pairmill.ops.admin.removal_search import Progress

KEPT_SECONDS = 3600
KEPT = 200  # results
AT_ONCE = 4
OF_ONE = 2  # that one session may have at work
WAIT_SECONDS = 5.0  # how long an answer waits for the end, before it shows the progress instead
Work = Callable[[psycopg.Connection, Progress], Any]


class PageJob:
    """A piece of work. whose: the session's key: no other one sees it."""

    def __init__(self, whose: str, title: str) -> None:
        self.number = secrets.token_urlsafe(12)
        self.whose = whose
        self.title = title
        self.started = time.monotonic()
        self.done = self.total = 0
        self.connection: psycopg.Connection | None = None
        self.future: Future[Any]

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    @property
    def share(self) -> float | None:
        return self.done / self.total if self.total else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class Jobs:
    """Starts work, and keeps what came of it for an hour. connect: an admin's connection."""

    def __init__(self, connect: Callable[[], psycopg.Connection]) -> None:
        self._connect = connect
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="console")
        self._jobs: dict[str, PageJob] = {}
        self._lock = threading.Lock()

    def start(self, whose: str, title: str, work: Work) -> PageJob:
        """Begin. Raises HTTPException 429 where this session has two at work already."""
        job = PageJob(whose, title)
        with self._lock:
            self._forget()
            busy = [j for j in self._jobs.values() if j.whose == whose and not j.future.done()]
            if len(busy) >= OF_ONE:
                raise HTTPException(
                    429,
                    f"{len(busy)} things that you began are at work still: wait for one to end",
                    headers={"Retry-After": "5"},
                )
            self._jobs[job.number] = job
            job.future = self._threads.submit(self._run, job, work)
        return job

    def get(self, whose: str, number: str) -> PageJob:
        """Raises HTTPException 404 where there is none such, or it is another session's."""
        job = self._jobs.get(number)
        if job is None or job.whose != whose:
            raise HTTPException(404)
        return job

    def settle(self, job: PageJob, seconds: float = WAIT_SECONDS) -> bool:
        """Wait a little; whether it has ended."""
        wait([job.future], seconds)
        return job.future.done()

    def close(self) -> None:
        """End: what is at work is cancelled in the database, which leaves nothing half done."""
        with self._lock:
            for job in self._jobs.values():
                if job.connection and not job.future.done():
                    with suppress(psycopg.Error):
                        job.connection.cancel_safe(timeout=2)
        self._threads.shutdown(cancel_futures=True)

    def _run(self, job: PageJob, work: Work) -> Any:
        with self._connect() as connection:
            job.connection = connection
            try:
                return work(connection, job.progress)
            finally:
                job.connection = None

    def _forget(self) -> None:
        old = [n for n, j in self._jobs.items() if j.future.done() and j.seconds > KEPT_SECONDS]
        over = [n for n, j in self._jobs.items() if j.future.done()][
            : max(0, len(self._jobs) - KEPT)
        ]
        for number in {*old, *over}:
            del self._jobs[number]
