"""What stands before every page: the headers of each answer, and what is refused unseen."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pairmill.ops.web.failures import answer
from pairmill.ops.web.limits import OWN_MACHINE, Gate, Rate, behind_proxy, network_of
from pairmill.workers.safe_text import say, say_traceback

if TYPE_CHECKING:
    from pairmill.ops.web.app import Site

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# what costs nothing, and is asked for by every page or every few seconds
UNCOUNTED = ("/static/", "/healthz", "/robots.txt")
SECRET = {"/request/": "/request/{token}"}  # what begins so lets whoever has it in
# Another site's log would have the URL, and so what was searched for. Not no-referrer: with it
# browsers send `Origin: null` on a form's POST, and same_origin has nothing to compare.
REFERRER = "same-origin"
SMALL_BODY = 256 * 1024  # is read before its request takes a place among those at work
_HOST = re.compile(r"(?:[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\]")
DISCONNECTED = 499  # nginx's name for it


def policy(img_src: tuple[str, ...] = ("'self'",)) -> str:
    """The Content-Security-Policy."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self';"
        f" img-src {' '.join(img_src)}; connect-src 'self'; form-action 'self';"
        " frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
    )


def _headers(site: Site) -> dict[str, str]:
    found = {
        "Content-Security-Policy": policy(site.img_src),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": REFERRER,
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "cross-origin" if site.cors else "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Cache-Control": site.cache,
    }
    if site.cors:
        found |= {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*"}
    return found


class Defences:
    """ASGI middleware of a site: host names, CSRF, body limits, rate and gate, the headers of every
    answer, the answer to every error, and metrics. One layer: each costs 10 µs a request."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self.app = app
        self.site = site
        self.rate = Rate(site.rate) if site.rate else None
        self.gate = Gate(site.concurrency, site.concurrency)
        self.share = max(1, site.concurrency // 2)
        self.at_work: Counter[str] = Counter()  # requests by network, those in the queue too
        self.headers = [
            (name.lower().encode(), value.encode()) for name, value in _headers(site).items()
        ]
        self.secure_headers = [
            *self.headers,
            (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope["app"].state
        if state.proxy:
            client, scope["scheme"] = behind_proxy(scope)
            scope["client"] = client or scope["client"]
        added = self.secure_headers if scope["scheme"] == "https" else self.headers
        status = 0

        async def finished(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own: list[tuple[bytes, bytes]] = message["headers"]
                named = {name for name, _ in own}
                message["headers"] = [*own, *(pair for pair in added if pair[0] not in named)]
            await send(message)

        start = time.perf_counter()
        state.metrics.in_flight.inc()
        request = Request(scope, receive)
        try:
            await self._admit(scope, request, receive, finished)
        except ClientDisconnect:
            status = status or DISCONNECTED
        except Exception as error:
            if status:  # the rest cannot be had, and half an answer must not pass for one
                say_traceback(error)
                raise
            await answer(request, error)(scope, receive, finished)
        finally:
            seconds = time.perf_counter() - start
            state.metrics.in_flight.dec()
            # a response of None: the middle of the server's end
            state.metrics.request(_route(scope), status or DISCONNECTED, seconds)
            if state.log:
                # no query: it has what was searched for; no address but its network's
                where = f"{network_of(request)} {scope['method']} {_logged(scope)}"
                now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
                say(f"{now} {where} {status} {1000 * seconds:.1f} ms", err=True)

    async def _admit(self, scope: Scope, request: Request, receive: Receive, send: Send) -> None:
        """Hand on a request that nothing speaks against; else raise HTTPException."""
        metrics, path = scope["app"].state.metrics, scope["path"]
        headers = request.headers
        if not host_allowed(headers.get("host", "").lower(), scope["app"].state.hosts):
            metrics.refused("host")
            raise HTTPException(421)
        if self.site.cors:
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await _preflight()(scope, receive, send)
                return
        elif scope["method"] not in SAFE_METHODS and not same_origin(headers):
            metrics.refused("csrf")
            raise HTTPException(403)
        if path.startswith(UNCOUNTED):
            await self.app(scope, receive, send)
            return
        if self.rate:
            try:
                self.rate.check(request)
            except HTTPException:
                metrics.refused("rate")
                raise
        limit = self._body_limit(path) if self.site.body_limits else self.site.body_limit
        body = _Body(receive, limit, metrics)
        if scope["method"] not in ("GET", "HEAD"):
            body.check_length(headers.get("content-length"))
            if limit <= SMALL_BODY:
                await body.read()
        with self._share(network_of(request), metrics):
            try:
                await self.gate.__aenter__()
            except HTTPException:
                metrics.refused("busy")
                raise
            try:
                await self.app(scope, body.receive, send)
            finally:
                await self.gate.__aexit__()

    @contextmanager
    def _share(self, network: str, metrics: Any) -> Iterator[None]:
        """Half of the places at most are one network's. Raises HTTPException(429)."""
        if self.at_work[network] >= self.share and network not in OWN_MACHINE:
            metrics.refused("share")
            raise HTTPException(429, headers={"Retry-After": "2"})
        self.at_work[network] += 1
        try:
            yield
        finally:
            self.at_work[network] -= 1
            if not self.at_work[network]:
                del self.at_work[network]

    def _body_limit(self, path: str) -> int:
        found = [size for start, size in self.site.body_limits.items() if path.startswith(start)]
        return max(found, default=self.site.body_limit)


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "none"))


