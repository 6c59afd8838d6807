"""SemDeDup: k-means over the embeddings, then the cosine within each cluster.

Abbas et al., "SemDeDup: Data-efficient learning at web-scale through semantic deduplication"
(2023). Two rows that k-means puts into different clusters are not compared: its recall is below 1,
and is measured. Of near rows the one that the recipe prefers stays, where the paper keeps that
farthest from the centre.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from pairmill.ops.archive.facts import Facts
from pairmill.ops.dedupe import confirm, tables
from pairmill.ops.dedupe.tables import Longs
from pairmill.ops.dedupe.vectors import stored

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
SEED = 1
ITERATIONS = 10
SAMPLE = 64  # rows a cluster that k-means is trained on; faiss takes 39 to 256
MOST_CLUSTERS = 65_536
ASSIGNED = 4096  # rows at a time


def near(
    db: duckdb.DuckDBPyConnection,
    rows: str,
    min_cosine: float,
    clusters: int,
    facts: Sequence[Facts],
    model_id: int,
    work: Path,
    found: str,
    progress: Progress = lambda done, total: None,
) -> None:
    """Make the table ``found`` (sample_id, of) of the rows near one that stays, by cosine, within
    a cluster. A row without an embedding is compared with none."""
    ids = np.asarray(
        db.execute(f"SELECT sample_id FROM {rows} ORDER BY sample_id").fetchnumpy()["sample_id"],
        np.int64,
    )
    db.execute(f"CREATE OR REPLACE TABLE {found} (sample_id BIGINT, of BIGINT)")
    count = clusters or min(MOST_CLUSTERS, max(1, int(len(ids) ** 0.5)))
    sample = _sample(facts, model_id, ids, count * SAMPLE)
    if len(sample) < 2:
        return
    centres = kmeans(sample, min(count, len(sample)))
    db.execute(f"CREATE OR REPLACE TABLE {found}_of (sample_id BIGINT, cluster INT)")
    file = work / "dedupe-semantic.f16"
    try:
        _written(db, f"{found}_of", centres, facts, model_id, ids, file, progress)
        _within(db, f"{found}_of", rows, min_cosine, sample.shape[1], file, found, progress)
    finally:
        file.unlink(missing_ok=True)
    db.execute(f"DROP TABLE {found}_of")


def _sample(facts: Sequence[Facts], model_id: int, ids: Longs, wanted: int) -> Floats:
    """Embeddings of a deterministic sample of rows: one of so many, in order."""
    some = ids[:: max(1, len(ids) // max(wanted, 1))]
    parts = [confirm.unit(values) for _, values in stored(facts, model_id, some)]
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return np.asarray(vectors[np.isfinite(vectors).all(axis=1)])


def kmeans(vectors: Floats, count: int, iterations: int = ITERATIONS) -> Floats:
    """float32[count, dims]: spherical k-means of unit vectors, from a random start of a fixed seed;
    an empty cluster starts again at the vector farthest from its centre."""
    random = np.random.default_rng(SEED)
    centres = vectors[random.choice(len(vectors), count, replace=False)].copy()
    for _ in range(iterations):
        of, cosine = nearest(vectors, centres)
        order = np.argsort(of, kind="stable")
        names, starts = np.unique(of[order], return_index=True)
        sums = np.add.reduceat(vectors[order], starts, axis=0)
        centres[names] = confirm.unit_floats(sums)
        empty = np.setdiff1d(np.arange(count), names)
        centres[empty] = vectors[np.argsort(cosine, kind="stable")[: len(empty)]]
    return centres


def nearest(vectors: Floats, centres: Floats) -> tuple[Longs, Floats]:
    """Of each vector the nearest centre, int64[n], and its cosine, float32[n]."""
    of = np.zeros(len(vectors), np.int64)
    cosine = np.zeros(len(vectors), np.float32)
    for start in range(0, len(vectors), ASSIGNED):
        some = slice(start, start + ASSIGNED)
        product = vectors[some] @ centres.T
        of[some] = product.argmax(axis=1)
        cosine[some] = product.max(axis=1)
    return of, cosine


def _written(
    db: duckdb.DuckDBPyConnection,
    into: str,
    centres: Floats,
    facts: Sequence[Facts],
    model_id: int,
    ids: Longs,
    file: Path,
    progress: Progress,
) -> None:
    """Copy the rows' embeddings into a file, in order, and their clusters into a table."""
    done = 0
    with file.open("wb") as out:
        for found, values in stored(facts, model_id, ids):
            full = confirm.unit(values)
            fine = np.isfinite(full).all(axis=1)
            of, _ = nearest(full[fine], centres)
            out.write(np.ascontiguousarray(values[fine]).data)
            tables.insert(db, into, {"sample_id": found[fine], "cluster": of.astype(np.int32)})
            done += len(found)
            progress(done, 2 * len(ids))


def _within(
    db: duckdb.DuckDBPyConnection,
    of: str,
    rows: str,
    min_cosine: float,
    dims: int,
    file: Path,
    found: str,
    progress: Progress,
) -> None:
    total = tables.count(db, of)
    vectors = np.memmap(file, np.float16, "r", shape=(total, dims))
    query = (
        "SELECT cluster, place, sample_id FROM"
        f" (SELECT *, row_number() OVER (ORDER BY sample_id) - 1 AS place FROM {of})"
        f" JOIN {rows} r USING (sample_id) ORDER BY cluster, r.rank"
    )
    done = 0
    for places, ids in tables.groups(db, query):
        goes_for = confirm.near_first(vectors[places], min_cosine)
        goes = goes_for != np.arange(len(goes_for))
        tables.insert(db, found, {"sample_id": ids[goes], "of": ids[goes_for[goes]]})
        done += len(ids)
        progress(total + done, 2 * total)
