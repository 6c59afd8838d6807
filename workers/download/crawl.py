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
from pairmill.workers.download.web_reach import Verdict, WebReach, is_doubtful

FAULT = Outcome.INTERNAL_ERROR
SURE_ROUNDS = 3  # an outcome that was doubtful twice, with no outage that was seen, is believed
LOOK_SECONDS = 0.5  # how often it is looked whether the network is silent
Boxes = Sequence[Box]


def no_boxes(n: int) -> Boxes:
    """Nothing of any image is blurred."""
    return ()


@dataclass(frozen=True)
class Result:
    """How one URL ended. n: its position. size: bytes of the body. width, height: pixels of
    the original. md5, sha1, sha256: of the body, 16, 20 and 32 bytes. dhash: signed 64 bits. pdq:
    32 bytes, None of a flat image too. evidence: of OPTED_OUT. format, exif: of a rendition, see
    ``thumbnail.Decoded``. What does not apply is None."""

    n: int
    outcome: Outcome
    http_status: int | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    md5: bytes | None = None
    sha1: bytes | None = None
    sha256: bytes | None = None
    dhash: int | None = None
    pdq: bytes | None = None
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
    web: WebReach | None = None,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Fetch and decode (n, url) pairs, at most ``concurrency`` at once; each gets exactly one
    result, in no particular order. A fault of ours is INTERNAL_ERROR for its URL. boxes: of an n,
    what is blurred of its image, by ``rendition.boxes_of``.

    web: where the network turns out to be down, what failed since its last answer is fetched again
    when it is back; alive: called often until then. Without it every outcome counts.

    Raises NetworkDown, of ``web``."""
    hosts.forget_old()
    left = dict(urls)
    if web:
        web.begin()

    async def report(result: Result) -> None:
        del left[result.n]
        await on_result(result)

    rounds = 0
    while left:
        rounds += 1
        todo = _Round(fetcher, pool, budget, boxes, Schedule([*left.items()], hosts, pace), web)
        todo.believes = rounds >= SURE_ROUNDS
        await todo.run(report, min(concurrency, len(left)))
        if left and web and web.down:
            rounds = 0
            await web.wait(alive)


class _Round:
    """All the URLs that are left, once each; its end is early where the network is down. believes:
    whether what failed counts where the network may have been away for a moment."""

    believes = False

    def __init__(
        self,
        fetcher: Fetcher,
        pool: DecoderPool,
        budget: MemoryBudget,
        boxes: Callable[[int], Boxes],
        schedule: Schedule,
        web: WebReach | None,
    ) -> None:
        self._fetcher, self._pool, self._budget, self._boxes = fetcher, pool, budget, boxes
        self._schedule, self._web = schedule, web
        self._report: Callable[[Result], Awaitable[None]]
        self._withheld: list[Result] = []  # what failed since the last answer
        self._sure: list[Result] = []  # what failed before it
        self._asked: set[str] = set()  # URLs that are being fetched
        self._scopes: set[trio.CancelScope] = set()
        self._gate = trio.lowlevel.ParkingLot()
        self._suspicion = trio.Event()

    async def run(self, report: Callable[[Result], Awaitable[None]], concurrency: int) -> None:
        self._report = report
        async with trio.open_nursery() as nursery:
            if self._web:
                nursery.start_soon(self._watch, self._web)
            async with trio.open_nursery() as workers:
                for _ in range(concurrency):
                    workers.start_soon(self._work)
            nursery.cancel_scope.cancel()
        if self._web and self._withheld and not self._web.down:
            await self._check(self._web)
        await self._report_sure()

    async def _work(self) -> None:
        while not (self._web and self._web.down):
            result = None
            with trio.CancelScope() as scope:
                self._scopes.add(scope)
                try:
                    result = await self._next()
                finally:
                    self._scopes.discard(scope)
            if result is None:
                return
            await self._settle(result)

    async def _next(self) -> Result | None:
        while self._web and self._web.suspicious:
            self._suspicion.set()
            await self._gate.park()
        found = await self._schedule.next()
        if found is None:
            return None
        try:
            return await self._one(*found)
        except Exception:
            return Result(found[0], FAULT)

    async def _one(self, n: int, url: str, refused: Outcome | None) -> Result:
        """A function of its own, so that the body is let go of when its room is given back."""
        fetched = None
        with self._budget.room() as room:
            try:
                if refused is None:
                    self._asked.add(url)
                    fetched = await self._fetcher.fetch(url, room)
            except Exception:
                fetched = Fetched(FAULT)
            finally:
                self._asked.discard(url)
                self._schedule.done(url, fetched)  # its host is free before the body is decoded
            if fetched is None:
                return Result(n, refused or FAULT)
            if self._web:
                self._note(self._web, url, fetched)
            return await _decoded(n, fetched, self._pool, self._boxes(n))

    def _note(self, web: WebReach, url: str, fetched: Fetched) -> None:
        web.note(url, fetched)
        doubtful = is_doubtful(fetched.outcome, fetched.http_status)
        if fetched.http_status is not None and not doubtful:  # an answer
            self._sure += self._withheld
            self._withheld = []

    async def _settle(self, result: Result) -> None:
        """Report a result, or keep one that may be the network's until something has answered."""
        if self._web and is_doubtful(result.outcome, result.http_status):
            self._withheld.append(result)
            return
        await self._report_sure()
        await self._report(result)

    async def _report_sure(self) -> None:
        while self._sure:
            await self._report(self._sure.pop())

    async def _watch(self, web: WebReach) -> None:
        while not web.down:
            with trio.move_on_after(LOOK_SECONDS):
                await self._suspicion.wait()
            if web.suspicious or (web.silent and self._asked):
                await self._check(web)
            self._suspicion = trio.Event()
            self._gate.unpark_all()

    async def _check(self, web: WebReach) -> None:
        before, self._withheld = self._withheld, []  # what fails from now on is for the next check
        verdict = await web.check(self._asked)
        if verdict is Verdict.DOWN:
            for scope in self._scopes:
                scope.cancel()
        elif verdict is Verdict.UP or self.believes:
            self._sure += before
            await self._report_sure()


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
        decoded.sha1,
        decoded.sha256,
        decoded.dhash,
        decoded.pdq or None,
        decoded.thumbnail,
        format=decoded.format or None,
        exif=decoded.exif,
    )
