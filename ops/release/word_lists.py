"""Files of words: a line each, in UTF-8; empty lines and those that begin with # say nothing."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmill.ops.errors import UserError


def read_words(path: Path) -> list[str]:
    """The lines, without the white space around them, in order. Raises UserError for a file that is
    not UTF-8, or has none."""
    try:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8, at byte {error.start}") from None
    words = [line for line in lines if line and not line.startswith("#")]
    if not words:
        raise UserError(f"{path} has no word: a file of words has one a line")
    return words


def any_of_list(
    lists: pa.ListArray, hits: npt.NDArray[np.bool_], nulls: npt.NDArray[np.bool_]
) -> pa.Array:
    """bool, a value a list: whether one of its items is hit. hits: of ``lists.flatten()``."""
    before = np.concatenate([[0], np.cumsum(hits)])
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    ends = np.cumsum(lengths)
    return pa.array(before[ends] > before[ends - lengths], pa.bool_(), mask=nulls)
