"""Texts and images of queries as vectors: one thread has the model, and takes all that waits as
one batch.

A text alone costs a model nearly as much as eight together (ViT-B/32 on a CPU: 12 ms and 31 ms), so
what arrives while a batch is computed is the next batch. The queue is bounded: beyond it a request
gets 503 at once, instead of an answer after its client has gone.
"""

import asyncio
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache
from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.safe_text import say_traceback

Vector = npt.NDArray[np.float32]
BATCH = 32  # texts, or images, that are computed together
WAITING = 128  # texts and images that wait; 2 s of ViT-B/32 on two cores
REMEMBERED = 10_000  # texts whose vectors are kept: 20 MB of 512 dims
RETRY_AFTER = {"Retry-After": "2"}


class ScoresLike(Protocol):
    @property
    def outcomes(self) -> npt.NDArray[np.int16]: ...
    @property
    def image_embedding(self) -> npt.NDArray[np.float16]: ...


class Embedder(Protocol):
    """What is asked of a model: workers.score.model.Model has it."""

    def encode_texts(self, texts: list[str]) -> npt.NDArray[np.float32]: ...
    def score(self, images: list[bytes], texts: list[str]) -> ScoresLike: ...


@dataclass(frozen=True)
class _Asked:
    """A text, or the bytes of an image's thumbnail, and where its vector goes."""

    what: str | bytes
    answer: "Future[Vector]" = field(default_factory=Future)


class Encoder:
    """Batches for one model. start and stop it with the service."""

    def __init__(
        self,
        model: Embedder,
        *,
        batch: int = BATCH,
        waiting: int = WAITING,
        remembered: int = REMEMBERED,
    ) -> None:
        self._model, self._batch = model, batch
        self._queue: queue.Queue[_Asked | None] = queue.Queue(waiting)
        self._known: LRUCache[str, Vector] = LRUCache(remembered)
        self._under_way: dict[str, _Asked] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="encoder", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the batch that it computes; what waits is refused."""
        if self._thread is None:
            return
        for asked in self._taken(limit=None):
            asked.answer.cancel()
        self._queue.put(None)
        self._thread.join()
        self._thread = None

    async def text(self, text: str) -> Vector:
        """float32[dims], L2-normalised. Raises HTTPException 503 where too many wait."""
        with self._lock:
            if (vector := self._known.get(text)) is not None:
                return vector
            asked = self._under_way.get(text)
            if asked is None:
                asked = self._put(text)
                self._under_way[text] = asked
        # shielded: another request may wait for the same text when this one's client has gone
        return await asyncio.shield(asyncio.wrap_future(asked.answer))

    async def image(self, thumbnail: bytes) -> Vector:
        """The same of an image. Raises UserError for one that the model does not read."""
        return await asyncio.shield(asyncio.wrap_future(self._put(thumbnail).answer))

    def _put(self, what: str | bytes) -> _Asked:
        asked = _Asked(what)
        try:
            self._queue.put_nowait(asked)
        except queue.Full:
            raise HTTPException(
                503, "too many queries wait for the model: try again", headers=RETRY_AFTER
            ) from None
        return asked

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first, *self._taken(limit=self._batch - 1)]
            for kind in (str, bytes):
                alike = [asked for asked in batch if isinstance(asked.what, kind)]
                if alike:
                    self._compute(alike)

    def _taken(self, limit: int | None) -> list[_Asked]:
        """What waits, at most so many, without waiting for it."""
        found: list[_Asked] = []
        while limit is None or len(found) < limit:
            try:
                asked = self._queue.get_nowait()
            except queue.Empty:
                break
            if asked is None:  # for _work to see, after this batch
                self._queue.put(None)
                break
            found.append(asked)
        return found

    def _compute(self, batch: list[_Asked]) -> None:
        answers: list[Vector | Exception]
        try:
            answers = self._vectors([asked.what for asked in batch])
        except Exception as error:
            say_traceback(error)
            busy = HTTPException(503, "the model failed: try again", headers=RETRY_AFTER)
            answers = [busy] * len(batch)
        with self._lock:
            for asked, answer in zip(batch, answers, strict=True):
                if isinstance(asked.what, str):
                    self._under_way.pop(asked.what, None)
                    if not isinstance(answer, Exception):
                        self._known[asked.what] = answer
        for asked, answer in zip(batch, answers, strict=True):
            if not asked.answer.set_running_or_notify_cancel():
                continue
            if isinstance(answer, Exception):
                asked.answer.set_exception(answer)
            else:
                asked.answer.set_result(answer)

    def _vectors(self, batch: list[str | bytes]) -> list[Vector | Exception]:
        texts = [each for each in batch if isinstance(each, str)]
        if texts:
            return [_checked(vector) for vector in self._model.encode_texts(texts)]
        images = [each for each in batch if isinstance(each, bytes)]
        scores = self._model.score(images, ["an image"] * len(images))
        return [
            UserError("the image is one that the model does not read: it is too long and thin")
            if outcome == ScoreOutcome.BROKEN_THUMBNAIL
            else _checked(vector)
            for outcome, vector in zip(scores.outcomes, scores.image_embedding, strict=True)
        ]


def _checked(vector: npt.NDArray[np.floating]) -> Vector | Exception:
    single: Vector = np.asarray(vector, np.float32)
    if not np.isfinite(single).all() or not single.any():
        return UserError("the model gave no embedding of this: NaN or an infinity")
    return single / np.linalg.norm(single)
