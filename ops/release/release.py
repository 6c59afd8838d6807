"""Releases: the pairs that a recipe keeps, as Parquet shards that anybody can check.

The same recipe on the same state of the database gives the same bytes: one snapshot,
ordered by SAMPLE_ID, nothing of the clock. The removals are applied, and the manifest says
which.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import mmh3
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill import __version__
from pairmill.ops.admin.removal import require_found
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, file_entries
from pairmill.ops.queries import rows
from pairmill.ops.release import unfinished
from pairmill.ops.release.decisions import Decisions, decide, hurry
from pairmill.ops.release.folder import write_manifest
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.record import ReleaseRecord
from pairmill.ops.release.selection import Selection, select
from pairmill.ops.release.unfinished import Unfinished

SHARD_ROWS = 1_000_000
ROW_GROUP = 100_000  # rows; about 30 MB in memory, 10 MB in the file
FETCH = 10_000
# LAION-5B's columns, and the image's md5; null where the recipe names no tagger. Types are those of
# LAION-400M, -5B and -Aesthetics, so that tables of both can be concatenated: similarity is their
# float64, whatever the database has, and tags are their float32.
SCHEMA = pa.schema(
    [
        ("SAMPLE_ID", pa.int64()), ("URL", pa.string()), ("TEXT", pa.string()),
        ("HEIGHT", pa.int32()), ("WIDTH", pa.int32()), ("LICENSE", pa.string()),
        ("LANGUAGE", pa.string()), ("NSFW", pa.string()), ("similarity", pa.float64()),
        ("hash", pa.int64()), ("md5", pa.string()),
        ("punsafe", pa.float32()), ("pwatermark", pa.float32()), ("aesthetic", pa.float32()),
    ]
)  # fmt: skip
Row = tuple[Any, ...]


def build(
    connection: psycopg.Connection,
    recipe: Recipe,
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard_rows: int = SHARD_ROWS,
    record: bool = True,
    strict: bool = False,
) -> Manifest:
    """Write a release into ``out``, a folder that does not exist or is empty, and record in the
    database what it decided of every pair, unless ``record`` is false.

    progress is called with (rows written, rows to write). Everything is written beside ``out`` and
    renamed at the end; the record is committed after that. So an interruption leaves nothing half
    done, and no record is of a folder that never was.
    Raises UserError if ``out`` holds something, if the database lacks the recipe's model, or, where
    it is ``strict``, if there is work that the release would not see.
    """
    done = False
    try:
        with _snapshot(connection):
            with atomic_folder(out) as half:
                manifest = _write(connection, recipe, half, progress, shard_rows, record, strict)
            done = True
    except psycopg.OperationalError as error:
        if not done:
            raise
        raise UserError(
            f"the release in {out} is whole, but the database was lost before it kept the record:"
            f" build it again for one ({error})"
        ) from None
    return manifest


def rehearse(connection: psycopg.Connection, recipe: Recipe) -> tuple[Decisions, Unfinished]:
    """What a release would keep and leave out, and what is not done yet; nothing is written."""
    with _snapshot(connection):
        selection = select(connection, recipe)
        waiting = unfinished.of_tasks(connection, selection)
        hurry(connection)
        decisions = decide(connection, selection)
    return decisions, unfinished.with_pairs(waiting, decisions)


@contextmanager
def _snapshot(connection: psycopg.Connection) -> Iterator[None]:
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read")
        yield


def _write(
    connection: psycopg.Connection,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[int, int], None],
    shard_rows: int,
    record: bool,
    strict: bool,
) -> Manifest:
    require_found(connection)
    selection = select(connection, recipe)
    waiting = unfinished.of_tasks(connection, selection)
    if strict and unfinished.has_work(waiting):
        raise UserError(
            f"not built, since work is not done: {unfinished.sentence(waiting)}; without --strict"
            " the release has what is done"
        )
    kept_as = ReleaseRecord(connection, recipe) if record else None
    hurry(connection)
    decisions = decide(connection, selection, *([kept_as.add] if kept_as else []))
    table = ReleaseColumns(recipe, selection.taggers)
    with connection.cursor("release") as cursor:
        cursor.itersize = FETCH
        cursor.execute(
            f"select * from ({selection.query}) pair where excluded is null order by sample_id",
            selection.values,
        )
        shards = list(_shards(cursor, folder, decisions.kept, progress, shard_rows, table))
    manifest = _manifest(
        selection,
        decisions,
        removals=removals_version(connection),
        unfinished=unfinished.with_pairs(waiting, decisions),
        columns={f.name: str(f.type) for f in table.schema},
        files=file_entries(folder, shards),
    )
    write_manifest(folder, manifest, table.schema)
    if kept_as:
        kept_as.end(manifest, decisions, folder)
    return manifest


def _manifest(selection: Selection, decisions: Decisions, **others: Any) -> Manifest:
    def named(model: dict[str, Any]) -> dict[str, Any]:
        return {key: model[key] for key in ("name", "pretrained", "digest")}

    recipe, other = selection.recipe, selection.multilingual_model
    return Manifest(
        recipe=recipe.as_dict(),
        model=named(selection.model),
        multilingual_model=named(other) if other else None,
        taggers={
            column: {key: tagger[key] for key in ("name", "digest", "kind", "licence")}
            for column, tagger in zip(recipe.tags, selection.taggers, strict=True)
        },
        candidates=decisions.candidates,
        kept=decisions.kept,
        excluded=dict(sorted(decisions.excluded.items())),
        kept_by_language=dict(sorted(decisions.kept_by_language.items())),
        written_by={"pairmill": __version__, "pyarrow": pa.__version__},
        **others,
    )


class ReleaseColumns:
    """Makes Arrow tables of a release from rows of release.sql. schema: theirs."""

    def __init__(self, recipe: Recipe, taggers: list[dict[str, Any]]) -> None:
        self._tags = list(recipe.tags)
        self._labels = [tagger["labels"] for tagger in taggers]
        more = [(name, pa.float32()) for name in self._tags if name not in SCHEMA.names]
        self.schema = pa.schema([*SCHEMA, *more])

    def table(self, chunk: list[Row]) -> pa.Table:
        ids, urls, texts, heights, widths, licenses, languages, similarities, md5s, *tags, _ = zip(
            *chunk, strict=True
        )
        values: dict[str, Any] = {
            "SAMPLE_ID": ids, "URL": urls, "TEXT": texts, "HEIGHT": heights, "WIDTH": widths,
            "LICENSE": licenses, "LANGUAGE": languages, "similarity": similarities,
            "hash": [mmh3.hash64(url + text)[0] for url, text in zip(urls, texts, strict=True)],
            "md5": [md5.hex for md5 in md5s],
        }  # fmt: skip
        for i, column in enumerate(self._tags):
            numbers, labels = tags[2 * i : 2 * i + 2]
            values[column] = numbers
            if column == "NSFW":
                values[column] = [None if at is None else self._labels[i][at] for at in labels]
        nothing = [None] * len(chunk)
        arrays = [pa.array(values.get(f.name, nothing), f.type) for f in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _shards(
    cursor: Iterator[Row],
    folder: Path,
    kept: int,
    progress: Callable[[int, int], None],
    shard_rows: int,
    columns: ReleaseColumns,
) -> Iterator[tuple[Path, int]]:
    """Write part-00000.parquet and so on, at least one; yields each with its rows."""
    done = 0
    for number in range(max(1, -(-kept // shard_rows))):
        path = folder / f"part-{number:05}.parquet"
        written = 0
        with pq.ParquetWriter(
            path, columns.schema, compression="zstd", compression_level=3
        ) as writer:
            while chunk := list(islice(cursor, min(ROW_GROUP, shard_rows - written))):
                writer.write_table(columns.table(chunk), row_group_size=ROW_GROUP)
                written += len(chunk)
                progress(done + written, kept)
        done += written
        yield path, written


def removals_version(connection: psycopg.Connection) -> dict[str, Any]:
    """The version of the removal list: its length, highest id and sha256."""
    sources = [
        r["source"]
        for r in rows(
            connection,
            'select source from mill.removal where spelling_of is null order by source collate "C"',
        )
    ]
    (top,) = rows(connection, "select coalesce(max(removal_id), 0) as id from mill.removal")
    digest = hashlib.sha256("".join(f"{source}\n" for source in sources).encode()).hexdigest()
    return {"count": len(sources), "highest_id": top["id"], "sha256": digest}
