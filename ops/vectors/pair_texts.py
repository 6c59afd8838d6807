"""URL and TEXT of samples out of a mapped Arrow file.

One by one, as Arrow's scalars, they were a quarter of a query's time under a profiler. A text is
the bytes between its two offsets.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids = npt.NDArray[np.int64]
Texts = Callable[[Ids], list[str]]


class PairTexts:
    """table: SAMPLE_ID (int64, ascending), URL and TEXT, in batches of the file."""

    def __init__(self, table: pa.Table) -> None:
        batches = [batch for batch in table.to_batches() if len(batch)]
        self._ids: list[Ids] = [batch[0].to_numpy(zero_copy_only=True) for batch in batches]
        self._urls = [_texts(batch[1]) for batch in batches]
        self._texts = [_texts(batch[2]) for batch in batches]
        self._firsts = np.array([ids[0] for ids in self._ids], np.int64)

    def of(self, samples: Ids) -> Iterator[tuple[int, tuple[str, str]]]:
        """SAMPLE_ID, URL and TEXT of those that are in the file, batch by batch."""
        batches = np.searchsorted(self._firsts, samples, "right") - 1
        for n in np.unique(batches[batches >= 0]).tolist():
            asked, ids = samples[batches == n], self._ids[n]
            at = np.minimum(np.searchsorted(ids, asked), len(ids) - 1)
            at = at[ids[at] == asked]
            pairs = zip(self._urls[n](at), self._texts[n](at), strict=True)
            yield from zip(ids[at].tolist(), pairs, strict=True)


def _texts(column: Any) -> Texts:
    """What gives the texts of rows. column: a StringArray."""
    if column.null_count:
        return lambda at: column.take(pa.array(at)).to_pylist()
    _, places, held = column.buffers()
    offsets = np.frombuffer(places, np.int32)[column.offset : column.offset + len(column) + 1]
    data = memoryview(held if held is not None else b"")

    def texts(at: Ids) -> list[str]:
        ends = zip(offsets[at].tolist(), offsets[at + 1].tolist(), strict=True)
        return [str(data[start:end], "utf-8") for start, end in ends]

    return texts
