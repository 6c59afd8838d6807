"""Archiving: a generation of facts of each partition that is finished and not up to date."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.types.json import Jsonb

from pairmill import __version__
from pairmill.ops.archive import store
from pairmill.ops.archive.catalogue import Partition, partitions
from pairmill.ops.archive.columns import ARCHIVED
from pairmill.ops.archive.export import export
from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

LOCK = 0x61726368  # "arch": of the session that writes, detaches or restores
Progress = Callable[[int, int], None]


@contextmanager
def only_one(connection: psycopg.Connection[Any]) -> Iterator[None]:
    """Nobody else writes to the archive meanwhile. Raises UserError where somebody does."""
    (row,) = rows(connection, "select pg_try_advisory_lock(%s) as held", LOCK)
    if not row["held"]:
        raise UserError("another `pairmill archive` is at work on this database: wait for its end")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(%s)", (LOCK,))


def to_archive(
    connection: psycopg.Connection[Any], first: int, last: int, *, partial: bool
) -> list[Partition]:
    """The partitions of which a new generation would be written. partial: also of those that are
    not finished."""
    return [
        each
        for each in partitions(connection, first, last)
        if each.detached_at is None and each.wants_archiving and (partial or each.is_finished)
    ]


def archive(
    connection: psycopg.Connection[Any],
    chosen: list[Partition],
    root: str,
    progress: Progress = lambda done, total: None,
) -> Iterator[Partition]:
    """Write a generation of each partition's facts below ``root``, a folder or a URL of fsspec, and
    yield the partition as it is then. progress is called with (batches done, batches to do).

    Interrupted, what was yielded stays, and the next call goes on with the rest.
    """
    total = sum(each.batches for each in chosen)
    before = 0
    for partition in chosen:

        def step(done: int, _: int, before: int = before) -> None:
            progress(before + done, total)

        _archive(connection, partition, root, step)
        before += partition.batches
        yield from partitions(connection, partition.first_batch, partition.first_batch)


def _archive(
    connection: psycopg.Connection[Any], partition: Partition, root: str, progress: Progress
) -> None:
    first, last = partition.first_batch, partition.last_batch
    generation = (partition.generation or 0) + 1
    folder = store.folder_of(root, first, last, generation)
    database = _identity(connection)
    with store.new_folder(folder, database) as half:
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read")
            export(connection, half, first, last, tables=ARCHIVED, progress=progress)
            extractions = _extractions(half / "pair.parquet")
            state = _state(connection, first, last, extractions)
        counts = {p.name: pq.read_metadata(p).num_rows for p in half.glob("*.parquet")}
        manifest = store.write_manifest(
            half,
            {
                "database": database,
                "first_batch": first,
                "last_batch": last,
                "generation": generation,
                "state": state["state"],
                "models": _models(connection),
                "written_by": {"pairmill": __version__, "pyarrow": pa.__version__},
            },
            counts,
        )
    with connection.transaction():
        connection.execute("select mill.index_images(%s, %s)", (first, last))
        connection.execute(
            "insert into mill.archive (first_batch, generation, last_batch, folder, state,"
            " removed_pairs, extractions, files, manifest_sha256)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                first, generation, last, folder, Jsonb(state["state"]), state["removed_pairs"],
                extractions, Jsonb(manifest["files"]), manifest["sha256"],
            ),
        )  # fmt: skip


def _identity(connection: psycopg.Connection[Any]) -> str:
    """Another one in each database of each server."""
    (row,) = rows(
        connection,
        "select c.system_identifier || '/' || d.oid as identity from pg_control_system() c,"
        " pg_database d where d.datname = current_database()",
    )
    return str(row["identity"])


def _extractions(path: Path) -> list[int]:
    """The submissions that the pairs came with."""
    found: set[int] = set()
    if path.exists():
        for part in pq.ParquetFile(path).iter_batches(columns=["submission_id"]):
            found.update(part["submission_id"].unique().to_pylist())
    return sorted(found)


def _state(
    connection: psycopg.Connection[Any], first: int, last: int, extractions: list[int]
) -> dict[str, Any]:
    (row,) = rows(
        connection,
        "select mill.archive_state(%(first)s, %(last)s, %(extractions)s) as state, (select count(*)"
        " from mill.removed_pair where batch_id between %(first)s and %(last)s) as removed_pairs",
        first=first,
        last=last,
        extractions=extractions,
    )
    return row


def _models(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """The models that the files are named after, by model_id."""
    found = rows(
        connection,
        "select model_id, name, pretrained, digest, kind, dims from mill.model order by model_id",
    )
    return {str(row.pop("model_id")): row for row in found}


def prune(connection: psycopg.Connection[Any], *, dry_run: bool) -> Iterator[dict[str, Any]]:
    """Delete the generations that a newer one stands in for, and yield each."""
    for row in rows(
        connection,
        "select a.first_batch, a.last_batch, a.generation, a.folder from mill.archive a"
        " where a.generation < (select n.generation from mill.newest_archive n"
        " where n.first_batch = a.first_batch) order by 1, 3",
    ):
        if not dry_run:
            store.remove(row["folder"])
            connection.execute(
                "delete from mill.archive where first_batch = %s and generation = %s",
                (row["first_batch"], row["generation"]),
            )
        yield row
