"""pairmill archive: finished batches as Parquet files, beside the database or in its place."""

from typing import TYPE_CHECKING, Any

import psycopg
import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.admin.url_retries import batch_range
from pairmill.ops.commands.options import YES, confirm, counted, progress
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.ops.queries import rows
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.archive.catalogue import Partition

Connection = psycopg.Connection[Any]
app = typer.Typer(invoke_without_command=True, help="Finished batches as Parquet files.")
BATCHES = typer.Option("", "--batches", help="FIRST-LAST, or one number; all by default.")
SHOW = (
    "first_batch", "last_batch", "pairs", "place", "is_current", "generation", "bytes", "folder",
)  # fmt: skip


@app.callback()
def archive(
    context: typer.Context,
    to: str = typer.Option(
        "", "--to", help="The archive: a folder, or a URL that fsspec opens (s3://, gs://, …)."
    ),
    batches: str = BATCHES,
    partial: bool = typer.Option(
        False, "--partial", help="Also partitions that are not finished, the last one among them."
    ),
    detach: bool = typer.Option(
        False,
        "--detach",
        help="Then drop finished partitions from the database, once the files were read back and"
        " compared with it, row by row.",
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what it would write and drop."),
    yes: bool = YES,
    as_json: bool = typer.Option(
        False, "--json", help="A JSON object; with --detach also --yes or --dry-run."
    ),
) -> None:
    """Write the rows of finished partitions, 1,000 batches each, into Parquet files.

    A partition is finished when it is full and no download or score task of it is left. One that
    has changed since gets a new generation of its files; one that has not is passed over, so that
    the same command goes on where it was interrupted.
    """
    if context.invoked_subcommand:
        return
    if not to and not detach:
        raise UserError("name the archive: `pairmill archive --to FOLDER_OR_URL`")
    first, last = batch_range(batches)
    with admin() as connection:
        written = _write(connection, to, first, last, partial=partial, dry_run=dry_run)
        if not as_json:
            _say_written(written, to, dry_run=dry_run)
        gone = _detachable(connection, first, last, written if dry_run else []) if detach else []
        if detach and not as_json:
            _say_detachable(gone)
        if gone and not dry_run:
            confirm(yes)
            _detach(connection, gone, say_it=not as_json)
    if as_json:
        print_json(
            {
                "archived": [_described(each) for each in written],
                "detached": [_described(each) for each in gone],
                "dry_run": dry_run,
            }
        )


def _write(
    connection: Connection, to: str, first: int, last: int, *, partial: bool, dry_run: bool
) -> "list[Partition]":
    """What was archived, or would be."""
    from pairmill.ops.archive import generations

    chosen = generations.to_archive(connection, first, last, partial=partial) if to else []
    if dry_run or not chosen:
        return chosen
    with generations.only_one(connection), progress("archiving") as step:
        return list(generations.archive(connection, chosen, to, step))


def _detachable(
    connection: Connection, first: int, last: int, coming: "list[Partition]"
) -> "list[Partition]":
    """The partitions that can be detached. coming: those that would be archived first."""
    from pairmill.ops.archive.catalogue import partitions
    from pairmill.ops.archive.detach import why_not

    soon = {each.first_batch for each in coming}
    return [
        each
        for each in partitions(connection, first, last)
        if each.detached_at is None
        and (each.is_finished if each.first_batch in soon else not why_not(each))
    ]


def _detach(connection: Connection, chosen: "list[Partition]", *, say_it: bool) -> None:
    from pairmill.ops.archive import generations
    from pairmill.ops.archive.detach import detach

    with generations.only_one(connection):
        for each in chosen:
            with progress(f"comparing batches {each.name}") as step:
                detach(connection, each, step)
            if say_it:
                say(f"batches {each.name}: detached")


def _described(partition: "Partition") -> dict[str, Any]:
    return {
        key: getattr(partition, key)
        for key in ("first_batch", "last_batch", "batches", "pairs", "generation", "folder")
    }


def _say_written(written: "list[Partition]", to: str, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for each in written:
        place = to if dry_run else each.folder
        say(f"batches {each.name}: {each.pairs:,} pairs {would}archived in {place}")
    if to and not written:
        say("nothing to archive: every finished partition is there as it is")


def _say_detachable(gone: "list[Partition]") -> None:
    if gone:
        pairs = sum(each.pairs for each in gone)
        names = ", ".join(each.name for each in gone)
        say(f"to leave the database: {pairs:,} pairs of batches {names}, with all their rows")
    else:
        say("nothing to detach: no partition is finished, archived and here")


@app.command("list")
def list_(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """Show the place of each partition: the database (live), both (archived), files (detached)."""
    with admin() as connection:
        found = rows(connection, "select * from report.archive order by first_batch")
    print_rows(found, SHOW, as_json=as_json, empty="no batches yet")


@app.command()
def verify(
    batches: str = BATCHES,
    with_rows: bool = typer.Option(
        False, "--rows", help="Compare all rows, too, of partitions that are in the database."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON array of the faults."),
) -> None:
    """Read the archive's files back and compare their digests. Exit code 1: something is wrong.

    Of a damaged partition whose rows are still here, the next `pairmill archive` writes new files.
    """
    from pairmill.ops.archive import detach
    from pairmill.ops.archive.catalogue import partitions

    faults = []
    with admin() as connection:
        known = [p for p in partitions(connection, *batch_range(batches)) if p.generation]
        for each in known:
            whole = with_rows and each.detached_at is None and not each.wants_archiving
            try:
                with progress(f"reading batches {each.name}") as step:
                    detach.verify(connection, each, rows=whole, progress=step)
            except UserError as error:
                detach.distrust(connection, each)
                faults.append({"first_batch": each.first_batch, "fault": str(error)})
    if as_json:
        print_json(faults)
    for fault in [] if as_json else faults:
        say(str(fault["fault"]))
    if faults:
        raise typer.Exit(1)
    if not as_json:
        say(f"{len(known):,} partitions are whole")


@app.command()
def restore(
    batches: str = typer.Argument(help="FIRST-LAST, or one number: the partitions of these."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what it would bring back."),
    as_json: bool = typer.Option(False, "--json", help="A JSON array."),
) -> None:
    """Bring the rows of detached partitions back into the database, bit for bit.

    What removals and withdrawals could not do meanwhile is done then: URLs are queued again.
    """
    from pairmill.ops.archive import generations
    from pairmill.ops.archive.catalogue import detached
    from pairmill.ops.archive.restore import restore as bring_back

    done = []
    with admin() as connection:
        chosen = detached(connection, *batch_range(batches))
        if not chosen:
            raise UserError(
                f"no partition of batches {batches} is detached: `pairmill archive list`"
            )
        with generations.only_one(connection):
            for each in chosen:
                withdrawn = 0
                if not dry_run:
                    with progress(f"restoring batches {each.name}") as step:
                        withdrawn = bring_back(connection, each, step)
                done.append(_described(each) | {"withdrawn_meanwhile": withdrawn})
                if not as_json:
                    would = "would be " if dry_run else ""
                    say(f"batches {each.name}: {each.pairs:,} pairs {would}back in the database")
                    if withdrawn:
                        say(f"{withdrawn:,} submissions were withdrawn meanwhile: queued again")
    if as_json:
        print_json(done)


@app.command()
def prune(
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what it would delete."),
    yes: bool = YES,
    as_json: bool = typer.Option(False, "--json", help="A JSON array; with --yes or --dry-run."),
) -> None:
    """Delete the files of generations that a newer one stands in for.

    They have what was removed or withdrawn since they were written.
    """
    from pairmill.ops.archive import generations

    with admin() as connection, generations.only_one(connection):
        found = list(generations.prune(connection, dry_run=True))
        if found and not dry_run:
            if not as_json:
                say(f"to be deleted: {counted(len(found), 'generation')} of files")
            confirm(yes)
            found = list(generations.prune(connection, dry_run=False))
    if as_json:
        print_json(found)
        return
    for each in found:
        say(f"{'would be ' if dry_run else ''}deleted: {each['folder']}")
    if not found:
        say("nothing to delete: of each partition there is one generation")
