"""Keys of samples: the names of their files, counted, or taken from a column of the source."""

import re
from collections.abc import Iterable

# a key names a member of a tar and a file: no folder, no dot (webdataset's keys end at the first),
# and with the longest ending, .json, at most the 100 bytes of ustar
SAFE = re.compile(r"[A-Za-z0-9_-]{1,95}")
INVALID, DUPLICATE = "invalid_key", "duplicate_key"  # errors of rows


def counted_keys(number: int, rows: int, *, shard_digits: int, row_digits: int) -> list[str]:
    """img2dataset's: the shard's number, then the row's."""
    return [f"{number:0{shard_digits}}{index:0{row_digits}}" for index in range(rows)]


def keys_from(
    values: Iterable[str | None], *, fold: bool
) -> tuple[list[str | None], dict[int, str]]:
    """The keys that a source gives, and the faults of those that cannot be used, by index: these
    rows have None. Of several rows of the same key the first has it. fold: keys that differ in
    case alone are the same, as on file systems that ignore it."""
    keys: list[str | None] = []
    faults: dict[int, str] = {}
    seen: set[str] = set()
    for index, value in enumerate(values):
        folded = value.lower() if fold and value else value
        fault = None
        if not value or not SAFE.fullmatch(value):
            fault = INVALID
        elif folded in seen:
            fault = DUPLICATE
        if fault:
            faults[index] = fault
        elif folded:
            seen.add(folded)
        keys.append(None if fault else value)
    return keys, faults
