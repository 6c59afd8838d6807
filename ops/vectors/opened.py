"""An index, opened for queries: the same calls for each kind of index."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.vectors import index as hnsw
from pairmill.ops.vectors import recall
from pairmill.ops.vectors.duplicates import Keys
from pairmill.ops.vectors.index import IndexInfo, NeighbourIndex
from pairmill.ops.vectors.recall import NOTHING, Floats


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


def open_index(folder: Path) -> Searcher:
    """Raises UserError if the folder holds no index, or a damaged one."""
    return _Opened(folder)


class _Opened:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stamp = _stamp(folder)
        self._opened = NeighbourIndex(folder)
        self.info = self._opened.info
        self._lock = threading.Lock()

    def search(self, vectors: Floats, k: int, *, effort: int | None = None) -> tuple[Keys, Floats]:
        lengths = np.linalg.norm(np.asarray(vectors, np.float32), axis=1, keepdims=True)
        if (
            vectors.ndim != 2
            or vectors.shape[1] != self.info.dims
            or not np.isfinite(lengths).all()
            or not lengths.all()
        ):
            raise UserError(f"a query is no vector of {self.info.dims} finite numbers")
        keys = np.full((len(vectors), k), NOTHING, np.uint64)
        near = np.full((len(vectors), k), -np.inf, np.float32)
        graph = self._opened._index
        answers: Any
        with self._lock, recall.usearch_errors():
            # usearch keeps the number of candidates in the index
            graph.expansion_search = max(effort or hnsw.EXPANSION_SEARCH, 2 * k)  # type: ignore[misc]
            answers = graph.search(vectors / lengths, k)
        answers = [answers] if len(vectors) == 1 else answers  # usearch gives no list of one row
        for i in range(len(vectors)):
            found = np.asarray(answers[i].keys, np.uint64) if len(graph) else np.zeros(0, np.uint64)
            own = recall.vectors(graph, found)
            own = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
            cosine = own @ (vectors[i] / lengths[i])
            order = np.lexsort((found, -cosine))
            keys[i, : len(found)], near[i, : len(found)] = found[order], cosine[order]
        return keys, near

    def vector(self, sample_id: int) -> Floats:
        return self._opened.vector(sample_id)

    def vectors(self, keys: Keys) -> Floats:
        if not len(keys):
            return np.zeros((0, self.info.dims), np.float32)
        return np.stack([self._opened.vector(int(key)) for key in keys])

    def duplicates(self, key: int) -> list[int]:
        known = self._opened._duplicates
        first = known.key(key)
        same = [first, *known.ids[known.keys == np.uint64(first)].tolist()]
        return sorted(int(other) for other in same if other != key)

    def pairs(self, keys: Sequence[int]) -> dict[int, tuple[str, str]]:
        wanted = [("SAMPLE_ID", "in", [int(key) for key in keys])]
        table = pq.read_table(self.folder / hnsw.PAIRS_FILE, filters=wanted)
        return {row["SAMPLE_ID"]: (row["URL"], row["TEXT"]) for row in table.to_pylist()}

    def stale(self) -> bool:
        return _stamp(self.folder) != self._stamp


def _stamp(folder: Path) -> list[tuple[int, int, int]]:
    found = []
    for name in (hnsw.GRAPH_FILE, hnsw.DUPLICATES_FILE, hnsw.PAIRS_FILE, hnsw.INFO_FILE):
        try:
            status = (folder / name).stat()
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return found
