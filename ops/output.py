"""Output of the commands: the same rows as a table for people or as JSON for scripts.

Sentences are printed by ``workers.safe_text.say``. Consoles here parse no markup: a str is text.
"""

import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from pairmill.workers.safe_text import json_text, safe, safe_json, say

CELL = 500  # characters of a cell on a terminal; a pipe has them all


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def print_json(value: Any) -> None:
    print(json_text(value, indent=2, default=_plain))


def print_json_text(text: str) -> None:
    """Print text that is JSON already."""
    print(safe_json(text), end="")


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes no str for markup, emoji codes or something to highlight."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def progress_bar() -> Progress:
    """A bar on standard error whose descriptions are text; gone when it is done. Where there is no
    terminal there is none: rich would leave an empty line."""
    console = plain_console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def print_rows(
    rows: Sequence[dict[str, Any]], show: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Rows of the same columns: all of them as a JSON array, or those of ``show`` as a table, or,
    where there are no rows, the sentence ``empty``."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        say(empty)
        return
    names = [safe(name.replace("_", " ")) for name in show]
    cells = [[_cell(row[name]) for name in show] for row in rows]
    if sys.stdout.isatty():
        _print_table(names, cells)
    else:
        _print_lines(names, cells)


def _print_table(names: list[str], cells: list[list[str]]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in cells:
        table.add_row(*(safe(cell, CELL) for cell in row))
    plain_console().print(table)


def _print_lines(names: list[str], cells: list[list[str]]) -> None:
    """Into a pipe or a file, a row is a line, however long."""
    rows = [names, *cells]
    # a long cell moves those after it, and not those of every row
    widths = [max(min(cell_len(row[n]), 60) for row in rows) for n in range(len(names))]
    for row in rows:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        say("  ".join(padded).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return safe(", ".join(f"{name} {count}" for name, count in value.items()))
    return safe(value)
