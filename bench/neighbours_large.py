"""Indexes of many vectors, by `pairmill index build` as it stands: hnsw beside ivfpq.

    python bench/neighbours_large.py [--quick] [--json] [--rows 1000000] [--dims 512]
        [--kind hnsw,ivfpq]

Vectors are made up (``drawn`` of bench/neighbours.py: clusters, and texts with a shift), in an
export on the disk. Each kind is built and asked in a process of its own: seconds (on the
wall, and of CPU, which others on the machine do not change), peak of resident
memory (file: pages of mapped files, which the kernel takes back; anonymous: what the process
needs), bytes a vector on the disk, and for 40 answers a query, queries a second of CPU, 16
at once and one by one; recall@10 as the build measured it. computed: what 10^8 to 5*10^9 vectors
would take, from the measured bytes and CPU seconds a vector.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

PIECE = 100_000  # rows of a file of the export
SIZES = (10**8, 10**9, 5 * 10**9)


def export_of(folder: Path, rows: int, dims: int) -> None:
    """An export in clip-retrieval's layout, PIECE rows a file."""
    from neighbours import drawn

    files = []
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    for n, start in enumerate(range(0, rows, PIECE)):
        some = min(PIECE, rows - start)
        ids = pa.array(np.arange(start, start + some))
        texts = [f"http://h.example/{i}.jpg" for i in range(start, start + some)]
        for kind, gap in (("img_emb", 0.0), ("text_emb", 1.0)):
            path = folder / kind / f"{kind}_{n:05}.npy"
            np.save(path, drawn(some, dims, 10 + 2 * n + (gap > 0), gap))
            files.append(path)
        table = pa.table({"SAMPLE_ID": ids, "url": texts, "caption": texts})
        pq.write_table(table, folder / "metadata" / f"metadata_{n:05}.parquet")
    manifest = {
        "format": "clip-retrieval", "dims": dims, "rows": rows, "model": {"name": "made up"},
        "release": {"name": "made up"},
        "files": [{"name": str(path.relative_to(folder))} for path in files],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


class Peak:
    """The largest resident memory of this process, in MB, seen ten times a second."""

    def __enter__(self) -> "Peak":
        self.anonymous = self.file = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.1):
            lines = Path("/proc/self/status").read_text().splitlines()
            held = {line.split(":")[0]: line.split()[1] for line in lines if line[:3] == "Rss"}
            self.anonymous = max(self.anonymous, int(held["RssAnon"]) / 1e3)
            self.file = max(self.file, int(held["RssFile"]) / 1e3)


def one(export: Path, out: Path, kind: str) -> dict[str, Any]:
    """Build and ask an index, in this process."""
    from neighbours import drawn

    from pairmill.ops.vectors import index
    from pairmill.ops.vectors.opened import open_index

    with Peak() as building:
        started, cpu = time.perf_counter(), time.process_time()
        info = index.build(export, out, kind=kind, memory=3 * 10**9, queries=200)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    with Peak() as asking:
        opened = open_index(out)
        asked = drawn(320, info.dims, 2).astype(np.float32)
        opened.search(asked[:16], 40)
        rates = {}
        for size in (16, 1):
            started = time.process_time()
            for at in range(0, len(asked), size):
                opened.search(asked[at : at + size], 40)
            rates[f"q_cpu_s_by_{size}"] = round(len(asked) / (time.process_time() - started))
    shard = info.shards[0]
    return {
        "kind": info.kind, "shards": len(info.shards), "build_s": round(seconds, 1),
        "build_cpu_s": round(cpu, 1), "cpu_us_vector": round(1e6 * cpu / info.vectors, 1),
        "build_mb": round(building.anonymous), "build_file_mb": round(building.file),
        "bytes_vector": round(sum(each.bytes for each in info.shards) / info.vectors),
        "ask_mb": round(asking.anonymous), "ask_file_mb": round(asking.file), **rates,
        "effort": shard.effort, "probes": shard.probes, "recall_at_10": info.recall_at_10,
    }  # fmt: skip


def computed(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Disk and hours of a core, for sizes beyond this machine."""
    return [
        {
            "vectors": size,
            "disk_tb": round(size * measured["bytes_vector"] / 1e12, 2),
            "core_hours": round(size * measured["cpu_us_vector"] / 3.6e9),
        }
        for size in SIZES
    ]


def main(
    quick: Annotated[bool, typer.Option(help="20,000 rows of 64 dims.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    rows: int = 1_000_000,
    dims: int = 512,
    kind: str = "hnsw,ivfpq",
    of: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    if of is not None:
        typer.echo(json.dumps(one(of / "export", of / kind, kind)))
        return
    rows, dims = (20_000, 64) if quick else (rows, dims)
    with tempfile.TemporaryDirectory() as folder:
        export_of(Path(folder) / "export", rows, dims)
        sides = []
        for each in kind.split(","):
            command = [sys.executable, __file__, "--of", folder, "--kind", each]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            side = json.loads(done.stdout.splitlines()[-1])
            sides.append(side | {"computed": computed(side)})
            if not as_json:
                typer.echo(json.dumps(sides[-1], indent=1))
    if as_json:
        typer.echo(json.dumps({"rows": rows, "dims": dims, "sides": sides}, indent=2))


if __name__ == "__main__":
    typer.run(main)
