"""The next version of a release: the old one without what must go, and nothing new.

What goes: rows that removals name, copies of their images under other URLs, rows that stayed for a
duplicate that is removed, rows of which a submission was withdrawn, and the cover rows of these.
The same folder and the same state of the database give the same bytes; covers are part of that
state, and are committed before the folder is there.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, require_free, sha256
from pairmill.ops.release import cover, cover_draw, update_manifest
from pairmill.ops.release.folder import (
    ReleaseFolder,
    read_release,
    release_schema,
    write_manifest,
)
from pairmill.ops.release.keep_list import ids_of_parts, lineage
from pairmill.ops.release.keep_list_ids import sample_ids
from pairmill.ops.release.keep_list_rows import filter_parquet
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.update_state import read_state, require_lists

if TYPE_CHECKING:
    import duckdb

MEMORY = "2GB"
FETCH = 10_000
StepDone = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Steps that nobody is told of."""


@dataclass(frozen=True)
class Wanted:
    """What an admin asks of a draw, where it is not ``mill.cover_setting``'s. urgent: at once,
    however few removals there are, and however short a time ago the last draw was."""

    covers: int | None = None
    min_removals: int | None = None
    urgent: bool = False


@dataclass(frozen=True)
class Update:
    """What goes from a release, of rows: removed (copies among them), withdrawn, covers, of which
    new_covers were drawn now; covers_by_match: see ``cover_draw.Drawn``. This is for an admin: to
    publish any of it but ``kept`` and the sum would undo the covers."""

    rows: int
    kept: int
    removed: int
    withdrawn: int
    covers: int
    new_covers: int
    covers_by_match: dict[int, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def update(
    connection: psycopg.Connection,
    old: Path,
    out: Path | None,
    wanted: Wanted | None = None,
    *,
    memory: str = MEMORY,
    dry_run: bool = False,
    progress: StepDone = silent,
) -> Update:
    """Write the next version of the release in folder ``old`` into ``out``; None: only draw the
    covers. With dry_run, only say what would go.

    memory: DuckDB's limit. progress is called with (what, done, all). Raises UserError if ``out``
    holds something, if the folder is no release, is damaged, or was deduplicated without a record,
    if nothing must go, while a list of removals that its recipe requires is missing or a search is
    not over, for a draw that is too small or too soon, and where too few rows are like those that
    must go.
    """
    if out is not None:
        require_free(out)
    found = _whole(old, progress)
    beside = (out or old).absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".update-", dir=beside) as folder:
        work = Path(folder)
        with cover_draw.database(work, memory) as db:
            progress("drawing covers", 0, 1)
            done, removals = _decide(connection, db, found, wanted or Wanted(), dry_run)
            gone = cover_draw.dropped(db, work / "gone")
        if out is not None and not dry_run:
            with atomic_folder(out) as half:
                _write(found, gone, half, removals, memory, progress)
    return done


def _whole(folder: Path, progress: StepDone) -> ReleaseFolder:
    """Raises UserError for a release with a file that is not the manifest's."""
    found = read_release(folder)
    for done, (path, entry) in enumerate(zip(found.parts, found.manifest["files"], strict=True)):
        progress("checking", done, len(found.parts))
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise UserError(f"{path} is not the file that the release's manifest names")
    return found


