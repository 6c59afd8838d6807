"""Nearest neighbours over HTTP: `pairmill web knn` beside clip-retrieval's own service.

    python bench/pages_knn.py [--quick] [--json] [--rows 1000000] [--theirs PYTHON] [--seconds 20]
        [--processes 8]

Both have the same vectors (made up, in clusters: bench/neighbours.py), 512 dims, and answer the
same queries by embedding_input, 40 images each, deduplicated, from one client with 16 connections.
Theirs is clip_back of clip-retrieval 2.45.0 over faiss, HNSW 16, float32, efSearch raised until its
recall@10 is ours at least; metadata as Arrow files or Parquet, whichever is faster. Ours is the
command with an index by `pairmill index build` and a release whose tags it checks; it is asked for
safe images, which theirs has no model for and does not do. Half of the queries are as images lie,
half as texts do, further from all images: a build chooses its candidates by both.

--theirs is a Python that has it: `pip install --no-deps clip-retrieval==2.45.0`, then flask,
flask_restful, flask_cors<5, h5py, prometheus-client, fire, setuptools<81, faiss-cpu, pandas,
pyarrow, fsspec, torch. Without it there is no ratio.

knn_qps, knn_p99_ms     of ours at concurrency 16
cpu_ms                  CPU of the service for an answer, which others on the machine change less
ratio_over_clip_retrieval  q/s of ours / q/s of theirs; ratio_cpu: theirs' cpu_ms / ours
knn_p99_ms_overload     of the answers that are 200 at 160 connections; refused: the share of 503
rss_mb                  resident memory of the service afterwards, shared pages once
processes               of ours that search (--processes); theirs is one, and has no such option
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from neighbours import drawn
from own_server import note, show

from pairmill.ops.vectors.arrays import ClipRetrieval
from pairmill.ops.vectors.opened import open_index
from pairmill.ops.web.knn.knn_search import Question
from support.made_releases import made_release

HERE = Path(__file__).parent
PAIRMILL = str(Path(sys.executable).with_name("pairmill"))
DIMS, IMAGES, CLIENTS, OVERLOAD = 512, 40, 16, 160
PART = 100_000  # rows that are made at once
QUERIES = 500
DATA = "data-2"  # of --keep: raised where other data are made
EFFORTS = (32, 48, 64, 96, 128, 192, 256, 384)


def make_data(folder: Path, rows: int) -> None:
    """An export as `pairmill embeddings export` writes it, a release with tags, and metadata as
    clip-retrieval reads it."""
    export = folder / "export"
    export.mkdir()
    shards = ClipRetrieval(export, DIMS, -(-rows // PART))
    tables = []
    for start in range(0, rows, PART):
        note(f"vectors {start:,}")
        images = drawn(min(PART, rows - start), DIMS, 10 + start)
        ids = pa.array(range(start, start + len(images)), pa.int64())
        url = [
            f"https://h{i % 977}.example/images/{i}/picture-of-the-day.jpg" for i in ids.to_pylist()
        ]
        text = [
            f"A picture of thing {i}, one of many that look nearly alike" for i in ids.to_pylist()
        ]
        pairs = pa.table({"SAMPLE_ID": ids, "URL": url, "TEXT": text})
        with shards.shard():
            shards.write(pairs, images, drawn(len(images), DIMS, 11 + start, 1.0))
        tables.append(pairs)
    table = pa.concat_tables(tables)
    manifest = {
        "format": "clip-retrieval", "dims": DIMS, "rows": rows,
        "model": {"name": "made up", "pretrained": "", "digest": "d1"},
        "release": {"name": "bench"},
        "files": [{"name": str(path.relative_to(export))} for path, _ in shards.files],
    }  # fmt: skip
    (export / "manifest.json").write_text(json.dumps(manifest))
    tags = {"NSFW": ["UNLIKELY"] * rows, "punsafe": pa.array(np.full(rows, 0.01, np.float32))}
    for name, column in tags.items():
        table = table.append_column(name, [column])
    made_release(folder / "release", table, PART)
    theirs = folder / "theirs"
    (theirs / "metadata").mkdir(parents=True)
    table = table.rename_columns(
        [{"URL": "url", "TEXT": "caption"}.get(n, n) for n in table.column_names]
    )
    pq.write_table(table, theirs / "metadata" / "0.parquet")
    (folder / "arrow" / "metadata").mkdir(parents=True)
    arrow = str(folder / "arrow" / "metadata" / "0.arrow")
    with pa.OSFile(arrow, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def own_recall(folder: Path, asked: Any, tenth: Any) -> float:
    """recall@10 of our index, by similarity, as the service searches it."""
    question = Question(asked[0], IMAGES)
    _, near = open_index(folder / "index").search(asked, question.candidates())
    return float((near[:, :10] >= tenth[:, None] - 1e-3).mean())


def exact(folder: Path, asked: Any) -> Any:
    """Similarity of the true tenth of each query."""
    best = np.full((len(asked), 10), -np.inf, np.float32)
    for path in sorted((folder / "export" / "img_emb").iterdir()):
        vectors = np.load(path, mmap_mode="r")
        for start in range(0, len(vectors), 20_000):
            near = asked @ vectors[start : start + 20_000].astype(np.float32).T
            both = np.concatenate([best, near], axis=1)
            best = np.partition(both, both.shape[1] - 10, axis=1)[:, -10:]
    return best.min(axis=1)


def build_theirs(folder: Path, asked: Any, tenth: Any, wanted: float) -> dict[str, Any]:
    """faiss's HNSW with the least efSearch of recall ``wanted``."""
    import faiss

    index = faiss.IndexHNSWFlat(DIMS, 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 128
    for path in sorted((folder / "export" / "img_emb").iterdir()):
        note(f"faiss {path.name}")
        index.add(np.load(path).astype(np.float32))
    recall = 0.0
    for effort in EFFORTS:
        index.hnsw.efSearch = effort
        near, _ = index.search(asked, IMAGES)
        recall = float((near[:, :10] >= tenth[:, None] - 1e-3).mean())
        if recall >= wanted:
            break
    faiss.write_index(index, str(folder / "theirs" / "image.index"))
    (folder / "arrow" / "image.index").symlink_to(folder / "theirs" / "image.index")
    return {"recall_at_10": round(recall, 4), "ef_search": effort}


def bodies(folder: Path, asked: Any, name: str) -> None:
    rows = [
        {
            "embedding_input": [round(float(x), 7) for x in vector], "modality": "image",
            "num_images": IMAGES, "num_result_ids": IMAGES, "indice_name": name,
            "deduplicate": True, "use_safety_model": True, "use_violence_detector": False,
        }
        for vector in asked
    ]  # fmt: skip
    (folder / "bodies").write_text("\n".join(json.dumps(row) for row in rows))


@contextmanager
def served(command: list[str], port: int, environment: dict[str, str]) -> Iterator[int]:
    """The process id of a service that answers on a port."""
    process = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        for _ in range(1200):
            if process.poll() is not None:
                raise SystemExit(f"{command[:3]} ended: {process.stderr.read()[-2000:]!r}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/indices-list", timeout=5).read()
                break
            except OSError:
                time.sleep(0.1)
        process.stderr.close()  # so that a log that nobody reads does not fill it
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def family(pid: int) -> list[int]:
    """A process and its children."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(int(child) for task in tasks for child in task.read_text().split())]


def cpu_seconds(pid: int) -> float:
    fields = [Path(f"/proc/{p}/stat").read_text().rpartition(")")[2].split() for p in family(pid)]
    return sum(int(f[11]) + int(f[12]) for f in fields) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> int:
    lines = [Path(f"/proc/{p}/smaps_rollup").read_text().splitlines()[2] for p in family(pid)]
    return sum(int(line.removeprefix("Pss:").split()[0]) for line in lines) >> 10


def load(pid: int, port: int, folder: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Answers a second and the rest of a service under so many connections."""
    before = cpu_seconds(pid)
    done = subprocess.run(
        [sys.executable, str(HERE / "pages_knn_client.py"), str(port), str(folder / "bodies"),
         str(clients), str(seconds)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    by_status = {int(status): values for status, values in found["milliseconds"].items()}
    good = by_status.get(200, [0.0])
    total = sum(len(values) for values in by_status.values())
    return {
        "qps": round(len(good) / found["seconds"], 1),
        "p50_ms": float(np.percentile(good, 50)),
        "p99_ms": float(np.percentile(good, 99)),
        "cpu_ms": round((cpu_seconds(pid) - before) * 1000 / len(good), 2),
        "statuses": {status: len(values) for status, values in sorted(by_status.items())},
        "refused": round(len(by_status.get(503, [])) / total, 4),
        "rss_mb": rss_mb(pid),
    }


def ours_served(folder: Path, port: int, processes: int) -> Any:
    command = [
        PAIRMILL, "web", "knn", "--index", f"a={folder / 'index'}",
        "--release", str(folder / "release"), "--no-model", "--rate", "none",
        "--bind", f"127.0.0.1:{port}", "--processes", str(processes),
    ]  # fmt: skip
    return served(command, port, {})


def theirs_served(folder: Path, python: str, port: int, metadata: str) -> Any:
    home = folder / ("arrow" if metadata == "arrow" else "theirs")
    (home / "indices.json").write_text(json.dumps({"a": str(home)}))
    command = [python, str(HERE / "pages_knn_theirs.py"), str(home), str(port), metadata]
    return served(command, port, {"OMP_NUM_THREADS": "1"})


def measure(
    quick: bool,
    *,
    rows: int = 0,
    theirs: str = "",
    seconds: float = 0,
    keep: Path | None = None,
    processes: int = 0,
) -> dict[str, Any]:
    """The numbers of the module's docstring. keep: a folder for data that a later run takes."""
    rows, seconds = rows or (100_000 if quick else 1_000_000), seconds or (5 if quick else 20)
    with tempfile.TemporaryDirectory() as name:
        folder = (keep or Path(name)).absolute()
        if (folder / "index").exists() and not (folder / DATA).exists():
            raise SystemExit(f"{folder} has the data of another version: name an empty folder")
        if not (folder / "index").exists():
            folder.mkdir(exist_ok=True)
            (folder / DATA).touch()
            make_data(folder, rows)
            command = [PAIRMILL, "index", "build", str(folder / "export"),
                       "--out", str(folder / "index")]  # fmt: skip
            note("index build")
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        asked = np.empty((QUERIES, DIMS), np.float32)
        asked[::2], asked[1::2] = drawn(QUERIES // 2, DIMS, 2), drawn(QUERIES // 2, DIMS, 3, 1.0)
        bodies(folder, asked, "a")
        tenth = exact(folder, asked)
        result: dict[str, Any] = {
            "rows": rows,
            "dims": DIMS,
            "processes": processes,
            "cpus": os.cpu_count(),
            "recall_at_10": own_recall(folder, asked, tenth),
        }
        if theirs and not (folder / "theirs.json").exists():
            built = build_theirs(folder, asked, tenth, result["recall_at_10"])
            (folder / "theirs.json").write_text(json.dumps(built))
        with ours_served(folder, 18803, processes) as pid:
            load(pid, 18803, folder, CLIENTS, 1)
            ours = load(pid, 18803, folder, CLIENTS, seconds)
            overload = load(pid, 18803, folder, OVERLOAD, seconds)
        result |= {"ours": ours, "overload": overload}
        if theirs:
            sides = []
            for metadata in ("arrow", "parquet"):
                with theirs_served(folder, theirs, 18804, metadata) as pid:
                    load(pid, 18804, folder, CLIENTS, 1)
                    sides.append(
                        load(pid, 18804, folder, CLIENTS, seconds) | {"metadata": metadata}
                    )
            best = max(sides, key=lambda side: side["qps"])
            result |= {
                "theirs": best | json.loads((folder / "theirs.json").read_text()),
                "ratio_over_clip_retrieval": round(ours["qps"] / best["qps"], 2),
                "ratio_cpu": round(best["cpu_ms"] / ours["cpu_ms"], 2),
            }
    return result | {
        "knn_qps": ours["qps"], "knn_p99_ms": ours["p99_ms"],
        "knn_p99_ms_overload": overload["p99_ms"],
    }  # fmt: skip


def main(
    quick: Annotated[bool, typer.Option(help="100,000 rows, 5 seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    rows: int = 0,
    theirs: Annotated[str, typer.Option(help="A Python that has clip-retrieval.")] = "",
    seconds: float = 0,
    keep: Annotated[Path | None, typer.Option(help="Keep the data here, or take them.")] = None,
    processes: Annotated[int, typer.Option(help="As of `pairmill web knn`.")] = 0,
) -> None:
    found = measure(
        quick, rows=rows, theirs=theirs, seconds=seconds, keep=keep, processes=processes
    )
    show(found, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
