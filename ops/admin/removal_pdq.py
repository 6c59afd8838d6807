"""PDQs near others: which of many images are within a few bits of which of many removals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WORDS, BITS = 16, 16  # of a PDQ
AT_ONCE = 1 << 16  # images


@dataclass(frozen=True)
class Near:
    """Pairs of an image and a removal, as indexes into what was given; in order."""

    images: NDArray[np.int64]
    removals: NDArray[np.int64]


class PdqIndex:
    """Finds every PDQ within 31 of 256 bits of a given one, and misses none: 31 differing bits in
    16 words leave a word in which one at most differs, so that this word, or it with one of its
    bits turned, is looked up (M. Norouzi et al., "Fast Exact Search in Hamming Space with
    Multi-Index Hashing", 2014)."""

    def __init__(self, hashes: Sequence[bytes], distances: Sequence[int]) -> None:
        """hashes: of 32 bytes. distances: of each, in how many bits an image's may differ, 31 at
        most."""
        self._bits = _as_array(hashes, np.uint64)
        self._distances = np.asarray(distances, np.uint8)
        words = _as_array(hashes, np.uint16)
        # of each word's place: the removals in the order of that word, and where each value begins
        self._order = [np.argsort(words[:, place], kind="stable") for place in range(WORDS)]
        values = np.arange((1 << BITS) + 1)
        self._starts = [
            np.searchsorted(words[order, place], values) for place, order in enumerate(self._order)
        ]
        self._near = [_within_one(np.diff(starts) > 0) for starts in self._starts]

    def near(self, hashes: Sequence[bytes]) -> Near:
        """The images, PDQs of 32 bytes, that a removal names, and that removal."""
        found = [
            self._near_some(hashes[first : first + AT_ONCE], first)
            for first in range(0, len(hashes), AT_ONCE)
        ]
        pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
        return Near(pairs[:, 0], pairs[:, 1])

    def _near_some(self, hashes: Sequence[bytes], first: int) -> NDArray[np.int64]:
        bits, words = _as_array(hashes, np.uint64), _as_array(hashes, np.uint16)
        found = []
        for place in range(WORDS):
            # with few removals most images have no word that is near
            (images,) = np.nonzero(self._near[place][words[:, place]])
            for turned in _TURNS:
                found.append(self._same_word(bits, images, words[images, place] ^ turned, place))
        pairs = np.unique(np.concatenate(found), axis=0)
        pairs[:, 0] += first
        return pairs

    def _same_word(
        self,
        bits: NDArray[np.uint64],
        images: NDArray[np.int64],
        values: NDArray[np.uint16],
        place: int,
    ) -> NDArray[np.int64]:
        """Pairs of those that have a word in common and are near."""
        begin = self._starts[place][values]
        counts = self._starts[place][values.astype(np.int64) + 1] - begin
        left = np.repeat(images, counts)
        within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        right = self._order[place][np.repeat(begin, counts) + within]
        differing = np.bitwise_count(bits[left] ^ self._bits[right]).sum(axis=1, dtype=np.uint16)
        near = differing <= self._distances[right]
        return np.stack((left[near], right[near]), axis=1)


# a word as it is, and with each of its bits turned
_TURNS = [np.uint16(0), *(np.uint16(1 << bit) for bit in range(BITS))]


def _as_array(hashes: Sequence[bytes], kind: type) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashes), kind).reshape(len(hashes), 32 // np.dtype(kind).itemsize)


def _within_one(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of each value whether it, or one that differs in a bit, is present."""
    values = np.arange(1 << BITS, dtype=np.uint16)
    near = np.zeros_like(present)
    for turned in _TURNS:
        near |= present[values ^ turned]
    return near
