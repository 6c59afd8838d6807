"""All columns of a release's rows by their position: an Arrow file, uncompressed and mapped.

A row of compressed columns costs a block of each: 50 rows spread over 10^6 took DuckDB 70 ms, and
this less than 5. The file costs about 200 bytes a row of disk, and the page cache's memory alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.working_copy import BATCH

Row = dict[str, Any]


class CopiedRows:
    """Rows by position, from 0. Raises UserError where the file is damaged."""

    def __init__(self, path: Path) -> None:
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            # read once, without a copy: a reader is not for several threads
            self._batches = [reader.get_batch(n) for n in range(reader.num_record_batches)]
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}: delete its folder") from None
        self._names = [name for name in reader.schema.names if name not in ("_id", "_host")]
        self._ids = [batch["_id"].to_numpy() for batch in self._batches]
        self._firsts = np.array([batch["_id"][0].as_py() for batch in self._batches])

    def at(self, positions: Sequence[int]) -> list[tuple[int, Row]]:
        """(SAMPLE_ID, row) of each position, in their order."""
        found: dict[int, tuple[int, Row]] = {}
        by_batch: dict[int, list[int]] = {}
        for position in positions:
            by_batch.setdefault(position // BATCH, []).append(position)
        for number, some in by_batch.items():
            taken = self._batches[number].take(pa.array([each % BATCH for each in some]))
            for position, row in zip(some, taken.to_pylist(), strict=True):
                del row["_host"]
                found[position] = row.pop("_id"), row
        return [found[position] for position in positions]

    def table(self, positions: npt.NDArray[np.int32]) -> pa.Table:
        """The rows at ascending positions, the release's columns."""
        return self.columns(positions, self._names)

    def columns(self, positions: npt.NDArray[np.int32], names: Sequence[str]) -> pa.Table:
        """Some columns of the rows at ascending positions."""
        numbers, firsts = np.unique(positions // BATCH, return_index=True)
        pieces = [self._batches[0].select(names).slice(0, 0)]
        for number, inside in zip(numbers, np.split(positions % BATCH, firsts[1:]), strict=False):
            pieces.append(self._batches[number].select(names).take(pa.array(inside)))
        return pa.Table.from_batches(pieces)

    def ids(self, positions: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """int64[n]: the SAMPLE_IDs of positions, in their order."""
        found = [self._ids[each // BATCH][each % BATCH] for each in positions.tolist()]
        return np.array(found, np.int64)

    def rows_to(self, number: int) -> int:
        """How many rows have a SAMPLE_ID of ``number`` or less: the position behind them."""
        batch = int(np.searchsorted(self._firsts, number, "right")) - 1
        if batch < 0:
            return 0
        return batch * BATCH + int(np.searchsorted(self._ids[batch], number, "right"))

    def by_id(self, ids: Sequence[int]) -> dict[int, Row]:
        """The rows with these SAMPLE_IDs, those that there are."""
        positions = []
        for number in ids:
            batch = int(np.searchsorted(self._firsts, number, "right")) - 1
            if batch < 0:
                continue
            values = self._ids[batch]
            at = int(np.searchsorted(values, number))
            if at < len(values) and values[at] == number:
                positions.append(batch * BATCH + at)
        return dict(self.at(positions))
