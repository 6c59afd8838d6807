"""pairmill db recount: the counters of `pairmill status` against the rows."""

from dataclasses import asdict

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.recount import Recount
from pairmill.ops.admin.recount import recount as count_anew
from pairmill.ops.commands.options import AS_JSON, counted, progress
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json
from pairmill.workers.safe_text import say

EVERYTHING = "0-"


def recount(
    check: bool = typer.Option(
        False, "--check", help="Change nothing; exit code 1 where a counter is not its rows."
    ),
    batches: str = typer.Option(EVERYTHING, "--batches", help="Batches to count: 7, 3-9 or 3-."),
    as_json: bool = AS_JSON,
) -> None:
    """Count pairs, downloads and scores from their rows, and mend the counters that `pairmill
    status` and the views of counts read. Reads every pair of the batches; the line goes on."""
    first, last = _range(batches)
    with admin() as connection, progress("counting") as report_progress:
        found = count_anew(connection, first, last, check=check, progress=report_progress)
    if as_json:
        print_json(asdict(found) | {"checked_only": check})
    else:
        for line in lines(found, check=check):
            say(line)
    if check and found.differs:
        raise typer.Exit(1)


def lines(found: Recount, *, check: bool) -> list[str]:
    """What was found, for people."""
    if not found.differs:
        return [f"{counted(found.batches, 'batch', 'batches')} counted: every counter is its rows"]
    numbers = ", ".join(map(str, found.first_wrong))
    more = ", …" if found.wrong > len(found.first_wrong) else ""
    named = f" ({numbers}{more})" if numbers else ""
    mended = "`pairmill db recount` mends them" if check else "mended"
    return [
        f"{counted(found.batches, 'batch', 'batches')} counted: {found.wrong:,} had other counters"
        f" than rows{named}, {counted(found.sums, 'sum')} over all batches,"
        f" {counted(found.tasks, 'count')} of done tasks and the credit of"
        f" {counted(found.workers, 'worker')} were wrong: {mended}"
    ]


def _range(given: str) -> tuple[int, int]:
    """The first and the last batch of 7, 3-9 or 3-."""
    start, dash, end = given.partition("-")
    if not start.isdecimal() or (end and not end.isdecimal()) or len(given) > 30:
        raise UserError(f"{given!r} is no batch, and no range of batches like 3-9")
    first = int(start)
    last = int(end) if end else 2**62 if dash else first
    if last < first:
        raise UserError(f"{given!r} is no range of batches: the first number comes first")
    return first, last
