"""pairmill item: work that is about neither a WAT file nor a batch of pairs."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from psycopg.types.json import Jsonb

from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import kinds, task_states
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows
from pairmill.ops.queries import rows
from pairmill.schema.kinds import KINDS
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Items: work of a kind that has specs.")
SHOWN = ("item_id", "kind", "state", "attempts", "spec", "result", "reason")


@app.command("add")
def item_add(
    kind: str = typer.Argument(
        help="A kind of work whose tasks are about items.", autocompletion=kinds
    ),
    file: str = typer.Argument(help="JSON lines, an item's spec each; - for standard input."),
) -> None:
    """Add items and queue their tasks; those that are known already are left alone."""
    known = [each.name for each in KINDS if each.subject == "item"]
    if kind not in known:
        listed = ", ".join(known) or "none here"
        raise UserError(f"{kind!r} is no kind of work whose tasks are about items: {listed}")
    specs = [Jsonb(spec) for spec in _specs(file)]
    with admin() as connection:
        row = connection.execute("select mill.add_items(%s, %s)", (kind, specs)).fetchone()
    assert row is not None
    say(f"{row[0]:,} items added, {len(specs) - row[0]:,} known already")


def _specs(file: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises UserError that names the line."""
    try:
        lines = (sys.stdin.read() if file == "-" else Path(file).read_text("utf-8-sig")).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            spec = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file}, line {number} is no JSON: {error}") from None
        if not isinstance(spec, dict) or "\\u0000" in line:
            raise UserError(f"{file}, line {number} is no JSON object without NUL characters")
        yield spec


@app.command("list")
def item_list(
    kind: str = typer.Option(None, "--kind", help="A kind of work.", autocompletion=kinds),
    state: str = typer.Option(
        None,
        "--state",
        help="ready, leased, submitted, done, discarded or parked.",
        autocompletion=task_states,
    ),
    limit: int = typer.Option(100, "--limit", min=1, help="At most so many, the newest first."),
    as_json: bool = typer.Option(False, "--json", help="A JSON array."),
) -> None:
    """Items, with their results."""
    with admin() as connection:
        found = rows(
            connection,
            "select * from report.item where kind = coalesce(%s, kind)"
            " and state = coalesce(%s, state) order by item_id desc limit %s",
            kind,
            state,
            limit,
        )
    print_rows(found, SHOWN, as_json=as_json, empty="no such items")
