"""Ratings of samples, from a CSV or Parquet file: the labels that a head is trained on."""

import csv
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmill.workers.errors import Refused

ID = "SAMPLE_ID"


@dataclass(frozen=True)
class Ratings:
    """sample_ids: int64[n], distinct. ratings: float64[n], finite; row by row, as in the file."""

    sample_ids: npt.NDArray[np.int64]
    ratings: npt.NDArray[np.float64]


def read(path: Path, column: str | None = None) -> Ratings:
    """The ratings of a file: .csv with a header, or .parquet, with a column SAMPLE_ID.

    column: that of the ratings; needed where the file has several beside SAMPLE_ID.
    Raises Refused, naming the line of a CSV or the row of a Parquet file (both from 1), for an id
    that is no int64 or stands there twice, and a rating that is absent or not finite.
    """
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    reading = {".csv": _csv, ".parquet": _parquet}.get(path.suffix.lower())
    if reading is None:
        raise Refused(f"{path} is neither .csv nor .parquet")
    return reading(path, column)


def _csv(path: Path, column: str | None) -> Ratings:
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = next(lines, [])
            at, rating = (
                names.index(_named(path, names, ID)),
                names.index(_rated(path, names, column)),
            )
            rows = []
            for row in lines:
                line = lines.line_num
                if not row:
                    continue  # as at the end of many files
                if len(row) != len(names):
                    raise Refused(f"{path}, line {line}: {len(row)} fields instead of {len(names)}")
                rows.append((f"line {line}", row[at].strip(), row[rating].strip()))
    except (csv.Error, UnicodeDecodeError) as error:
        raise Refused(f"{path} is no CSV in UTF-8, after line {line}: {error}") from None
    except OSError as error:
        raise Refused(f"cannot read {path}: {error.strerror}") from None
    return _ratings(path, rows)


def _parquet(path: Path, column: str | None) -> Ratings:
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        raise Refused("reading Parquet needs pyarrow: pip install 'pairmill[ops]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            names, schema = file.schema_arrow.names, file.schema_arrow
            wanted = [_named(path, names, ID), _rated(path, names, column)]
            if not types.is_integer(schema.field(wanted[0]).type):
                raise Refused(f"{path}: the column {ID} is no integer")
            kind = schema.field(wanted[1]).type
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
                raise Refused(f"{path}: the column {wanted[1]} holds no numbers")
            table = file.read(columns=wanted)
    except (ArrowException, OSError) as error:
        raise Refused(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from None
    columns = [table.column(name).to_pylist() for name in wanted]
    return _ratings(
        path, ((f"row {i}", *row) for i, row in enumerate(zip(*columns, strict=True), 1))
    )


def _named(path: Path, names: Sequence[str], wanted: str) -> str:
    if list(names).count(wanted) != 1:
        raise Refused(f"{path} needs one column {wanted}, and has {', '.join(names) or 'none'}")
    return wanted


def _rated(path: Path, names: Sequence[str], column: str | None) -> str:
    if column is not None:
        return _named(path, names, column)
    others = [name for name in names if name != ID]
    if len(others) != 1:
        raise Refused(
            f"{path} has {len(others)} columns beside {ID}, of which one must be named as that of"
            f" the ratings: {', '.join(others[:10])}"
        )
    return _named(path, names, others[0])


def _ratings(path: Path, rows: Iterable[tuple[str, Any, Any]]) -> Ratings:
    found: dict[int, str] = {}
    ratings: list[float] = []
    for where, sample_id, rating in rows:
        key, value = _int64(sample_id), _finite(rating)
        if key is None:
            raise Refused(f"{path}, {where}: {str(sample_id)[:40]!r} is no {ID}, an int64")
        if value is None:
            raise Refused(f"{path}, {where}: {str(rating)[:40]!r} is no finite rating")
        if key in found:
            raise Refused(
                f"{path}, {where}: sample {key} was rated before, in {found[key]}: give its mean"
            )
        found[key] = where
        ratings.append(value)
    return Ratings(np.array(list(found), np.int64), np.array(ratings, np.float64))


def _int64(value: Any) -> int | None:
    if isinstance(value, str):
        # not through float: an id has up to 63 bits; and int() takes 1_000 too
        value = int(value) if re.fullmatch("-?[0-9]{1,19}", value) else None
    return value if value is not None and -(2**63) <= value < 2**63 else None


def _finite(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and "_" in value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
