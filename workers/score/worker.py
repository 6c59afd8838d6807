"""The score worker: thumbnails and texts of a batch into similarities, embeddings and tags."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import trio

from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.daemon import Job
from pairmill.workers.errors import TaskFailed
from pairmill.workers.score.model import Model
from pairmill.workers.score.pipeline import NamedHead, Pipeline, ScoredPart, Thumbnails

POSITIONS_PER_PART = 500  # about 4 MB of thumbnails
MAX_POSITIONS = 16_384  # a batch has at most so many: 14 bits of the sample id
Row = tuple[Any, ...]


class Score:
    """Worker kind ``score``, with one model and the heads that are computed in its pass. threads:
    CPU cores that it may use; all that the process may, by default."""

    name = "score"

    def __init__(
        self, model: Model, heads: Sequence[NamedHead] = (), *, threads: int | None = None
    ) -> None:
        self._model = model
        self._heads = heads
        threads = threads or len(os.sched_getaffinity(0))
        # on a CPU the towers take nearly all of the time, and the cores with it
        self._decoders = threads if model.device.type != "cpu" else max(1, threads // 4)
        self._pipeline: Pipeline | None = None
        self.model_digest: str | None = model.digest

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._pipeline = Pipeline(self._model, self._heads, decoders=self._decoders)
        try:
            yield
        finally:
            self._pipeline.close()

    async def work(self, job: Job) -> None:
        assert self._pipeline is not None, "only within running()"
        total, found, done = job.payload["count"], 0, 0

        async def read(parts: "trio.MemorySendChannel[Thumbnails]") -> None:
            nonlocal found
            for start in range(0, MAX_POSITIONS, POSITIONS_PER_PART):
                if found == total:
                    break
                stop = start + POSITIONS_PER_PART
                rows = await job.call(job.queue.thumbnails, job.lease_id, start, stop)
                if rows:
                    found += len(rows)
                    positions, texts, images = map(list, zip(*rows, strict=True))
                    await parts.send(Thumbnails(start, positions, texts, images))

        async def write(part: ScoredPart) -> None:
            nonlocal done
            rows = score_rows(job.lease_id, part)
            await job.call(job.queue.copy_scores, rows)
            await job.call(job.queue.submit_score, job.lease_id, part.part, len(rows))
            done += len(rows)
            job.progress(done, total, "pairs")
            self._count(job, part)

        await self._pipeline.run(
            read, write, say=job.say, alive=lambda: job.progress(done, total, "pairs")
        )
        if done != total:
            # their slot was truncated under an old snapshot, or is gone
            raise TaskFailed(f"{done} thumbnails were found where {total} were counted")
        await job.call(job.queue.complete, job.lease_id)

    def _count(self, job: Job, part: ScoredPart) -> None:
        for outcome, rows in zip(*np.unique(part.scores.outcomes, return_counts=True), strict=True):
            job.count(ScoreOutcome(outcome).name.lower(), int(rows))
        longest = self._model.tokenizer.context_length or np.iinfo(np.int16).max
        if truncated := int((part.scores.text_tokens > longest).sum()):
            job.count("text_truncated", truncated)


def score_rows(lease_id: int, part: ScoredPart) -> list[Row]:
    """Rows of inbox.score; the part is named by its first position."""
    scores = part.scores
    return [
        (lease_id, part.part, n, int(outcome), float(similarity), image.tobytes(), text.tobytes())
        if outcome == ScoreOutcome.SCORED
        else (lease_id, part.part, n, int(outcome), None, None, None)
        for n, outcome, similarity, image, text in zip(
            part.positions,
            scores.outcomes,
            scores.similarity,
            scores.image_embedding,
            scores.text_embedding,
            strict=True,
        )
    ]


def tag_rows(lease_id: int, part: ScoredPart) -> list[Row]:
    """Rows of inbox.tag: (lease_id, part, n, model_id, value, label), of the rows that were scored.
    value is None where it is not finite, label for a head that has none."""
    rows: list[Row] = []
    for tagged in part.tags:
        labels = tagged.tags.labels
        for i, row in enumerate(tagged.rows):
            if part.scores.outcomes[row] != ScoreOutcome.SCORED:
                continue
            value = float(tagged.tags.values[i])
            label = None if labels is None else int(labels[i])
            shown = value if np.isfinite(value) else None
            rows.append((lease_id, part.part, part.positions[row], tagged.model_id, shown, label))
    return rows
