"""pairmill status --watch: a page of the queue's state that renews itself.

A thread queries the database, so that the keyboard answers even where the database does not.
"""

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pairmill.ops.admin import migrate, standstill
from pairmill.ops.admin.connection import connect
from pairmill.ops.errors import UserError
from pairmill.ops.output import CELL
from pairmill.ops.queries import query_text, rows
from pairmill.workers.safe_text import safe

PAUSE = 2.0
SHARE = 4  # a pause is at least this many times as long as the queries before it took
# a connection that is lost without a packet is noticed after 20 s
KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 3}

QUERIES = ("queue", "ring", "leaders", "sizes")


@dataclass
class Snapshot:
    """The state of the database at one moment. wal: bytes written since initdb; None where the
    login has no right to know."""

    found: dict[str, list[dict[str, Any]]]
    wal: int | None
    at: float = field(default_factory=time.monotonic)
    clock: datetime = field(default_factory=lambda: datetime.now().astimezone())


def _sql(name: str) -> str:
    return query_text("admin", f"watch/{name}")


def snapshot(connection: psycopg.Connection) -> Snapshot:
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        found = {name: rows(connection, _sql(name)) for name in QUERIES}
        found |= standstill.gather(connection)
    wal = None
    with suppress(psycopg.errors.InsufficientPrivilege):
        row = connection.execute("select pg_current_wal_lsn() - '0/0'").fetchone()
        wal = int(row[0]) if row else None
    return Snapshot(found, wal)


class Poller(threading.Thread):
    """Takes a snapshot every few seconds, on a new connection after one was lost."""

    def __init__(self, dsn: str, first: Snapshot) -> None:
        super().__init__(daemon=True, name="watch")
        self.first = self.before = self.last = first
        self.trouble = ""
        self.news, self._told = os.pipe()  # for select: a byte for each snapshot
        self._dsn = make_conninfo(dsn, **KEEPALIVES)
        self._connection: psycopg.Connection | None = None

    def run(self) -> None:
        pause = PAUSE
        while True:
            time.sleep(pause)
            began = time.monotonic()
            self._ask()
            pause = max(PAUSE, SHARE * (time.monotonic() - began))
            os.write(self._told, b".")

    def _ask(self) -> None:
        try:
            if self._connection is None:
                self._connection = connect(self._dsn)
            now = snapshot(self._connection)
        except (psycopg.Error, UserError) as error:
            self.trouble = safe(" ".join(str(error).split()), CELL)
            if self._connection:
                self._connection.close()
            self._connection = None
        else:
            self.before, self.last, self.trouble = self.last, now, ""


# ---- the page ------------------------------------------------------------------------------------


def page(poller: Poller, *, keys: bool) -> Group:
    now = poller.last
    age = time.monotonic() - now.at
    head = Text(f"pairmill, {now.clock:%Y-%m-%d %H:%M:%S}", "bold")
    if age > 2 * PAUSE + 1:
        head.append(f", {age:.0f} s ago")
    if keys:
        head.append("   q ends", "dim")
    said = (
        Text(f"the database does not answer, trying again: {poller.trouble}", "bold red")
        if poller.trouble
        else Text("")
    )
    return Group(
        head, said, _queue(now), _ring(now), *_standing_still(now), Text(""), _leaders(now),
        Text(""), _sizes(now, poller.first, poller.before),
    )  # fmt: skip


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, collapse_padding=True)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    return table


def _queue(now: Snapshot) -> Table:
    names = ("ready", "oldest", "leased", "workers", "late", "to accept", "discarded", "done")
    table = _table("queue", *names, "rows/min")
    for q in now.found["queue"]:
        table.add_row(
            safe(q["kind"]),
            f"{q['ready']:,}",
            _age(q["oldest"]),
            f"{q['leased']:,}",
            f"{q['workers']:,}",
            _bad(q["late_leases"]),
            f"{q['waiting_submissions']:,}",
            _bad(q["discarded"]),
            f"{q['done']:,}",
            f"{q['rows_a_minute']:,.0f}",
        )
    return table


