"""A run of `pairmill fetch`: the images of a list of URLs into shards."""

import io
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import trio
from PIL import Image

from pairmill import __version__
from pairmill.ops.errors import UserError
from pairmill.ops.fetch.samples import (
    NOT_DOWNLOADED,
    NOT_RESIZED,
    SUCCESS,
    SampleResult,
    as_rows,
    expected_md5s,
)
from pairmill.ops.fetch.shards import Folder, Spool, writing
from pairmill.ops.fetch.sources import Source, SourceColumns, fingerprint, shards
from pairmill.schema.outcomes import Outcome
from pairmill.workers import daemon
from pairmill.workers.download.client import Client
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.fetcher import Fetcher
from pairmill.workers.download.hosts import Hosts
from pairmill.workers.download.permission import Permission
from pairmill.workers.download.pool import DecoderPool, decoder_pool
from pairmill.workers.download.worker import Options

PARAMETERS = "fetch.json"
THUMBNAIL_BYTES = 1 << 30  # the database's limit is not a folder's
CHANGED = "changed"  # the error of an image that is not the one that the source was made of


@dataclass(frozen=True)
class Parameters:
    """The parameters of a folder of shards, the same for all its shards. source: its fingerprint.
    url, caption: names of columns."""

    source: str
    url: str
    caption: str | None
    image_size: int
    shard_rows: int
    verify: bool

    @classmethod
    def of(
        cls,
        source: Source,
        columns: SourceColumns,
        image_size: int,
        shard_rows: int,
        *,
        verify: bool,
    ) -> "Parameters":
        """Raises UserError for ``verify`` without a column md5."""
        if verify and not any(name.lower() == "md5" for name in source.names):
            raise UserError(f"--verify needs a column md5, and {source.name} has none")
        return cls(
            fingerprint(source), columns.url, columns.caption, image_size, shard_rows, verify
        )

    def check(self, folder: Folder, *, begun: bool) -> None:
        """Raises UserError for a folder of something else, or begun with other parameters; with
        ``begun``, also for a folder that is not begun yet."""
        path = folder.path / PARAMETERS
        try:
            earlier = json.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            if folder.path.is_dir() and any(p.name[0] != "." for p in folder.path.iterdir()):
                raise UserError(
                    f"{folder.path} is not empty, and not of `pairmill fetch`"
                ) from None
            if begun:
                raise UserError(
                    f"nothing was fetched into {folder.path} yet: run without --retry-failed first"
                ) from None
            return
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        for name, value in asdict(self).items():
            if earlier.get(name) == value:
                continue
            said = "" if name == "source" else f": {earlier.get(name)}, not {value}"
            raise UserError(
                f"{folder.path} was begun with another {name.replace('_', ' ')}{said};"
                " give the same, or name another folder"
            )

    def write(self, folder: Folder) -> None:
        text = json.dumps(asdict(self) | {"written_by": f"pairmill {__version__}"}, indent=2)
        half = folder.path / f".{PARAMETERS}"
        with writing(folder.path):
            half.write_text(text + "\n", "utf-8")
            half.replace(folder.path / PARAMETERS)


@dataclass
class Shard:
    """A shard while it is fetched. results: one a row, None until its fetch has ended. again: the
    shard was written before, and its failed rows are fetched again."""

    number: int
    table: pa.Table
    results: list[SampleResult | None]
    again: bool = False
    began: float = field(default_factory=time.time)

    @property
    def urls(self) -> list[tuple[int, str]]:
        urls = self.table["url"].to_pylist()
        return [(n, urls[n] or "") for n, result in enumerate(self.results) if result is None]


def new_shards(source: Source, columns: SourceColumns, folder: Folder) -> Iterator[Shard]:
    """The shards of the source that the folder lacks."""
    for number, table in shards(source, folder.rows, folder.done):
        yield Shard(number, as_rows(table, columns), [None] * table.num_rows)