def _logged(scope: Scope) -> str:
    """The path without a token, also where it was refused before any route was asked, or leads
    nowhere for a stroke at its end."""
    path = str(scope["path"])
    return next((shown for start, shown in SECRET.items() if path.startswith(start)), path)


def _preflight() -> Response:
    allowed = {
        "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": "86400",
    }
    return Response(status_code=204, headers=allowed)


class _Body:
    """A request's body, up to so many bytes."""

    def __init__(self, receive: Receive, limit: int, metrics: Any) -> None:
        self._receive, self._limit, self._metrics = receive, limit, metrics
        self._taken = 0
        self._whole: bytes | None = None

    def check_length(self, given: str | None) -> None:
        """Raise HTTPException(413) where a Content-Length says too much: before it is sent."""
        if given is not None and given.isdecimal() and int(given) > self._limit:
            self._too_large()

    async def receive(self) -> Message:
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return {"type": "http.request", "body": whole, "more_body": False}
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self._taken > self._limit:
            self._too_large()
        return message

    async def read(self) -> None:
        """Take it whole: a slow client then waits for itself alone."""
        parts = []
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        self._whole = b"".join(parts)

    def _too_large(self) -> None:
        self._metrics.refused("body")
        raise HTTPException(413)


@lru_cache(maxsize=256)
def _parsed_host(host: str) -> str | None:
    if not _HOST.fullmatch(host):
        return None
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.rstrip(".")


def host_allowed(host: str, names: Container[str]) -> bool:
    """Whether a Host header, in lower case, is an address, localhost, or one of the names: not the
    name of somebody else's site that leads here (DNS rebinding)."""
    name = _parsed_host(host)
    if not name:
        return False
    return name == "localhost" or name in names or _ADDRESS.fullmatch(name) is not None


def same_origin(headers: Headers) -> bool:
    """Whether a browser says that a request is this site's own: in Sec-Fetch-Site, else (over http,
    to another machine) in Origin, which then has the Host's name. Without either there is none."""
    fetch = headers.get("sec-fetch-site")
    if fetch is not None:
        return fetch == "same-origin"
    try:
        origin = urlsplit(headers.get("origin", ""))
    except ValueError:
        return False
    return bool(origin.netloc) and origin.netloc.lower() == headers.get("host", "").lower()
