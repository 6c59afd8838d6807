"""Politeness: which URL is next, so that no host is asked too often, or in vain.

A host is the authority of a URL (name and port). Of the URLs of a batch hosts take turns; of
one host only a few are fetched at once, and one begins no sooner than a moment after the other.
(What its redirects lead to is another host's: it is not counted there, nor are its failures here.
Where it asks to wait, what leads to it waits.)
A host that asks to wait is left alone as long as it says; one that fails again and again is given
up for some minutes (a circuit breaker). A URL that is not tried for such a reason has an outcome
that says so, and a later batch may try it.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.fetcher import Fetched
from pairmill.workers.download.url import parse

# in a row, without an answer in between
FAILURES = 5
GIVEN_UP_SECONDS = 600.0
# a wait that is longer than this is not waited for within a batch
PATIENCE_SECONDS = 30.0
UNSAID_SECONDS = 10.0  # a 429 that does not say how long
# A host's own failures. BAD_RESPONSE is none: it is our reader's word, and the host did answer.
FAILED = frozenset(
    (
        Outcome.DNS_FAILED, Outcome.CONNECT_FAILED, Outcome.CONNECT_TIMEOUT, Outcome.TLS_FAILED,
        Outcome.CERTIFICATE_REFUSED, Outcome.CONNECTION_LOST, Outcome.TIMEOUT,
        Outcome.SERVER_ERROR, Outcome.RETRY_LATER, Outcome.OPT_OUT_UNKNOWN,
    )
)  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """per_host: fetches of one host at once. gap: seconds from the start of one to the start of
    the next."""

    per_host: int = 4
    gap: float = 0.1


@dataclass
class _Standing:
    """The state of a host's circuit breaker. until: no request before then (trio's clock)."""

    failures: int = 0
    until: float = 0.0
    outcome: Outcome = Outcome.HOST_GIVEN_UP


class Hosts:
    """The circuit breakers of hosts, kept from batch to batch; only of hosts that failed."""

    def __init__(self) -> None:
        self._standing: dict[str, _Standing] = {}

    def refused(self, host: str) -> Outcome | None:
        """Why this host is not to be asked at all for now."""
        standing = self._standing.get(host)
        if standing is None or standing.until - trio.current_time() <= PATIENCE_SECONDS:
            return None
        return standing.outcome

    def pause(self, host: str) -> float:
        """When this host may be asked again, of trio's clock; may have passed."""
        standing = self._standing.get(host)
        return standing.until if standing else 0.0

    def note(self, host: str, fetched: Fetched) -> None:
        """Learn from how a fetch of a URL of this host ended."""
        elsewhere = fetched.source is not None and host_of(fetched.source) != host
        waits = fetched.outcome is Outcome.RETRY_LATER
        if fetched.outcome not in FAILED or (elsewhere and not waits):
            self._answered(host)
            return
        standing = self._standing.setdefault(host, _Standing())
        standing.failures += 1
        wait = 0.0
        if waits:
            after = fetched.retry_after
            wait = UNSAID_SECONDS if after is None else after
            standing.outcome = Outcome.RETRY_LATER
        if standing.failures >= FAILURES and wait < GIVEN_UP_SECONDS:
            wait = GIVEN_UP_SECONDS
            if not waits:
                standing.outcome = Outcome.HOST_GIVEN_UP
        standing.until = max(standing.until, trio.current_time() + wait)

    def _answered(self, host: str) -> None:
        """Its failures are over; what it asked for stays, of answers that were on their way."""
        standing = self._standing.get(host)
        if standing is None:
            return
        if standing.outcome is Outcome.RETRY_LATER and standing.until > trio.current_time():
            standing.failures = 0
        else:
            del self._standing[host]

    def forget_failures(self) -> None:
        """Of all hosts, but for what they asked for: the network was down."""
        self._standing = {
            h: s for h, s in self._standing.items() if s.outcome is Outcome.RETRY_LATER
        }

    def forget_old(self) -> None:
        """Drop hosts whose failures have expired: a failure counts for ten minutes."""
        since = trio.current_time() - GIVEN_UP_SECONDS
        self._standing = {h: s for h, s in self._standing.items() if s.until > since}


@dataclass
class _HostQueue:
    """The URLs of one host that wait."""

    waiting: deque[tuple[int, str]] = field(default_factory=deque)
    active: int = 0
    ready_at: float = 0.0
    queued: bool = False  # in the heap


class Schedule:
    """The URLs of a batch, given out one by one. Every URL comes out exactly once."""

    def __init__(self, urls: Sequence[tuple[int, str]], hosts: Hosts, pace: Pace) -> None:
        self._hosts = hosts
        self._pace = pace
        self._left = len(urls)
        self._queues: dict[str, _HostQueue] = {}
        for n, url in urls:
            self._queues.setdefault(host_of(url), _HostQueue()).waiting.append((n, url))
        # (when, turn, host); turns keep the order of those that are ready at once
        self._turn = 0
        self._heap: list[tuple[float, int, str]] = []
        self._changed = trio.lowlevel.ParkingLot()
        for host, queue in self._queues.items():
            self._enqueue(host, queue)

    async def next(self) -> tuple[int, str, Outcome | None] | None:
        """The next URL, as soon as one may be begun, with the outcome that it has if it is not
        to be tried; None when all are given out. ``done`` must follow."""
        while self._left:
            now = trio.current_time()
            if self._heap and self._heap[0][0] <= now:
                if found := self._pop(now):
                    return found
                continue
            with trio.move_on_at(self._heap[0][0] if self._heap else float("inf")):
                await self._changed.park()
        self._changed.unpark_all()
        return None

    def done(self, url: str, fetched: Fetched | None) -> None:
        """A URL has ended. fetched: how, or None where it was not tried."""
        host = host_of(url)
        queue = self._queues[host]
        queue.active -= 1
        if fetched is not None:
            self._hosts.note(host, fetched)
        if queue.waiting:
            self._enqueue(host, queue)
            self._changed.unpark()
        elif not queue.active:
            del self._queues[host]

    def _enqueue(self, host: str, queue: _HostQueue) -> None:
        if queue.queued or queue.active >= self._pace.per_host:
            return
        queue.queued = True
        when = queue.ready_at
        if not self._hosts.refused(host):
            when = max(when, self._hosts.pause(host))
        self._turn += 1
        heapq.heappush(self._heap, (when, self._turn, host))

    def _pop(self, now: float) -> tuple[int, str, Outcome | None] | None:
        """The next URL of the host whose turn it is; None if it was put off meanwhile."""
        _, _, host = heapq.heappop(self._heap)
        queue = self._queues[host]
        queue.queued = False
        refused = self._hosts.refused(host) if host else Outcome.INVALID_URL
        if not refused and self._hosts.pause(host) > now:
            self._enqueue(host, queue)
            return None
        n, url = queue.waiting.popleft()
        self._left -= 1
        queue.active += 1
        queue.ready_at = now if refused else now + self._pace.gap
        if queue.waiting:
            self._enqueue(host, queue)
        return n, url, refused


def host_of(url: str) -> str:
    """The authority that a URL's request is for; "" where it can have none."""
    try:
        return parse(url).authority
    except ValueError:
        return ""
