"""The score worker: thumbnails and texts of a batch into similarities, embeddings and tags."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import trio

from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.daemon import Job, WorkerKind
from pairmill.workers.errors import TaskFailed
from pairmill.workers.score import tagging
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.score.model import Model
from pairmill.workers.score.pipeline import Pipeline, ScoredPart, Thumbnails
from pairmill.workers.score.taggers import PixelTagger, Taggers

POSITIONS_PER_PART = 500  # about 4 MB of thumbnails
Row = tuple[Any, ...]


class Score(WorkerKind[ScoreQueue]):
    """Worker kind ``score``, with one model, and the taggers that are computed in its pass. pixels:
    taggers whose weights are at hand. threads: CPU cores that it may use; all that the process may,
    by default."""

    name = "score"
    queue_type = ScoreQueue

    def __init__(
        self, model: Model, pixels: Sequence[PixelTagger] = (), *, threads: int | None = None
    ) -> None:
        self._model = model
        self._taggers = Taggers(model.digest, pixels)
        self._model_first = True
        threads = threads or len(os.sched_getaffinity(0))
        # on a CPU the towers take nearly all of the time, and the cores with it
        self._decoders = threads if model.device.type != "cpu" else max(1, threads // 4)
        self._pipeline: Pipeline | None = None

    def digests(self, queue: ScoreQueue) -> Sequence[str | None]:
        self._taggers.refresh(queue)
        taggers = self._taggers.digests
        # after a task of the model's one of a tagger's, or a long backlog would keep them for ever
        if self._model_first:
            return [self._model.digest, *taggers]
        return [*taggers, self._model.digest]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self._pipeline = Pipeline(self._model, decoders=self._decoders)
        try:
            yield
        finally:
            self._pipeline.close()

    async def work(self, job: Job[ScoreQueue]) -> None:
        self._model_first = job.model_digest != self._model.digest
        if head := self._taggers.heads.get(job.model_digest or ""):
            await tagging.from_embeddings(job, head)
        elif tagger := self._taggers.pixels.get(job.model_digest or ""):
            await tagging.from_thumbnails(job, tagger)
        else:
            await self._score(job)

    async def _score(self, job: Job[ScoreQueue]) -> None:
        assert self._pipeline is not None, "only within running()"
        self._pipeline.heads = list(self._taggers.heads.values())
        self._pipeline.pixels = list(self._taggers.pixels.values())
        total, found, done = job.payload["count"], 0, 0

        async def read(parts: "trio.MemorySendChannel[Thumbnails]") -> None:
            nonlocal found
            for start in range(0, tagging.MAX_POSITIONS, POSITIONS_PER_PART):
                if found == total:
                    break
                stop = start + POSITIONS_PER_PART
                rows = await job.call(job.queue.thumbnails, job.lease_id, start, stop)
                if rows:
                    found += len(rows)
                    positions, texts, images, hashes = map(list, zip(*rows, strict=True))
                    await parts.send(Thumbnails(start, positions, texts, images, hashes))

        async def write(part: ScoredPart) -> None:
            nonlocal done
            rows, tags = score_rows(job.lease_id, part), tag_rows(job.lease_id, part)
            await job.call(job.queue.copy_scores, rows)
            if tags:
                await job.call(job.queue.copy_tags, tags)
            await job.call(job.queue.submit_score, job.lease_id, part.part, len(rows), len(tags))
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

    def _count(self, job: Job[ScoreQueue], part: ScoredPart) -> None:
        for outcome, rows in zip(*np.unique(part.scores.outcomes, return_counts=True), strict=True):
            job.count(ScoreOutcome(outcome).name.lower(), int(rows))
        longest = self._model.tokenizer.context_length or np.iinfo(np.int16).max
        if truncated := int((part.scores.text_tokens > longest).sum()):
            job.count("text_truncated", truncated)


def score_rows(lease_id: int, part: ScoredPart) -> list[Row]:
    """Rows of inbox.score; the part is named by its first position."""
    scores = part.scores
    rows: list[Row] = []
    for i, (n, outcome) in enumerate(zip(part.positions, scores.outcomes, strict=True)):
        found: tuple[Any, ...] = (None, None, None)
        if outcome == ScoreOutcome.SCORED:
            image, text = scores.image_embedding[i], scores.text_embedding[i]
            found = (float(scores.similarity[i]), image.tobytes(), text.tobytes())
        rows.append((lease_id, part.part, n, int(outcome), *found, int(scores.text_tokens[i])))
    return rows


def tag_rows(lease_id: int, part: ScoredPart) -> list[Row]:
    """Rows of inbox.tag: of heads those of the rows that were scored, of taggers of pixels all."""
    rows: list[Row] = []
    for tagged in part.tags:
        positions = [part.positions[row] for row in tagged.rows]
        found = tagging.tag_rows(lease_id, part.part, tagged.model_id, positions, tagged.tags)
        if tagged.of_embeddings:
            outcomes = part.scores.outcomes[tagged.rows]
            found = [
                row for row, o in zip(found, outcomes, strict=True) if o == ScoreOutcome.SCORED
            ]
        rows += found
    return rows
