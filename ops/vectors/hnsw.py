"""HNSW, by usearch: a graph in memory, or mapped from its file.

Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs (2016). Keys are the rows of the shard; the vectors, float16, are in
the graph's file.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from usearch.compiled import ScalarKind
from usearch.index import Index

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.index_info import Floats, Halves, Rows

GRAPH_FILE = "images.usearch"
ALONE = 10_000  # vectors that one thread inserts, before all do
ADD = 2_000  # vectors at once; between two of these an interruption is heard
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 128
OF_NODE = 300  # bytes of a vector in memory beside itself, while the graph is built


@contextmanager
def usearch_errors() -> Iterator[None]:
    """For calls of usearch: its error after Ctrl-C becomes KeyboardInterrupt, others UserError."""
    try:
        yield
    except RuntimeError as error:
        if "terminated" in str(error):
            raise KeyboardInterrupt from None
        raise UserError(f"the index cannot go on: {error}") from None


class GraphBuilder:
    """A new graph in memory."""

    def __init__(self, dims: int) -> None:
        self._index = Index(
            ndim=dims, metric="cos", dtype="f16", connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD, expansion_search=EXPANSION_SEARCH,
        )  # fmt: skip

    def add(self, vectors: Halves) -> None:
        """The next rows: float16[n, dims]."""
        for start in range(0, len(vectors), ADD):
            some = np.ascontiguousarray(vectors[start : start + ADD])
            first = len(self._index)
            # threads that insert into a small graph do not see each other: of 200 vectors one or
            # two could not be found in 3 of 100 builds, and in none by one thread
            threads = 1 if first < ALONE else 0
            with usearch_errors():
                rows = np.arange(first, first + len(some), dtype=np.uint64)
                self._index.add(rows, some, threads=threads)

    def save(self, path: Path) -> None:
        self._index.save(path)


class EffortTurns:
    """Who may search: usearch keeps the number of candidates in the index, so searches with one
    number go side by side, and those with another wait for their turn, in the order of coming."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._effort = self._at_work = 0

    @contextmanager
    def with_effort(self, effort: int) -> Iterator[None]:
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and (not self._at_work or self._effort == effort)
            )
            self._waiting.popleft()
            if not self._at_work:
                self._effort = effort
                self._index.expansion_search = effort  # type: ignore[misc]
            self._at_work += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()


class Graph:
    """A graph's file, mapped. Raises UserError where it is missing or damaged."""

    def __init__(self, folder: Path) -> None:
        path = folder / GRAPH_FILE
        try:
            index = Index.restore(path, view=True)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"the index {path} is damaged: {error}; build it anew") from None
        if index is None:
            raise UserError(f"the index lacks {path}: build it anew")
        self._index = index
        self._turns = EffortTurns(index)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def dims(self) -> int:
        return int(self._index.ndim)

    def search(self, vectors: Floats, count: int, effort: int, threads: int = 0) -> list[Rows]:
        """Rows nearest to each vector (float32[n, dims]), nearest first, up to ``count`` of each.
        effort: candidates that are kept, from ``count`` on, rounded up to 2^n or 1.5 * 2^n: fewer
        numbers, fewer turns. threads: 0 for all processors."""
        if not len(self._index):
            return [np.zeros(0, np.int64)] * len(vectors)
        effort = max(effort, count)
        power = 1 << (effort - 1).bit_length()
        effort = power * 3 // 4 if effort <= power * 3 // 4 else power
        found: Any
        with self._turns.with_effort(effort), usearch_errors():
            found = self._index.search(vectors, count, threads=threads)
        keys = np.asarray(found.keys).astype(np.int64)
        if len(vectors) == 1:  # usearch gives no list of one row
            return [keys]
        return [row[:held] for row, held in zip(keys, found.counts.tolist(), strict=True)]

    def get(self, rows: Rows) -> Halves:
        """float16[n, dims]."""
        if not len(rows):
            return np.zeros((0, self.dims), np.float16)
        # Index.get looks at each vector in Python, which costs three times the copy
        found: Any = self._index._compiled.get_many(rows.astype(np.uint64), ScalarKind.F16)
        return np.concatenate(found).view(np.float16).reshape(len(rows), self.dims)
