"""Inverted lists of product-quantised vectors on the disk, by faiss, compared exactly at the end.

Jégou, Douze and Schmid, Product quantization for nearest neighbor search (2011). A code of dims / 8
bytes stands for a vector; its list is chosen among 2 * sqrt(vectors). A query reads the codes of
``probes`` lists, and of the best the float16 vectors from embeddings.npy.
"""

import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np

from pairmill.ops.errors import UserError, extra
from pairmill.ops.vectors.index_info import Floats, Halves, Rows, StepProgress
from pairmill.ops.vectors.recall import unit
from pairmill.ops.vectors.shard_files import EMBEDDINGS_FILE, mapped

with extra("index,ivfpq"):
    import faiss as untyped

faiss: Any = untyped  # some versions have stubs, which lack what SWIG makes

LISTS_FILE = "images.faiss"
FEWEST = 1_000  # vectors: of fewer no quantiser is trained
BLOCK = 20_000  # vectors at once
OF_LIST, OF_CODE = 32, 64  # vectors trained on, a list, and a quantiser's code of 256
ROUNDS = 10  # of k-means; 25, faiss's own number, gained no recall and took 2.5 times as long
FIXED = 128 << 20  # bytes of training's and adding's arrays beside what grows with the vectors


def code_bytes(dims: int) -> int:
    """Bytes of a code: a number for each 8 dims, or the next larger divisor."""
    return max(m for m in range(1, max(1, dims // 8) + 1) if dims % m == 0)


def list_count(vectors: int) -> int:
    return 1 << max(3, round(math.log2(2 * max(1, vectors) ** 0.5)))


def training_bytes(vectors: int, dims: int) -> int:
    """Memory that a build takes at its peak: float32 samples, or codes and numbers of all."""
    return FIXED + max(4 * dims * OF_LIST * list_count(vectors), vectors * (code_bytes(dims) + 16))


def build(folder: Path, progress: StepProgress) -> None:
    """Write images.faiss of the vectors in embeddings.npy. Memory is bounded by
    ``training_bytes``; the same for the same vectors and number of threads."""
    vectors: Any = mapped(folder / EMBEDDINGS_FILE)
    rows, dims = vectors.shape
    lists = list_count(rows)
    coarse = faiss.IndexFlatIP(dims)
    index = faiss.IndexIVFPQ(coarse, dims, lists, code_bytes(dims), 8, faiss.METRIC_INNER_PRODUCT)
    # of single vectors, as few as there are: faiss writes a warning to standard error otherwise
    for clustering in (index.cp, index.pq.cp):
        clustering.niter, clustering.min_points_per_centroid = ROUNDS, 1
    index.cp.max_points_per_centroid, index.pq.cp.max_points_per_centroid = OF_LIST, OF_CODE
    wanted = min(rows, max(OF_LIST * lists, OF_CODE * 256))
    chosen = np.random.default_rng(0).choice(rows, wanted, replace=False)
    progress("training", 0, rows)
    index.train(unit(vectors[np.sort(chosen)]))
    for start in range(0, rows, BLOCK):
        progress("indexing", start, rows)
        index.add(unit(vectors[start : start + BLOCK]))
    faiss.write_index(index, str(folder / LISTS_FILE))


class InvertedLists:
    """The lists' file, mapped, and the vectors. Raises UserError where one is missing or
    damaged."""

    def __init__(self, folder: Path, dead: Rows) -> None:
        path = folder / LISTS_FILE
        try:
            self._vectors: Halves = mapped(folder / EMBEDDINGS_FILE)
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the index {path} is damaged: {reason}; build it anew") from None
        if self._index.ntotal != len(self._vectors) or self._index.d != self._vectors.shape[1]:
            raise UserError(f"the index {path} is damaged: it is of other vectors; build it anew")
        if len(self._vectors):
            # single rows of it are read: the kernel would read 128 KB about each
            self._vectors._mmap.madvise(mmap.MADV_RANDOM)
        # a search would start 32 threads to read ahead
        faiss.downcast_InvertedLists(self._index.invlists).prefetch_nthread = 0
        self.lists = int(self._index.nlist)
        self._alive = np.full(-(-len(self) // 8), 255, np.uint8)
        np.bitwise_and.at(self._alive, dead >> 3, ~(1 << (dead & 7)).astype(np.uint8))
        self._selector = (
            faiss.IDSelectorBitmap(len(self), faiss.swig_ptr(self._alive)) if len(dead) else None
        )

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dims(self) -> int:
        return int(self._vectors.shape[1])

    def search(self, vectors: Floats, count: int, probes: int) -> list[Rows]:
        """The rows whose codes are nearest to each vector (float32[n, dims], L2-normalised), up to
        ``count`` of each; no row that is dead. Each call has parameters of its own."""
        parameters = faiss.SearchParametersIVF(
            nprobe=max(1, min(probes, self.lists)), sel=self._selector
        )
        _, found = self._index.search(vectors, min(count, len(self)), params=parameters)
        return [row[row >= 0] for row in found]

    def get(self, rows: Rows) -> Halves:
        """float16[n, dims], read where they are on the disk."""
        return self._vectors[rows]


def threads(count: int) -> None:
    """Processors that faiss may use in this process; 0 for all."""
    faiss.omp_set_num_threads(count or os.cpu_count() or 1)