def _age(oldest: Any) -> str:
    if oldest is None or oldest.total_seconds() < 0:  # none, or none before its back-off is over
        return ""
    seconds = int(oldest.total_seconds())
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds} s"


def _bad(count: int) -> Text:
    return Text(f"{count:,}", "bold red" if count else "")


def _ring(now: Snapshot) -> Text:
    slots = now.found["ring"]
    used = [slot for slot in slots if slot["state"] != "empty"]
    batches = sum(slot["batches"] for slot in used)
    full = len(used) == len(slots) and all(slot["state"] == "full" for slot in slots)
    text = Text("thumbnails ", "bold")
    for slot in slots:
        text.append({"empty": "·", "filling": "▒", "full": "█"}[slot["state"]])
    text.append(f" {len(used)} of {len(slots)} slots, {batches:,} batches")
    if full:
        text.append(": full, no download is claimed until some are scored", "bold red")
    return text


def _standing_still(now: Snapshot) -> list[Text]:
    return [Text(safe(line, CELL)) for line in standstill.lines(now.found, at_most=3)]


def _leaders(now: Snapshot) -> Table:
    table = _table("leaderboard", "URLs", "last day")
    for leader in now.found["leaders"]:
        table.add_row(
            safe(leader["name"], CELL), f"{leader['urls']:,}", f"{leader['urls_last_day']:,}"
        )
    return table


def _sizes(now: Snapshot, first: Snapshot, before: Snapshot) -> Table:
    table = _table("size", "on disk", f"since {first.clock:%H:%M:%S}", "rows", "dead")
    old = {size["name"]: size["bytes"] for size in first.found["sizes"]}
    for size in now.found["sizes"]:
        grown = size["bytes"] - old.get(size["name"], size["bytes"])
        table.add_row(
            safe(size["name"]), decimal(size["bytes"]), _grown(grown), f"{size['live_rows']:,}",
            f"{size['dead_rows']:,}",
        )  # fmt: skip
    if now.wal is not None and first.wal is not None and before.wal is not None:
        rate = int((now.wal - before.wal) / max(now.at - before.at, 1e-9))
        table.add_row("WAL written", f"{decimal(max(rate, 0))}/s", _grown(now.wal - first.wal))
    return table


def _grown(grown: int) -> str:
    return f"{'-' if grown < 0 else '+'}{decimal(abs(grown))}"


# ---- the terminal --------------------------------------------------------------------------------


@contextmanager
def _keys() -> Iterator[list[int]]:
    """The keyboard's descriptor, without line buffering and echo; none without a terminal."""
    if not sys.stdin.isatty():
        yield []
        return
    keyboard = sys.stdin.fileno()
    saved = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield [keyboard]
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, saved)


def watch(dsn: str, console: Console) -> None:
    """Show the page until q, Ctrl-C or SIGTERM; without a terminal, print page after page.

    Raises UserError if the database does not answer at first; later, the page says so.
    """
    with connect(dsn) as connection:
        migrate.require_current(connection)
        poller = Poller(dsn, snapshot(connection))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is left whole
    poller.start()
    if not console.is_terminal:
        while True:
            console.print(page(poller, keys=False), Text(""))
            os.read(poller.news, 1)
    with ExitStack() as stack:
        keys = stack.enter_context(_keys())
        live = stack.enter_context(
            Live(page(poller, keys=bool(keys)), console=console, screen=True, auto_refresh=False)
        )
        while True:
            live.update(page(poller, keys=bool(keys)), refresh=True)
            ready, _, _ = select.select([*keys, poller.news], [], [], 1.0)
            if poller.news in ready:
                os.read(poller.news, 1)
            if keys and keys[0] in ready and os.read(keys[0], 1) in (b"q", b"Q", b""):
                return
