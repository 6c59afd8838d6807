"""What keeping embeddings costs: bytea, by STORAGE, against pgvector's halfvec.

    python bench/embeddings.py [--quick] [--json] [--dims 768] [--batches 10] [--rounds 3]

An embedded server of its own; tables of mill.embedding's columns and key, two vectors of --dims
float16 a row, --batches of 10,000 rows, of random directions (float16 mantissas do not compress,
whatever the vectors mean). Tables and rounds take turns.

ways        extended    bytea as it is declared by default
            external    bytea, set storage external: no attempt to compress
            main        bytea, set storage main: in the row, two rows to a page
            together    both vectors in one bytea, external
            halfvec     pgvector's type, as it is by default (external)
write       binary COPY of prepared buffers into the table with its key, rows/s; WAL bytes a row
bytes       a row: heap, TOAST with its index, key; against the 4 * dims of the vectors themselves
scan        COPY (SELECT n, image, text) TO STDOUT, binary, the whole table, into numpy arrays of
            float16 in the machine's byte order: MB of vectors a second
batch       the same of one batch after another, in order of n
keys        every 10th row of each batch by its key, n = any (…), rows/s
cosine      halfvec only: the server computes image <=> text of every row, rows/s

Reads are of what the machine's memory holds: this is CPU and copying, not the disk. Medians of the
rounds; ratio: to extended.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import machine, note, own_server, show

BATCH = 10_000
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True)
class Way:
    """A way of keeping two vectors a row."""

    name: str
    type: str
    storage: str | None
    together: bool = False

    @property
    def table(self) -> str:
        return f"kept_{self.name}"

    @property
    def halfvec(self) -> bool:
        return self.type.startswith("halfvec")

    def columns(self) -> list[str]:
        return ["pair"] if self.together else ["image", "text"]


def ways(dims: int) -> list[Way]:
    return [
        Way("extended", "bytea", None),
        Way("external", "bytea", "external"),
        Way("main", "bytea", "main"),
        Way("together", "bytea", "external", together=True),
        Way("halfvec", f"halfvec({dims})", None),
    ]


def create(db: psycopg.Connection, way: Way) -> None:
    vectors = ", ".join(f"{c} {way.type} not null" for c in way.columns())
    db.execute(
        f"create table {way.table} (batch_id bigint not null, n integer not null,"
        f" attempt smallint not null, model_id integer not null, {vectors},"
        " submission_id bigint not null,"
        " primary key (batch_id, n, attempt, model_id, submission_id))"
    )
    for column in way.columns() if way.storage else []:
        db.execute(f"alter table {way.table} alter column {column} set storage {way.storage}")


def field(kind: str, name: str) -> list[tuple[str, str]]:
    """A column of a binary COPY: its length, then its value."""
    return [(f"{name}_length", ">i4"), (name, kind)]


def as_sent(way: Way, vectors: Halves) -> npt.NDArray[Any]:
    """What a column of the way is on the wire: uint8[rows, bytes]."""
    if not way.halfvec:
        return vectors.view(np.uint8)
    head = np.zeros((len(vectors), 2), ">u2")
    head[:, 0] = vectors.shape[1]
    swapped = vectors.astype(">f2").view(np.uint8)
    return np.concatenate([head.view(np.uint8), swapped], axis=1)


def stream(way: Way, batch: int, images: Halves, texts: Halves) -> bytes:
    """A batch as a binary COPY, made at once."""
    columns = (
        [as_sent(way, np.concatenate([images, texts], axis=1))]
        if way.together
        else [as_sent(way, v) for v in (images, texts)]
    )
    kinds = [f"V{column.shape[1]}" for column in columns]
    fields = [("fields", ">i2"), *field(">i8", "batch_id"), *field(">i4", "n")]
    fields += [*field(">i2", "attempt"), *field(">i4", "model_id")]
    for name, kind in zip(way.columns(), kinds, strict=True):
        fields += field(kind, name)
    fields += field(">i8", "submission_id")
    rows = np.zeros(len(images), np.dtype(fields))
    rows["fields"] = 5 + len(columns)
    for name in rows.dtype.names or ():
        if name.endswith("_length"):
            rows[name] = rows.dtype[name.removesuffix("_length")].itemsize
    rows["batch_id"], rows["n"], rows["attempt"] = batch, np.arange(len(images)), 1
    for name, column in zip(way.columns(), columns, strict=True):
        rows[name] = np.ascontiguousarray(column).view(rows.dtype[name]).reshape(len(images))
    return SIGNATURE + rows.tobytes() + END


def read(
    db: psycopg.Connection, way: Way, dims: int, where: str, ordered: bool
) -> tuple[npt.NDArray[Any], Halves]:
    """n and float16[rows, 2, dims] of what the condition names."""
    extra = 4 if way.halfvec else 0
    wide = 2 * dims * (2 if way.together else 1) + extra
    fields = [("fields", ">i2"), *field(">i4", "n")]
    for name in way.columns():
        fields += field(f"V{wide}", name)
    query = f"select n, {', '.join(way.columns())} from {way.table} where {where}"
    order = " order by n" if ordered else ""
    with (
        db.cursor() as cursor,
        cursor.copy(f"copy ({query}{order}) to stdout (format binary)") as c,
    ):
        sent = b"".join(c)
    rows = np.frombuffer(
        sent,
        np.dtype(fields),
        offset=len(SIGNATURE),
        count=-1
        if not sent
        else (len(sent) - len(SIGNATURE) - len(END)) // np.dtype(fields).itemsize,
    )
    vectors = np.empty((len(rows), 2, dims), np.float16)
    parts = [rows[name] for name in way.columns()]
    if way.together:
        vectors[:] = _plain(parts[0], wide, 0, "<f2").reshape(-1, 2, dims)
    else:
        for i, part in enumerate(parts):
            vectors[:, i] = _plain(part, wide, extra, ">f2" if way.halfvec else "<f2")
    return rows["n"], vectors


def _plain(column: npt.NDArray[Any], wide: int, skip: int, kind: str) -> npt.NDArray[Any]:
    raw = np.ascontiguousarray(column).view(np.uint8).reshape(len(column), wide)
    return np.ascontiguousarray(raw[:, skip:]).view(kind)


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@dataclass
class Bench:
    db: psycopg.Connection
    dims: int
    batches: int

    def drawn(self) -> Iterator[tuple[int, Halves, Halves]]:
        rng = np.random.default_rng(1)
        for batch in range(self.batches):
            pair = rng.standard_normal((2, BATCH, self.dims), np.float32)
            pair /= np.linalg.norm(pair, axis=2, keepdims=True)
            images, texts = pair.astype(np.float16)
            yield batch, images, texts

    def write(self, way: Way) -> dict[str, Any]:
        create(self.db, way)
        seconds, before = 0.0, self.wal()
        for batch, images, texts in self.drawn():
            body = stream(way, batch, images, texts)

            def copy(body: bytes = body) -> None:
                with (
                    self.db.cursor() as cursor,
                    cursor.copy(f"copy {way.table} from stdin (format binary)") as to,
                ):
                    to.write(body)

            seconds += timed(copy)
        rows = self.batches * BATCH
        wal = (self.wal() - before) / rows
        self.db.execute(f"vacuum analyze {way.table}")
        heap, toast, key = self.sizes(way)
        return {
            "way": way.name, "write_rows_s": round(rows / seconds), "wal_bytes_row": round(wal),
            "heap": round(heap / rows), "toast": round(toast / rows), "key": round(key / rows),
            "bytes_row": round((heap + toast + key) / rows),
            "x_of_vectors": round((heap + toast + key) / rows / (4 * self.dims), 2),
        }  # fmt: skip

    def wal(self) -> int:
        found = self.db.execute("select pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
        assert found
        return int(found[0])

    def sizes(self, way: Way) -> tuple[int, int, int]:
        found = self.db.execute(
            "select pg_relation_size(c.oid), pg_table_size(c.oid) - pg_relation_size(c.oid),"
            " pg_indexes_size(c.oid) from pg_class c where c.oid = %s::regclass",
            (way.table,),
        ).fetchone()
        assert found
        heap, toast, key = found
        return heap, toast, key

    def right(self, way: Way) -> None:
        """That what is read is what was written."""
        _, images, texts = next(self.drawn())
        n, vectors = read(self.db, way, self.dims, "batch_id = 0", True)
        assert np.array_equal(n, np.arange(BATCH))
        assert np.array_equal(vectors[:, 0], images)
        assert np.array_equal(vectors[:, 1], texts)

    def reads(self, way: Way) -> dict[str, float]:
        rows = self.batches * BATCH
        megabytes = rows * 4 * self.dims / 1e6
        scan = timed(lambda: read(self.db, way, self.dims, "true", False))
        some = "{" + ",".join(str(n) for n in range(3, BATCH, 10)) + "}"
        batch = keys = 0.0
        for b in range(self.batches):
            batch += timed(lambda b=b: read(self.db, way, self.dims, f"batch_id = {b}", True))
            where = f"batch_id = {b} and n = any ('{some}')"
            keys += timed(lambda w=where: read(self.db, way, self.dims, w, True))
        found = {
            "scan_MB_s": megabytes / scan,
            "batch_MB_s": megabytes / batch,
            "keys_rows_s": rows / 10 / keys,
        }
        if way.halfvec:
            sort = f"select avg(image <=> text) from {way.table}"
            found["cosine_rows_s"] = rows / timed(lambda: self.db.execute(sort))
        return found


def main(
    quick: Annotated[bool, typer.Option(help="Two batches, one round.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    dims: int = 768,
    batches: int = 10,
    rounds: int = 3,
) -> None:
    if quick:
        batches, rounds = 2, 1
    with own_server() as (server, _), psycopg.connect(server.url(), autocommit=True) as db:
        result: dict[str, Any] = machine(server.url())
        db.execute("create extension if not exists vector")
        bench = Bench(db, dims, batches)
        table = []
        for way in ways(dims):
            note(f"writing {way.name}")
            table.append(bench.write(way))
            bench.right(way)
        found: dict[str, list[dict[str, float]]] = {way.name: [] for way in ways(dims)}
        for number in range(rounds):
            for way in ways(dims):
                note(f"reading {way.name}, round {number + 1}")
                found[way.name].append(bench.reads(way))
        for row in table:
            once = found[row["way"]]
            row |= {name: round(statistics.median(r[name] for r in once)) for name in once[0]}
        base = table[0]
        for row in table:
            row["ratio"] = {
                name: round(row[name] / base[name], 2)
                for name in ("bytes_row", "write_rows_s", "scan_MB_s", "batch_MB_s", "keys_rows_s")
            }
        rows = batches * BATCH
        result |= {"dims": dims, "rows": rows, "rounds": rounds, "vector_bytes_row": 4 * dims}
        show(result | {"ways": table}, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
