"""A run of `pairmill fetch`: the images of a list of URLs into shards."""

import hashlib
import io
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import trio
from PIL import Image

from pairmill.ops.fetch.boxes import INVALID_BOXES
from pairmill.ops.fetch.parameters import Parameters
from pairmill.ops.fetch.samples import (
    HASHES,
    NOT_DOWNLOADED,
    NOT_RESIZED,
    SUCCESS,
    SampleResult,
    ShardRows,
    expected_hashes,
)
from pairmill.ops.fetch.shards import Folder, Spool
from pairmill.ops.fetch.sources import Source, shards
from pairmill.schema.outcomes import Outcome
from pairmill.workers import daemon
from pairmill.workers.download.client import Client
from pairmill.workers.download.crawl import Boxes, Result, fetch_all
from pairmill.workers.download.fetcher import Fetcher
from pairmill.workers.download.hosts import Hosts
from pairmill.workers.download.permission import Permission
from pairmill.workers.download.pool import DecoderPool, decoder_pool
from pairmill.workers.download.rendition import RenditionSpec
from pairmill.workers.download.worker import Options, web_reach
from pairmill.workers.outage_lines import OutageLines
from pairmill.workers.progress import LOOK_SECONDS
from pairmill.workers.safe_text import say

CHANGED = "changed"  # the error of an image that is not the one that the source was made of


@dataclass
class Shard:
    """A shard while it is fetched. boxes: what is blurred, of each row. results: one a row, None
    until its fetch has ended; what cannot be fetched has one from the start. again: the shard was
    written before, and its failed rows are fetched again."""

    number: int
    table: pa.Table
    keys: list[str | None]
    boxes: list[Boxes | None]
    results: list[SampleResult | None]
    again: bool = False
    began: float = field(default_factory=time.time)

    @property
    def urls(self) -> list[tuple[int, str]]:
        urls = self.table["url"].to_pylist()
        return [(n, urls[n] or "") for n, result in enumerate(self.results) if result is None]

    def boxes_of(self, n: int) -> Boxes:
        return self.boxes[n] or ()

    @property
    def rows(self) -> ShardRows:
        """The rows once all are fetched; a row without a result is a fault of ours."""
        fault = SampleResult(NOT_DOWNLOADED, _name(Outcome.INTERNAL_ERROR))
        return ShardRows(self.table, self.keys, [result or fault for result in self.results])


def new_shards(source: Source, parameters: Parameters, folder: Folder) -> Iterator[Shard]:
    """The shards of the source that the folder lacks."""
    for number, table in shards(source, folder.rows, folder.done):
        yield _new_shard(number, parameters.rows(table), parameters, folder)


def _new_shard(number: int, table: pa.Table, parameters: Parameters, folder: Folder) -> Shard:
    """A row whose key or boxes cannot be used is not fetched: nothing could be written of it."""
    keys: list[str | None] = [*folder.keys(number, table.num_rows)]
    faults: dict[int, str] = {}
    if given := parameters.keys_of(table):
        keys, faults = given
    boxes = parameters.boxes_of(table)
    faults = {n: INVALID_BOXES for n, found in enumerate(boxes) if found is None} | faults
    results = [
        SampleResult(NOT_DOWNLOADED, faults[n]) if n in faults else None
        for n in range(table.num_rows)
    ]
    return Shard(number, table, keys, boxes, results)


def failed_shards(parameters: Parameters, folder: Folder) -> Iterator[Shard]:
    """The shards with retryable rows; only these rows have no result."""
    for number in folder.numbers():
        if not retryable(folder.stats(number)):
            continue
        rows = folder.read(number)
        left = [None if _is_retryable(r.error_message) else r for r in rows.results]
        boxes = parameters.boxes_of(rows.table)
        yield Shard(number, rows.table, [*rows.keys], boxes, left, again=True)


def retryable(stats: dict[str, Any]) -> int:
    """The number of rows of a shard whose failure may be temporary."""
    return sum(count for name, count in stats["status_dict"].items() if _is_retryable(name))


def _is_retryable(name: str | None) -> bool:
    known = Outcome.__members__.get((name or SUCCESS).upper())
    return known is not None and known.retry_can_help


