"""pairmill doctor: checks of this machine and of the database."""

import typer
from rich.text import Text

from pairmill.ops.admin import doctor as checks
from pairmill.ops.admin.connection import admin_dsn, connect
from pairmill.ops.output import plain_console, print_json
from pairmill.workers.safe_text import safe

MARKS = {True: ("ok", "green"), False: ("mend", "red"), None: ("info", "dim")}


def doctor(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """Check this machine and the database; exit code 1 if something is to be mended."""
    found = list(checks.check_machine())
    with admin_dsn() as dsn, connect(dsn) as connection:
        found += checks.check_database(connection)
    if as_json:
        print_json([{"ok": f.ok, "text": f.text, "names": f.names} for f in found])
    else:
        console = plain_console()
        for finding in found:
            mark, style = MARKS[finding.ok]
            console.print(
                Text.assemble((f"{mark:>4}", style), f"  {safe(finding.text)}"), soft_wrap=True
            )
    if any(finding.ok is False for finding in found):
        raise typer.Exit(1)
