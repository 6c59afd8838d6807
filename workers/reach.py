"""Whether the database answers a worker, by all that its threads have asked.

An outage is a fact of the process and not of one call: a call that waits for a lock is none, and a
worker that computes for minutes asks nothing. So every call notes how it ended, and where none has
ended for some seconds the heartbeat's connection asks (``heartbeat``).
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import psycopg

from pairmill.workers.safe_text import safe

GRACE_SECONDS = 2.0  # a broken connection alone is no outage: the next call makes another
PROBE_SECONDS = 5.0  # a probe without an answer for so long: no answer
REASON = 200  # characters
WORK, PROBE = "work", "probe"  # who asks; a probe is answered at once or not at all
# what a server says that works: a deadlock, a lock that was not free, a statement's time is over
_AT_WORK = frozenset({"40001", "40P01", "55P03", "57014"})
# what a worker is told that was served before: the database is being restored, or is a standby
_UNREADY = {
    "3D000": "there is no such database now",
    "3F000": "it has no schema api now",
    "42883": "it lacks a function of schema api now",
    "42501": "it gives this login no rights now",
    "25006": "it is read-only now, as a standby is",
}
_UNREADY_WORDS = ("does not exist", "permission denied for database")


@dataclass(frozen=True)
class Outage:
    """since: time.time() of its begin. seconds: so long until now. sentence: says what, since when
    and why, safe to show."""

    since: float
    seconds: float
    sentence: str


class Watched(Protocol):
    """What may be away: the database, or the network of a downloader."""

    name: str
    back: str  # the sentence's begin at its end
    advice: str  # what the operator is told with the first sentence

    def outage(self) -> Outage | None:
        """That of this moment."""


class Reach:
    """Notes of all calls to one database, from any thread. clock: as time.monotonic."""

    name = "database"
    back = "the database answers again"
    advice = "what is under way goes on, and is handed in when it is back"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._answered = clock()
        self._failing: dict[str, tuple[float, str]] = {}  # by who asks: since when, and why
        self._probing: float | None = None

    @property
    def silent(self) -> float:
        """Seconds since anything was answered."""
        return self._clock() - self._answered

    @contextmanager
    def asking(self, who: str = WORK, *, served: bool = False) -> Iterator[None]:
        """Around one attempt to have something answered; psycopg's errors tell how it ended.
        served: what the database lacks now it had before, so that its error is no answer."""
        begun = self._clock()
        if who == PROBE:
            self._probing = begun
        try:
            yield
        except psycopg.Error as error:
            if is_answer(error) and not (served and unready(error)):
                self._note_answer(who)
            else:
                self._note_failure(who, begun, error)
            raise
        else:
            self._note_answer(who)
        finally:
            if who == PROBE:
                self._probing = None

    def outage(self) -> Outage | None:
        with self._lock:
            now = self._clock()
            found = [f for f in self._failing.values() if now - f[0] >= GRACE_SECONDS]
            probing = self._probing
            if probing is not None and probing > self._answered and now - probing >= PROBE_SECONDS:
                found.append((probing, f"no answer within {PROBE_SECONDS:.0f} s"))
        if not found:
            return None
        since, _ = min(found)
        _, reason = max(found)  # the newest says most
        return outage_since(now - since, "the database does not answer since {}", reason)

    def _note_answer(self, who: str) -> None:
        with self._lock:
            self._answered = self._clock()
            if who == WORK:
                self._failing.clear()
            else:  # a server may answer the probe, and refuse the work
                self._failing.pop(who, None)

    def _note_failure(self, who: str, begun: float, error: psycopg.Error) -> None:
        with self._lock:
            since, _ = self._failing.get(who, (begun, ""))
            self._failing[who] = since, unready(error) or reason_of(error)


def outage_since(seconds: float, sentence: str, reason: str) -> Outage:
    """An outage that has lasted so long. sentence: with {} where the time stands."""
    since = time.time() - seconds
    said = sentence.format(time.strftime("%H:%M:%S", time.localtime(since)))
    return Outage(since, seconds, safe(f"{said}: {reason}" if reason else said))


def reason_of(error: BaseException) -> str:
    """An error's first line; a connection's has several, the rest advice."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return safe(lines[0].removeprefix("connection failed: "), REASON)


def is_answer(error: psycopg.Error) -> bool:
    """Whether an error comes from a server that works, and is about this call alone."""
    if error.sqlstate in _AT_WORK:
        return True
    return not isinstance(error, psycopg.OperationalError)


def unready(error: psycopg.Error) -> str | None:
    """Why a database that served this worker before cannot now, where that may pass; else None."""
    if error.sqlstate is None:  # a connection that fails carries none, only words
        words = str(error)
        return reason_of(error) if any(each in words for each in _UNREADY_WORDS) else None
    why = _UNREADY.get(error.sqlstate)
    return why and f"{why} (is it being restored?)"
