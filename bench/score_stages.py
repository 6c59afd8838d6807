"""What each stage of scoring could do alone, in memory: the towers, the decoders in threads and in
processes, and all of them together without a database."""

import multiprocessing
import statistics
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
import torch.multiprocessing
import trio
from score_busy import Busy
from score_sides import Options, Side, synchronise, timed

from pairmill.workers.score.model import CHUNK
from pairmill.workers.score.pipeline import Pipeline, ScoredPart, Thumbnails
from pairmill.workers.score.preprocess import PixelBatch, Preprocessor
from pairmill.workers.score.worker import POSITIONS_PER_PART

DISTINCT = 256  # images that are decoded for a measurement of the towers
AT_ONCE = 4_096  # pairs in one call of them
# to put in a database before an end-to-end run; a GPU would take seconds for a million, and to fill
# the database with them would take many minutes
MOST_PAIRS = 20_000


def compute_alone(s: Side, o: Options) -> tuple[float, int]:
    """Pairs a second with everything decoded and on the device, the median of several goes; and how
    many pairs take ``o.seconds``, at most 20,000."""
    count, times = s.model.batch_size, list[float]()
    while True:
        images, texts = s.pairs(count)
        pixels = s.model.preprocessor.decode(images[:DISTINCT])
        # rows of the batch once more, so that decoding takes no longer than computing
        again = torch.arange(count) % len(pixels.rows)
        pixels = PixelBatch(list(range(count)), pixels.data[again].to(o.device))
        tokens = s.model.tokenizer(texts)

        def go(p: PixelBatch = pixels, t: Any = tokens) -> float:
            return timed(lambda: s.model.embed([p], lambda: t), o.device)

        go()  # warm, and compiled
        took = go()
        if took > o.seconds / 8 or count >= AT_ONCE:
            break
        count = min(AT_ONCE, int(count * max(2, o.seconds / 6 / took)))
    times = [took]
    while sum(times) < o.seconds / 4:
        times.append(go())
    rate = count / statistics.median(times)
    return rate, min(MOST_PAIRS, max(64, int(o.seconds * rate)))


# ---- decoding ----------------------------------------------------------------------------------


def decode_alone(s: Side, threads: int, seconds: float, count: int = POSITIONS_PER_PART) -> float:
    """Images a second, with their texts, of so many threads. count: of a part."""
    pipeline = Pipeline(s.model, decoders=threads)
    part = s.part(count)
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        decoding = pipeline.decoding(part)
        done += sum(len(future.result().rows) for future in decoding.pixels)
        decoding.tokens.result()
    rate = done / (time.perf_counter() - begun)
    pipeline.close()
    return rate


_decoder: Preprocessor | None = None


def _begin(transform: Any) -> None:
    """In a process that decodes. The memory it fills is shared, and pinned by who takes it."""
    global _decoder
    torch.set_num_threads(1)
    _decoder = Preprocessor(transform, torch.device("cpu"))


def _decode(images: Sequence[bytes], start: int, hashes: Sequence[int]) -> PixelBatch:
    assert _decoder is not None
    return _decoder.decode(images, start, hashes)


def decode_processes(
    s: Side, processes: int, seconds: float, count: int = POSITIONS_PER_PART
) -> float:
    """Images a second, with their texts, of so many processes, as a DataLoader would have it: a
    chunk's images go there, and come back as shared memory, which is pinned here for a GPU."""
    part = s.part(count)
    assert part.hashes
    pin = s.model.device.type == "cuda"
    chunks = [
        (part.images[i : i + CHUNK], i, part.hashes[i : i + CHUNK])
        for i in range(0, len(part.images), CHUNK)
    ]
    with warnings.catch_warnings():
        # Python warns that a child of a process with threads may hang: none here takes a lock
        warnings.simplefilter("ignore", DeprecationWarning)
        pool = ProcessPoolExecutor(
            processes, multiprocessing.get_context("fork"), _begin, (s.preprocess,)
        )
        with pool:
            [f.result() for f in [pool.submit(_decode, *c) for c in chunks]]  # they have begun
            done, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < seconds:
                futures = [pool.submit(_decode, *chunk) for chunk in chunks]
                s.model.tokenizer(part.texts)
                for future in futures:
                    found = future.result()
                    done += len(found.data.pin_memory() if pin else found.data)
            return done / (time.perf_counter() - begun)


# ---- precision ---------------------------------------------------------------------------------


def similarities(s: Side, count: int) -> list[float]:
    """Of the first pairs, by a plain loop in float32."""
    images, texts = s.pairs(count)
    preprocess = s.model.preprocessor
    with torch.inference_mode():
        pixels = preprocess.normalised(preprocess.decode(images).data)
        ids = s.tokenize(texts).to(pixels.device)
        image = s.clip.encode_image(pixels, normalize=True)
        text = s.clip.encode_text(ids, normalize=True)
        found: list[float] = (image * text).sum(dim=-1).tolist()
    return found


def change(s: Side, plain: Sequence[float]) -> dict[str, float]:
    """Of the model's similarities, as it computes now, from those of the plain loop."""
    images, texts = s.pairs(len(plain))
    found = s.model.score(images, texts).similarity
    changes = [abs(a - b) for a, b in zip(found.tolist(), plain, strict=True)]
    return {"mean": statistics.mean(changes), "max": max(changes), "pairs": len(changes)}


def precisions(s: Side, o: Options, count: int) -> dict[str, dict[str, float]]:
    """The towers in float32, bf16 and fp16: pairs a second, and change of similarity."""
    plain, found = similarities(s, count), {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        s.recast(dtype)
        rate, _ = compute_alone(s, o)
        name = str(dtype).removeprefix("torch.")
        found[name] = {"pairs_per_s": round(rate, 1)} | {
            f"change_{k}": float(f"{v:.2g}") for k, v in change(s, plain).items() if k != "pairs"
        }
    s.recast(o.dtype)
    return found


# ---- without a database ------------------------------------------------------------------------


def from_memory(
    s: Side, o: Options, decoders: int, count: int, alone: float | None = None
) -> dict[str, Any]:
    """The pipeline on parts that are there, whose scores are dropped. alone: pairs a second of the
    towers alone."""
    pipeline, busy = Pipeline(s.model, decoders=decoders), Busy(s.model)

    async def read(parts: "trio.MemorySendChannel[Thumbnails]") -> None:
        for start in range(0, count, POSITIONS_PER_PART):
            await parts.send(s.part(min(POSITIONS_PER_PART, count - start), start))

    async def write(_part: ScoredPart) -> None:
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        await pipeline.run(read, write, say=lambda _: None, alive=lambda: None)

    begun = time.perf_counter()
    try:
        trio.run(main)
        synchronise(o.device)
        ended = time.perf_counter()
    finally:
        pipeline.close()
        busy.close()
    return {"pairs": count} | busy.found(begun, ended, [len(busy.spans)], count, alone)
