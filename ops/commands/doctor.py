"""pairmill doctor: checks of this machine and of the database."""

import typer
from rich.console import Console

from pairmill.ops.admin import doctor as checks
from pairmill.ops.admin.connection import admin_dsn, connect
from pairmill.ops.output import print_json

MARKS = {True: "[green]ok[/]", False: "[red]mend[/]", None: "[dim]info[/]"}


def doctor(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """Check this machine and the database; exit code 1 if something is to be mended."""
    found = list(checks.check_machine())
    with admin_dsn() as dsn, connect(dsn) as connection:
        found += checks.check_database(connection)
    if as_json:
        print_json([{"ok": f.ok, "text": f.text} for f in found])
    else:
        console = Console(highlight=False)
        for finding in found:
            console.print(f"{MARKS[finding.ok]:>4}  {finding.text}")
    if any(finding.ok is False for finding in found):
        raise typer.Exit(1)
