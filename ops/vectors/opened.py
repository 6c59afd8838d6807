"""An index, opened for queries: the same calls for each kind of index."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.duplicates import hashes
from pairmill.ops.vectors.index_info import (
    INFO_FILE,
    NOTHING,
    Floats,
    IndexInfo,
    Keys,
    read_info,
)
from pairmill.ops.vectors.recall import unit
from pairmill.ops.vectors.shard import FoundVectors, IndexShard
from pairmill.ops.vectors.shard_files import REMOVED_FILE

SAME = 1e-6  # cosines that differ by less may be of equal vectors, in two shards
AT_ONCE = 16_384  # answers whose vectors are in memory together: 32 MB of 512 dims
LARGEST = 2**63  # no SAMPLE_ID
Stamp = list[tuple[int, int, int]]


class Searcher(Protocol):
    """An index, opened. Its calls may come from several threads at once."""

    folder: Path
    info: IndexInfo

    def search(self, vectors: Floats, k: int, *, effort: int | None = None) -> tuple[Keys, Floats]:
        """The k distinct images nearest to each vector (float32[n, dims], of any length), nearest
        first: SAMPLE_IDs, uint64[n, k], and cosines to the float16 embeddings, float32[n, k].

        Where there are fewer than k, NOTHING and -inf fill the row. effort: candidates of each
        query; None for those that the index was measured with. Raises UserError for vectors of
        other dims, or of no direction.
        """

    def found(self, vectors: Floats, k: int, *, effort: int | None = None) -> list[FoundVectors]:
        """As ``search``, of each vector the answers and their vectors, nothing filled: 2 kB an
        answer of 512 dims."""

    def vector(self, sample_id: int) -> Floats:
        """float32[dims] of a sample. Raises UserError where it is not in the index."""

    def vectors(self, keys: Keys) -> Floats:
        """float32[n, dims] of samples. Raises UserError where one is not in the index."""

    def duplicates(self, key: int) -> list[int]:
        """The other samples with exactly the embedding of this one, in order."""

    def pairs(self, keys: Sequence[int]) -> dict[int, tuple[str, str]]:
        """URL and TEXT of samples; one that is not in the index is left out."""

    def stale(self) -> bool:
        """Whether the files have changed since they were opened: open the folder again."""


@dataclass(frozen=True)
class Neighbour:
    """An answer. similarity: cosine, of the float16 embeddings. duplicates: the number of further
    samples with exactly this embedding."""

    sample_id: int
    similarity: float
    duplicates: int
    url: str | None
    text: str | None


def open_index(folder: Path, threads: int = 0) -> Searcher:
    """threads: processors for a search; 0: all. Raises UserError if the folder holds no index, or a
    damaged one."""
    for _ in range(3):
        stamp = _stamp(folder, read_info(folder))
        try:
            return ShardedIndex(folder, threads)
        except UserError:
            # it may have been replaced at this moment, by `index remove --compact`
            if _stamp(folder, read_info(folder)) == stamp:
                raise
    return ShardedIndex(folder, threads)


def nearest(
    index: Searcher, vector: Floats, k: int = 10, *, but: int | None = None
) -> list[Neighbour]:
    """The k distinct images nearest to a vector (float32[dims], of any length), nearest first.
    ``but``: a SAMPLE_ID whose image is no answer. Raises UserError for a vector of other dims, or
    of no direction."""
    own = set() if but is None else {but, *index.duplicates(but)}
    keys, near = index.search(np.asarray(vector)[None], k + 1)
    found = [
        (int(key), float(cosine))
        for key, cosine in zip(keys[0], near[0], strict=True)
        if key != NOTHING and int(key) not in own
    ][:k]
    pairs = index.pairs([key for key, _ in found])
    return [
        Neighbour(key, cosine, len(index.duplicates(key)), *pairs.get(key, (None, None)))
        for key, cosine in found
    ]


class ShardedIndex:
    """One shard or many, asked side by side."""

    def __init__(self, folder: Path, threads: int = 0) -> None:
        self.folder = folder
        self.info = read_info(folder)
        self._stamp = _stamp(folder, self.info)
        self._shards = [IndexShard(folder / shard.name, shard) for shard in self.info.shards]
        if any(shard.structure.dims != self.info.dims for shard in self._shards):
            raise UserError(f"the index {folder} is damaged: a shard has vectors of other dims")
        # usearch and faiss let go of the interpreter while they search
        together = min(len(self._shards), threads or os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(together) if together > 1 else None
        self._threads = 1 if self._pool else threads

    def search(self, vectors: Floats, k: int, *, effort: int | None = None) -> tuple[Keys, Floats]:
        asked = self._directions(vectors)
        keys = np.full((len(asked), k), NOTHING, np.uint64)
        near = np.full((len(asked), k), -np.inf, np.float32)
        step = max(1, AT_ONCE // max(1, k))
        for start in range(0, len(asked), step):
            for i, one in enumerate(self._found(asked[start : start + step], k, effort), start):
                keys[i, : len(one.keys)], near[i, : len(one.keys)] = one.keys, one.cosines
        return keys, near

    def found(self, vectors: Floats, k: int, *, effort: int | None = None) -> list[FoundVectors]:
        return self._found(self._directions(vectors), k, effort)

    def _found(self, asked: Floats, k: int, effort: int | None) -> list[FoundVectors]:
        threads = 1 if len(asked) < 4 else self._threads
        if len(self._shards) == 1:
            return self._shards[0].search(asked, k, effort, threads)

        def ask(shard: IndexShard) -> list[FoundVectors]:
            return shard.search(asked, k, effort, threads)

        found = list(self._pool.map(ask, self._shards) if self._pool else map(ask, self._shards))
        return [_merged(of_shards, k) for of_shards in zip(*found, strict=True)]

    def _directions(self, vectors: Floats) -> Floats:
        asked = np.asarray(vectors, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if asked.ndim == 2 and asked.shape[1] == self.info.dims:
                lengths = np.linalg.norm(asked.astype(np.float64), axis=1)
                if np.isfinite(lengths).all() and lengths.all():
                    return unit(asked.astype(np.float64) / lengths[:, None])
        raise UserError(f"the query is no vector of {self.info.dims} finite numbers")

    def vector(self, sample_id: int) -> Floats:
        found: Floats = self.vectors(np.array([sample_id], np.uint64))[0]
        return found

    def vectors(self, keys: Keys) -> Floats:
        found = np.zeros((len(keys), self.info.dims), np.float32)
        left = np.arange(len(keys))
        for shard in self._shards:
            if not len(left):
                break
            rows = shard.rows.rows(keys[left])
            here = rows >= 0
            if here.any():
                # of a shard all at once: a call for each costs ten times as much
                found[left[here]] = shard.structure.get(rows[here])
                left = left[~here]
        if len(left):
            raise UserError(f"{int(keys[left[0]])} is not in the index {self.folder}")
        return found

    def duplicates(self, key: int) -> list[int]:
        vector = self.vector(key).astype(np.float16)
        digest = int(hashes(vector[None])[0, 0])
        same: list[int] = []
        for shard in self._shards:
            for row in shard.rows.with_hash(digest):
                if np.array_equal(shard.vector(int(row)), vector.astype(np.float32)):
                    same += shard.rows.of_row(int(row))
        return sorted(other for other in same if other != key)

    def pairs(self, keys: Sequence[int]) -> dict[int, tuple[str, str]]:
        ids = np.array([key for key in keys if 0 <= key < LARGEST], np.uint64)
        found: dict[int, tuple[str, str]] = {}
        for shard in self._shards:
            found.update(shard.rows.pairs(ids))
        return found

    def stale(self) -> bool:
        return _stamp(self.folder, self.info) != self._stamp


def _merged(found: Sequence[FoundVectors], k: int) -> FoundVectors:
    """Answers of all shards, best first; of equal vectors in two shards the first sample."""
    keys = np.concatenate([one.keys for one in found]).astype(np.uint64)
    near = np.concatenate([one.cosines for one in found]).astype(np.float32)
    units = np.concatenate([one.units for one in found])
    order = np.lexsort((keys, -near))
    keys, near, units = keys[order], near[order], units[order]
    kept: list[int] = []
    for i in range(len(keys)):
        twin = None
        for j in reversed(kept):
            if near[j] - near[i] > SAME:
                break
            if np.array_equal(units[j], units[i]):
                twin = j
                break
        if twin is None:
            kept.append(i)
        else:
            keys[twin] = min(keys[twin], keys[i])
    return FoundVectors(keys[kept][:k], near[kept][:k], units[kept][:k])


def _stamp(folder: Path, info: IndexInfo) -> Stamp:
    found = []
    removed = [folder / shard.name / REMOVED_FILE for shard in info.shards]
    for path in (folder / INFO_FILE, *removed):
        try:
            status = path.stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return found
