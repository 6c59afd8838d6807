"""pairmill wat, pairmill crawl: the WAT files to extract."""

import re
from collections.abc import Sequence

import typer

from pairmill.ops.admin import wat_locations, wats
from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import TASK_STATES as STATES
from pairmill.ops.commands.completion import crawls, one_of, task_states, wat_files
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, YES, confirm, counted, progress
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.ops.queries import rows
from pairmill.schema.outcomes import LANGUAGE_DETECTORS
from pairmill.workers.extract.link_kinds import LINK_KINDS, LinkSelection
from pairmill.workers.safe_text import say

wat = typer.Typer(no_args_is_help=True, help="WAT files.")
crawl = typer.Typer(no_args_is_help=True, help="Crawls of Common Crawl.")
LINKS = typer.Option(
    "image",
    "--links",
    help=f"Kinds of links to extract, with commas between: {', '.join(LINK_KINDS)}.",
)  # fmt: skip
DETECTOR = typer.Option(
    LANGUAGE_DETECTORS[0],
    "--language-detector",
    help=f"What tells the language of the texts: {' or '.join(LANGUAGE_DETECTORS)}.",
    autocompletion=one_of(*LANGUAGE_DETECTORS),
)
SHOWN = ("wat_id", "state", "links", "dropped", "duplicates", "pairs", "location", "reason")
NAME = r"CC-MAIN-\d{4}-\d{2}"


def _add(crawl_name: str | None, locations: list[str], kinds: str, detector: str) -> None:
    if detector not in LANGUAGE_DETECTORS:
        listed = ", ".join(LANGUAGE_DETECTORS)
        raise UserError(f"no language detector {detector!r}; there are: {listed}")
    names = [name.strip() for name in kinds.split(",") if name.strip()]
    try:
        LinkSelection(names)
    except ValueError as unknown:
        raise UserError(str(unknown)) from None
    with admin() as connection:
        row = connection.execute(
            "select mill.add_wat(%s, %s, %s, %s)",
            (crawl_name, wats.unknown(connection, locations), names, detector),
        ).fetchone()
    added = row[0] if row else 0
    rest = f", {len(locations) - added:,} were known already" if added < len(locations) else ""
    say(f"added {counted(added, 'WAT file')}{rest}")


@wat.command("add")
def wat_add(
    locations: list[str] = typer.Argument(
        help="Paths, folders, patterns ('*.wat.gz'), or http(s) or s3 URLs."
    ),
    kinds: str = LINKS,
    detector: str = DETECTOR,
) -> None:
    """Add WAT files; one that is known already is left alone."""
    _add(None, wat_locations.located(locations), kinds, detector)


@wat.command("list")
def wat_list(
    state: str = typer.Option(
        None,
        "--state",
        help=f"{', '.join(STATES[:-1])} or {STATES[-1]}.",
        autocompletion=task_states,
    ),
    crawl_name: str = typer.Option(
        None, "--crawl", help="Only those of this crawl.", autocompletion=crawls
    ),
    limit: int = typer.Option(
        None, "--limit", min=1, help="At most so many, the newest; else all."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """WAT files, with the counts of their extraction."""
    if state is not None and state not in STATES:
        raise UserError(f"--state is {', '.join(STATES[:-1])} or {STATES[-1]}, not {state!r}")
    with admin() as connection:
        found = rows(
            connection,
            "select * from report.wat where (%s::text is null or state = %s)"
            " and (%s::text is null or crawl = %s) order by wat_id desc limit %s",
            state, state, crawl_name, crawl_name, limit,
        )[::-1]  # fmt: skip
    none = (
        "no such WAT files"
        if state or crawl_name
        else "no WAT files: add some with `pairmill wat add`"
    )
    print_rows(found, SHOWN, as_json=as_json, empty=none)


@wat.command("remove")
def wat_remove(
    files: list[str] = typer.Argument(
        None,
        help="Numbers (`wat list`), ranges like 3-9, paths, patterns or URLs.",
        autocompletion=wat_files,
    ),
    crawl_name: str = typer.Option(
        None, "--crawl", help="All those of this crawl.", autocompletion=crawls
    ),
    reason: str = typer.Option("its WAT file was removed", "--reason", help="Why, for the record."),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    as_json: bool = typer.Option(False, "--json", help="JSON; with --yes or --dry-run."),
) -> None:
    """Take WAT files back, with the pairs that came from them.

    A file that nobody has begun is deleted. The pairs of another count no more, nor do their
    downloads and scores, and their URLs may come in again from other files; that is asked first.
    A worker that is at one is told at its next call. Any of them may be added again.
    """
    if bool(files) == bool(crawl_name):
        raise UserError("name the WAT files (`pairmill wat list`), or say --crawl NAME")
    with admin() as connection:
        found, missing = wats.named(connection, files or [], crawl_name)
        if not found:
            raise UserError(
                f"there is no WAT file {_listed(missing) if missing else 'of ' + crawl_name}"
            )
        planned = wats.plan(found)
        if not as_json:
            say(_said(planned, "would be "))
        if not dry_run:
            if planned["pairs"] or planned["leases"] or planned["submissions"]:
                confirm(yes)
            with progress("removing") as report:
                done = wats.remove(connection, found, reason, report)
            if not as_json:
                say(_said(done, ""))
    if as_json:
        print_json((planned if dry_run else done) | {"missing": missing, "dry_run": dry_run})
    if missing:
        would = "would be" if dry_run else "are"
        raise UserError(f"there is no WAT file {_listed(missing)}; the others {would} removed")


def _listed(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 20:,} more" if len(missing) > 20 else ""
    return ", ".join(missing[:20]) + more


def _said(counts: dict[str, int], would: str) -> str:
    said = f"{counted(counts['files'], 'WAT file')} {would}removed"
    if counts["pairs"]:
        said += (
            f", {counted(counts['pairs'], 'pair')} of {counts['extractions']:,} {would}withdrawn"
        )
    if counts["submissions"]:
        said += f", {counted(counts['submissions'], 'submission')} {would}rejected"
    if counts["leases"]:
        said += f", {counted(counts['leases'], 'lease')} {would}ended"
    return said


@crawl.command("add")
def crawl_add(
    name: str = typer.Argument(help="CC-MAIN-YYYY-WW"),
    paths: str = typer.Option(
        None,
        "--paths",
        help="A list of its WAT files, plain or gzipped: a path or a URL; by default Common "
        "Crawl's own. Paths in it are relative to it.",
    ),
    limit: int = typer.Option(None, "--limit", min=1, help="Only the first so many files."),
    kinds: str = LINKS,
    detector: str = DETECTOR,
) -> None:
    """Add the WAT files of a crawl."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"{name!r} is no crawl's name: they are like CC-MAIN-2024-51")
    source = paths or f"{wat_locations.BASE}crawl-data/{name}/wat.paths.gz"
    _add(name, wat_locations.read_list(source, limit), kinds, detector)
