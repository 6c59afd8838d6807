"""Rows into batches."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch


@dataclass
class TextBatch:
    """rows: int64[n], which texts. columns: of their tokens, as many as the longest needs."""

    rows: npt.NDArray[np.int64]
    columns: int


def by_length(needed: Sequence[int], size: int, step: int, most: int) -> Iterator[TextBatch]:
    """Batches of at most ``size`` texts, the shortest together.

    needed: columns that each text needs. Columns are rounded up to a multiple of ``step``, at most
    ``most``: fewer shapes for a compiler, and for kernels multiples of what they work in.
    """
    order = np.argsort(np.asarray(needed, np.int64), kind="stable")
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        longest = needed[rows[-1]]
        yield TextBatch(rows, min(most, -(-longest // step) * step))


def gathered(chunks: Iterable[torch.Tensor], size: int) -> Iterator[torch.Tensor]:
    """The rows of the chunks in order, in batches of ``size``; the last has the rest."""
    held: list[torch.Tensor] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        if count >= size:
            joined = torch.cat(held)
            whole = count // size * size
            yield from torch.split(joined[:whole], size)
            held, count = [joined[whole:]], count - whole
    if count:
        yield torch.cat(held)
