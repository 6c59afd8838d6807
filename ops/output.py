"""Output of the commands: the same rows as a table for people or as JSON for scripts."""

import json
import sys
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from rich.console import Console
from rich.table import Table


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def print_rows(
    rows: Sequence[dict[str, Any]], show: Sequence[str], *, as_json: bool, empty: str
) -> None:
    """Rows of the same columns: all of them as a JSON array, or those of ``show`` as a table, or,
    where there are no rows, the sentence ``empty``."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in show:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in show))
    # into a pipe or a file, a row is a line
    Console(highlight=False, width=None if sys.stdout.isatty() else 1000).print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    return str(value)
