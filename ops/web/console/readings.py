"""What the admin's page reads: each query is bounded in time, and made once for all who look."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.queries import query_text, rows
from pairmill.ops.web.console.visitors import Pool

FRESH_SECONDS = 10.0
TIMEOUT_MS = 5_000
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Reading:
    """Rows, how many seconds old they are, and why there are no newer ones; empty: there are."""

    rows: Rows
    age: float = 0.0
    trouble: str = ""


class Readings:
    """Asks the database with a viewer's rights.

    At 10^6 tasks a count takes some tenths of a second: what is not of one task or worker is kept
    for ten seconds, and asked once by however many look at the same moment.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept: dict[str, tuple[float, Rows]] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def rows(self, query: str, /, **named: Any) -> Rows:
        """The rows of sql/admin/<query>.sql, now. Raises psycopg.Error."""
        with self._pool.connection() as connection:
            return rows(connection, query_text("web", f"admin/{query}"), **named)

    def asked(self, query: str, /, **named: Any) -> Reading:
        """The same, where a page can do without: too slow is a sentence and no error."""
        try:
            return Reading(self.rows(query, **named))
        except psycopg.errors.QueryCanceled:
            return Reading([], trouble=_slow())

    def kept(self, name: str) -> Reading:
        """The rows of a query without arguments, at most ten seconds old, or, where the database
        takes too long, the last that there were."""
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            at, found = self._kept.get(name, (float("-inf"), []))
            age = time.monotonic() - at
            if age < FRESH_SECONDS:
                return Reading(found, age)
            try:
                found = self.rows(name)
            except psycopg.errors.QueryCanceled:
                # not asked again before ten seconds are over: or everybody who looks adds a query
                self._kept[name] = (time.monotonic(), found)
                return Reading(found, age if found else 0.0, _slow())
            self._kept[name] = (time.monotonic(), found)
            return Reading(found)


def first(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of a query that gives one; {} where it gave none."""
    return found[0] if found else {}


def _slow() -> str:
    return f"the database takes longer than {TIMEOUT_MS // 1000} s to count this"
