"""Options that commands share, and the question before something is lost."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import typer

from pairmill.ops.errors import UserError
from pairmill.ops.output import progress_bar
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

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


def say_detached(connection: psycopg.Connection, first: int, last: int) -> None:
    """Say, on standard error, which of the batches first..last a command passes over, since the
    archive alone has their rows."""
    found = rows(
        connection,
        "select first_batch, last_batch from mill.archive where detached_at is not null"
        " and last_batch >= %s and first_batch <= %s order by 1",
        first,
        last,
    )
    for each in found:
        name = f"{each['first_batch']}-{each['last_batch']}"
        say(f"batches {name} are passed over: `pairmill archive restore {name}` first", err=True)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A function that shows (parts done, parts) as a bar, where there is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with progress_bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
