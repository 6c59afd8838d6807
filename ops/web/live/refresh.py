"""The one thread that asks the database: visitors never do."""

import threading
import time
from collections.abc import Callable

import psycopg
from prometheus_client import CollectorRegistry, Gauge
from psycopg.conninfo import make_conninfo

from pairmill.ops.errors import UserError
from pairmill.ops.web.live.board import Board
from pairmill.ops.web.live.line_state import read
from pairmill.workers.safe_text import say, say_traceback
from pairmill.workers.session import open_session
from pairmill.workers.trouble import trouble_of

PAUSE = 10.0
SHARE = 4  # a pause is at least this many times as long as the queries before it took
# a connection that is lost without a packet is noticed after 20 s
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3}
NO_RIGHT = "this login may not read what the page needs: `pairmill web add-login live` makes one"
OTHER_SCHEMA = "the database lacks what the page reads; an admin runs: pairmill migrate"


class Refresher(threading.Thread):
    """Shows the board a snapshot every PAUSE seconds, on a new connection after one was lost."""

    def __init__(self, dsn: str, board: Board, registry: CollectorRegistry | None = None) -> None:
        super().__init__(daemon=True, name="live")
        self.board = board
        self.taken = threading.Condition()
        self.rounds = 0
        self._dsn = make_conninfo(dsn, **KEEPALIVES)
        self._connection: psycopg.Connection | None = None
        self._ended = threading.Event()
        self._said = ""
        self._seconds = self._gauges(registry) if registry else lambda seconds: None

    def run(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            began = time.monotonic()
            self.once()
            pause = max(PAUSE, SHARE * (time.monotonic() - began))
        if self._connection:
            self._connection.close()

    def stop(self) -> None:
        self._ended.set()
        self.join(PAUSE)

    def once(self) -> None:
        """Take one snapshot; where that cannot be had, say so on the pages."""
        began = time.monotonic()
        try:
            self.board.show(read(self._connected()))
        except (psycopg.Error, UserError) as error:
            self._failed(self._why(error))
        except Exception as error:  # or the thread ends, and the page passes old numbers for new
            say_traceback(error)
            self._failed("what it says cannot be shown")
        else:
            if self._said:
                say("live: the database answers again", err=True)
            self._said = ""
            self._seconds(time.monotonic() - began)
        with self.taken:
            self.rounds += 1
            self.taken.notify_all()

    def _failed(self, why: str) -> None:
        if why != self._said:
            say(f"live: the database does not answer: {why}", err=True)
        self._said = why
        if self._connection:
            self._connection.close()
        self._connection = None
        self.board.trouble(why)

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = open_session(
                self._dsn, connect_timeout=10, application_name="pairmill web live",
                prepare_threshold=None,
            )  # fmt: skip
        return self._connection

    def _why(self, error: Exception) -> str:
        """For the log: the pages say no more than since when."""
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return NO_RIGHT
        if isinstance(error, (psycopg.errors.UndefinedFunction, psycopg.errors.InvalidSchemaName)):
            return OTHER_SCHEMA
        if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
            return trouble_of(error, self._dsn, admin=True).sentence
        return " ".join(str(error).split())

    def _gauges(self, registry: CollectorRegistry) -> Callable[[float], None]:
        age = Gauge(
            "pairmill_live_snapshot_age_seconds", "Age of what the public page shows; -1: nothing.",
            registry=registry,
        )  # fmt: skip
        seconds = Gauge(
            "pairmill_live_refresh_seconds", "What the last snapshot took, pages and all.",
            registry=registry,
        )  # fmt: skip
        age.set_function(self._age)
        return seconds.set

    def _age(self) -> float:
        seen = self.board.seen_at
        return -1.0 if seen is None else max(0.0, time.time() - seen.timestamp())
