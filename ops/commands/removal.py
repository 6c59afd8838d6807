"""pairmill removal: URLs, hosts, images and samples that no release may contain."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import psycopg
import typer

from pairmill.ops.admin import removal, removal_search
from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.removal import Confirm, Report
from pairmill.ops.admin.removal_entries import entries_in, parse, read_entries
from pairmill.ops.admin.removal_search import Detached, Progress, silent
from pairmill.ops.commands import options
from pairmill.ops.commands.completion import one_of, removals
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, LIMIT, YES, counted, progress
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows, progress_bar
from pairmill.ops.queries import query_text, rows
from pairmill.workers.safe_text import say

app = typer.Typer(
    no_args_is_help=True, help="Removals, applied at ingest, to workers and at every release."
)
SHOWN = ("removal_id", "kind", "source", "pairs", "reason", "added_at", "added_by")
UNDONE = ("removal_id", "source", "pairs", "reason", "undone_at", "undone_by", "why")
KINDS = ("url", "prefix", "host", "image", "sample")
# A removal of more known pairs than this, and of more than a hundredth of all, may be a slip
MANY = 1000
HOW = (("by_url", "URL"), ("by_prefix", "prefix"), ("by_host", "host"), ("by_image", "image"),
       ("by_sample", "SAMPLE_ID"))  # fmt: skip


def entries_of(what: list[str]) -> list[str]:
    """Entries, and the lines of files; - is standard input."""
    found = []
    for one in what:
        if one == "-":
            found += entries_in(sys.stdin.read(), "standard input")
        elif (path := Path(one)).is_file():
            found += read_entries(path)
        elif "/" in one and "://" not in one:
            raise UserError(
                f"there is no file {one} (a URL begins with http://): nothing was changed"
            )
        else:
            parse(one)
            found.append(one)
    return found


@app.command("add")
def add(
    what: list[str] = typer.Argument(
        help="URLs (https://example.org/album/* with all that begin so), hosts (example.org; "
        "*.example.org with all below it), md5s, SHA-1s, sha256s, pdq:HEX, pdq:HEX/DISTANCE, "
        "dhash:NUMBER, sample:SAMPLE_ID, or files with one of these a line; - for standard input."
    ),
    page: bool = typer.Option(
        False, "--page", help="The URLs are of pages: the images of their known pairs are meant."
    ),
    reason: str = typer.Option("", "--reason", help="Why, for the record."),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    as_json: bool = AS_JSON,
) -> None:
    """Remove URLs, hosts, images or samples.

    All spellings of a URL or host are meant. Nothing that is removed comes in, is shown to a worker
    or is released from now on; stored embeddings of it are deleted. Hosts, prefixes and image
    hashes are looked for in all pairs, which takes a minute for some millions. More than a thousand
    pairs that are more than a hundredth of all are asked about first.
    """
    entries = entries_of(what)
    with admin() as connection, searching() as (report_progress, pause):
        if page:
            entries = removal.of_pages(connection, entries)
        report = removal.add(
            connection, entries, reason, dry_run, report_progress,
            detached=detached(), confirm=confirmation(connection, yes, pause),
        )  # fmt: skip
    if as_json:
        print_json(asdict(report) | {"dry_run": dry_run})
        return
    say_report(report, dry_run)
    if not report.matching_pairs and not page and any("://" in entry for entry in entries):
        say("a URL is an image's: --page takes URLs of pages (report.sample.page_url)")
    if report.matching_pairs and not dry_run:
        say_copies()


@contextmanager
def searching() -> Iterator[tuple[Progress, Callable[[], None]]]:
    """As ``options.progress``, and what ends the bar, so that a question can be read."""
    if not sys.stderr.isatty():
        yield silent, lambda: None
        return
    with progress_bar() as bar:
        task = bar.add_task("searching", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total), bar.stop


def confirmation(connection: psycopg.Connection, yes: bool, pause: Callable[[], None]) -> Confirm:
    """Asks before much is removed."""

    def ask(report: Report) -> None:
        query = "select coalesce(sum(pair_count), 0) from mill.batch"
        ((pairs,),) = connection.execute(query).fetchall()
        found = report.matching_pairs
        if found > MANY and 100 * found > pairs:
            pause()
            say(f"{counted(found, 'known pair')} of {pairs:,} would be removed")
            options.confirm(yes)

    return ask


def detached() -> Detached:
    """The search in partitions that were detached."""

    def search(connection: psycopg.Connection, first: int, progress: Progress) -> None:
        from pairmill.ops.archive.search import find_in_detached  # DuckDB takes 0.2 s

        find_in_detached(connection, first, progress)

    return search


def say_report(report: Report, dry_run: bool) -> None:
    """What was added, or would be, and what it names."""
    would = "would be " if dry_run else ""
    found = asdict(report)
    by = ", ".join(f"{found[key]:,} by {way}" for key, way in HOW if found[key])
    say(
        f"{report.added:,} {would}added, {report.known:,} known already;"
        f" they name {counted(report.matching_pairs, 'known pair')}{f' ({by})' if by else ''}"
    )
    if report.embeddings:
        say(f"{counted(report.embeddings, 'embedding')} {would}deleted")


def say_copies() -> None:
    """What a removal does not reach by itself."""
    say(
        "releases, exports and indexes made before still hold them: `pairmill release update` makes"
        " a release's next version, `pairmill index remove` an index's"
    )


@app.command("search")
def search(as_json: bool = AS_JSON) -> None:
    """End searches that were interrupted, and compare newly downloaded images with the PDQs.

    A release, an export and an index are not made before. Cheap where nothing waits: from cron,
    say every minute.
    """
    with admin() as connection, progress("searching") as report_progress:
        ended = removal.finish_search(connection, detached(), report_progress)
        parts = removal_search.waiting(connection)
        pairs = removal_search.compare_waiting(connection, report_progress)
    if as_json:
        print_json({"removals": ended, "parts": parts, "pairs": pairs})
        return
    say(
        f"{counted(ended, 'search', 'searches')} ended;"
        f" {counted(parts, 'part')} of downloads compared with PDQs, which name"
        f" {counted(pairs, 'pair')}"
    )


@app.command("remove")
def remove(
    what: list[str] = typer.Argument(
        help="Removals to take back, by number (`removal list`) or as they were given.",
        autocompletion=removals,
    ),
    reason: str = typer.Option("", "--reason", help="Why, for the record."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Take removals back: their pairs are allowed again, unless another removal names them.

    Who did it, when and why is kept: `removal list --undone`.
    """
    with admin() as connection:
        ids = removal.named_by(connection, what)
        removal.require_unlisted(connection, ids)
        undone = removal.undo(connection, ids, reason, dry_run)
    if as_json:
        print_json(asdict(undone) | {"dry_run": dry_run})
        return
    would = "would be " if dry_run else ""
    are = "would be" if dry_run else "is" if undone.pairs == 1 else "are"
    say(
        f"{counted(undone.removals, 'removal')} {would}taken back;"
        f" {counted(undone.pairs, 'pair')} {are} allowed again"
    )
    if undone.urls:
        say(f"{counted(undone.urls, 'URL')} that nobody was asked for {would}queued for download")
    if undone.unscored:
        say(
            f"{counted(undone.unscored, 'pair')} downloaded and not scored:"
            " `pairmill model backfill` queues them"
        )
    if undone.unembedded:
        say(
            f"{counted(undone.unembedded, 'pair')} without embeddings, which were deleted:"
            " exports and indexes do without them"
        )
    say("a URL that was not let in comes in with the next file that links to it")


