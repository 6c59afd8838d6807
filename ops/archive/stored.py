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
LAST = 2**62  # above every batch


def batches(facts: Facts, table: str, model_id: int | None) -> Iterator[tuple[int, pa.Table]]:
    """(batch, its rows in the columns of ``source_schema``, in order), of batches that have any.

    Raises UserError where the file cannot be read.
    """
    for batch_id, made in parts(facts, table, model_id):
        yield batch_id, _as_rows(made, table)


def parts(
    facts: Facts, table: str, model_id: int | None = None, names: list[str] | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """As ``batches``, with the file's own columns. names: of these alone; sample_id is one."""
    if not facts.has(table, model_id):
        return
    path = facts.path(table, model_id)
    waiting: list[pa.Table] = []
    current = -1
    try:
        with file_system(path).open(path, "rb") as file:
            for part in pq.ParquetFile(file).iter_batches(ROWS, columns=names):
                made = pa.Table.from_batches([part])
                ids = made["sample_id"].to_numpy() // POSITIONS
                cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
                for start, end in pairwise(cuts):
                    if waiting and ids[start] != current:
                        yield current, pa.concat_tables(waiting)
                        waiting = []
                    current = int(ids[start])
                    waiting.append(made.slice(start, end - start))
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if waiting:
        yield current, pa.concat_tables(waiting)


class Cursor:
    """The rows that count of one file, batch by batch; batches are asked for in order."""

    def __init__(self, facts: Facts, table: str, model_id: int | None, names: list[str]) -> None:
        self._file = facts, table, model_id, ["sample_id", "counts", *names]
        self._rest = parts(*self._file)
        self._at: tuple[int, pa.Table | None] = (-1, None)

    def rows(self, batch_id: int) -> pa.Table | None:
        """Those of a batch; None where it has none. An earlier batch is looked for from the
        beginning."""
        if batch_id < self._at[0]:
            self._rest, self._at = parts(*self._file), (-1, None)
        while self._at[0] < batch_id:
            self._at = next(self._rest, (LAST, None))
        found, made = self._at
        return made.filter(made["counts"]) if made is not None and found == batch_id else None


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
