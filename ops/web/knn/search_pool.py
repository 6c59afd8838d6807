"""Searches in processes of their own, which share the index's mapped files: within one process the
Python of all answers has one processor."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from typing import Any

from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.ops.web.knn.batch_search import KnnJob, SearchSetup
from pairmill.ops.web.knn.knn_search import Answers
from pairmill.ops.web.uploads import without_secrets

# for a process that is to be free, whose batch takes some hundredths of a second
WAIT_SECONDS = 20.0
ONE_PROCESSOR = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _Process:
    """One process, which has its indexes open. Raises UserError where it cannot have them."""

    def __init__(self, setup: SearchSetup) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pairmill.ops.web.knn.search_process", str(handle)],
                stdin=subprocess.DEVNULL,
                env=without_secrets(os.environ) | ONE_PROCESSOR,
                pass_fds=[handle],
                start_new_session=True,  # Ctrl-C at the terminal is the page's to handle
            )  # fmt: skip
        self.connection.send(setup)

    def await_ready(self) -> None:
        try:
            trouble = self.connection.recv()
        except (EOFError, OSError):
            raise UserError("a search process ended at its start: see what it said") from None
        if trouble is not None:
            raise UserError(trouble)

    def ask(self, *message: Any) -> Any:
        """Raises OSError or EOFError where it died."""
        self.connection.send(message)
        return self.connection.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.connection.close()


class SearchPool:
    """So many processes, each for one batch at a time. One that dies is started anew, and its batch
    asked for once more. trouble: called with a sentence about it."""

    def __init__(self, setup: SearchSetup, processes: int, trouble: Callable[[str], None]) -> None:
        self.at_once = processes
        self._setup, self._trouble = setup, trouble
        self._free: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        self._stopped = True

    def start(self) -> None:
        self._stopped = False
        begun = [self._begin() for _ in range(self.at_once)]  # they read their files side by side
        for process in begun:
            process.await_ready()
            self._free.put(process)

    def stop(self) -> None:
        """End them, those at work too: their batches are 503."""
        with self._lock:
            self._stopped = True
            left = list(self._all)
        for process in left:
            process.process.kill()
        for process in left:
            self._end(process)

    def found(self, jobs: Sequence[KnnJob]) -> list[tuple[Answers, bytes]]:
        answers: list[tuple[Answers, bytes]] = self._asked("found", jobs)
        return answers

    def to_the_end(self, job: KnnJob, before: Answers | None) -> tuple[Answers, bytes]:
        answer: tuple[Answers, bytes] = self._asked("to_the_end", job, before)
        return answer

    def _asked(self, *message: Any) -> Any:
        """Raises HTTPException 503 where none can be had, or two have died of it."""
        try:
            process = self._free.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            raise _busy() from None
        try:
            try:
                good, told = process.ask(*message)
            except (OSError, EOFError):
                process = self._anew(process)
                good, told = process.ask(*message)
        except (OSError, EOFError, UserError):
            raise _busy() from None
        finally:
            self._free.put(process)
        if good:
            return told
        raise UserError(told) if told else _busy()

    def _anew(self, dead: _Process) -> _Process:
        self._end(dead)
        if not self._stopped:
            code = dead.process.returncode
            self._trouble(f"a search process ended (exit code {code}): another is started")
        process = self._begin()
        try:
            process.await_ready()
        except UserError as error:
            self._end(process)
            self._trouble(f"no search process can be started: {error}")
            raise
        return process

    def _begin(self) -> _Process:
        with self._lock:
            if self._stopped:
                raise OSError("the service is stopped")
            process = _Process(self._setup)
            self._all.add(process)
        return process

    def _end(self, process: _Process) -> None:
        process.end()
        with self._lock:
            self._all.discard(process)


def _busy() -> HTTPException:
    return HTTPException(503, "the search is not to be had now", headers={"Retry-After": "5"})