def failed_shards(folder: Folder) -> Iterator[Shard]:
    """The shards with retryable rows; only these rows have no result."""
    for number in folder.numbers():
        if not retryable(folder.stats(number)):
            continue
        table, results = folder.read(number)
        left = [None if _is_retryable(r.error_message) else r for r in results]
        yield Shard(number, table, left, again=True)


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
    ) -> bool:
        """Fetch the shards of ``todo``; returns True at their end, False after SIGTERM or Ctrl-C.
        on_row: called after each row. on_shard: called with each written shard's number and
        statistics."""
        whole = False
        self._on_row, self._on_shard = on_row, on_shard
        permission = Permission(backend, budget=self._budget)
        self._fetcher = Fetcher(backend, self._options.limits, permission)

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
        wanted = replace(
            self._options.thumbnail,
            short_side=self.parameters.image_size,
            max_bytes=THUMBNAIL_BYTES,
        )
        written = trio.Semaphore(1)
        async with decoder_pool(self._options.decoders, wanted) as pool, trio.open_nursery() as n:
            while shard := await trio.to_thread.run_sync(next, todo, None):
                spool = self._folder.begin(shard.number)
                await self._fetch(shard, spool, pool)
                await written.acquire()
                n.start_soon(self._write, shard, spool, written)

    async def _fetch(self, shard: Shard, spool: Spool, pool: DecoderPool) -> None:
        expected = expected_md5s(shard.table)

        async def take(result: Result) -> None:
            row = sample_result(result, expected[result.n], verify=self.parameters.verify)
            if row.status == SUCCESS and result.thumbnail is not None:
                spool.add(result.n, result.thumbnail)
            shard.results[result.n] = row
            self._on_row()

        await fetch_all(
            shard.urls,
            self._fetcher,
            pool,
            concurrency=self._options.concurrency,
            pace=self._options.pace,
            hosts=self._hosts,
            budget=self._budget,
            on_result=take,
        )

    async def _write(self, shard: Shard, spool: Spool, written: trio.Semaphore) -> None:
        stats = await trio.to_thread.run_sync(self._write_now, shard, spool)
        written.release()
        self._on_shard(shard.number, stats)

    def _write_now(self, shard: Shard, spool: Spool) -> dict[str, Any]:
        results = [
            r or SampleResult(NOT_DOWNLOADED, _name(Outcome.INTERNAL_ERROR)) for r in shard.results
        ]
        times = shard.began, time.time()
        write = partial(self._folder.write, shard.number, shard.table, results)
        if not shard.again:
            return write(spool.image, spool, times)
        with self._folder.images(shard.number) as before:

            def image(index: int) -> bytes:
                return spool.image(index) if index in spool else before(index)

            return write(image, spool, times)


def sample_result(result: Result, expected: str | None, *, verify: bool) -> SampleResult:
    """The row of a shard for a fetch's result. expected: the md5 that the source names."""
    outcome, status = result.outcome, result.http_status
    if outcome is Outcome.SUCCESS and result.md5 and result.sha256:
        found = SampleResult(
            SUCCESS,
            http_status=status,
            original_width=result.width,
            original_height=result.height,
            md5=result.md5.hex(),
            sha256=result.sha256.hex(),
            md5_matches=result.md5.hex() == expected if expected else None,
        )
        if verify and found.md5_matches is False:
            return replace(found, status=NOT_DOWNLOADED, error_message=CHANGED)
        with suppress(Exception), Image.open(io.BytesIO(result.thumbnail or b"")) as image:
            return replace(found, width=image.width, height=image.height)
        outcome = Outcome.INTERNAL_ERROR  # no JPEG came out of the decoder
    # a body that came, and of which no thumbnail could be made, has a size
    failed = NOT_DOWNLOADED if result.size is None else NOT_RESIZED
    return SampleResult(failed, _name(outcome), status)


def _name(outcome: Outcome) -> str:
    return outcome.name.lower()


async def _until_stopped(main: Callable[[], Awaitable[None]]) -> bool:
    """Run ``main`` to its end, or until SIGTERM or Ctrl-C; returns whether it reached its end."""
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

            async def watch() -> None:
                async for _ in signals:
                    print("stopping …", file=sys.stderr)
                    scope.cancel()

            nursery.start_soon(watch)
            with trio.CancelScope() as scope:
                await main()
            nursery.cancel_scope.cancel()
    return not scope.cancelled_caught
