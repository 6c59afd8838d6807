"""Nearest neighbours: usearch, faiss and pgvector, on the same vectors.

    python bench/neighbours.py [--quick] [--json] [--rows 50000] [--dims 512] [--queries 500]

Vectors are made up, since no CLIP data set comes with this: 1,000 centres and noise in 64
dimensions, rotated into --dims, L2-normalised, float16; queries are drawn in the same way (by
image), and with a shift that all share, as texts have against images (by text). One thread builds
and asks; 10 neighbours; recall@10 by similarity, against exact search. A second is one of CPU, for
pgvector one on the wall.

ours        usearch, HNSW 16, float16, 128 candidates: `pairmill index`
usearch_64  the same with 64 candidates, its default
faiss_hnsw  faiss, HNSW 16, float32 vectors, efConstruction 128, efSearch 128
faiss_sq    the same with float16 vectors (scalar quantizer)
faiss_ivf   faiss, inverted lists (sqrt of the rows), float16 vectors, 16 lists probed
pgvector    halfvec, HNSW 16, ef_construction 128, ef_search 128, embedded server, one by one

remove      1 % deleted: rows/s, or that it cannot; found_after: how many of them are found still
bytes_row   of what is saved. Needs faiss-cpu beside the extra `index`: pip install faiss-cpu
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import numpy.typing as npt
import psycopg
import typer
from usearch.index import Index

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from embeddings import END, SIGNATURE, Halves, Way, as_sent
from embeddings import field as wire
from own_server import machine, note, own_server, show

K = 10
Floats = npt.NDArray[np.float32]


def drawn(rows: int, dims: int, seed: int, gap: float = 0.0) -> Halves:
    shape = np.random.default_rng(0)
    centres = shape.standard_normal((1_000, 64)).astype(np.float32)
    into = shape.standard_normal((64, dims)).astype(np.float32)
    apart = shape.standard_normal(dims).astype(np.float32)
    rng = np.random.default_rng(seed)
    points = centres[rng.integers(1_000, size=rows)]
    points = points + 0.7 * rng.standard_normal((rows, 64), np.float32)
    vectors = points @ into / 8 + 0.1 * rng.standard_normal((rows, dims), np.float32) + gap * apart
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


class Usearch:
    def __init__(self, candidates: int) -> None:
        self.candidates = candidates

    def build(self, vectors: Halves) -> None:
        self.index = Index(
            ndim=vectors.shape[1], metric="cos", dtype="f16", connectivity=16,
            expansion_add=128, expansion_search=self.candidates,
        )  # fmt: skip
        self.index.add(np.arange(len(vectors), dtype=np.uint64), vectors, threads=1)

    def ask(self, queries: Floats) -> npt.NDArray[Any]:
        found: Any = self.index.search(queries, K, threads=1)
        return found.keys.astype(np.int64)  # type: ignore[no-any-return]

    def remove(self, ids: npt.NDArray[Any]) -> None:
        self.index.remove(ids.astype(np.uint64))

    def bytes(self) -> int:
        return int(self.index.serialized_length)


class Faiss:
    def __init__(self, make: Callable[[int, int], Any]) -> None:
        self.make = make

    def build(self, vectors: Halves) -> None:
        full = vectors.astype(np.float32)
        self.index = self.make(*full.shape)
        if not self.index.is_trained:
            self.index.train(full)
        self.index.add(full)

    def ask(self, queries: Floats) -> npt.NDArray[Any]:
        return self.index.search(queries, K)[1]  # type: ignore[no-any-return]

    def remove(self, ids: npt.NDArray[Any]) -> None:
        self.index.remove_ids(ids.astype(np.int64))

    def bytes(self) -> int:
        with tempfile.NamedTemporaryFile() as file:
            faiss.write_index(self.index, file.name)
            return Path(file.name).stat().st_size


def faiss_hnsw(rows: int, dims: int) -> Any:
    return _ef(faiss.IndexHNSWFlat(dims, 16, faiss.METRIC_INNER_PRODUCT))


def faiss_sq(rows: int, dims: int) -> Any:
    kind = faiss.ScalarQuantizer.QT_fp16
    return _ef(faiss.IndexHNSWSQ(dims, kind, 16, faiss.METRIC_INNER_PRODUCT))


def _ef(index: Any) -> Any:
    index.hnsw.efConstruction = index.hnsw.efSearch = 128
    return index


def faiss_ivf(rows: int, dims: int) -> Any:
    coarse = faiss.IndexFlatIP(dims)
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexIVFScalarQuantizer(
        coarse, dims, int(rows**0.5), kind, faiss.METRIC_INNER_PRODUCT, False
    )
    index.nprobe = 16
    return index


class Pgvector:
    def __init__(self, db: psycopg.Connection) -> None:
        self.db = db

    def build(self, vectors: Halves) -> None:
        dims = vectors.shape[1]
        self.db.execute("create extension if not exists vector")
        self.db.execute(f"create table v (id integer primary key, image halfvec({dims}))")
        sent = as_sent(Way("halfvec", "halfvec", None), vectors)
        kind = np.dtype([("fields", ">i2"), *wire(">i4", "id"), *wire(f"V{sent.shape[1]}", "v")])
        rows = np.zeros(len(vectors), kind)
        rows["fields"], rows["id_length"], rows["v_length"] = 2, 4, sent.shape[1]
        rows["id"], rows["v"] = np.arange(len(vectors)), sent.view(kind["v"]).reshape(-1)
        with self.db.cursor() as cursor, cursor.copy("copy v from stdin (format binary)") as to:
            to.write(SIGNATURE + rows.tobytes() + END)
        self.db.execute("set maintenance_work_mem = '1GB'")
        self.db.execute("set max_parallel_maintenance_workers = 0")
        self.db.execute(
            "create index on v using hnsw (image halfvec_cosine_ops)"
            " with (m = 16, ef_construction = 128)"
        )
        self.db.execute("vacuum analyze v")
        self.db.execute("set hnsw.ef_search = 128")

    def ask(self, queries: Floats) -> npt.NDArray[Any]:
        ask = f"select id from v order by image <=> %s::halfvec limit {K}"
        found = []
        for query in queries:
            text = "[" + ",".join(f"{x:.6g}" for x in query) + "]"
            found.append([row[0] for row in self.db.execute(ask, (text,))])
        return np.array(found)

    def remove(self, ids: npt.NDArray[Any]) -> None:
        self.db.execute("delete from v where id = any (%s)", (ids.tolist(),))

    def bytes(self) -> int:
        found = self.db.execute("select pg_total_relation_size('v')").fetchone()
        return int(found[0]) if found else 0


def timed(side: Any, work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, which others on the machine do not change; of pgvector, which computes in
    another process, wall seconds."""
    clock = time.perf_counter if isinstance(side, Pgvector) else time.process_time
    started = clock()
    done = work()
    return clock() - started, done


