"""Ends transactions that workers' logins leave open, also while the steward itself waits; each look
tells whether the database answers, too."""

import threading

import psycopg

from pairmill.workers.errors import WorkerError
from pairmill.workers.heartbeat import Probe
from pairmill.workers.progress import Progress
from pairmill.workers.steward.calls import StewardQueue

EVERY_SECONDS = 3.5  # with the 5 s that a look may take, an outage is said within ten
STOP_SECONDS = 2.0  # how long a stop waits for a look that is under way


class _Looks(Probe, StewardQueue):
    """Calls that are made once, and end after some seconds."""


class Watchdog(threading.Thread):
    """A thread on a connection of its own: the session that it must end may hold the very lock
    that the steward's other calls wait for."""

    def __init__(self, dsn: str, line: Progress, every: float = EVERY_SECONDS) -> None:
        super().__init__(daemon=True, name="watchdog")
        self._queue = _Looks(dsn, line.metrics.database)
        self._queue.serving = False  # an older database has no such function: no outage
        self._line = line
        self._every = every
        self._ended = threading.Event()

    def run(self) -> None:
        told = False
        while not self._ended.wait(self._every):
            try:
                ended = self._queue.watchdog()
            except (WorkerError, psycopg.Error):
                continue  # the steward's own calls report the error; this thread goes on
            if ended is None and not told:
                self._line.say(
                    "workers' open transactions are not ended here: have a superuser run"
                    " `pairmill db secure` once"
                )
                told = True
            elif ended:
                self._line.say(f"ended {ended} sessions of workers with a transaction left open")
                self._line.metrics.rows("session_ended", ended)
        self._queue.close()

    def stop(self) -> None:
        self._ended.set()
        self._queue.hurry()
        self.join(STOP_SECONDS)
