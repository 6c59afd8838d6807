"""Columns out of DuckDB's tables and into them, a batch at a time."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Longs = npt.NDArray[np.int64]


def read(db: duckdb.DuckDBPyConnection, query: str, rows: int) -> Iterator[pa.RecordBatch]:
    """The batches of a query, of so many rows; the connection is free for other work meanwhile."""
    cursor = db.cursor()
    yield from cursor.sql(query).to_arrow_reader(rows)


def insert(
    db: duckdb.DuckDBPyConnection, table: str, columns: dict[str, npt.NDArray[Any]] | pa.Table
) -> None:
    """Append columns to a table that has the same, in order."""
    db.register("dedupe_columns", columns if isinstance(columns, pa.Table) else pa.table(columns))
    db.execute(f"INSERT INTO {table} FROM dedupe_columns")
    db.unregister("dedupe_columns")


def drop(db: duckdb.DuckDBPyConnection, prefix: str, *parts: str) -> None:
    for part in parts:
        db.execute(f"DROP TABLE {prefix}_{part}")


def count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def groups(
    db: duckdb.DuckDBPyConnection, query: str, rows: int = 1 << 20
) -> Iterator[tuple[Longs, Longs]]:
    """The second and third column of a query's rows, int64[n] each, in groups of an equal first;
    the query sorts by it."""
    rest = [np.zeros(0, np.int64)] * 3
    for batch in read(db, query, rows):
        key, *values = (
            np.concatenate([old, batch.column(n).to_numpy(zero_copy_only=False).astype(np.int64)])
            for n, old in enumerate(rest)
        )
        starts = np.flatnonzero(key[1:] != key[:-1]) + 1
        last = int(starts[-1]) if len(starts) else 0
        rest = [key[last:], *(value[last:] for value in values)]
        parts = [np.split(value, starts)[:-1] for value in values]
        yield from zip(*parts, strict=True)
    if len(rest[0]):
        yield rest[1], rest[2]
