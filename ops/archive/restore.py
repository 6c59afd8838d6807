"""Restoring: the rows of a detached partition come back from its files, bit for bit."""

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pairmill.ops.archive import compare, detach, stored
from pairmill.ops.archive.catalogue import Partition
from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError

Progress = Callable[[int, int], None]


def restore(
    connection: psycopg.Connection[Any],
    partition: Partition,
    progress: Progress = lambda done, total: None,
) -> int:
    """Bring the rows of a detached partition back, and do what removals and withdrawals could not
    do meanwhile. Returns the submissions that were withdrawn meanwhile.

    The rows are loaded and compared apart, and become the partition at the end; interrupted,
    nothing has changed. Raises UserError where a file is damaged or its rows come back as others.
    """
    if partition.detached_at is None:
        raise UserError(f"batches {partition.name} are not detached: their rows are here")
    detach.verify(connection, partition, rows=False, progress=progress)
    facts = partition.facts()
    suffix = f"_b{partition.first_batch // 1000:06}"
    with connection.transaction():
        connection.execute("select mill.make_restored(%s)", (partition.first_batch,))
        files = compare.files_of(connection)
        total = partition.batches * len(files)
        done = 0
        for table, model_id in files:
            for batch_id, made in stored.batches(facts, table, model_id):
                _load(connection, facts, table, suffix, made, batch_id, model_id)
                done += 1
                progress(done, total)
        for table in {table for table, _ in files}:
            connection.execute(f"analyze mill.{table}{suffix}")
        compare.require_same(connection, facts, suffix, progress)
    row = connection.execute(
        "select mill.attach_partition(%s)", (partition.first_batch,)
    ).fetchone()
    return int(row[0]) if row else 0


def _load(
    connection: psycopg.Connection[Any],
    facts: Facts,
    table: str,
    suffix: str,
    made: pa.Table,
    batch_id: int,
    model_id: int | None,
) -> None:
    columns = {"batch_id": pa.repeat(pa.scalar(batch_id, pa.int64()), len(made))}
    if model_id is not None:
        columns["model_id"] = pa.repeat(pa.scalar(model_id, pa.int32()), len(made))
    for name in made.schema.names:
        columns[name] = _as_text(made[name].combine_chunks(), "" if name == "md5" else "\\x")
    if table == "pair":
        urls = made["url"].to_pylist()
        columns["url_key"] = pa.array([_md5(url) for url in urls], pa.string())
    body = io.BytesIO()
    # every value in quotes, so that what is in none is null
    options = pa.csv.WriteOptions(include_header=False, quoting_style="all_valid")
    pa.csv.write_csv(pa.table(columns), body, options)
    names = ", ".join(columns)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"copy mill.{table}{suffix} ({names}) from stdin (format csv)") as copy,
    ):
        copy.write(body.getvalue())


def _md5(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()


def _as_text(values: pa.Array, prefix: str) -> pa.Array:
    """Bytes as hexadecimal digits after a prefix; others as they are."""
    if not pa.types.is_binary(values.type) or pa.types.is_string(values.type):
        return values
    whole = pa.concat_arrays([values.slice(0, 0), values])  # begins where its buffers do
    valid, offsets, body = whole.buffers()
    digits = pa.Array.from_buffers(
        pa.large_string(),
        len(values),
        [
            valid,
            pa.py_buffer(np.frombuffer(offsets, np.int32)[: len(values) + 1].astype(np.int64) * 2),
            pa.py_buffer(memoryview(body or b"").hex().encode()),
        ],
    )
    if not prefix:
        return digits
    before, nothing = (pa.scalar(text, pa.large_string()) for text in (prefix, ""))
    return pc.binary_join_element_wise(before, digits, nothing)
