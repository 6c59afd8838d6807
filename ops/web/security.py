"""What stands before every page: the headers of each answer, and what is refused unseen."""

from __future__ import annotations

import ipaddress
from collections.abc import Container
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pairmill.ops.web.failures import answer
from pairmill.ops.web.limits import Gate, Rate, is_secure

if TYPE_CHECKING:
    from pairmill.ops.web.app import Site

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Any origin's Referer would name what was searched for. Not no-referrer: with it browsers send
# `Origin: null` on a form's POST, and the check below has nothing to compare.
REFERRER = "same-origin"


def policy(img_src: tuple[str, ...] = ("'self'",)) -> str:
    """The Content-Security-Policy."""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self';"
        f" img-src {' '.join(img_src)}; connect-src 'self'; form-action 'self';"
        " frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
    )


class Defences:
    """ASGI middleware of a site: its headers, host names, CSRF, body limits, rate and gate."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self.app = app
        self.site = site
        self.rate = Rate(site.rate) if site.rate else None
        self.gate = Gate(site.concurrency, site.concurrency)
        self.headers = {
            "Content-Security-Policy": policy(site.img_src),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": REFERRER,
            "X-Frame-Options": "DENY",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "cross-origin" if site.cors else "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        } | ({"Access-Control-Allow-Origin": "*"} if site.cors else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        secure = is_secure(scope)
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self.headers.items():
                    headers.setdefault(name, value)
                if secure:
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        request = Request(scope, receive)
        try:
            self._refuse(scope, request)
            limited = _limited(receive, self._body_limit(scope, request))
            async with self.gate:
                await self.app(scope, limited, guarded_send)
        except Exception as error:
            if started:
                raise
            await answer(request, error)(scope, receive, guarded_send)

    def _body_limit(self, scope: Scope, request: Request) -> int:
        found = [
            size for path, size in self.site.body_limits.items() if scope["path"].startswith(path)
        ]
        limit = max(found, default=self.site.body_limit)
        given = request.headers.get("content-length", "0")
        if given.isdecimal() and int(given) > limit:
            raise HTTPException(413)
        return limit

    def _refuse(self, scope: Scope, request: Request) -> None:
        if not host_allowed(request.headers.get("host", ""), scope["app"].state.hosts):
            raise HTTPException(421)
        if not self.site.cors and scope["method"] not in SAFE_METHODS:
            same_origin(request.headers)
        if self.rate and not scope["path"].startswith("/static/"):
            self.rate.check(request)


def host_allowed(host: str, names: Container[str]) -> bool:
    """Whether a Host header is an address, localhost, or one of the names: the names of others that
    lead here (DNS rebinding) are not."""
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    if name in names or name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def same_origin(headers: Headers) -> None:
    """Raise HTTPException(403) unless a browser says that the request is this site's own."""
    if (fetch := headers.get("sec-fetch-site")) is not None:
        if fetch != "same-origin":
            raise HTTPException(403)
        return
    origin = headers.get("origin", "")
    if not origin or urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        raise HTTPException(403)


def _limited(receive: Receive, limit: int) -> Receive:
    """receive, until it has given more than so many bytes of a body."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise HTTPException(413)
        return message

    return limited
