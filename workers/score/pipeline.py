"""Reading, decoding, computing and writing at the same time, part after part of one task.

    read (COPY) → decode and tokenise (threads) → compute (one thread) → write (COPY)

Nothing is buffered between the stages but what each has in its hands. At most two parts are decoded
or being decoded, one of them being computed, and at most four have their thumbnails in memory: with
500 rows of 224 x 224 pixels that is 150 MB and 16 MB; a tagger of pixels adds 200 MB of its own.
"""

import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import trio

from pairmill.workers.score import tagging
from pairmill.workers.score.heads import Tags
from pairmill.workers.score.model import CHUNK, Model, Scores, Watch
from pairmill.workers.score.preprocess import PixelBatch
from pairmill.workers.score.taggers import NamedHead, NamedPixels
from pairmill.workers.score.tokenizer import Tokens


@dataclass
class Thumbnails:
    """A part of a task as it is read; row i of all belongs together. part: its number. hashes: what
    their downloader said of the thumbnails; None: not compared."""

    part: int
    positions: list[int]
    texts: list[str]
    images: list[bytes]
    hashes: list[int] | None = None


@dataclass
class Tagged:
    """What one tagger gave, for the rows in ``rows``: of a part, ascending. of_embeddings: it means
    nothing of a row that was not scored."""

    model_id: int
    rows: list[int]
    tags: Tags
    of_embeddings: bool = True


@dataclass
class ScoredPart:
    """A finished part. scores: row i is positions[i]. tags: of each head."""

    part: int
    positions: list[int]
    scores: Scores
    tags: list[Tagged]


@dataclass
class _Decoding:
    """A part whose images and texts are with the threads."""

    read: Thumbnails
    pixels: list[Future[PixelBatch]]
    tokens: Future[Tokens]
    squeezed: list[list[Future[list[Any]]]]  # of each tagger of pixels

    def cancel(self) -> None:
        futures: list[Future[Any]] = [self.tokens, *self.pixels, *chain(*self.squeezed)]
        for future in futures:
            future.cancel()


class _Stopped(Exception):
    """The computation was told to end between two batches."""


Read = Callable[["trio.MemorySendChannel[Thumbnails]"], Awaitable[None]]
Write = Callable[[ScoredPart], Awaitable[None]]


class Pipeline:
    """One model's stages, kept from task to task. heads, pixels: what is computed beside it of the
    tasks that follow. decoders: threads that decode."""

    def __init__(
        self,
        model: Model,
        heads: Sequence[NamedHead] = (),
        pixels: Sequence[NamedPixels] = (),
        *,
        decoders: int = 1,
    ) -> None:
        self._model = model
        self.heads = heads
        self.pixels = pixels
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        # one thread for all tasks: OpenMP keeps a team of threads for each that computes
        self._compute = ThreadPoolExecutor(1, thread_name_prefix="compute")

    def close(self) -> None:
        self._decoders.shutdown(cancel_futures=True)
        self._compute.shutdown()

    async def run(
        self,
        read: Read,
        write: Write,
        *,
        say: Callable[[str], None],
        alive: Callable[[], None],
    ) -> None:
        """All parts that ``read`` sends into its channel, each given to ``write``, in order.

        say: a sentence for the operator, from any thread. alive: called in trio's thread before
        each batch. What a stage raises ends all of them; a cancellation lets the batch that is
        being computed end, and no more. Either way what was given to ``write`` is written.
        """
        stopped = threading.Event()
        token = trio.lowlevel.current_trio_token()

        def beat() -> None:
            if stopped.is_set():
                raise _Stopped
            token.run_sync_soon(alive)

        thumbnails = trio.open_memory_channel[Thumbnails](0)
        decoding = trio.open_memory_channel[_Decoding](0)
        scored = trio.open_memory_channel[ScoredPart](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_at_the_end, stopped)
            nursery.start_soon(_sending, read, thumbnails[0])
            nursery.start_soon(self._decode_all, thumbnails[1], decoding[0])
            nursery.start_soon(self._compute_all, decoding[1], scored[0], Watch(say, beat))
            with scored[1]:
                async for part in scored[1]:
                    await write(part)
            nursery.cancel_scope.cancel()

    async def _decode_all(
        self,
        source: "trio.MemoryReceiveChannel[Thumbnails]",
        target: "trio.MemorySendChannel[_Decoding]",
    ) -> None:
        # not `async with`: at its checkpoint the next stage would end before an error is out; and
        # where the next stage has failed, its error is the one that counts
        with source, target, suppress(trio.BrokenResourceError):
            async for read in source:
                decoding = self.decoding(read)
                try:
                    await target.send(decoding)
                except BaseException:
                    decoding.cancel()
                    raise

    def decoding(self, read: Thumbnails) -> _Decoding:
        """Give a part to the threads; its texts first, in one go."""
        decode, images = self._model.preprocessor.decode, read.images
        tokens = self._decoders.submit(self._model.tokenizer, read.texts)
        starts = range(0, len(images), CHUNK)
        pixels = [
            self._decoders.submit(
                decode, images[i : i + CHUNK], i, read.hashes and read.hashes[i : i + CHUNK]
            )
            for i in starts
        ]
        squeezed = [
            [
                self._decoders.submit(tagging.squeezed, named.tagger, images[i : i + CHUNK])
                for i in starts
            ]
            for named in self.pixels
        ]
        return _Decoding(read, pixels, tokens, squeezed)

    async def _compute_all(
        self,
        source: "trio.MemoryReceiveChannel[_Decoding]",
        target: "trio.MemorySendChannel[ScoredPart]",
        watch: Watch,
    ) -> None:
        with source, target, suppress(trio.BrokenResourceError):
            async for decoding in source:
                done = self._compute.submit(self.compute, decoding, watch)
                try:
                    part = await trio.to_thread.run_sync(done.result)
                except (_Stopped, CancelledError):
                    await trio.lowlevel.checkpoint()  # stopped by a cancellation: it comes here
                    raise
                finally:
                    decoding.cancel()
                await target.send(part)

    def compute(self, decoding: _Decoding, watch: Watch) -> ScoredPart:
        """In the thread that computes: the images in the order in which they come."""
        heads = [named.head for named in self.heads]
        pixels = (future.result() for future in decoding.pixels)
        embedded = self._model.embed(pixels, decoding.tokens.result, heads, watch)
        rows = embedded.rows.tolist()
        return ScoredPart(
            decoding.read.part,
            decoding.read.positions,
            self._model.scores(embedded),
            [Tagged(n.model_id, rows, t) for n, t in zip(self.heads, embedded.tags, strict=True)]
            + self._tagged_pixels(decoding),
        )

    def _tagged_pixels(self, decoding: _Decoding) -> list[Tagged]:
        rows = list(range(len(decoding.read.images)))
        return [
            Tagged(
                named.model_id,
                rows,
                tagging.of_thumbnails(named.tagger, [x for f in futures for x in f.result()]),
                of_embeddings=False,
            )
            for named, futures in zip(self.pixels, decoding.squeezed, strict=True)
        ]


async def _sending(read: Read, target: "trio.MemorySendChannel[Thumbnails]") -> None:
    with target, suppress(trio.BrokenResourceError):
        await read(target)


async def _set_at_the_end(stopped: threading.Event) -> None:
    """A thread cannot be cancelled: tell it."""
    try:
        await trio.sleep_forever()
    finally:
        stopped.set()
