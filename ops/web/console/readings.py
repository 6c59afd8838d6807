"""What the admin's page reads: each query is bounded in time, and made once for all who look."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from starlette.requests import Request

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
        self._kept: dict[str, _Kept] = {}
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
            kept = self._kept.get(name)
            if kept is None or time.monotonic() - kept.asked >= FRESH_SECONDS:
                kept = self._kept[name] = self._asked_again(name, kept)
            age = time.monotonic() - kept.made if kept.rows else 0.0
            return Reading(kept.rows, age, kept.trouble)

    def _asked_again(self, name: str, before: "_Kept | None") -> "_Kept":
        try:
            found = self.rows(name)
        except psycopg.errors.QueryCanceled:
            # not asked again before ten seconds are over: or everybody who looks adds a query
            now = time.monotonic()
            made, rows = (before.made, before.rows) if before and before.rows else (now, [])
            return _Kept(now, made, rows, _slow())
        return _Kept(now := time.monotonic(), now, found)


@dataclass(frozen=True)
class _Kept:
    """Rows with two moments: when they were asked for last, and when they were had."""

    asked: float
    made: float
    rows: Rows
    trouble: str = ""


def readings_of(request: Request) -> Readings:
    """Those of the page's process."""
    found: Readings = request.app.state.readings
    return found


def first(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of a query that gives one; {} where it gave none."""
    return found[0] if found else {}


def _slow() -> str:
    return f"the database takes longer than {TIMEOUT_MS // 1000} s to count this"
