"""Rows of a query as Arrow columns: each column is packed by the server into one value.

COPY has a header a value and psycopg's reader a call a row: 1.6 us a row in Python alone. Here
a query of some 10,000 rows is aggregated to one row (array_agg of numbers, string_agg of
texts with array_agg of their lengths), whose values are Arrow's buffers but for the order of
their bytes: 0.1 us a row. docs/decisions/2026-11-27-facts-as-parquet.md
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa

HEADER = 19  # of a binary COPY: signature, flags, length of the extension
ARRAY_HEADER = 20  # dimensions, whether there are nulls, type; length, first index
EPOCH = 946_684_800_000_000  # us from 1970 to 2000, where PostgreSQL's time begins
FIXED: dict[pa.DataType, str] = {
    pa.bool_(): "?", pa.int16(): ">i2", pa.int32(): ">i4", pa.int64(): ">i8",
    pa.float32(): ">f4", pa.timestamp("us", "UTC"): ">i8",
}  # fmt: skip
Buffer = bytes | memoryview


def read(
    connection: psycopg.Connection[Any], query: str, schema: pa.Schema, values: Mapping[str, Any]
) -> pa.Table:
    """The rows of a query, at most some 100,000 at once, in its order.

    query: with %(name)s for each of ``values``; its columns are named as those of ``schema`` and
    have their types (uuid: by uuid_send). A field that is not nullable is of a column without
    nulls, and is read faster.
    """
    with (
        connection.cursor() as cursor,
        cursor.copy(_statement(query, schema), values) as copy,
    ):
        body = b"".join(bytes(part) for part in copy)
    packed = _values(body)
    count = int.from_bytes(next(packed), "big")
    if not count:
        return schema.empty_table()
    flags = _numbers(next(packed), ">i4")
    columns, bit = [], 1
    for field in schema:
        present = None
        if field.nullable:
            present = flags & bit == 0
            bit <<= 1
        columns.append(_column(field.type, packed, count, present))
    return pa.Table.from_arrays(columns, schema=schema)


def _statement(query: str, schema: pa.Schema) -> str:
    nullable = [field.name for field in schema if field.nullable]
    # AND of IS NOT NULL, which PostgreSQL makes of it, is the cheap way for rows without nulls
    bits = " + ".join(f"({name} is null)::integer * {1 << i}" for i, name in enumerate(nullable))
    whole = f"({', '.join(nullable)}, 0) is not null"
    flags = f"array_agg(case when {whole} then 0 else {bits} end)" if nullable else "'{}'::int[]"
    aggregates = ", ".join(_aggregates(field) for field in schema)
    return (
        f"copy (select count(*), {flags}, {aggregates} from ({query}) r) to stdout (format binary)"
    )


def _aggregates(field: pa.Field) -> str:
    name = field.name
    there = f" filter (where {name} is not null)" if field.nullable else ""
    if field.type in FIXED:
        return f"array_agg({name}){there}"
    return f"array_agg(octet_length({name})){there}, string_agg({name}, ''){there}"


def _values(body: bytes) -> Iterator[Buffer]:
    """The values of the first row; of a null nothing."""
    view = memoryview(body)
    at = HEADER + 2
    while True:
        size = int.from_bytes(view[at : at + 4], "big", signed=True)
        at += 4
        yield view[at : at + max(size, 0)]
        at += max(size, 0)


def _numbers(value: Buffer, kind: str) -> npt.NDArray[Any]:
    """The elements of an array without nulls, in the machine's byte order."""
    element = np.dtype([("size", ">i4"), ("value", kind)])
    elements = np.frombuffer(value, element, offset=min(ARRAY_HEADER, len(value)))["value"]
    return elements.astype(elements.dtype.newbyteorder("="))


def _column(
    kind: pa.DataType, packed: Iterator[Buffer], count: int, present: npt.NDArray[np.bool_] | None
) -> pa.Array:
    validity = None if present is None or present.all() else present
    if kind in FIXED:
        numbers = _numbers(next(packed), FIXED[kind])
        if pa.types.is_timestamp(kind):
            numbers = numbers + EPOCH
        return _fixed(kind, _spread(numbers, count, validity), validity)
    lengths = _spread(_numbers(next(packed), ">i4"), count, validity)
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    buffers = [_bitmap(validity), pa.py_buffer(offsets), pa.py_buffer(bytes(next(packed)))]
    return pa.Array.from_buffers(kind, count, buffers)


def _spread(
    values: npt.NDArray[Any], count: int, validity: npt.NDArray[np.bool_] | None
) -> npt.NDArray[Any]:
    """The values at the places that have one, and 0 between them."""
    if validity is None:
        return values
    spread = np.zeros(count, values.dtype)
    spread[validity] = values
    return spread


def _fixed(
    kind: pa.DataType, values: npt.NDArray[Any], validity: npt.NDArray[np.bool_] | None
) -> pa.Array:
    if pa.types.is_boolean(kind):
        return pa.array(values, mask=None if validity is None else ~validity)
    # from its buffer: pa.array would make a null of a NaN where it is told to, and a copy
    return pa.Array.from_buffers(kind, len(values), [_bitmap(validity), pa.py_buffer(values)])


def _bitmap(validity: npt.NDArray[np.bool_] | None) -> pa.Buffer | None:
    return None if validity is None else pa.py_buffer(np.packbits(validity, bitorder="little"))
