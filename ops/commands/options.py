"""Options that commands share, and the question before something is lost."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from pairmill.ops.errors import UserError
from pairmill.ops.output import progress_bar

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


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that shows (parts done, parts) as a bar, where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
