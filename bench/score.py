"""How fast pairs in PostgreSQL become scores in PostgreSQL, and what of it each stage could do.

    python bench/score.py [--quick] [--json] [--models ViT-B-32,…] [--device auto]
                          [--precision auto] [--compile] [--pairs N] [--threads N]
                          [--decode-processes] [--precisions]

A server of its own (embedded), a database for each model with batches that wait, and the score
worker in this process: from the first claim until the last task is handed in (pairs_per_s). What
the steward does with a submission is not in it. Weights are random: the same arithmetic.

stages: each alone. read: COPY of thumbnails and texts. decode: with the model's transform, and
tokens. compute: the towers, on decoded images and tokens that are there. write: COPY and submit.
device_busy: the share of the time in which the model had work; on a GPU by the GPU's own events,
and no more than the towers alone would take.
waits_for: what of `waits` takes most of the rest (bench/score_busy.py); "nothing" above 0.95.
between_tasks_ms: from a task's last computation to the next one's first: its last part is written,
a task claimed, a part read. --decode-processes: decoding in as many processes as threads too.
--precisions: the towers' rate in each, and the change of similarity from a plain float32 loop.
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
import statistics
import sys
import tempfile
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from images import images
from own_server import database, machine, note, own_server
from score_line import PLAIN, database_alone, difference, end_to_end
from score_sides import (
    Flops,
    Options,
    clip_retrieval,
    cpu_seconds,
    matmul_ceiling,
    side,
    write_files,
)  # fmt: skip
from score_stages import compute_alone, decode_alone, decode_processes, precisions

from pairmill.workers.download.decode import decode
from pairmill.workers.score.loading import device_of, dtype_of
from pairmill.workers.score.model import BATCH_SIZES
from pairmill.workers.score.worker import Score
from support.database import Database
from support.scoring import add_model

MODELS = "ViT-B-32,ViT-L-14,ViT-B-16-SigLIP"


def measured(
    url: str,
    folder: Path,
    name: str,
    o: Options,
    thumbnails: list[bytes],
    *,
    processes: bool,
    sweep: bool,
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
        seconds = min(5.0, o.seconds / 2)
        decoding = decode_alone(s, decoders, seconds)
        by_processes = {}
        if processes:
            note("decoding alone, in processes")
            by_processes = {"decode_processes": round(decode_processes(s, decoders, seconds))}
        note("computing alone")
        computing, count = compute_alone(s, o)
        count = o.pairs or count
        flops = Flops(s.clip, s.model)
        ours, theirs = [], []
        batch = BATCH_SIZES[o.device.type]
        for number in range(o.rounds):
            note(f"round {number + 1}: {count} pairs, end to end")
            flops.total = 0
            ours.append(end_to_end(db, s, o, count, computing) | {"flops": flops.total})
            note("clip-retrieval's loop")
            files = folder / f"{Path(name).name}-{number}"
            write_files(files, *s.pairs(count))
            cpu = cpu_seconds()
            took, pairs = clip_retrieval(s.clip, s.preprocess, s.tokenize, files, batch, o.device)
            theirs.append({"pairs_per_s": pairs / took, "cpu": cpu_seconds() - cpu})
        note("a plain loop")
        differ = difference(db, s, ours[-1]["after"])
    in_precisions = {}
    if sweep:
        note("each precision")
        in_precisions = {"precisions": precisions(s, o, PLAIN)}
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
        } | by_processes,
        "waits_for": ours[-1]["waits_for"],
        "waits": ours[-1]["waits"],
        "text_tokens": {f"p{p}": int(np.percentile(lengths, p)) for p in (50, 90, 99)},
        "batch_size": s.model.batch_size,
        "difference": {k: float(f"{v:.2g}") for k, v in differ.items()},
    } | in_precisions  # fmt: skip


def main(
    models: Annotated[str, typer.Option("--models")] = "",
    device: Annotated[str, typer.Option("--device")] = "auto",
    precision: Annotated[str, typer.Option("--precision")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile")] = False,
    pairs: Annotated[int, typer.Option("--pairs", help="0: what takes a while")] = 0,
    threads: Annotated[int, typer.Option("--threads")] = 0,
    processes: Annotated[
        bool, typer.Option("--decode-processes", help="decoding in processes too, alone")
    ] = False,
    sweep: Annotated[
        bool, typer.Option("--precisions", help="the towers in fp32, bf16 and fp16, alone")
    ] = False,
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
            measured(
                database(server, f"bench_{i}"),
                Path(folder),
                name,
                o,
                thumbnails,
                processes=processes,
                sweep=sweep,
            )
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
