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
from pairmill.ops.web.knn.batch_search import Found, KnnJob, SearchSetup
from pairmill.ops.web.knn.knn_search import Answers
from pairmill.ops.web.uploads import without_secrets

WAIT_SECONDS = 20.0  # for a free process; a batch takes some hundredths
ANSWER_SECONDS = 30.0  # then it hangs, and is killed
AGAIN_SECONDS = 5.0  # after a start in vain
ONE_PROCESSOR = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _Process:
    """One process. Its connection is used, and closed, by whoever took it alone. Raises OSError."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pairmill.ops.web.knn.search_process", str(handle)],
                stdin=subprocess.DEVNULL,
                env=without_secrets(os.environ) | ONE_PROCESSOR,
                pass_fds=[handle],
                start_new_session=True,  # Ctrl-C at the terminal is the page's to handle
            )

    def open(self, setup: SearchSetup) -> None:
        """Returns when it has its files open, however long that takes. Raises UserError where it
        cannot have them, OSError or EOFError where it died."""
        self.connection.send(setup)
        trouble = self.connection.recv()
        if trouble is not None:
            raise UserError(trouble)

    def ask(self, *message: Any) -> Any:
        """Raises OSError or EOFError where it died, or hangs."""
        self.connection.send(message)
        if not self.connection.poll(ANSWER_SECONDS):
            raise EOFError
        return self.connection.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class SearchPool:
    """So many processes, each for one batch at a time. One that dies or hangs is started anew, and
    its batch is asked of another, once. trouble: called with a sentence about it."""

    def __init__(self, setup: SearchSetup, processes: int, trouble: Callable[[str], None]) -> None:
        self.at_once = processes
        self._setup, self._trouble = setup, trouble
        self._free: queue.LifoQueue[_Process] = queue.LifoQueue()
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def start(self) -> None:
        self._ended.clear()
        try:
            begun = [self._begin() for _ in range(self.at_once)]  # they read their files together
            for process in begun:
                process.open(self._setup)
                self._free.put(process)
        except (OSError, EOFError) as error:
            why = f": {error}" if str(error) else ", and said why, if it could"
            raise UserError(f"a search process ended at its start{why}") from None

    def stop(self) -> None:
        """End them, those at work too: their batches are 503."""
        with self._lock:
            self._ended.set()
            left = list(self._all)
        for process in left:
            process.process.kill()
        for process in left:
            process.kill()
        while True:
            try:
                self._end(self._free.get_nowait())
            except queue.Empty:
                return

    def found(self, jobs: Sequence[KnnJob]) -> list[Found | None]:
        answers: list[Found | None] = self._asked("found", jobs)
        return answers

    def to_the_end(self, job: KnnJob, before: Answers | None) -> Found | None:
        answer: Found | None = self._asked("to_the_end", job, before)
        return answer

    def _asked(self, *message: Any) -> Any:
        """Raises HTTPException 503 where no process is free, or two have died of it."""
        for _ in range(2):
            try:
                process = self._free.get(timeout=WAIT_SECONDS)
            except queue.Empty:
                break
            try:
                good, told = process.ask(*message)
            except (OSError, EOFError):
                if self._ended.is_set():
                    self._end(process)
                    break
                threading.Thread(target=self._replace, args=(process,), daemon=True).start()
                continue
            self._free.put(process)
            if good:
                return told
            if told is not None:
                raise UserError(told)
            raise RuntimeError("a search failed: its process has said why")
        raise HTTPException(503, "the search is not to be had now", headers={"Retry-After": "5"})

    def _replace(self, dead: _Process) -> None:
        """Start another in place of one that died or hangs; where that fails, again and again."""
        self._end(dead)
        if not self._ended.is_set():
            code = dead.process.returncode
            self._trouble(f"a search process ended (exit code {code}): another is started")
        said = ""
        while not self._ended.is_set():
            try:
                process = self._begin()
                try:
                    process.open(self._setup)
                except BaseException:
                    self._end(process)
                    raise
            except (OSError, EOFError, UserError) as error:
                if str(error) != said and not self._ended.is_set():
                    said = str(error)
                    self._trouble(f"no search process can be started: {said or 'it ended'}")
                self._ended.wait(AGAIN_SECONDS)
            else:
                self._free.put(process)
                return

    def _begin(self) -> _Process:
        with self._lock:
            if self._ended.is_set():
                raise OSError("the service is stopped")
            process = _Process()
            self._all.add(process)
        return process

    def _end(self, process: _Process) -> None:
        process.kill()
        process.connection.close()
        with self._lock:
            self._all.discard(process)
