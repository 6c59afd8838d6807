"""Values of a source as Python objects and as JSON (RFC 8259), whatever its columns hold."""

import json
import math
from collections.abc import Iterable
from datetime import date, time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# what `as_py` raises; KeyError for a time zone
UNREADABLE = ValueError, OverflowError, KeyError, pa.ArrowException


def values_of(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """A column's values as Python objects. A value that Python cannot hold (a year above 9999, a
    time zone that there is not, text that is not UTF-8) is text, or None within a list and where
    there is no text for it: it costs its cell, not the shard."""
    try:
        found: list[Any] = column.to_pylist()
    except UNREADABLE:
        return [_value(scalar) for scalar in column]
    return found


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UNREADABLE:
        pass
    try:
        if is_text(scalar.type):
            return bytes(scalar.as_buffer()).decode("utf-8", "replace")
        text: str = scalar.cast(pa.string()).as_py()
    except (ValueError, pa.ArrowException):
        return None
    return text


def json_text(values: dict[str, Any]) -> str:
    """A JSON object that every reader takes: NaN and infinities, for which JSON has no word, are
    null at any depth; bytes are hexadecimal, dates and times as ISO 8601 has them, other values
    (decimals, durations) text."""
    return json.dumps(plain(values), indent=4, default=_other, allow_nan=False)


def plain(value: Any) -> Any:
    """The same with null for every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def _other(value: Any) -> Any:
    if isinstance(value, (bytes, memoryview)):
        return value.hex()
    if isinstance(value, (date, time)):  # a datetime is a date
        return value.isoformat()
    return str(value)


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    )


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as text; what is not UTF-8 gets U+FFFD, and NaN, which pandas writes for a missing
    value, is none. Raises ArrowException for another type."""
    if isinstance(column.type, pa.UuidType):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))
    column = column.cast(options=pc.CastOptions(pa.string(), allow_invalid_utf8=True))
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        repaired = (pa.array(_repaired(chunk), pa.string()) for chunk in column.chunks)
        return pa.chunked_array(list(repaired))
    return column


def _repaired(chunk: pa.Array) -> Iterable[str | None]:
    for value in chunk.cast(pa.binary()).to_pylist():
        yield None if value is None else value.decode("utf-8", "replace")
