"""Bounds on what one client, and all clients together, may ask of a page."""

import asyncio
import ipaddress
from collections.abc import Mapping
from typing import Any, Self

import limits
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.exceptions import HTTPException
from starlette.requests import Request


def _trusted(scope: Mapping[str, Any]) -> bool:
    """Whether the request's X-Forwarded-… are a proxy's of the admin's: of `--proxy` only."""
    return bool(getattr(scope["app"].state, "proxy", False)) if "app" in scope else False


def _header(scope: Mapping[str, Any], name: bytes) -> str:
    values = [value for key, value in scope["headers"] if key == name]
    return values[-1].decode("latin-1") if values else ""


def is_secure(scope: Mapping[str, Any]) -> bool:
    """Whether the browser speaks https, to us or to the proxy."""
    if scope.get("scheme") == "https":
        return True
    return _trusted(scope) and _header(scope, b"x-forwarded-proto").strip() == "https"


def client_address(scope: Mapping[str, Any]) -> str:
    """The client's address; behind a trusted proxy the last of its X-Forwarded-For, which is the
    one that the proxy saw itself. "" where it is not known."""
    if _trusted(scope) and (forwarded := _header(scope, b"x-forwarded-for")):
        return forwarded.rpartition(",")[2].strip()
    client = scope.get("client")
    return str(client[0]) if client else ""


def network_of(request: Request) -> str:
    """The client's /24 or /64: what one person has at least."""
    return _network(client_address(request.scope))


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return str(ipaddress.ip_network((ip, 24 if ip.version == 4 else 64), strict=False))


class Rate:
    """So many requests of a network in a time. rule: as `limits` has it, "20/second;300/minute"."""

    def __init__(self, rule: str) -> None:
        self.rules = limits.parse_many(rule)
        self.limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def check(self, request: Request) -> None:
        """Count a request. Raises HTTPException 429 with Retry-After where it is one too many."""
        network = network_of(request)
        for rule in self.rules:
            if not self.limiter.hit(rule, network):
                seconds = max(1, round(rule.get_expiry() / rule.amount))
                raise HTTPException(429, headers={"Retry-After": str(seconds)})


class Gate:
    """At most so many at work, and so many waiting; the others get 503 at once."""

    def __init__(self, working: int, waiting: int, retry_after: int = 2) -> None:
        self.free = working
        self.waiting = waiting
        self.retry_after = retry_after
        self._queue: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        if self.free > 0:
            self.free -= 1
            return self
        if len(self._queue) >= self.waiting:
            raise HTTPException(503, headers={"Retry-After": str(self.retry_after)})
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._queue.remove(turn)
            else:
                self._leave()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self._leave()

    def _leave(self) -> None:
        while self._queue:
            turn = self._queue.pop(0)
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
