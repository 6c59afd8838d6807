"""The score worker: thumbnails and texts of a batch into similarities and embeddings."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.daemon import Job
from pairmill.workers.errors import TaskFailed
from pairmill.workers.queue import Queue
from pairmill.workers.score.model import Model, Scores

POSITIONS_PER_PART = 500  # about 4 MB of thumbnails
MAX_POSITIONS = 16_384  # a batch has at most so many: 14 bits of the sample id


class Score:
    """Worker kind ``score``, with one model."""

    name = "score"

    def __init__(self, model: Model) -> None:
        self._model = model

    def digests(self, queue: Queue) -> Sequence[str | None]:
        return (self._model.digest,)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def work(self, job: Job) -> None:
        total, done = job.payload["count"], 0
        for start in range(0, MAX_POSITIONS, POSITIONS_PER_PART):
            if done == total:
                break
            found = await job.call(
                job.queue.thumbnails, job.lease_id, start, start + POSITIONS_PER_PART
            )
            if not found:
                continue
            scores = await trio.to_thread.run_sync(
                self._model.score, [row[2] for row in found], [row[1] for row in found]
            )
            rows = score_rows(job.lease_id, start, [row[0] for row in found], scores)
            await job.call(job.queue.copy_scores, rows)
            await job.call(job.queue.submit_score, job.lease_id, start, len(rows))
            done += len(found)
            job.progress(done, total, "pairs")
            for outcome in scores.outcomes:
                job.count(ScoreOutcome(outcome).name.lower())
        if done != total:
            # their slot was truncated under an old snapshot, or is gone
            raise TaskFailed(f"{done} thumbnails were found where {total} were counted")
        await job.call(job.queue.complete, job.lease_id)


def score_rows(
    lease_id: int, part: int, positions: list[int], scores: Scores
) -> list[tuple[Any, ...]]:
    """Rows of inbox.score; the part is named by its first position."""
    return [
        (lease_id, part, n, int(outcome), float(similarity), image.tobytes(), text.tobytes(), None)
        if outcome == ScoreOutcome.SCORED
        else (lease_id, part, n, int(outcome), None, None, None, None)
        for n, outcome, similarity, image, text in zip(
            positions,
            scores.outcomes,
            scores.similarity,
            scores.image_embedding,
            scores.text_embedding,
            strict=True,
        )
    ]
