"""Digests of rows, by the server of what it has and here of what a file has: equal for equal rows.

Of each column: md5 of which values are null, of the lengths of texts, and of the values' bytes as
PostgreSQL sends them. They share no code with ``packed``, by which the files were made: a fault
of its reading shows.
"""

import hashlib
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa

from pairmill.ops.archive.packed import EPOCH

SEND: dict[pa.DataType, tuple[str, str]] = {
    pa.bool_(): ("boolsend", "?"), pa.int16(): ("int2send", ">i2"), pa.int32(): ("int4send", ">i4"),
    pa.int64(): ("int8send", ">i8"), pa.float32(): ("float4send", ">f4"),
    pa.timestamp("us", "UTC"): ("timestamptz_send", ">i8"),
}  # fmt: skip
Digests = list[str]


def of_query(
    connection: psycopg.Connection[Any], query: str, schema: pa.Schema, values: dict[str, Any]
) -> Digests:
    """The number of rows of a query, and its columns' digests. Arguments as of ``packed.read``."""
    columns = ", ".join(_of_column(field) for field in schema)
    row = connection.execute(
        f"select count(*)::text, {columns} from ({query}) r", values
    ).fetchone()
    return list(row or ())


def _of_column(field: pa.Field) -> str:
    name = field.name
    nulls = _md5(f"boolsend({name} is null)")
    if field.type in SEND:
        return f"{nulls}, {_md5(f'{SEND[field.type][0]}({name})')}"
    value = f"convert_to({name}, 'UTF8')" if pa.types.is_string(field.type) else name
    return f"{nulls}, {_md5(f'int4send(octet_length({name}))')}, {_md5(value)}"


def _md5(value: str) -> str:
    return f"md5(coalesce(string_agg({value}, ''::bytea), ''::bytea))"


def of_table(table: pa.Table) -> Digests:
    """As ``of_query``, of rows in memory."""
    found = [str(len(table))]
    for name in table.schema.names:
        column = table[name].combine_chunks()
        found.append(_digest(np.asarray(column.is_null()).tobytes()))
        present = column.drop_null()
        if column.type in SEND:
            found.append(_digest(_numbers(present, SEND[column.type][1])))
            continue
        start = np.frombuffer(present.buffers()[1], np.int32)[present.offset :][: len(present) + 1]
        ends = start if len(present) else np.zeros(1, np.int32)
        body = memoryview(present.buffers()[2] or b"")[int(ends[0]) : int(ends[-1])]
        found += [_digest(np.diff(ends).astype(">i4").tobytes()), _digest(body)]
    return found


def _numbers(values: pa.Array, kind: str) -> bytes:
    if pa.types.is_timestamp(values.type):
        numbers = values.cast(pa.int64()).to_numpy() - EPOCH
    else:
        numbers = values.to_numpy(zero_copy_only=False)
    return bytes(numbers.astype(kind).tobytes())


def _digest(body: bytes | memoryview) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