class FetchRun:
    """A run over the shards of one folder, by the folder's parameters."""

    def __init__(self, options: Options, parameters: Parameters, folder: Folder) -> None:
        self.parameters = parameters
        self._options, self._folder = options, folder
        self._budget = options.budget
        self._hosts = Hosts()

    def run(
        self,
        backend: Client,
        todo: Iterator[Shard],
        on_row: Callable[[], None],
        on_shard: Callable[[int, dict[str, Any]], None],
        say: Callable[[str], None],
    ) -> bool:
        """Fetch the shards of ``todo``; returns True at their end, False after SIGTERM or Ctrl-C.
        on_row: called after each row. on_shard: called with each written shard's number and
        statistics. say: called with sentences about the network."""
        whole = False
        self._on_row, self._on_shard = on_row, on_shard
        permission = Permission(backend, budget=self._budget)
        self._fetcher = Fetcher(backend, self._options.limits, permission)
        # without a queue nobody else can tell whether a list is one of dead hosts
        self._web = web_reach(backend, self._hosts, permission, believes=True)
        self._outages = OutageLines(self._web, say)

        async def main() -> None:
            nonlocal whole
            async with backend:
                whole = await _until_stopped(partial(self._run, todo))

        daemon.run(main)
        return whole

    async def _run(self, todo: Iterator[Shard]) -> None:
        """Fetch one shard after another, each while the one before is written.

        Of a shard the last URLs are waited for: at most 30 s for the slowest, and as long again
        for a host that asks to wait. The next could begin meanwhile, but then both would have to
        share what a host is allowed; larger shards lose less.
        """
        wanted = replace(self.parameters.rendition, memory=self._options.thumbnail.memory)
        written = trio.Semaphore(1)
        async with decoder_pool(self._options.decoders, wanted) as pool, trio.open_nursery() as n:
            scope = await n.start(self._say_outages)
            while shard := await trio.to_thread.run_sync(next, todo, None):
                spool = self._folder.begin(shard.number)
                await self._fetch(shard, spool, pool)
                await written.acquire()
                n.start_soon(self._write, shard, spool, written)
            scope.cancel()

    async def _say_outages(
        self, task_status: "trio.TaskStatus[trio.CancelScope]" = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                await trio.sleep(LOOK_SECONDS)
                self._outages.look()

    async def _fetch(self, shard: Shard, spool: Spool, pool: DecoderPool) -> None:
        expected = expected_hashes(shard.table)
        parameters = self.parameters

        async def take(result: Result) -> None:
            row = sample_result(
                result, expected[result.n], parameters.rendition, verify=parameters.verify
            )
            if row.status == SUCCESS and result.thumbnail is not None:
                spool.add(result.n, result.thumbnail)
            shard.results[result.n] = row
            self._on_row()

        urls = shard.urls
        if not shard.again:
            for _ in range(shard.table.num_rows - len(urls)):
                self._on_row()
        await fetch_all(
            urls,
            self._fetcher,
            pool,
            concurrency=self._options.concurrency,
            pace=self._options.pace,
            hosts=self._hosts,
            budget=self._budget,
            on_result=take,
            boxes=shard.boxes_of,
            web=self._web,
        )

    async def _write(self, shard: Shard, spool: Spool, written: trio.Semaphore) -> None:
        stats = await trio.to_thread.run_sync(self._write_now, shard, spool)
        written.release()
        self._on_shard(shard.number, stats)

    def _write_now(self, shard: Shard, spool: Spool) -> dict[str, Any]:
        rows, times = shard.rows, (shard.began, time.time())
        write = partial(self._folder.write, shard.number, rows)
        if not shard.again:
            return write(spool.image, spool, times)
        with self._folder.images(shard.number, rows) as before:

            def image(index: int) -> bytes:
                return spool.image(index) if index in spool else before(index)

            return write(image, spool, times)


def sample_result(
    result: Result, expected: dict[str, str], wanted: RenditionSpec, *, verify: bool
) -> SampleResult:
    """The row of a shard for a fetch's result. expected: the hashes that the source names."""
    outcome, status = result.outcome, result.http_status
    if outcome is Outcome.SUCCESS and result.md5 and result.sha256:
        found = {"md5": result.md5.hex(), "sha256": result.sha256.hex()}
        matches = {k: found[k] == expected[k] if k in expected else None for k in HASHES}
        row = SampleResult(
            SUCCESS,
            http_status=status,
            original_width=result.width,
            original_height=result.height,
            md5=found["md5"],
            sha256=found["sha256"],
            md5_matches=matches["md5"],
            sha256_matches=matches["sha256"],
            exif=result.exif,
        )
        if verify and False in matches.values():
            return replace(row, status=NOT_DOWNLOADED, error_message=CHANGED)
        if size := _size(result, wanted):
            return replace(row, width=size[0], height=size[1])
        outcome = Outcome.INTERNAL_ERROR  # no such image came out of the decoder
    # a body that came, and of which no image could be made, has a size
    failed = NOT_DOWNLOADED if result.size is None else NOT_RESIZED
    return SampleResult(failed, _name(outcome), status)


def _size(result: Result, wanted: RenditionSpec) -> tuple[int, int] | None:
    """Width and height of the image that is written, or None for one that is not as wanted."""
    image = result.thumbnail or b""
    if result.format != wanted.format:
        return None
    original = wanted.skip_reencode and hashlib.sha256(image).digest() == result.sha256
    if original and result.width and result.height:
        return result.width, result.height  # whatever Pillow thinks of its metadata
    with suppress(Exception), Image.open(io.BytesIO(image)) as opened:
        return opened.size
    return None


def _name(outcome: Outcome) -> str:
    return outcome.name.lower()


async def _until_stopped(main: Callable[[], Awaitable[None]]) -> bool:
    """Run ``main`` to its end, or until SIGTERM or Ctrl-C; returns whether it reached its end."""
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

            async def watch() -> None:
                async for _ in signals:
                    say("stopping …", err=True)
                    scope.cancel()

            nursery.start_soon(watch)
            with trio.CancelScope() as scope:
                await main()
            nursery.cancel_scope.cancel()
    return not scope.cancelled_caught
