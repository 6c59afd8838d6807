"""The public page as an application: what is kept is sent, and one thread keeps it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.applications import Starlette
from starlette.routing import Route

from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.live.board import JSON, PAGES, Board, Guide, KeptPage
from pairmill.ops.web.live.refresh import Refresher

NAV = (
    ("/", "Progress"),
    ("/leaderboard", "Leaderboard"),
    ("/crawls", "Crawls"),
    ("/join", "Join"),
)
# a visitor costs the sending of bytes: there is nothing to be limited, and nothing to wait for
CONCURRENCY = 1_000


def public_app(dsn: str, *, title: str = "pairmill", guide: Guide | None = None) -> Starlette:
    """The application; its thread connects to dsn once it is served."""
    site = Site("live", title, NAV, rate=None, concurrency=CONCURRENCY)
    board = Board(site, guide or Guide())
    board.trouble("")  # nothing yet: 503

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        refresher = Refresher(dsn, board, app.state.metrics.registry)
        app.state.refresher = refresher
        refresher.start()
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(refresher.stop)

    routes = [Route(path, KeptPage(board, path)) for path in (*PAGES, JSON)]
    routes.append(Route("/worker/{name:path}", KeptPage(board)))
    return make_app(site, routes, lifespan=lifespan, state={"board": board})
