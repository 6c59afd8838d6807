"""The page of releases as an application."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool

from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.explore import (
    evidence,
    meaning_search,
    mine,
    requests,
    row_pages,
    selection_export,
    thumbnails,
)
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.preparation import Preparation

UPLOAD = 11_000_000  # bytes of a body with a picture
NAV = (
    ("/", "Releases"), ("/search", "Search"), ("/mine", "Is mine in it?"), ("/remove", "Removal"),
)  # fmt: skip
# a page is a second's work of a core at most, and 50 thumbnails come with one
RATE = "30/second;900/minute"
ROBOTS = "User-agent: *\nDisallow: /r/\nDisallow: /id\nDisallow: /search\nDisallow: /thumbnail/\n"


def make_explore(
    settings: ExploreSettings,
    *,
    title: str = "Explore",
    rate: str | None = RATE,
    preparation: Preparation | None = None,
) -> Starlette:
    """preparation: makes the working copies that are missing, while the page runs."""
    site = Site(
        "explore",
        title,
        NAV,
        body_limits={"/mine": UPLOAD, "/search": UPLOAD, "/remove": UPLOAD},
        concurrency=32,
        rate=rate,
        robots=ROBOTS + "Disallow: /request/\n",
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[Mapping[str, Any] | None]:
        async with AsyncExitStack() as stack:
            settings.decoder.start()
            stack.push_async_callback(run_in_threadpool, settings.decoder.stop)
            if preparation is not None:
                stack.enter_context(preparation)
            yield None

    routes = [
        *thumbnails.routes(settings), *evidence.routes(settings), *mine.routes(settings),
        *requests.routes(settings), *meaning_search.routes(settings),
        *selection_export.routes(settings), *row_pages.routes(settings),
    ]  # fmt: skip
    return make_app(site, routes, lifespan=lifespan, state={"settings": settings})