@app.command("list")
def listing(
    what: list[str] = typer.Argument(
        None, help="Only these, by number or as they were given; all by default."
    ),
    kind: str = typer.Option(
        None, "--kind", help="url, prefix, host, image or sample.", autocompletion=one_of(*KINDS)
    ),
    reason: str = typer.Option(None, "--reason", help="Only those whose reason has these words."),
    undone: bool = typer.Option(False, "--undone", help="Those that were taken back."),
    limit: int = LIMIT,
    as_json: bool = AS_JSON,
) -> None:
    """The removals, and the pairs that they name."""
    if kind is not None and kind not in KINDS:
        raise UserError(f"--kind is one of {', '.join(KINDS)}, not {kind!r}")
    if undone and (kind or reason or what):
        raise UserError("--undone shows all that were taken back: leave the other filters out")
    with admin() as connection:
        if undone:
            query = "select * from mill.removal_undone order by undone_id desc limit %s"
            found = rows(connection, query, limit)
        else:
            values = {
                "kind": kind,
                "reason": reason,
                "ids": removal.named_by(connection, what) if what else None,
                "limit": limit,
            }
            found = rows(connection, query_text("admin", "removals"), **values)
    filtered = bool(kind or reason or what)
    print_rows(
        found,
        UNDONE if undone else SHOWN,
        as_json=as_json,
        empty="no removal was taken back" if undone
        else "no such removals" if filtered else "nothing is removed",
    )  # fmt: skip
