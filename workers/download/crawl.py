"""Fetch and decode many URLs: bounded, spread over hosts, one result for each."""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.fetch import Fetcher
from pairmill.workers.download.pool import DecoderPool


@dataclass(frozen=True)
class Result:
    """How one URL ended. n: its position. size: bytes of the body. width, height: pixels of
    the original. md5, sha256: of the body, 16 and 32 bytes. dhash: signed 64 bits. What does
    not apply is None."""

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


class _Schedule:
    """Which URL is next: hosts take turns, and none is asked by more than ``per_host`` at once."""

    def __init__(self, urls: Sequence[tuple[int, str]], per_host: int) -> None:
        self._per_host = per_host
        self._waiting: dict[str, deque[tuple[int, str]]] = defaultdict(deque)
        self._active: Counter[str] = Counter()
        for n, url in urls:
            self._waiting[_host(url)].append((n, url))
        self._turns = deque(self._waiting)  # hosts that have a URL waiting and a place free
        self._changed = trio.lowlevel.ParkingLot()

    async def next(self) -> tuple[int, str] | None:
        """The next URL, as soon as there is a place for one; None when all are given out."""
        while not self._turns:
            if not self._waiting:
                return None
            await self._changed.park()
        host = self._turns.popleft()
        found = self._waiting[host].popleft()
        self._active[host] += 1
        if not self._waiting[host]:
            del self._waiting[host]
        elif self._active[host] < self._per_host:
            self._turns.append(host)
        return found

    def done(self, url: str) -> None:
        host = _host(url)
        self._active[host] -= 1
        if host in self._waiting and host not in self._turns:
            self._turns.append(host)
        if not self._active[host]:
            del self._active[host]
        self._changed.unpark_all()


async def fetch_all(
    urls: Sequence[tuple[int, str]],
    fetcher: Fetcher,
    pool: DecoderPool,
    *,
    concurrency: int,
    per_host: int,
    on_result: Callable[[Result], Awaitable[None]],
) -> None:
    """Fetch and decode (n, url) pairs, at most ``concurrency`` at once; each gets exactly one
    result, in no particular order. A fault of ours is INTERNAL_ERROR for its URL."""
    schedule = _Schedule(urls, per_host)

    async def work() -> None:
        while found := await schedule.next():
            n, url = found
            try:
                result = await _one(n, url, fetcher, pool)
            except Exception:
                result = Result(n, Outcome.INTERNAL_ERROR)
            finally:
                schedule.done(url)
            await on_result(result)

    async with trio.open_nursery() as nursery:
        for _ in range(min(concurrency, len(urls))):
            nursery.start_soon(work)


async def _one(n: int, url: str, fetcher: Fetcher, pool: DecoderPool) -> Result:
    fetched = await fetcher.fetch(url)
    body = fetched.body
    if fetched.outcome is not Outcome.SUCCESS or body is None:
        return Result(n, fetched.outcome, fetched.http_status)
    decoded = await pool.decode(body)
    if decoded.outcome is not Outcome.SUCCESS:
        return Result(n, decoded.outcome, fetched.http_status, len(body))
    return Result(
        n,
        Outcome.SUCCESS,
        fetched.http_status,
        len(body),
        decoded.width,
        decoded.height,
        hashlib.md5(body, usedforsecurity=False).digest(),
        hashlib.sha256(body).digest(),
        decoded.dhash,
        decoded.thumbnail,
    )


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
