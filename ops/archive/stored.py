"""Rows of a file of facts, batch by batch, as the table that they came from has them."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmill.ops.archive.facts import Facts, file_system
from pairmill.ops.archive.reading import POSITIONS, source_schema
from pairmill.ops.errors import UserError

ROWS = 20_000  # decoded at once


def batches(facts: Facts, table: str, model_id: int | None) -> Iterator[tuple[int, pa.Table]]:
    """(batch, its rows in the columns of ``source_schema``, in order), of batches that have any.

    Raises UserError where the file cannot be read.
    """
    if not facts.has(table, model_id):
        return
    path = facts.path(table, model_id)
    waiting: list[pa.Table] = []
    current = -1
    try:
        with file_system(path).open(path, "rb") as file:
            for part in pq.ParquetFile(file).iter_batches(ROWS):
                made = pa.Table.from_batches([part])
                ids = made["sample_id"].to_numpy() // POSITIONS
                cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
                for start, end in pairwise(cuts):
                    if waiting and ids[start] != current:
                        yield current, _as_rows(pa.concat_tables(waiting), table)
                        waiting = []
                    current = int(ids[start])
                    waiting.append(made.slice(start, end - start))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if waiting:
        yield current, _as_rows(pa.concat_tables(waiting), table)


def _as_rows(made: pa.Table, table: str) -> pa.Table:
    schema = source_schema(table)
    n = pc.cast(pc.bit_wise_and(made["sample_id"], POSITIONS - 1), pa.int32())
    arrays = [n if f.name == "n" else _column(made[f.name], f.type) for f in schema]
    return pa.Table.from_arrays(arrays, names=schema.names)


def _column(column: Any, kind: pa.DataType) -> Any:
    """A vector's float16 as the bytes that it came as."""
    if not pa.types.is_fixed_size_list(column.type):
        return column
    vectors = column.combine_chunks()
    halves = vectors.flatten()
    size = vectors.type.list_size * 2
    body = halves.buffers()[1].slice(halves.offset * 2, len(vectors) * size)
    offsets = np.arange(len(vectors) + 1, dtype=np.int32) * size
    return pa.Array.from_buffers(kind, len(vectors), [None, pa.py_buffer(offsets), body])
