"""pairmill removal: URLs and images that no release may contain."""

from pathlib import Path

import typer

from pairmill.ops.admin import removal
from pairmill.ops.admin.connection import admin, rows
from pairmill.ops.output import print_rows
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Removals, applied at ingest and at every release.")
SHOWN = ("source", "reason", "added_at")


@app.command("add")
def add(
    what: str = typer.Argument(help="A URL, an md5 or sha256, or a file with one of these a line."),
    reason: str = typer.Option("", "--reason", help="Why, for the record."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what it would match; change nothing."
    ),
) -> None:
    """Remove URLs or images, by URL or by hash."""
    path = Path(what)
    entries = removal.read_entries(path) if path.is_file() else [what]
    with admin() as connection:
        report = removal.add(connection, entries, reason, dry_run)
    done = "would be added" if dry_run else "added"
    say(
        f"{report.added} {done}, {report.known} known already;"
        f" they match {report.matching_pairs} known pairs"
    )


@app.command("list")
def listing(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """The removals."""
    with admin() as connection:
        found = rows(
            connection, "select source, reason, added_at from mill.removal order by removal_id"
        )
    print_rows(found, SHOWN, as_json=as_json, empty="nothing is removed")
