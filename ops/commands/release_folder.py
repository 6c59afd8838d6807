"""pairmill release update, diff, keep-list, apply: what is done with finished releases' folders."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.options import AS_JSON, DRY_RUN, YES, confirm, counted, progress
from pairmill.ops.commands.release import app
from pairmill.ops.errors import UserError, extra
from pairmill.ops.files import atomic_folder
from pairmill.ops.output import print_json, progress_bar
from pairmill.workers.safe_text import safe, say

# numpy and pyarrow are not in every installation
if TYPE_CHECKING:
    from pairmill.ops.release.keep_list import KeepList
    from pairmill.ops.release.keep_list_apply import Applied

RELEASE = typer.Argument(help="A release's folder.")


@app.command("keep-list")
def keep_list(
    release: Path = RELEASE,
    out: Path = typer.Option(..., "--out", help="A .npy file; NAME.npy.json is written beside it."),
    made_by: str = typer.Option("", "--by", help="Who publishes it, in a few words."),
    as_json: bool = AS_JSON,
) -> None:
    """Write the ids of a release's rows, sorted: what `release apply` reads.

    The .npy is a file of a subset as DataComp has them (u8,u8). It names what stays, and nothing
    that went.
    """
    from dataclasses import asdict

    from pairmill.ops.release import keep_list as lists

    with progress("reading ids") as report:
        about = lists.write(release, out, made_by=made_by, progress=report)
    if as_json:
        print_json(asdict(about))
    else:
        say(f"{counted(about.rows, 'id')} in {out}, sha256 {about.sha256}")


@app.command("apply")
def apply(
    keep: Path = typer.Argument(metavar="KEEP_LIST", help="The .npy, with its .npy.json beside."),
    folders: list[Path] = typer.Argument(
        metavar="FOLDER…", help="Old copies: releases, embeddings, indexes, folders of images."
    ),
    out: Path = typer.Option(
        None, "--out", help="Write what stays of one folder here, and leave that as it is."
    ),
    digest: str = typer.Option("", "--sha256", help="Of the list, where no .npy.json is there."),
    any_release: bool = typer.Option(
        False, "--any-release", help="Also where the list is of another release, or an older one."
    ),
    keys_are_ids: bool = typer.Option(
        False, "--keys-are-ids", help="Images: their keys are SAMPLE_IDs, and nothing else says so."
    ),
    dry_run: bool = DRY_RUN,
    yes: bool = YES,
    as_json: bool = AS_JSON,
) -> None:
    """Drop every row that a keep-list does not name from copies of a release, and of what was made
    of it: Parquet, embeddings, an index, images in shards. Needs no database.

    Files are replaced one shard at a time: an interrupted run leaves whole shards, and the next
    one goes on. A second run drops nothing.
    """
    from pairmill.ops.release import keep_list as lists
    from pairmill.ops.release import keep_list_apply as applying

    if out and len(folders) > 1:
        raise typer.BadParameter("--out is for one folder")
    with progress("reading the keep-list") as report:
        wanted = lists.read(keep, digest, report)
    for folder in folders:
        applying.kind_of(folder)
        if not any_release:
            applying.require_same_release(folder, wanted.about)
    planned = [_apply(folder, wanted, keys_are_ids, dry_run=True) for folder in folders]
    _require_something_kept(planned, any_release)
    found = planned
    if not dry_run and (out or any(each.dropped for each in planned)):
        if not as_json and not yes and not out:
            _say_applied(planned, "would go")
        confirm(yes or out is not None)  # with --out nothing is lost
        with ExitStack() as stack:
            places = folders
            if out:
                places = [stack.enter_context(atomic_folder(out))]
                applying.copied(folders[0], places[0])
            found = [_apply(folder, wanted, keys_are_ids, dry_run=False) for folder in places]
            if out:
                applying.unlinked(places[0])
    elif not dry_run:
        # an interrupted run may have left a manifest to write
        found = [_apply(folder, wanted, keys_are_ids, dry_run=False) for folder in folders]
    if as_json:
        print_json({"folders": [each.as_dict() for each in found], "dry_run": dry_run})
    else:
        _say_applied(found, "would go" if dry_run else "dropped")


def _apply(folder: Path, keep: "KeepList", keys_are_ids: bool, *, dry_run: bool) -> "Applied":
    from pairmill.ops.release import keep_list_apply as applying

    what = f"{'reading' if dry_run else 'writing'} {safe(folder.name)}"
    with progress(what) as report:
        if applying.kind_of(folder) == "index":
            return _apply_to_index(folder, keep, report, dry_run)
        return applying.apply(
            folder, keep, keys_are_ids=keys_are_ids, dry_run=dry_run, progress=report
        )


def _apply_to_index(
    folder: Path, keep: "KeepList", report: Callable[[int, int], None], dry_run: bool
) -> "Applied":
    """The graph is made anew: a deleted vector would stay in its file."""
    import numpy as np

    from pairmill.ops.release.keep_list_apply import Applied
    from pairmill.ops.release.keep_list_ids import IDS

    with extra("index"):
        from pairmill.ops.vectors import index
    held = index.sample_ids(folder)
    ids = np.zeros(len(held), IDS)
    ids["f1"] = held
    gone = ids["f1"][~keep.keeps(ids)].tolist()
    index.remove(
        folder,
        gone,
        compact=bool(gone),
        dry_run=dry_run or not gone,
        progress=lambda _, done, total: report(done, total),
    )
    return Applied(str(folder), "index", len(held), len(gone), [])


def _require_something_kept(planned: list["Applied"], any_release: bool) -> None:
    for each in planned:
        if each.rows and each.dropped == each.rows and not any_release:
            raise UserError(
                f"the keep-list names none of the {each.rows:,} rows of {each.folder}: is it of"
                " another data set? --any-release drops them all; nothing was changed"
            )


def _say_applied(found: list["Applied"], done: str) -> None:
    for each in found:
        say(f"{each.folder} ({each.kind}): {each.dropped:,} of {each.rows:,} rows {done}")
        if each.left_alone:
            names = ", ".join(each.left_alone[:3]) + (", …" if each.left_alone[3:] else "")
            say(f"{each.folder}: left as they are, having no ids: {names}", err=True)


@app.command("update")
def update(
    old: Path = typer.Argument(metavar="OLD", help="The folder of the version that was published."),
    out: Path = typer.Option(
        None, "--out", help="A folder that does not exist yet; without it, covers are drawn alone."
    ),
    covers: int = typer.Option(
        None, "--covers", min=0, help="Cover rows for each removed one; mill.cover_setting's."
    ),
    min_removals: int = typer.Option(
        None, "--min-removals", min=1, help="Rows of a batch, at least; mill.cover_setting's."
    ),
    urgent: bool = typer.Option(
        False, "--urgent", help="However few they are, and however soon after the last batch."
    ),
    memory: str = typer.Option("2GB", "--memory", help="DuckDB's limit; beyond it, it spills."),
    dry_run: bool = DRY_RUN,
    as_json: bool = AS_JSON,
) -> None:
    """Write the next version of a release, with only what must go: rows that removals name by now,
    rows of withdrawn work, and cover rows, which hide which of them were removed. Nothing comes in.

    Covers are like the removed rows in site, language, size and punsafe, and are in no release any
    more. How many rows went for which reason is for you, and not for publication.
    """
    from pairmill.ops.release import update as updating

    wanted = updating.Wanted(covers, min_removals, urgent)
    with admin() as connection, progress_bar() as bar:
        task = bar.add_task("checking", total=None)
        done = updating.update(
            connection,
            old,
            out,
            wanted,
            memory=memory,
            dry_run=dry_run,
            progress=lambda what, done, total: bar.update(
                task, description=what, completed=done, total=total
            ),
        )
    if as_json:
        print_json(done.as_dict() | {"dry_run": dry_run})
        return
    where = "would stay" if dry_run or out is None else f"stay, in {out}"
    say(
        f"{done.kept:,} of {done.rows:,} rows {where}; not to be published: {done.removed:,}"
        f" removed, {done.withdrawn:,} withdrawn, {done.covers:,} covers, {done.new_covers:,} of"
        " them new"
    )


@app.command("diff")
def diff(
    a: Path = typer.Argument(metavar="A", help="A release's folder, say the older one."),
    b: Path = typer.Argument(metavar="B", help="Another one's."),
    out: Path = typer.Option(None, "--out", help="A new folder for the ids, as Parquet."),
    reasons: bool = typer.Option(
        False, "--reasons", help="Ask the database, which recorded them, why rows are in one alone."
    ),
    memory: str = typer.Option("2GB", "--memory", help="DuckDB's limit; beyond it, it spills."),
    as_json: bool = AS_JSON,
) -> None:
    """Compare two releases: rows of one alone, and rows that changed, by column.

    Removed, withdrawn and cover rows are one reason, "gone", and so are small counts, "other".
    """
    from pairmill.ops.release import diff as comparing

    with ExitStack() as stack:
        connection = stack.enter_context(admin()) if reasons else None
        bar = stack.enter_context(progress_bar())
        bar.add_task("comparing", total=None)
        found = comparing.diff(a, b, out, connection=connection, memory=memory)
    if as_json:
        print_json(found.as_dict())
        return
    say(f"in both, and the same: {found.same:,}")
    for name, count, why in (
        (f"in {a} alone", found.only_in_a, found.reasons_a),
        (f"in {b} alone", found.only_in_b, found.reasons_b),
        ("in both, and changed", found.changed, found.changed_by_column),
    ):
        say(f"{name}: {count:,}" + "".join(f"; {word} {n:,}" for word, n in why.items()))
