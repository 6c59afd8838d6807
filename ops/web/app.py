"""One of the four page processes as an ASGI application: its routes, behind the defences that all
four share."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.assets import static_route
from pairmill.ops.web.failures import answer
from pairmill.ops.web.page_metrics import PageMetrics
from pairmill.ops.web.security import Defences


class RowNumber(IntegerConvertor):
    """{name:int} of a path: a bigint's digits at most. Starlette's own takes all that there are,
    and Python reads no number of more than 4,300."""

    regex = "[0-9]{1,19}"


register_url_convertor("int", RowNumber())
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any] | None]]


@dataclass(frozen=True)
class Site:
    """What one of the page processes is.

    nav: (href, label) of its pages. body_limit: bytes of a request's body; body_limits: the same
    for the paths that begin with a key. cors: any origin may read it and post to it; for services
    without logins. json_errors: every error is JSON. concurrency: requests at work at once; a short
    queue waits, the others get 503. rate: in the notation of `limits`, for a client's network;
    None: none. img_src: of the Content-Security-Policy. loopback_only: it may not be bound where
    other machines reach it. cache: Cache-Control of answers without one. robots: /robots.txt.
    """

    name: str
    title: str
    nav: tuple[tuple[str, str], ...] = ()
    body_limit: int = 64 * 1024
    body_limits: Mapping[str, int] = field(default_factory=dict)
    cors: bool = False
    json_errors: bool = False
    concurrency: int = 64
    rate: str | None = "20/second;300/minute"
    img_src: tuple[str, ...] = ("'self'",)
    loopback_only: bool = False
    cache: str = "private, no-cache"
    robots: str = "User-agent: *\nDisallow:\n"


def make_app(
    site: Site,
    routes: Sequence[BaseRoute],
    *,
    lifespan: Lifespan | None = None,
    state: Mapping[str, Any] | None = None,
) -> Starlette:
    """The application of a site: its routes, /static, /healthz, /robots.txt, and its error pages.

    state: attributes of ``request.app.state``.
    """
    own: list[BaseRoute] = [
        Route("/healthz", _healthz),
        Route("/robots.txt", _robots),
        static_route(),
    ]
    app = Starlette(
        routes=[*own, *routes],
        lifespan=_remembered(lifespan),
        middleware=[Middleware(Defences, site=site)],
        exception_handlers={HTTPException: answer, UserError: answer, psycopg.Error: answer},
    )
    # behind a proxy the redirect of /page/ to /page would lead to another scheme
    app.router.redirect_slashes = False
    app.state.site = site
    app.state.metrics = PageMetrics(site.name)
    app.state.proxy = app.state.unix = app.state.log = False
    app.state.hosts = frozenset()
    app.state.start_error = None
    app.state.started = lambda: None
    for name, value in (state or {}).items():
        setattr(app.state, name, value)
    return app


def _remembered(
    lifespan: Lifespan | None,
) -> Callable[[Starlette], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """The lifespan, which leaves what it raises at its start in ``app.state.start_error``: uvicorn
    only logs it. ``app.state.started`` is called when all is there."""

    @asynccontextmanager
    async def remembered(app: Starlette) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            try:
                found = await stack.enter_async_context(lifespan(app)) if lifespan else None
            except Exception as error:
                app.state.start_error = error
                raise
            app.state.started()
            yield found or {}

    return remembered


async def _healthz(request: Request) -> Response:
    return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})


async def _robots(request: Request) -> Response:
    return PlainTextResponse(request.app.state.site.robots)
