"""Fetch and decode many URLs: bounded, polite to hosts, one result for each."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.fetcher import Fetched, Fetcher
from pairmill.workers.download.hosts import Hosts, Pace, Schedule
from pairmill.workers.download.optout import Evidence
from pairmill.workers.download.pool import DecoderPool
from pairmill.workers.download.rendition import Box

FAULT = Outcome.INTERNAL_ERROR
Boxes = Sequence[Box]


def no_boxes(n: int) -> Boxes:
    """Nothing of any image is blurred."""
    return ()


@dataclass(frozen=True)
class Result:
    """How one URL ended. n: its position. size: bytes of the body. width, height: pixels of
    the original. md5, sha256: of the body, 16 and 32 bytes. dhash: signed 64 bits. evidence: of
    OPTED_OUT. format, exif: of a rendition, see ``thumbnail.Decoded``. What does not apply is
    None."""

    n: int
    outcome: Outcome
    http_status: int | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    md5: bytes | None = None
    sha256: bytes | None = None
    dhash: int | None = None
    thumbnail: bytes | None = None
    evidence: Evidence | None = None
    format: str | None = None
    exif: str | None = None


async def fetch_all(
    urls: Sequence[tuple[int, str]],
    fetcher: Fetcher,
    pool: DecoderPool,
    *,
    concurrency: int,
    pace: Pace,
    hosts: Hosts,
    budget: MemoryBudget,
    on_result: Callable[[Result], Awaitable[None]],
    boxes: Callable[[int], Boxes] = no_boxes,
) -> None:
    """Fetch and decode (n, url) pairs, at most ``concurrency`` at once; each gets exactly one
    result, in no particular order. A fault of ours is INTERNAL_ERROR for its URL. boxes: of an n,
    what is blurred of its image, by ``rendition.boxes_of``."""
    hosts.forget_old()
    schedule = Schedule(urls, hosts, pace)

    async def one(n: int, url: str, refused: Outcome | None) -> Result:
        """A function of its own, so that the body is let go of when its room is given back."""
        fetched = None
        with budget.room() as room:
            try:
                if refused is None:
                    fetched = await fetcher.fetch(url, room)
            except Exception:
                fetched = Fetched(FAULT)
            finally:
                schedule.done(url, fetched)  # its host is free before the body is decoded
            if fetched is None:
                return Result(n, refused or FAULT)
            return await _decoded(n, fetched, pool, boxes(n))

    async def work() -> None:
        while (found := await schedule.next()) is not None:
            try:
                result = await one(*found)
            except Exception:
                result = Result(found[0], FAULT)
            await on_result(result)

    async with trio.open_nursery() as nursery:
        for _ in range(min(concurrency, len(urls))):
            nursery.start_soon(work)


async def _decoded(n: int, fetched: Fetched, pool: DecoderPool, boxes: Boxes) -> Result:
    body = fetched.body
    if fetched.outcome is not Outcome.SUCCESS or body is None:
        return Result(n, fetched.outcome, fetched.http_status, evidence=fetched.evidence)
    decoded = await pool.decode(body, boxes)
    if decoded.outcome is not Outcome.SUCCESS:
        return Result(n, decoded.outcome, fetched.http_status, len(body))
    return Result(
        n,
        Outcome.SUCCESS,
        fetched.http_status,
        len(body),
        decoded.width,
        decoded.height,
        decoded.md5,
        decoded.sha256,
        decoded.dhash,
        decoded.thumbnail,
        format=decoded.format or None,
        exif=decoded.exif,
    )
