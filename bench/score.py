"""How fast pairs in PostgreSQL become scores in PostgreSQL, and what of it each stage could do.

    python bench/score.py [--quick] [--json] [--models ViT-B-32,…] [--device auto]
                          [--precision auto] [--compile] [--pairs N] [--threads N]

A server of its own (embedded), a database for each model with batches that wait, and the score
worker in this process: from the first claim until the last task is handed in (pairs_per_s). What
the steward does with a submission is not in it. Weights are random: the same arithmetic.

stages: each alone. read: COPY of thumbnails and texts. decode: with the model's transform, and
tokens. compute: the towers, on decoded images and tokens that are there. write: COPY and submit.
device_busy: the share of the time in which the model had work. between_tasks_ms: from a task's
last computation to the next one's first: its last part is written, a task claimed, a part read.
share_of_matmul_ceiling: FLOPs executed (padding too) a second, beside the best product of two
square matrices in the same run, bf16 on a GPU, float32 on a CPU. ratio_over_clip_retrieval: beside
clip-retrieval's loop over the same images as files, in bench/score_sides.py, in turn. cpu_ms: of
a pair, of either side's processes without the database's: what a machine that is shared does not
change. difference: of similarities in the database, from a plain float32 loop over the first pairs.

Images are those of bench/images.py as the downloader's thumbnails; texts have the lengths of alt
texts (text_tokens). SigLIP's tokenizer is a download: its ids are made from CLIP's.
"""

import json
import os
import resource
import statistics
import sys
import tempfile
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import trio
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from images import images
from own_server import database, machine, note, own_server
from score_sides import (
    Flops,
    Options,
    Side,
    clip_retrieval,
    matmul_ceiling,
    side,
    synchronise,
    timed,
    write_files,
)  # fmt: skip

from pairmill.workers.daemon import Job
from pairmill.workers.download.decode import decode
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.score.loading import device_of, dtype_of
from pairmill.workers.score.model import BATCH_SIZES, Model
from pairmill.workers.score.pipeline import Pipeline, Thumbnails
from pairmill.workers.score.worker import POSITIONS_PER_PART, Score
from support.database import Database
from support.scoring import add_model, hash_of, to_score

MODELS = "ViT-B-32,ViT-L-14,ViT-B-16-SigLIP"
PLAIN = 32  # pairs that are scored by a plain loop too
STAGE_ROWS = 2_000  # of reading and writing


class Busy:
    """Watches when a model has work."""

    def __init__(self, model: Model) -> None:
        self.spans: list[tuple[float, float]] = []
        plain = model.embed

        def embed(*arguments: Any) -> Any:
            begun = time.perf_counter()
            try:
                return plain(*arguments)
            finally:
                self.spans.append((begun, time.perf_counter()))

        model.embed = embed  # type: ignore[method-assign]

    def seconds(self) -> float:
        return sum(end - begun for begun, end in self.spans)


