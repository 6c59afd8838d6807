"""A second signal: the cosine of the stored embeddings of two rows whose dHashes are near.

dHash sees 72 grey pixels. Different images that share a layout (logos on white, screenshots, book
covers) have near hashes, and a model that was trained to tell contents apart tells these.
"""

from collections.abc import Callable

import duckdb
import numpy as np
import numpy.typing as npt

from pairmill.ops.dedupe import tables
from pairmill.ops.dedupe.tables import Longs
from pairmill.ops.dedupe.vectors import Halves, Vectors

PAIRS = 1 << 20  # pairs read at a time
COMPARED = 8192  # of them computed at a time: 50 MB of float32 at 768 dims
BLOCK = 1024  # rows of a group compared at a time


def confirmed(
    db: duckdb.DuckDBPyConnection,
    pairs: str,
    vectors: Vectors,
    min_cosine: float,
    into: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make the table ``into`` (a, b) of the pairs (a, b: sample_ids) whose cosine is ``min_cosine``
    or more. A pair of which one has no embedding is none."""
    db.execute(f"CREATE OR REPLACE TABLE {into} (a BIGINT, b BIGINT)")
    total = tables.count(db, pairs)
    # neighbouring rows of the file are read together: blocks of 2^20 sample_ids, 64 batches
    query = f"SELECT a, b FROM {pairs} ORDER BY a >> 20, b >> 20, a, b"
    done = 0
    for batch in tables.read(db, query, PAIRS):
        a, b = (batch.column(n).to_numpy() for n in (0, 1))
        near = cosines(vectors, a, b) >= min_cosine  # NaN is not
        tables.insert(db, into, {"a": a[near], "b": b[near]})
        done += len(a)
        progress(done, total)


def cosines(vectors: Vectors, a: Longs, b: Longs) -> npt.NDArray[np.float32]:
    """float32[n]; NaN where a row has no embedding."""
    result = np.full(len(a), np.nan, np.float32)
    (at_a, has_a), (at_b, has_b) = vectors.of(a), vectors.of(b)
    both = np.flatnonzero(has_a & has_b)
    for start in range(0, len(both), COMPARED):
        some = both[start : start + COMPARED]
        x, y = (unit(vectors.values[at[some]]) for at in (at_a, at_b))
        result[some] = np.einsum("ij,ij->i", x, y)
    return result


def unit(values: Halves) -> npt.NDArray[np.float32]:
    """float32 rows of length 1; a row of zeros is NaN, and so near to none. Stored ones are 1 but
    for 10^-3, which float16 rounds."""
    return unit_floats(values.astype(np.float32))


def unit_floats(full: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(full / np.linalg.norm(full, axis=1, keepdims=True), np.float32)


def near_first(values: Halves, min_cosine: float, removed: int = 0) -> Longs:
    """Of rows in order of rank, the row that each goes for: int64[n], its own place where it
    stays. The greedy rule of ``components`` over all pairs, in blocks of 1,024: each goes for the
    first that stays and is near enough. The first ``removed`` rows all stay."""
    count = len(values)
    of = np.arange(count)
    kept = np.zeros(0, np.int64)
    for start in range(0, count, BLOCK):
        rows = np.arange(start, min(start + BLOCK, count))
        mine = of[start : start + len(rows)]  # a view
        block = unit(values[rows])
        free = rows >= removed
        for first in range(0, len(kept), BLOCK):  # those kept before, the earliest first
            some = kept[first : first + BLOCK]
            near = block @ unit(values[some]).T >= min_cosine
            hit = near.any(axis=1) & (mine == rows) & free
            mine[hit] = some[near[hit].argmax(axis=1)]
        near = np.triu(block @ block.T >= min_cosine, 1)
        for place in np.flatnonzero(near.any(axis=1)):
            if mine[place] == rows[place]:
                later = near[place] & (mine == rows) & free
                mine[later] = rows[place]
        kept = np.concatenate([kept, rows[mine == rows]])
    return of
