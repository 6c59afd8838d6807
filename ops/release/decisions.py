"""What a recipe decides of every pair: counts for the manifest, a byte a pair for the record."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmill.ops.errors import UserError

KEPT = "kept"
POSITIONS = 1 << 14  # of a batch, at most
Bytes = npt.NDArray[np.uint8]
# of release_batch.duplicates: the duplicate's n, an index of release.methods, the row that stays
NONE_STAYS = -1
DUPLICATE = np.dtype([("n", ">u2"), ("method", "u1"), ("of", ">i8")])


@dataclass
class Decisions:
    """kept_by_language, excluded: pairs by language, and by the first reason that holds.
    candidates: pairs looked at, counted by themselves. words: the meaning of a byte of a batch's
    decisions, from 1; 0 is no candidate. methods: those that found duplicates."""

    kept_by_language: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=lambda: [KEPT])
    methods: list[str] = field(default_factory=list)
    candidates: int = 0

    @property
    def kept(self) -> int:
        return self.kept_by_language.total()

    def code(self, word: str) -> int:
        """The byte of a word, which is added if it is not known."""
        if word not in self.words:
            self.words.append(word)
        code = 1 + self.words.index(word)
        if code > 255:
            raise UserError("a release is recorded with at most 254 reasons: leave out some tags")
        return code

    def count(self, decided: Bytes) -> int:
        """Count the bytes of some pairs by reason; returns how many are kept."""
        counts = np.bincount(decided.ravel(), minlength=len(self.words) + 1)
        for word, pairs in zip(self.words[1:], counts[2:].tolist(), strict=True):
            if pairs:
                self.excluded[word] += pairs
        return int(counts[1])

    def require_sum(self, candidates: int) -> None:
        """Raises UserError where pairs were lost, or counted twice."""
        self.candidates = candidates
        if candidates != self.kept + self.excluded.total():
            raise UserError(
                f"{candidates:,} candidates are not {self.kept:,} kept and"
                f" {self.excluded.total():,} left out: the facts are damaged, and there is no"
                " release; `pairmill archive verify` compares them with their digests"
            )


@dataclass(frozen=True)
class OfBatch:
    """The decisions of a batch, as release_batch has them. duplicates: of DUPLICATE, in order of n;
    None: it has none."""

    batch_id: int
    decisions: bytes
    duplicates: bytes | None


def of_batches(first: int, decided: Bytes, duplicates: "PackedDuplicates") -> Iterator[OfBatch]:
    """decided: uint8[batches, POSITIONS], from batch ``first`` on; batches without a candidate are
    left out, and what is beyond a batch's last candidate."""
    for row in np.flatnonzero(decided.any(axis=1)).tolist():
        last = int(np.flatnonzero(decided[row])[-1])
        yield OfBatch(first + row, decided[row, : last + 1].tobytes(), duplicates.of(first + row))


class PackedDuplicates:
    """The duplicates of some batches, packed by batch. samples: in order."""

    def __init__(
        self,
        samples: npt.NDArray[np.int64],
        others: npt.NDArray[np.int64],
        methods: Sequence[int],
    ) -> None:
        self._batches = samples >> 14
        packed = np.empty(len(samples), DUPLICATE)
        packed["n"], packed["of"], packed["method"] = samples & (POSITIONS - 1), others, methods
        self._packed = packed

    def of(self, batch_id: int) -> bytes | None:
        low, high = (np.searchsorted(self._batches, batch_id, side) for side in ("left", "right"))
        return self._packed[low:high].tobytes() if high > low else None


def duplicate_of(packed: bytes, n: int) -> tuple[int, int] | None:
    """The row that stays for the duplicate n, or NONE_STAYS, and the index of the method. None: it
    is no duplicate."""
    found: npt.NDArray[Any] = np.frombuffer(packed, DUPLICATE)
    at = int(np.searchsorted(found["n"], n))
    if at == len(found) or found["n"][at] != n:
        return None
    return int(found["of"][at]), int(found["method"][at])
