"""Options that commands share, and the question before something is lost."""

import sys

import typer

from pairmill.ops.errors import UserError

DRY_RUN = typer.Option(False, "--dry-run", help="Say what it would do; change nothing.")
YES = typer.Option(False, "--yes", help="Do not ask.")
AS_JSON = typer.Option(False, "--json", help="JSON.")
LIMIT = typer.Option(100, "--limit", min=1, help="At most so many; the newest first.")


def confirm(yes: bool) -> None:
    """Ask whether to do what was said. Raises UserError unless the answer is yes; where there is no
    terminal, only --yes is one."""
    if not yes and not (sys.stdin.isatty() and typer.confirm("Do it?", err=True)):
        raise UserError("not confirmed, nothing was done: --yes does it without a question")


def counted(count: int, one: str, several: str = "") -> str:
    """1 pair, 2 pairs."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
