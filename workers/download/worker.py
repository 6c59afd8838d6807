"""The download worker: a batch's URLs into outcomes and thumbnails, submitted in parts."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import UUID

import trio

from pairmill.workers.daemon import Job, WorkerKind
from pairmill.workers.download.budget import SHARED, MemoryBudget
from pairmill.workers.download.calls import DownloadQueue, OptOuts, Outcomes
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.fetcher import Backend, Fetcher, Limits, everything
from pairmill.workers.download.hosts import Hosts, Pace
from pairmill.workers.download.permission import HostFile, Permission
from pairmill.workers.download.pool import DecoderPool, decoder_pool
from pairmill.workers.download.resolver import CachedResolver
from pairmill.workers.download.thumbnail import ThumbnailSpec
from pairmill.workers.download.web_reach import NetworkDown, WebReach, asking
from pairmill.workers.errors import Malformed, NotNow, TaskFailed

ROWS_PER_PART = 1000  # a crash loses at most so many, and the fetches under way
# of thumbnails, a quarter of a thousand at 8 KB: a part that was begun is sent before a stopped
# worker ends, and at 5 Mbps this takes 3 s
BYTES_PER_PART = 2_000_000
PARTS_WAITING = 1
MAX_SOURCE = 2048  # characters of an evidence's URL
MEMORY = 256  # MB, of the loop and one decoder


@dataclass(frozen=True)
class Options:
    """concurrency: fetches at once. decoders: processes. memory: MB for the loop and one decoder;
    256 give 48 MB of bodies and images of 16 megapixels, more gives more of both. ask: whether
    opt-outs are read, robots.txt among them; only for a web of one's own are they not."""

    concurrency: int = 64
    decoders: int = 1
    memory: int = MEMORY
    pace: Pace = Pace()
    limits: Limits = Limits()
    ask: bool = True

    @property
    def budget(self) -> MemoryBudget:
        return MemoryBudget(SHARED * self.memory // MEMORY)

    @property
    def thumbnail(self) -> ThumbnailSpec:
        return ThumbnailSpec(memory=ThumbnailSpec.memory * self.memory // MEMORY)


class Download(WorkerKind[DownloadQueue]):
    """Worker kind ``download``."""

    name = "download"
    queue_type = DownloadQueue

    def __init__(self, backend: Backend, options: Options | None = None) -> None:
        self._options = options or Options()
        self._backend = backend
        self._budget = self._options.budget
        self._hosts = Hosts()
        self._permission = Permission(backend, budget=self._budget)
        self._fetcher = Fetcher(
            backend, self._options.limits, self._permission if self._options.ask else everything
        )
        self._pool: DecoderPool
        self._web = web_reach(backend, self._hosts, self._permission)
        self.watched = (self._web,)

    def digests(self, queue: DownloadQueue) -> Sequence[str | None]:
        return (None,)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with decoder_pool(self._options.decoders, self._options.thumbnail) as self._pool:
            try:
                yield
            finally:
                await self._backend.close()

    async def ready(self) -> None:
        await self._web.ready()

    async def work(self, job: Job[DownloadQueue]) -> None:
        urls = await job.call(job.queue.urls, job.lease_id)
        known = await job.call(job.queue.opt_outs, job.lease_id)
        self._permission.learn(HostFile(*row) for row in known)
        send, receive = trio.open_memory_channel[list[Result]](PARTS_WAITING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._submit_parts, job, receive)
            down = await self._fetch(job, urls, send)
        if down:
            raise _not_done(down)
        await self._backend.close()  # connections kept until the next batch would be closed by then
        await job.call(job.queue.complete, job.lease_id)

    async def _fetch(
        self,
        job: Job[DownloadQueue],
        urls: list[tuple[int, str]],
        send: trio.MemorySendChannel[list[Result]],
    ) -> NetworkDown | None:
        """Fetch everything, and pass the results on in parts. Returns why not all was fetched."""
        down: NetworkDown | None = None
        part: list[Result] = []
        done = size = loaded = 0
        one_at_a_time = trio.Lock()  # while a part waits to be sent, so does everybody

        async def take(result: Result) -> None:
            nonlocal part, done, size, loaded
            async with one_at_a_time:
                part.append(result)
                done += 1
                size += len(result.thumbnail or b"")
                loaded += result.size or 0
                job.progress(done, len(urls), "URLs")
                job.count(result.outcome.name.lower())
                if len(part) >= ROWS_PER_PART or size >= BYTES_PER_PART:
                    full, part, size = part, [], 0
                    await send.send(full)

        async with send:
            try:
                await fetch_all(
                    urls,
                    self._fetcher,
                    self._pool,
                    concurrency=self._options.concurrency,
                    pace=self._options.pace,
                    hosts=self._hosts,
                    budget=self._budget,
                    on_result=take,
                    web=self._web,
                    alive=lambda: job.progress(done, len(urls), "URLs"),
                )
            except NetworkDown as found:
                down = found
            if part:
                await send.send(part)
        job.said = _said(job.counts, loaded)
        return down

    async def _submit_parts(
        self, job: Job[DownloadQueue], receive: trio.MemoryReceiveChannel[list[Result]]
    ) -> None:
        number = 0
        async for part in receive:
            if news := self._permission.news():
                with suppress(Malformed):  # to share is a favour; the batch does not fail for it
                    await job.call(job.queue.submit_opt_outs, job.lease_id, shared(news))
            await job.call(job.queue.submit_download, job.lease_id, number, columns(part))
            number += 1


def web_reach(
    backend: Backend, hosts: Hosts, permission: Permission, *, believes: bool = False
) -> WebReach:
    """The watch over the network of a backend. believes: see ``WebReach``."""
    network = getattr(backend, "network", None)
    resolver = network.resolver if network and not network.connect_to else None

    def forget() -> None:
        hosts.forget_failures()
        permission.forget_doubts()
        if isinstance(resolver, CachedResolver):
            resolver.forget_failures()

    return WebReach(asking(backend, resolver), forget, believes=believes)


def _not_done(down: NetworkDown) -> NotNow | TaskFailed:
    if down.known:
        return NotNow("no host answers: is this machine's network down?")
    # all of its hosts may be dead: another worker, or this one once it knows a host, can tell
    return TaskFailed("no host answered, of this batch or before: is this machine's network down?")


def _said(counts: Counter[str], loaded: int) -> str:
    """The numbers of a batch, for the line of its end. loaded: bytes of bodies."""
    good, opted_out = counts["success"], counts["opted_out"]
    failed = counts.total() - good - opted_out
    return (
        f"{counts.total():,} URLs, {good:,} success, {opted_out:,} opted out, {failed:,} failed,"
        f" {loaded / 1e6:,.1f} MB"
    )


def columns(results: list[Result]) -> Outcomes:
    """Results as the parallel lists of a submission."""
    seen = [r for r in results if r.thumbnail is not None]
    refused = [(r.n, r.evidence) for r in results if r.evidence is not None]
    now = time.time()
    return Outcomes(
        positions=[r.n for r in results],
        outcome=[int(r.outcome) for r in results],
        http_status=[r.http_status for r in results],
        sizes=[r.size for r in results],
        width=[r.width for r in results],
        height=[r.height for r in results],
        md5=[UUID(bytes=r.md5) if r.md5 else None for r in results],
        sha1=[r.sha1 for r in results],
        sha256=[r.sha256 for r in results],
        dhash=[r.dhash for r in results],
        pdq=[r.pdq for r in results],
        thumbnail_positions=[r.n for r in seen],
        thumbnails=[r.thumbnail for r in seen if r.thumbnail is not None],
        refused_positions=[n for n, _ in refused],
        signal=[e.signal for _, e in refused],
        value=[_text(e.value) for _, e in refused],
        source=[_text(e.source)[:MAX_SOURCE] for _, e in refused],
        age=[max(0.0, now - e.read_at) for _, e in refused],
    )


def shared(files: list[HostFile]) -> OptOuts:
    """What hosts' files said, as the parallel lists that the database keeps for others."""
    now = time.time()
    return OptOuts(
        origin=[f.origin for f in files],
        file=[f.file for f in files],
        http_status=[f.status for f in files],
        rules=[_text(f.rules) for f in files],
        age=[max(0.0, now - f.read_at) for f in files],
    )


def _text(value: str) -> str:
    """PostgreSQL's text holds no NUL."""
    return value.replace("\x00", "\ufffd")
