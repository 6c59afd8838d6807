"""The extract worker: a WAT file into rows of inbox.pair, and the counts of what was dropped."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any
from uuid import UUID

import trio

from pairmill.workers.daemon import Job
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.extract import Counts, Pair, extract
from pairmill.workers.extract.reader import open_wat
from pairmill.workers.extract.records import Readable

ROWS_PER_COPY = 20_000  # about 5 MB; a COPY pins xmin as long as it lasts


class Extract:
    """Worker kind ``extract``."""

    name = "extract"
    model_digest: str | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def work(self, job: Job) -> None:
        await trio.to_thread.run_sync(self._extract, job)

    def _extract(self, job: Job) -> None:
        counts = Counts()
        rows = 0
        location = job.payload["location"]
        with open_wat(location) as stream:
            pairs = extract(_Watched(stream, job, counts), counts)
            try:
                while chunk := list(islice(_rows(pairs, job.lease_id, rows), ROWS_PER_COPY)):
                    job.queue.copy_pairs(chunk)
                    rows += len(chunk)
            except TaskFailed as failed:
                reason = failed.reason if location in failed.reason else f"{location}: {failed}"
                raise TaskFailed(reason, retry=failed.retry) from None
        job.queue.submit_extract(job.lease_id, rows, list(count_rows(counts)))


class _Watched:
    """A stream that tells the job, with every read, that the work goes on; and stops when told."""

    def __init__(self, stream: Readable, job: Job, counts: Counts) -> None:
        self._stream, self._job, self._counts = stream, job, counts

    def read(self, size: int, /) -> bytes:
        trio.from_thread.check_cancelled()
        self._job.progress(self._counts.links, unit="links")
        return self._stream.read(size)


def _rows(pairs: Iterator[Pair], lease_id: int, first: int) -> Iterator[tuple[Any, ...]]:
    for ordinal, pair in enumerate(pairs, first):
        yield (
            lease_id, ordinal, UUID(bytes=pair.url_key), pair.url, pair.text,
            pair.language, pair.probability, pair.license,
        )  # fmt: skip


def count_rows(counts: Counts) -> Iterator[tuple[str, str, int]]:
    """(stage, name, count), as mill.wat_count keeps them."""
    yield "records", "", counts.records
    yield "links", "", counts.links
    yield from (("dropped", reason.value, count) for reason, count in counts.dropped.items())
    yield from (("bad_record", name, count) for name, count in counts.bad_records.items())
    if counts.ended_early:
        yield "ended_early", counts.ended_early[:200], 1
