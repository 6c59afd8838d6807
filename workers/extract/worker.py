"""The extract worker: a WAT file into rows of its inboxes, and the counts of dropped links."""

import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import compress

import trio

from pairmill.schema.outcomes import LANGUAGE_DETECTORS
from pairmill.workers.daemon import Job, WorkerKind
from pairmill.workers.errors import Malformed, TaskFailed
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.extract.extract import Counts, Pair, extract
from pairmill.workers.extract.gzip_members import Readable
from pairmill.workers.extract.language import LanguageDetector, NoLibrary
from pairmill.workers.extract.link_kinds import LinkSelection
from pairmill.workers.extract.probe import UrlProbe
from pairmill.workers.extract.reader import is_remote, open_wat
from pairmill.workers.extract.rows import rows_in_parts


class Extract(WorkerKind[ExtractQueue]):
    """Worker kind ``extract``."""

    name = "extract"
    queue_type = ExtractQueue

    def __init__(self) -> None:
        self._probe = UrlProbe()

    def digests(self, queue: ExtractQueue) -> Sequence[str | None]:
        return (None,)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def work(self, job: Job[ExtractQueue]) -> None:
        await trio.to_thread.run_sync(self._extract, job)

    def _extract(self, job: Job[ExtractQueue]) -> None:
        counts = Counts()
        rows = 0
        location = job.payload["location"]
        selection, detector = _chosen(job)
        watch = _Watch(job, counts)
        with open_wat(location, wait=watch.wait) as stream:
            pairs = extract(watch.over(stream), counts, selection)
            try:
                new = new_pairs(job.queue, job.lease_id, self._probe, counts)
                for part in rows_in_parts(pairs, job.lease_id, detector.detect, new):
                    if part.pairs:
                        job.queue.copy_pages(part.pages)
                        job.queue.copy_pairs(part.pairs)
                    rows += len(part.pairs)
            except TaskFailed as failed:
                reason = failed.reason if location in failed.reason else f"{location}: {failed}"
                raise TaskFailed(reason, retry=failed.retry) from None
        if counts.ended_early and is_remote(location) and not job.payload.get("last_attempt", True):
            # it may have lost its end on the way here; at the last attempt the pairs found count
            raise TaskFailed(f"{location} ended early {counts.ended_early}", retry=True)
        job.queue.submit_extract(job.lease_id, rows, list(count_rows(counts)))
        job.count("links", counts.links)
        job.count("kept", rows)
        if self._probe.asked:
            job.count("probed", self._probe.asked)
            job.count("known", self._probe.known)
        job.progress(counts.links, unit="links")
        job.said = (
            f"{counts.records:,} records, {counts.links:,} links, {rows:,} pairs,"
            f" {counts.links - rows:,} dropped"
        )
        if about_known := self._probe.said():
            job.said += f"; {about_known}"


def _chosen(job: Job[ExtractQueue]) -> tuple[LinkSelection, LanguageDetector]:
    """The kinds of links and the detector that the file's admin chose."""
    location = job.payload["location"]
    try:
        return (
            LinkSelection(job.payload.get("link_kinds", ["image"])),
            LanguageDetector(job.payload.get("language_detector", LANGUAGE_DETECTORS[0])),
        )
    except NoLibrary as missing:
        raise TaskFailed(f"{location}: {missing}", retry=True) from None
    except ValueError as unknown:
        raise TaskFailed(f"{location}: {unknown}; or upgrade Pairmill", retry=False) from None


def new_pairs(
    queue: ExtractQueue, lease_id: int, probe: UrlProbe, counts: Counts
) -> Callable[[list[Pair]], list[Pair]]:
    """A function that leaves those pairs of a file that the database does not know, as long as
    asking pays; the others are counted as the duplicates that the merge would find them to be."""
    probe.begin()

    def new(pairs: list[Pair]) -> list[Pair]:
        if not probe.wanted():
            return pairs
        try:
            known = queue.probe(lease_id, [pair.url_key for pair in pairs])
        except Malformed:  # it may only save work, so it costs none
            probe.refused()
            return pairs
        probe.learn(len(pairs), sum(known))
        for pair in compress(pairs, known):
            of_kind = counts.kinds[pair.kind]
            of_kind.kept -= 1
            of_kind.duplicates += 1
        return [pair for pair, is_known in zip(pairs, known, strict=True) if not is_known]

    return new


class _Watch:
    """Reports progress to the job, and ends the work when the job is cancelled."""

    def __init__(self, job: Job[ExtractQueue], counts: Counts) -> None:
        self._job, self._counts = job, counts

    def look(self) -> None:
        trio.from_thread.check_cancelled()
        self._job.progress(self._counts.links, unit="links")

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.look()
            time.sleep(min(left, 1.0))

    def over(self, stream: Readable) -> Readable:
        return _Watched(stream, self)


class _Watched:
    """A stream that reports progress with every read."""

    def __init__(self, stream: Readable, watch: _Watch) -> None:
        self._stream, self._watch = stream, watch

    def read(self, size: int, /) -> bytes:
        self._watch.look()
        return self._stream.read(size)


def count_rows(counts: Counts) -> Iterator[tuple[str, str, str, int]]:
    """(link kind, stage, name, count), as mill.wat_count keeps them."""
    yield "", "records", "", counts.records
    yield from (("", "bad_record", name, count) for name, count in counts.bad_records.items())
    if counts.ended_early:
        yield "", "ended_early", counts.ended_early[:200], 1
    for kind, links in counts.kinds.items():
        yield kind, "links", "", links.links
        yield kind, "duplicate", "", links.duplicates
        yield from ((kind, "attribute", name, n) for name, n in links.attributes.items())
        yield from ((kind, "dropped", reason.value, n) for reason, n in links.dropped.items())