def _decide(
    connection: psycopg.Connection,
    db: "duckdb.DuckDBPyConnection",
    found: ReleaseFolder,
    wanted: Wanted,
    dry_run: bool,
) -> tuple[Update, dict[str, Any]]:
    """Find what goes, in one snapshot, and commit the covers that are new."""
    cover_draw.read_rows(db, found.parts)
    with connection.transaction(force_rollback=dry_run):
        connection.execute("set transaction isolation level repeatable read")
        require_lists(connection, found)
        setting = cover.setting(connection)
        removals = cover.public_version(connection)
        read_state(connection, db, found)
        covers = setting.covers if wanted.covers is None else wanted.covers
        _refuse_small(db, found, setting, wanted)
        drawn = cover_draw.draw(db, setting.key, covers)
        db.execute(
            "create table fresh as select sample_id from cover anti join known using (sample_id)"
        )
        db.execute(
            "insert into cover select sample_id, null from known anti join cover using (sample_id)"
        )
        ((fresh, all_covers),) = db.execute(
            "select (select count(*) from fresh), (select count(*) from cover)"
        ).fetchall()
        going = drawn.removed + drawn.withdrawn + all_covers
        if not going:
            raise UserError(f"nothing of {found.folder} must go: it is up to date")
        if fresh or (drawn.removed and not covers):
            _refuse_soon(connection, found, setting, wanted)
        if fresh:
            _keep(connection, db, found, drawn.removed, fresh)
    done = Update(
        rows=found.rows,
        kept=found.rows - going,
        removed=drawn.removed,
        withdrawn=drawn.withdrawn,
        covers=all_covers,
        new_covers=fresh,
        covers_by_match=drawn.by_level,
    )
    return done, removals


def _refuse_small(
    db: "duckdb.DuckDBPyConnection",
    found: ReleaseFolder,
    setting: cover.CoverSetting,
    wanted: Wanted,
) -> None:
    least = setting.min_removals if wanted.min_removals is None else wanted.min_removals
    ((removed,),) = db.execute("select count(*) from gone").fetchall()
    if 0 < removed < least and not wanted.urgent:
        raise UserError(
            f"{removed:,} rows of {found.folder} are to be removed, and a batch has {least:,} at"
            " least, so that nobody who asked for one knows its row by the date: wait for more,"
            " lower --min-removals, or say --urgent"
        )


def _refuse_soon(
    connection: psycopg.Connection,
    found: ReleaseFolder,
    setting: cover.CoverSetting,
    wanted: Wanted,
) -> None:
    name = found.manifest["recipe"]["name"]
    last = cover.last_draw(connection, name)
    if last and last["days"] < setting.days_between and not wanted.urgent:
        raise UserError(
            f"the last removals of {name} were published on {last['drawn_at']:%Y-%m-%d}, and"
            f" {setting.days_between} days are to lie between two batches: wait, or say --urgent"
        )


def _keep(
    connection: psycopg.Connection,
    db: "duckdb.DuckDBPyConnection",
    found: ReleaseFolder,
    removed: int,
    fresh: int,
) -> None:
    """Note the covers that are new."""
    try:
        (row,) = connection.execute(
            "insert into mill.cover_draw (release_name, manifest_sha256, removals, covers)"
            " values (%s, %s, %s, %s) returning draw_id",
            (found.manifest["recipe"]["name"], lineage(found.folder)[0], removed, fresh),
        ).fetchall()
    except psycopg.errors.ReadOnlySqlTransaction:
        raise UserError("this session may only read, and covers are to be noted") from None
    reader = db.execute("select sample_id from fresh order by sample_id")
    with (
        connection.cursor() as cursor,
        cursor.copy("copy mill.cover_row (sample_id, draw_id) from stdin") as copy,
    ):
        while some := reader.fetchmany(FETCH):
            for (sample,) in some:
                copy.write_row((sample, row[0]))


def _write(
    found: ReleaseFolder,
    gone: npt.NDArray[np.int64],
    half: Path,
    removals: dict[str, Any],
    memory: str,
    progress: StepDone,
) -> Manifest:
    done = 0
    for part in found.parts:
        kept = []
        for _, ids in ids_of_parts([part]):
            samples = sample_ids(ids)
            place = np.searchsorted(gone, samples).clip(max=max(0, len(gone) - 1))
            kept.append(gone[place] != samples if len(gone) else np.ones(len(samples), bool))
        mask = np.concatenate(kept) if kept else np.zeros(0, bool)
        filter_parquet(part, half / part.name, mask)
        done += len(mask)
        progress("writing", done, found.rows)
    parts = [half / part.name for part in found.parts]
    manifest = update_manifest.derived(found, parts, {}, removals)
    write_manifest(half, manifest, release_schema(found.folder), parts=half, memory=memory)
    return manifest
