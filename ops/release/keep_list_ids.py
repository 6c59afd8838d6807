"""The ids of samples in any layout: SAMPLE_ID, a whole number, or DataComp's uid, 32 hex digits.

Both are pairs of uint64 here, upper and lower half, as DataComp's files of subsets have them; the
upper half of a SAMPLE_ID is 0.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.errors import UserError

IDS = np.dtype([("f0", "<u8"), ("f1", "<u8")])
Ids = npt.NDArray[np.void]  # of IDS
NAMES = ("sample_id", "uid")  # of columns, and of keys of JSON; in any case
HEX = re.compile("[0-9a-fA-F]{32}")


def id_column(names: Sequence[str]) -> str | None:
    """The column that has the ids, or None."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in NAMES if name in lower), None)


def ids_of(column: pa.Array | pa.ChunkedArray, where: str) -> Ids:
    """The ids of a column. Raises UserError for a null, or a value that is no id; where: the
    file's name, for that."""
    found = np.zeros(len(column), IDS)
    try:
        if column.null_count:
            raise ValueError("a null")
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            values = column.cast(pa.int64()).to_numpy()
        else:
            text = column.cast(pa.string())
            if len(text) and _is_hexadecimal(text):
                halves = np.frombuffer(bytes.fromhex("".join(text.to_pylist())), ">u8")
                found["f0"], found["f1"] = halves[::2], halves[1::2]
                return found
            values = text.cast(pa.int64()).to_numpy()
        if len(values) and values.min() < 0:
            raise ValueError(f"{values.min()}")
    except (pa.ArrowException, ValueError) as error:
        raise UserError(f"{where} has an id that is no SAMPLE_ID and no uid: {error}") from None
    found["f1"] = values
    return found


def _is_hexadecimal(text: pa.Array | pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.match_substring_regex(text, f"^{HEX.pattern}$")).as_py())


def id_of(value: Any) -> tuple[int, int] | None:
    """The id that a value of JSON, or a sample's key, is; None where it is none."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return 0, value
    if isinstance(value, str) and HEX.fullmatch(value):
        return int(value[:16], 16), int(value[16:], 16)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        return 0, int(value)
    return None


def as_ids(pairs: Sequence[tuple[int, int]]) -> Ids:
    return np.array(pairs, IDS)


def sample_ids(ids: Ids) -> npt.NDArray[np.int64]:
    """int64: the SAMPLE_IDs. Raises UserError for a uid that is not one of ours."""
    if np.any(ids["f0"]) or np.any(ids["f1"] >> 63):
        raise UserError("a uid here is no SAMPLE_ID of Pairmill")
    return ids["f1"].astype(np.int64)
