"""pairmill removal import and sources: removals by the lists of others."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import typer

from pairmill.ops.admin import removal_sources
from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.removal_lists import RemovalList, import_list
from pairmill.ops.commands.completion import one_of
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, counted, progress
from pairmill.ops.commands.removal import app, detached, say_copies, say_report
from pairmill.ops.output import print_json, print_rows
from pairmill.workers.safe_text import say

FORMATS = ("lines", "csv", "vics", "threatexchange", "spawning")
DATES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
SHOWN = ("source", "format", "dated", "age_days", "expires_at", "entries", "present", "imported_at",
         "imported_by")  # fmt: skip


def utc(moment: datetime | None) -> datetime | None:
    """Of what a command was given, which names no zone."""
    return moment.replace(tzinfo=UTC) if moment else None


@app.command("import")
def import_(
    path: Path = typer.Argument(metavar="FILE", help="The list."),
    source: str = typer.Option(..., "--source", help="Who gives it, as recipes require it: iwf."),
    form: str = typer.Option(
        "lines", "--format", help=f"{', '.join(FORMATS)}.", autocompletion=one_of(*FORMATS)
    ),
    dated: datetime = typer.Option(
        None, "--dated", formats=DATES, help="When it was made, UTC; the file's time by default."
    ),
    expires: datetime = typer.Option(
        None, "--expires", formats=DATES, help="When no release may rest on it any more, UTC."
    ),
    replace: bool = typer.Option(
        False, "--replace", help="Take back what earlier lists of the source name, and it does not."
    ),
    reason: str = typer.Option("", "--reason", help="Why, for all who may see reports."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Add all the removals of a source's list; it takes the place of the source's earlier one.

    A wrong line is named, and nothing is changed then. What an earlier list named and this one does
    not stays removed, unless --replace says otherwise; what was added by hand, or is of another
    source's list, stays in any case.
    """
    given = RemovalList(path, source, form, utc(dated), utc(expires))
    with admin() as connection, progress("searching") as report_progress:
        done = import_list(
            connection, given, reason=reason, replace=replace, dry_run=dry_run,
            progress=report_progress, detached=detached(),
        )  # fmt: skip
    if as_json:
        print_json(asdict(done) | {"dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    say(f"{done.source}, of {done.dated:%Y-%m-%d}: {counted(done.entries, 'entry', 'entries')}")
    say_report(done.report, dry_run)
    if done.gone and not replace:
        say(
            f"{counted(done.gone, 'removal')} of earlier lists not in this one, and still in force:"
            " --replace takes them back"
        )
    elif done.gone:
        say(
            f"{counted(done.gone, 'removal')} not in it any more: {done.undone:,} {would}taken"
            f" back, {counted(done.allowed, 'pair')} allowed again"
        )
    if done.report.matching_pairs and not dry_run:
        say_copies()


@app.command("sources")
def sources(as_json: bool = AS_JSON) -> None:
    """The newest list of each source, and how old it is."""
    with admin() as connection:
        found = removal_sources.sources(connection)
    print_rows(found, SHOWN, as_json=as_json, empty="no list of removals was imported")
