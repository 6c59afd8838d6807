"""The download worker: a batch's URLs into outcomes and thumbnails, submitted in parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import trio

from pairmill.workers.daemon import Job
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.fetch import Fetcher
from pairmill.workers.download.pool import DecoderPool, decoder_pool
from pairmill.workers.queue import Outcomes

ROWS_PER_PART = 1000  # what a death may lose, with the fetches under way
BYTES_PER_PART = 4_000_000  # of thumbnails: half a thousand at 8 KB
PARTS_WAITING = 2


class Download:
    """Worker kind ``download``."""

    name = "download"
    model_digest: str | None = None

    def __init__(
        self, fetcher: Fetcher, *, concurrency: int = 64, per_host: int = 4, decoders: int = 1
    ) -> None:
        self._fetcher = fetcher
        self._concurrency = concurrency
        self._per_host = per_host
        self._decoders = decoders
        self._pool: DecoderPool

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with decoder_pool(self._decoders) as self._pool:
            yield

    async def work(self, job: Job) -> None:
        urls = await job.call(job.queue.urls, job.lease_id)
        send, receive = trio.open_memory_channel[list[Result]](PARTS_WAITING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._submit_parts, job, receive)
            await self._fetch(job, urls, send)
        await job.call(job.queue.complete, job.lease_id)

    async def _fetch(
        self, job: Job, urls: list[tuple[int, str]], send: trio.MemorySendChannel[list[Result]]
    ) -> None:
        """Fetch everything, and pass the results on in parts."""
        part: list[Result] = []
        done = size = 0

        async def take(result: Result) -> None:
            nonlocal part, done, size
            part.append(result)
            done += 1
            size += len(result.thumbnail or b"")
            job.progress(done, len(urls), "URLs")
            if len(part) >= ROWS_PER_PART or size >= BYTES_PER_PART:
                full, part, size = part, [], 0
                await send.send(full)

        async with send:
            await fetch_all(
                urls,
                self._fetcher,
                self._pool,
                concurrency=self._concurrency,
                per_host=self._per_host,
                on_result=take,
            )
            if part:
                await send.send(part)

    async def _submit_parts(
        self, job: Job, receive: trio.MemoryReceiveChannel[list[Result]]
    ) -> None:
        number = 0
        async for part in receive:
            await job.call(job.queue.submit_download, job.lease_id, number, columns(part))
            number += 1


def columns(results: list[Result]) -> Outcomes:
    """Results as the parallel lists of a submission."""
    seen = [r for r in results if r.thumbnail is not None]
    return Outcomes(
        positions=[r.n for r in results],
        outcome=[int(r.outcome) for r in results],
        http_status=[r.http_status for r in results],
        sizes=[r.size for r in results],
        width=[r.width for r in results],
        height=[r.height for r in results],
        md5=[UUID(bytes=r.md5) if r.md5 else None for r in results],
        sha256=[r.sha256 for r in results],
        dhash=[r.dhash for r in results],
        thumbnail_positions=[r.n for r in seen],
        thumbnails=[r.thumbnail for r in seen if r.thumbnail is not None],
    )
