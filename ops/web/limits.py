"""Bounds on what one client, and all clients together, may ask of a page."""

import asyncio
import ipaddress
import math
import time
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Self

import limits
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import Request

# What one person has at least: an IPv4 of a /24 of theirs, and a /64 by design. With so many
# networks counted, the next are counted together, in coarser ones: a sweep of `limits` over 10,000
# counters takes 3 ms, over 60,000 50 ms.
PREFIXES = ((24, 64), (16, 48), (8, 32))
CROWD = 5_000
# loopback, and a Unix socket: the machine's own programs, or a proxy before they are told apart
OWN_MACHINE = ("127.0.0.0/24", "::/64", "unknown")


def network_of(request: Request) -> str:
    """The client's /24 or /64; "unknown" over a Unix socket whose proxy names no client."""
    return network(_address(request.scope))


def _address(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


@lru_cache(maxsize=4_096)  # 30 µs, in a request of 100
def network(address: str, coarseness: int = 0) -> str:
    """The network of an address, as PREFIXES has it; an IPv4 address that is mapped into IPv6 is
    an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    prefix = PREFIXES[coarseness][0 if ip.version == 4 else 1]
    return str(ipaddress.ip_network((ip, prefix), strict=False))


def behind_proxy(scope: Mapping[str, Any]) -> tuple[tuple[str, int] | None, str]:
    """(client, scheme) as a trusted proxy has them: the last address of X-Forwarded-For, which is
    the one that it saw itself, and its X-Forwarded-Proto."""
    found: dict[bytes, bytes] = dict(scope["headers"])  # the last of several
    last = found.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip().decode("latin-1")
    scheme = found.get(b"x-forwarded-proto", b"").strip().lower()
    return (last, 0) if last else None, "https" if scheme == b"https" else "http"


class Rate:
    """So many requests of a client's network in a time.

    rule: as `limits` has it, "20/second;300/minute". Windows are fixed: at the edge of two, twice
    as many may pass. Sliding ones cost 35 µs a request, fixed ones 11.
    """

    def __init__(self, rule: str, crowd: int = CROWD) -> None:
        self.rules = limits.parse_many(rule)
        self.crowd = crowd
        self.storage = MemoryStorage()
        self.limiter = FixedWindowRateLimiter(self.storage)

    def check(self, request: Request) -> None:
        """Count a request. Raises HTTPException 429 with Retry-After where it is one too many."""
        self.count(_address(request.scope))

    def count(self, address: str) -> None:
        """As ``check``, of an address."""
        counted = len(self.storage.storage) // len(self.rules) // self.crowd
        key = network(address, min(counted, len(PREFIXES) - 1))
        for rule in self.rules:
            if not self.limiter.hit(rule, key):
                left = self.limiter.get_window_stats(rule, key).reset_time - time.time()
                raise HTTPException(429, headers={"Retry-After": str(max(1, math.ceil(left)))})


class Gate:
    """At most so many at work, and so many waiting, for ``patience`` seconds each; the others get
    503 with Retry-After at once. For one event loop."""

    def __init__(
        self, working: int, waiting: int, retry_after: int = 2, patience: float = 5.0
    ) -> None:
        self.free = working
        self.waiting = waiting
        self.retry_after = retry_after
        self.patience = patience
        self._queue: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> Self:
        if self.free > 0:
            self.free -= 1
            return self
        if len(self._queue) >= self.waiting:
            raise self._busy()
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self.patience):
                await turn
        except BaseException as error:
            # a turn that came in the same moment is passed on
            if turn.done() and not turn.cancelled():
                self._leave()
            elif turn in self._queue:
                self._queue.remove(turn)
            if isinstance(error, TimeoutError):
                raise self._busy() from None
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def _busy(self) -> HTTPException:
        return HTTPException(503, headers={"Retry-After": str(self.retry_after)})

    def _leave(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():  # else cancelled: who waited is on the way out
                turn.set_result(None)
                return
        self.free += 1
