"""pairmill status: the stage of every link, and the queue."""

from typing import Any

import typer
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pairmill.ops.admin import standstill
from pairmill.ops.admin.connection import admin, admin_dsn
from pairmill.ops.admin.status import gather
from pairmill.ops.admin.watch import watch as watch_page
from pairmill.ops.output import CELL, plain_console, print_json
from pairmill.workers.safe_text import safe

WORKERS, HELD = 20, 5  # workers that the page shows, and tasks of each


def _line(table: Table, name: str, counts: dict[str, int]) -> None:
    inner = ", ".join(f"{k} {v:,}" for k, v in counts.items())
    table.add_row(safe(name), f"{sum(counts.values()):,}", safe(inner))


def page(state: dict[str, Any]) -> Group:
    """The status for people: a line a stage of the funnel, what stands still and why, who works."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    _line(table, "WAT files", state["wat_files"])
    table.add_row("records", f"{state['records']:,}", _noted(state))
    table.add_row("links", f"{state['links']:,}", "= dropped + duplicates + pairs")
    _line(table, "  dropped", state["dropped"])
    table.add_row("  duplicates", f"{state['duplicates']:,}", "")
    _line(table, "  pairs", state["pairs"])
    _line(table, "    fetched", state["fetched"])
    for model, counts in state["scored"].items():
        _line(table, f"      scored by {model}", counts)
    for kind, other in state["other_links"].items():
        rest = ", ".join(f"{k} {v:,}" for k, v in other.items() if k != "links")
        table.add_row(safe(f"{kind} links"), f"{other['links']:,}", safe(rest))
    for crawl in state["crawls"] if any(crawl["crawl"] for crawl in state["crawls"]) else []:
        found = f"{crawl['links']:,} links, {crawl['duplicates']:,} duplicates"
        files = ", ".join(f"{k} {v:,}" for k, v in crawl["wat_files"].items())
        table.add_row(
            safe(crawl["crawl"] or "no crawl"),
            f"{crawl['pairs']:,}",
            safe(f"pairs of {found}; files: {files}"),
        )
    for kind, counts in state["tasks"].items():
        _line(table, f"tasks: {kind}", counts)
    ring = state["ring"]
    full = ": full, no download is claimed until some are scored" if ring["is_full"] else ""
    table.add_row(
        "thumbnails",
        f"{ring['batches']:,}",
        f"batches in {ring['used']} of {ring['slots']} slots{full}",
    )
    table.add_row("removals", f"{state['removals']:,}", "")
    stopped = state["discarded"] + state["parked"]
    lines = standstill.lines(state | {"open_batches": [state["open_batches"]], "stopped": stopped})
    return Group(table, *(Text(safe(line, CELL)) for line in lines), *_workers(state["workers"]))


def _workers(found: list[dict[str, Any]]) -> list[Text | Table]:
    """The workers that were seen last, and what they hold."""
    if not found:
        return []
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("worker", "kind", "version", "last seen", "holds"):
        table.add_column(name, overflow="fold")
    for row in found[:WORKERS]:
        holds = ", ".join(row["holds"][:HELD]) + (", …" if len(row["holds"]) > HELD else "")
        seen = row["last_seen_at"]
        table.add_row(
            safe(row["name"], CELL), safe(row["kind"]), safe(row["version"] or "", CELL),
            f"{seen.astimezone():%Y-%m-%d %H:%M:%S}" if seen else "never", safe(holds),
        )  # fmt: skip
    here = sum(bool(row["is_here"]) for row in found)
    head = f"workers: {here:,} of {len(found):,} seen in the last 10 minutes"
    if len(found) > WORKERS:
        head += f"; the last {WORKERS} of them (`pairmill worker list` has all)"
    return [Text(""), Text(head, "bold"), table]


def _noted(state: dict[str, Any]) -> str:
    noted = state["bad_records"] | {f"ended early: {k}": v for k, v in state["ended_early"].items()}
    return safe(", ".join(f"{k} {v:,}" for k, v in noted.items()))


def status(
    as_json: bool = typer.Option(False, "--json", help="A JSON object."),
    watch: bool = typer.Option(
        False, "--watch", help="The queue, who works, sizes; again and again, until q or Ctrl-C."
    ),
) -> None:
    """The stage of every link, and the state of the queue."""
    console = plain_console()
    if watch:
        with admin_dsn() as dsn:
            watch_page(dsn, console)
        return
    with admin() as connection:
        if as_json:
            print_json(gather(connection))
        else:
            console.print(page(gather(connection)))