def measured(side: Any, vectors: Halves, asked: dict[str, Floats]) -> dict[str, Any]:
    full = vectors.astype(np.float32)
    seconds, _ = timed(side, lambda: side.build(vectors))
    row: dict[str, Any] = {"build_rows_s": round(len(vectors) / seconds)}
    row["bytes_row"] = round(side.bytes() / len(vectors))
    for kind, queries in asked.items():
        tenth = np.partition(queries @ full.T, len(full) - K, axis=1)[:, -K]
        seconds, found = timed(side, lambda queries=queries: side.ask(queries))
        near = (full[found] * queries[:, None, :]).sum(axis=2)
        row[f"{kind}_q_s"] = round(len(queries) / seconds)
        row[f"{kind}_recall"] = round(float((near >= tenth[:, None] - 1e-3).mean()), 4)
    gone = np.arange(0, len(vectors), 100)
    try:
        seconds, _ = timed(side, lambda: side.remove(gone))
    except RuntimeError:  # "remove_ids not implemented for this type of index"
        return row | {"remove": "cannot"}
    row["remove_rows_s"] = round(len(gone) / seconds)
    found = side.ask(full[gone[:500]])
    row["found_after"] = int(np.isin(found, gone).sum())
    return row


def main(
    quick: Annotated[bool, typer.Option(help="5,000 rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    rows: int = 50_000,
    dims: int = 512,
    queries: int = 500,
) -> None:
    rows = 5_000 if quick else rows
    faiss.omp_set_num_threads(1)
    vectors = drawn(rows, dims, 1)
    asked = {
        "image": drawn(queries, dims, 2).astype(np.float32),
        "text": drawn(queries, dims, 3, gap=1.0).astype(np.float32),
    }
    with own_server() as (server, _), psycopg.connect(server.url(), autocommit=True) as db:
        result: dict[str, Any] = machine(server.url())
        sides = {
            "ours": Usearch(128), "usearch_64": Usearch(64), "faiss_hnsw": Faiss(faiss_hnsw),
            "faiss_sq": Faiss(faiss_sq), "faiss_ivf": Faiss(faiss_ivf), "pgvector": Pgvector(db),
        }  # fmt: skip
        table = []
        for name, side in sides.items():
            note(name)
            table.append({"side": name} | measured(side, vectors, asked))
    for row in table:
        row["ratio_q_s"] = round(row["image_q_s"] / table[0]["image_q_s"], 2)
    show(result | {"rows": rows, "dims": dims, "sides": table}, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
