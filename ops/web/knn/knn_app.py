"""The application: clip-retrieval's endpoints, and a page to search by."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.knn import front
from pairmill.ops.web.knn import knn_page as page
from pairmill.ops.web.knn.request import knn_query, metadata_query, sample_id
from pairmill.ops.web.knn.service import KnnService, header_text
from pairmill.workers.safe_text import say_traceback

SITE = Site(
    name="knn",
    title="Nearest neighbours",
    body_limit=256 * 1024,
    # an image of 10 MB in base64, and the rest of the JSON
    body_limits={"/knn-service": 14_000_000, page.UPLOAD: 10_500_000},
    cors=True,
    json_errors=True,
    concurrency=32,
    robots="User-agent: *\nDisallow: /\n",
)
REFRESH_SECONDS = 30.0  # between two looks whether a release was written anew
JSON = "application/json"
UNKEPT = {"Cache-Control": "no-store"}


def make_knn(
    service: KnnService,
    *,
    rate: str | None = SITE.rate,
    concurrency: int = SITE.concurrency,
    front_folder: Path | None = None,
    front_images: bool = False,
) -> Starlette:
    """The application of a service. front_folder: clip-retrieval's built front, which then is the
    first page; front_images: its visitors' browsers may load images from where they lie."""
    routes: list[BaseRoute] = [
        Route("/knn-service", knn, methods=["POST"]),
        Route("/knn-service", preflight, methods=["OPTIONS"]),
        Route("/metadata", metadata, methods=["POST"]),
        Route("/metadata", metadata_of_one, methods=["GET"]),
        Route("/metadata", preflight, methods=["OPTIONS"]),
        Route("/indices-list", indices, methods=["GET"]),
        Route(page.SEARCH if front_folder else "/", page.search_page, methods=["GET"]),
        Route(page.UPLOAD, page.upload, methods=["POST"]),
    ]
    if front_folder:
        routes += front.routes(front_folder, images=front_images)
    else:
        routes.append(Route(page.SEARCH, page.search_page, methods=["GET"]))
    site = replace(SITE, rate=rate, concurrency=concurrency)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(service.start)
            # what is there now stays, and need not be looked through again
            gc.freeze()
            refreshing = asyncio.create_task(_refresh(service))
            try:
                yield
            finally:
                refreshing.cancel()
                with suppress(asyncio.CancelledError):
                    await refreshing
        finally:
            gc.unfreeze()
            await run_in_threadpool(service.stop)

    return make_app(site, routes, lifespan=lifespan, state={"service": service})


async def _refresh(service: KnnService) -> None:
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        try:
            await run_in_threadpool(service.releases.refresh)
        except Exception as error:  # or tags would stay as they are, in silence
            say_traceback(error)


def json_response(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type=JSON, headers=UNKEPT)


async def knn(request: Request) -> Response:
    body = await _body(request)
    result = await service_of(request).knn(knn_query(body))
    headers = dict(UNKEPT)
    if result.notes:
        headers |= {
            "X-Query": header_text(result.notes),
            "Access-Control-Expose-Headers": "X-Query, Retry-After",
        }
    return Response(result.body, media_type=JSON, headers=headers)


async def metadata(request: Request) -> Response:
    ids, index = metadata_query(await _body(request))
    return json_response(await run_in_threadpool(service_of(request).metadata, ids, index))


async def metadata_of_one(request: Request) -> Response:
    """Get by id: /metadata?id=1&id=2&indice_name=…"""
    given = request.query_params.getlist("id")
    if not 1 <= len(given) <= 100:
        raise UserError("name 1 to 100 samples: /metadata?id=…&id=…")
    if not all(each.isascii() and each.isdigit() and len(each) < 20 for each in given):
        raise UserError("an id is a SAMPLE_ID: a whole number from 0 on")
    ids = [sample_id(int(each)) for each in given]
    index = request.query_params.get("indice_name") or None
    return json_response(await run_in_threadpool(service_of(request).metadata, ids, index))


async def indices(request: Request) -> Response:
    return json_response(service_of(request).indexes.names())


async def preflight(request: Request) -> Response:
    """For scripts of other origins that send Content-Type: application/json."""
    headers = {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": "86400",
    }
    return Response(status_code=204, headers=headers)


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except ClientDisconnect:
        raise UserError("the request ended before its body did") from None


def service_of(request: Request) -> KnnService:
    service: KnnService = request.app.state.service
    return service


Endpoint = Callable[[Request], Awaitable[Response]]