def cpu_seconds() -> float:
    """Of this process, its threads, and its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


# ---- measurements ------------------------------------------------------------------------------


def compute_alone(s: Side, o: Options) -> tuple[float, int]:
    """Pairs a second with everything decoded and on the device; and how many pairs take
    ``o.seconds``."""
    count = s.model.batch_size
    while True:
        thumbnails, texts = s.pairs(count)
        pixels = s.model.preprocessor.decode(thumbnails)
        pixels.data = pixels.data.to(o.device)
        tokens = s.model.tokenizer(texts)
        s.model.embed([pixels], lambda t=tokens: t)  # warm, and compiled
        took = timed(lambda p=pixels, t=tokens: s.model.embed([p], lambda: t), o.device)
        if took > o.seconds / 4 or count >= 4096:
            return count / took, max(64, int(o.seconds * count / took))
        count = min(4096, int(count * max(2, o.seconds / 3 / took)))


def decode_alone(s: Side, threads: int, seconds: float) -> float:
    """Images a second, with their texts, of so many threads."""
    pipeline = Pipeline(s.model, decoders=threads)
    images, texts = s.pairs(POSITIONS_PER_PART)
    part = Thumbnails(0, list(range(len(images))), texts, images, [*map(hash_of, images)])
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        decoding = pipeline.decoding(part)
        done += sum(len(future.result().rows) for future in decoding.pixels)
        decoding.tokens.result()
    rate = done / (time.perf_counter() - begun)
    pipeline.close()
    return rate


def database_alone(db: Database, s: Side) -> tuple[float, float]:
    """Rows a second that are read, and that are written, of one task."""
    to_score(db, *s.pairs(STAGE_ROWS))
    queue, _ = db.queue("score")
    claim = db.claim("score", digest=s.model.digest)
    assert claim is not None
    starts = range(0, STAGE_ROWS, POSITIONS_PER_PART)
    begun, read = time.perf_counter(), []
    for start in starts:
        read += queue.thumbnails(claim.lease_id, start, start + POSITIONS_PER_PART)
    reading = len(read) / (time.perf_counter() - begun)
    dims = s.model.dims
    unit = (np.ones(dims) / dims**0.5).astype(np.float16).tobytes()
    begun = time.perf_counter()
    for start in starts:
        rows = [
            (claim.lease_id, start, n, 0, 0.3, unit, unit, 9) for n in range(start, start + 500)
        ]
        queue.copy_scores(rows)
        queue.submit_score(claim.lease_id, start, len(rows))
    writing = STAGE_ROWS / (time.perf_counter() - begun)
    queue.complete(claim.lease_id)
    db.accept_all()
    return reading, writing


def end_to_end(db: Database, s: Side, o: Options, count: int) -> dict[str, Any]:
    """All tasks that wait, by the worker's own code."""
    before = db.value("select max(batch_id) from mill.batch")
    # at least two tasks, for what there is between them
    db.admin.execute(
        # and no heartbeat is needed
        "update mill.setting set batch_size = %s, lease_seconds = 86400",
        (min(10_000, -(-count // 2)),),
    )
    to_score(db, *s.pairs(count))
    busy = Busy(s.model)
    score = Score(s.model, threads=o.threads)

    async def main() -> list[int]:
        """How many parts had been computed after each task."""
        tasks = []
        with closing(ScoreQueue(db.login("score"))) as queue:
            instance = queue.register().instance_id
            line = Progress("bench", Metrics("score"))
            async with score.running():
                while (claim := queue.claim(instance, s.model.digest)) is not None:
                    await score.work(Job(claim, queue, line))
                    tasks.append(len(busy.spans))
        return tasks

    begun, cpu = time.perf_counter(), cpu_seconds()
    tasks = trio.run(main)
    synchronise(o.device)
    seconds = time.perf_counter() - begun
    cpu = cpu_seconds() - cpu
    del s.model.embed  # type: ignore[method-assign]
    db.accept_all()
    scored = db.value("select count(*) from mill.score where batch_id > %s", before)
    assert scored == count, f"{scored} of {count} pairs were scored"
    return {
        "pairs": count,
        "tasks": len(tasks),
        "between_tasks_ms": 1000
        * statistics.median(busy.spans[part][0] - busy.spans[part - 1][1] for part in tasks[:-1]),
        "after": before,
        "seconds": seconds,
        "cpu": cpu,
        "pairs_per_s": count / seconds,
        "device_busy": busy.seconds() / seconds,
    }


def difference(db: Database, s: Side, after: int) -> dict[str, float]:
    """Of similarities in the batches after this one, from a plain float32 loop."""
    rows = db.rows(
        "select p.url, x.similarity from mill.score x join mill.pair p using (batch_id, n)"
        " where x.similarity is not null and p.url ~ '/[0-9]{1,2}.jpg$'"
        " and batch_id > %s",
        after,
    )
    found = {int(url.rpartition("/")[2][:-4]): value for url, value in rows}
    rows_of = [row for row in sorted(found) if row < PLAIN]
    preprocess = s.model.preprocessor
    pairs = [s.pair(row) for row in rows_of]
    with torch.inference_mode():
        pixels = preprocess.normalised(preprocess.decode([image for image, _ in pairs]).data)
        image = s.clip.encode_image(pixels, normalize=True)
        ids = s.tokenize([text for _, text in pairs]).to(pixels.device)
        plain = (image * s.clip.encode_text(ids, normalize=True)).sum(dim=-1).tolist()
    changes = [abs(x - found[row]) for x, row in zip(plain, rows_of, strict=True)]
    return {"mean": statistics.mean(changes), "max": max(changes), "pairs": len(changes)}


def measured(
    url: str, folder: Path, name: str, o: Options, thumbnails: list[bytes]
) -> dict[str, Any]:
    note(f"{name}: a model with random weights")
    s = side(name, o, thumbnails)
    lengths = s.model.tokenizer(s.texts).lengths
    with closing(Database(url)) as db:
        add_model(db, s.model)
        note("reading and writing alone")
        read, write = database_alone(db, s)
        note("decoding alone")
        decoders = Score(s.model, threads=o.threads)._decoders
        decoding = decode_alone(s, decoders, min(5.0, o.seconds / 2))
        note("computing alone")
        computing, count = compute_alone(s, o)
        count = o.pairs or count
        flops = Flops(s.clip.to(o.dtype), s.model)
        s.clip.to(torch.float32)
        ours, theirs = [], []
        batch = BATCH_SIZES[o.device.type]
        for number in range(o.rounds):
            note(f"round {number + 1}: {count} pairs, end to end")
            flops.total = 0
            ours.append(end_to_end(db, s, o, count) | {"flops": flops.total})
            note("clip-retrieval's loop")
            files = folder / f"{name}-{number}"
            write_files(files, *s.pairs(count))
            cpu = cpu_seconds()
            took, pairs = clip_retrieval(s.clip, s.preprocess, s.tokenize, files, batch, o.device)
            theirs.append({"pairs_per_s": pairs / took, "cpu": cpu_seconds() - cpu})
        note("a plain loop")
        differ = difference(db, s, ours[-1]["after"])
    ceiling = matmul_ceiling(o.device, o.dtype)
    rate, their_rate = (
        statistics.median(run["pairs_per_s"] for run in runs) for runs in (ours, theirs)
    )
    our_cpu, their_cpu = (
        1000 * statistics.median(run["cpu"] for run in runs) / count for runs in (ours, theirs)
    )
    per_pair = ours[0]["flops"] / count
    return {
        "model": name,
        "pairs": count,
        "rounds": o.rounds,
        "pairs_per_s": round(rate, 1),
        "clip_retrieval_pairs_per_s": round(their_rate, 1),
        "ratio_over_clip_retrieval": round(rate / their_rate, 2),
        "cpu_ms": {"ours": round(our_cpu, 1), "clip_retrieval": round(their_cpu, 1)},
        "share_of_matmul_ceiling": round(rate * per_pair / ceiling, 3),
        "matmul_ceiling_tflops": round(ceiling / 1e12, 3),
        "gflop_a_pair": round(per_pair / 1e9, 2),
        "device_busy": round(statistics.median(run["device_busy"] for run in ours), 3),
        "between_tasks_ms": round(statistics.median(r["between_tasks_ms"] for r in ours)),
        "tasks": ours[0]["tasks"],
        "stages": {
            "read": round(read), "decode": round(decoding), "compute": round(computing, 1),
            "write": round(write), "decoders": decoders,
        },
        "text_tokens": {f"p{p}": int(np.percentile(lengths, p)) for p in (50, 90, 99)},
        "batch_size": s.model.batch_size,
        "difference": {k: float(f"{v:.2g}") for k, v in differ.items()},
    }  # fmt: skip


def main(
    models: Annotated[str, typer.Option("--models")] = "",
    device: Annotated[str, typer.Option("--device")] = "auto",
    precision: Annotated[str, typer.Option("--precision")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile")] = False,
    pairs: Annotated[int, typer.Option("--pairs", help="0: what takes a while")] = 0,
    threads: Annotated[int, typer.Option("--threads")] = 0,
    quick: Annotated[bool, typer.Option("--quick")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    where = device_of(device)
    dtype = dtype_of(precision, where)
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    seconds, rounds = (12.0, 1) if quick else (60.0, 2)
    o = Options(where, dtype, compiled, pairs or None, threads, seconds, rounds)
    wanted = (models or ("ViT-B-32" if quick else MODELS)).split(",")
    note("thumbnails")
    thumbnails = [decode(body).thumbnail for body in images(16 if quick else 48, 4, 4).values()]
    with own_server() as (server, _), tempfile.TemporaryDirectory() as folder:
        found = [
            measured(database(server, f"bench_{i}"), Path(folder), name, o, thumbnails)
            for i, name in enumerate(wanted)
        ]
        result = {
            "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
            "precision": str(dtype).removeprefix("torch."),
            "compiled": compiled,
            "threads": threads,
            "versions": {p: version(p) for p in ("torch", "open_clip_torch", "pillow", "psycopg")},
            **machine(server.url()),
            **{k: found[0][k] for k in (
                "pairs_per_s", "share_of_matmul_ceiling", "ratio_over_clip_retrieval"
            )},
            "models": found,
        }  # fmt: skip
    if as_json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        if key != "models":
            print(f"{key:28} {value}")
    for model in found:
        print()
        for key, value in model.items():
            print(f"  {key:28} {value}")


if __name__ == "__main__":
    typer.run(main)
