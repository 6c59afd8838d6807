"""Sentences about what stands still, and why: ``pairmill status`` and its --watch say the same."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from pairmill.ops.queries import query_text, rows

Rows = list[dict[str, Any]]
QUERIES = ("waiting", "open_batches", "stopped")


def gather(connection: psycopg.Connection) -> dict[str, Rows]:
    """Rows of report.waiting, one row that sums report.open_batch up, rows of report.stopped."""
    return {name: rows(connection, query_text("admin", f"standstill/{name}")) for name in QUERIES}


def lines(found: dict[str, Rows], at_most: int | None = None) -> list[str]:
    """The sentences about what ``gather`` gave; at_most: of ready and of stopped tasks."""
    return [
        *waiting(found["waiting"])[:at_most],
        *open_batches(found["open_batches"][0]),
        *stopped(found["stopped"])[:at_most],
    ]


def waiting(found: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each row of report.waiting but those of plain work whose turn will come."""
    return [
        f"ready: {row['tasks']:,} {_what(row)}: {'waits' if row['tasks'] == 1 else 'wait'} for"
        f" {row['waits_for']}{_details(row)}"
        for row in found
        if (row["purpose"], row["waits_for"]) != ("work", "its turn")
    ]


def _what(row: dict[str, Any]) -> str:
    purpose = "" if row["purpose"] == "work" else f" {row['purpose']}"
    return f"{row['kind']}{purpose}" + (f" ({row['model']})" if row["model"] else "")


def _details(row: dict[str, Any]) -> str:
    if row["waits_for"] == "its back-off":
        first, last = _clock(row["first_ready_at"]), _clock(row["last_ready_at"])
        return f", until {last}" if first == last else f", until {first} to {last}"
    if row["waits_for"].startswith("a worker"):
        seen = row["claimant_seen_at"]
        return f": none was seen since {_clock(seen)}" if seen else ": none was ever seen"
    if row["waits_for"].startswith("a version"):
        return f": task {row['first_task_id']}, say, is of an older or a newer Pairmill"
    return ""


def open_batches(found: dict[str, Any]) -> list[str]:
    """A line about a summary of report.open_batch; none where no batch is open."""
    if not found["batches"]:
        return []
    files = [str(number) for number in found["awaited_wat_ids"]]
    more = ", …" if found["awaited_files"] > len(files) else ""
    until = (
        f"more may come of {found['awaited_files']:,} WAT files ({', '.join(files)}{more})"
        if files
        else "no WAT file is awaited, so the steward closes them"
    )
    return [
        f"open batches: {found['batches']:,} with {found['pairs']:,} pairs since"
        f" {_clock(found['opened_at'])}, not downloaded yet: {until};"
        f" at the latest they are closed by {_clock(found['closes_at'])}"
    ]


def stopped(found: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each row of report.stopped."""
    return [
        f"{row['state']}: {row['tasks']:,} {row['kind']}: {row['reason']}"
        f" (task{'s' if row['tasks'] > 1 else ''} {', '.join(map(str, row['task_ids']))}"
        f"{', …' if row['tasks'] > len(row['task_ids']) else ''})"
        for row in found
    ]


def _clock(moment: datetime) -> str:
    local = moment.astimezone()
    today = local.date() == datetime.now().astimezone().date()
    return f"{local:%H:%M:%S}" if today else f"{local:%Y-%m-%d %H:%M}"
