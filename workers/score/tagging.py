"""A tagger's own task: tags of a batch, from its embeddings or from its thumbnails."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import trio

from pairmill.workers.daemon import Job
from pairmill.workers.errors import TaskFailed
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.score.heads import Tags
from pairmill.workers.score.preprocess import decoded
from pairmill.workers.score.taggers import NamedHead, NamedPixels, PixelTagger

EMBEDDINGS_PER_PART = 2_500  # 4 MB of 768 dims
THUMBNAILS_PER_PART = 500
MAX_POSITIONS = 16_384  # a batch has at most so many: 14 bits of the sample id
Row = tuple[Any, ...]


async def from_embeddings(job: Job[ScoreQueue], named: NamedHead) -> None:
    """Embeddings are float16: a tag differs by about 1e-3 from that of the model's pass."""

    def tags(rows: list[Row]) -> Tags:
        stored = np.frombuffer(b"".join(row[1] for row in rows), "<f2").reshape(len(rows), -1)
        embeddings = torch.from_numpy(stored.astype(np.float32))
        return named.head.tag(torch.nn.functional.normalize(embeddings, dim=-1))

    await _tag(job, named.model_id, job.queue.embeddings, EMBEDDINGS_PER_PART, tags)


async def from_thumbnails(job: Job[ScoreQueue], named: NamedPixels) -> None:
    def tags(rows: list[Row]) -> Tags:
        return of_thumbnails(named.tagger, squeezed(named.tagger, [row[2] for row in rows]))

    await _tag(job, named.model_id, job.queue.thumbnails, THUMBNAILS_PER_PART, tags)


async def _tag(job: Job[ScoreQueue], model_id: int, read: Any, per_part: int, tags: Any) -> None:
    total, done = job.payload["count"], 0
    for start in range(0, MAX_POSITIONS, per_part):
        if done == total:
            break
        found = await job.call(read, job.lease_id, start, start + per_part)
        if not found:
            continue
        told = await trio.to_thread.run_sync(tags, found)
        rows = tag_rows(job.lease_id, start, model_id, [row[0] for row in found], told)
        await job.call(job.queue.copy_tags, rows)
        await job.call(job.queue.submit_score, job.lease_id, start, 0, len(rows))
        done += len(rows)
        job.progress(done, total, "images")
        job.count("tagged", len(rows))
    if done != total:
        raise TaskFailed(f"{done} images were found where {total} were counted")
    await job.call(job.queue.complete, job.lease_id)


def squeezed(tagger: PixelTagger, images: Sequence[bytes]) -> list[Any]:
    """The input of a tagger of pixels for encoded thumbnails; None for bytes of no thumbnail."""
    pictures = [decoded(data) for data in images]
    return [tagger.squeezed(picture) if picture else None for picture in pictures]


def of_thumbnails(tagger: PixelTagger, images: Sequence[Any]) -> Tags:
    """A value for each; NaN for bytes of no thumbnail."""
    good = [i for i, image in enumerate(images) if image is not None]
    values = np.full(len(images), np.nan, np.float32)
    if good:
        values[good] = tagger.tag([images[i] for i in good]).values
    return Tags(values)


def tag_rows(
    lease_id: int, part: int, model_id: int, positions: Sequence[int], tags: Tags
) -> list[Row]:
    """Rows of inbox.tag: neither value nor label where the value is not finite."""
    rows: list[Row] = []
    for i, (n, value) in enumerate(zip(positions, tags.values, strict=True)):
        finite = bool(np.isfinite(value))
        label = int(tags.labels[i]) if finite and tags.labels is not None else None
        rows.append((lease_id, part, model_id, n, label, float(value) if finite else None))
    return rows
