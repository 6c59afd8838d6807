"""A shard of an index, opened: answers by SAMPLE_ID, with exact cosines."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakValueDictionary

import numpy as np

from pairmill.ops.vectors.hnsw import GRAPH_FILE, Graph
from pairmill.ops.vectors.index_info import Floats, Keys, Rows, ShardInfo
from pairmill.ops.vectors.recall import unit
from pairmill.ops.vectors.shard_files import RowFiles

if TYPE_CHECKING:
    from pairmill.ops.vectors.ivfpq import InvertedLists

_graphs: WeakValueDictionary[tuple[int, int, int], Graph] = WeakValueDictionary()
_graphs_lock = threading.Lock()


def graph_of(folder: Path) -> Graph:
    """The graph of a shard. One that is open is shared: after a removal the graph is what it was,
    and to map it anew takes 0.4 s and 50 bytes of memory a vector, at 10^6 of them."""
    try:
        status = (folder / GRAPH_FILE).stat()
    except OSError:
        return Graph(folder)  # says what is wrong
    known = (status.st_dev, status.st_ino, status.st_mtime_ns)
    with _graphs_lock:
        graph = _graphs.get(known)
        if graph is None:
            graph = _graphs[known] = Graph(folder)
        return graph


class FoundVectors(NamedTuple):
    """Answers to one query, nearest first. keys: uint64[m]; cosines: float32[m]; units:
    float32[m, dims], their vectors, L2-normalised."""

    keys: Keys
    cosines: Floats
    units: Floats


class IndexShard:
    """Raises UserError for a file that is missing or damaged, or where faiss is wanted and is not
    installed."""

    def __init__(self, folder: Path, info: ShardInfo) -> None:
        self.info = info
        self.rows = RowFiles(folder)
        self._graph = graph_of(folder) if info.kind == "hnsw" else None
        self.structure: Graph | InvertedLists
        if self._graph is not None:
            self.structure = self._graph
        else:
            from pairmill.ops.vectors import ivfpq

            self.structure = self._lists = ivfpq.InvertedLists(folder, self.rows.dead)
        self.rows.require(len(self.structure))

    def search(
        self, vectors: Floats, k: int, effort: int | None, threads: int
    ) -> list[FoundVectors]:
        """Of each vector (float32[n, dims], L2-normalised) up to k samples, nearest first. effort:
        candidates; None for the shard's own. threads: 0 for all."""
        candidates = effort or self.info.effort
        if self._graph is not None:
            found = self._of_graph(self._graph, vectors, k, candidates, threads)
        else:
            found = self._of_lists(vectors, k, candidates)
        # of all queries at once: fewer calls
        held, at = unit(self.structure.get(np.concatenate(found))), 0
        answers = []
        for vector, rows in zip(vectors, found, strict=True):
            own = held[at : at + len(rows)]
            at += len(rows)
            cosines = own @ vector
            best = np.lexsort((rows, -cosines))[:k]
            answers.append(FoundVectors(self.rows.keys_of(rows[best]), cosines[best], own[best]))
        return answers

    def _of_graph(
        self, graph: Graph, vectors: Floats, k: int, effort: int, threads: int
    ) -> list[Rows]:
        dead, alive = self.rows.dead, self.rows.alive()
        if not alive:
            return [np.zeros(0, np.int64)] * len(vectors)
        # a few more: the graph's own order is of float16 sums
        count = min(len(graph), -(-(k + 4) * len(graph) // alive))
        found = graph.search(vectors, count, max(effort, count), threads)
        if not len(dead):
            return found
        found = [rows[~np.isin(rows, dead)] for rows in found]
        # the graph has what is removed still: where it took the answers' places, more are asked for
        while count < len(graph):
            short = [i for i, rows in enumerate(found) if len(rows) < min(k, alive)]
            if not short:
                break
            count = min(len(graph), 2 * count)
            again = graph.search(vectors[short], count, 2 * count, threads)
            for i, rows in zip(short, again, strict=True):
                found[i] = rows[~np.isin(rows, dead)]
        return found

    def _of_lists(self, vectors: Floats, k: int, effort: int) -> list[Rows]:
        candidates = max(effort, 4 * k)
        # more candidates are in more lists, but not in as many more: those of a list are alike
        more = candidates / self.info.effort
        probes = max(1, round(self.info.probes * (more**0.5 if more > 1 else more)))
        found = self._lists.search(vectors, candidates, probes)
        # lists may be empty by now: more of them are read for the answers that are there
        while probes < self._lists.lists:
            short = [n for n, rows in enumerate(found) if len(rows) < min(k, self.rows.alive())]
            if not short:
                break
            probes *= 4
            for n, rows in zip(
                short, self._lists.search(vectors[short], candidates, probes), strict=True
            ):
                found[n] = rows
        return found

    def vector(self, row: int) -> Floats:
        """float32[dims], as it was stored."""
        return np.asarray(self.structure.get(np.array([row]))[0], np.float32)
