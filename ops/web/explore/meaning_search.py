"""/search: rows by the meaning of a text, or by a picture, through the kNN service."""

from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.knn_client import HOW, KnnClient, NearSample
from pairmill.ops.web.explore.posted import posted
from pairmill.ops.web.explore.release_rows import OpenRelease, Row
from pairmill.ops.web.explore.row_pages import asks_json, path_of, plain_row
from pairmill.ops.web.limits import Rate
from pairmill.ops.web.render import render

COUNT = 60
MOST_TEXT = 300
RATE = "20/minute;200/hour"
Found = list[tuple[NearSample, OpenRelease, Row]]


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    rate = Rate(RATE)

    def by_text(request: Request) -> Response:
        text, near = (request.query_params.get(name, "").strip() for name in ("text", "id"))
        if len(text) > MOST_TEXT:
            raise UserError(f"text: at most {MOST_TEXT} characters")
        if near and (not near.isascii() or not near.isdecimal() or len(near) > 18):
            raise UserError("id: a SAMPLE_ID is a whole number")
        safe = not request.query_params.get("unsafe")
        if not text and not near:
            return _page(request, settings, None, "")
        rate.check(request)
        if near:
            found = _rows(
                settings,
                _service(settings).near_sample(int(near), COUNT, one_of_each=True, safe=safe),
            )
            return _page(request, settings, found, f"the picture of {int(near)}")
        found = _rows(settings, _service(settings).near_text(text, COUNT, safe=safe))
        return _page(request, settings, found, text)

    async def by_image(request: Request) -> Response:
        rate.check(request)
        sent = await posted(request)
        if not (image := sent.files.get("image")):
            raise UserError("choose a picture first")
        found = await run_in_threadpool(_of_image, settings, image, not sent.fields.get("unsafe"))
        return _page(request, settings, found, "your picture, which was not kept")

    return [
        Route("/search", by_text, methods=["GET"]),
        Route("/search", by_image, methods=["POST"]),
    ]


def _of_image(settings: ExploreSettings, image: bytes, safe: bool) -> Found:
    settings.decoder.read(image)  # what no decoder here takes is not passed on
    near = _service(settings).near_image(image, COUNT, one_of_each=True, safe=safe)
    return _rows(settings, near)


def _service(settings: ExploreSettings) -> KnnClient:
    if settings.knn is None:
        raise UserError(f"there is no search by meaning here: {HOW}")
    return settings.knn


def _rows(settings: ExploreSettings, near: list[NearSample]) -> Found:
    """The neighbours that a served release has, with the first one that has them."""
    ids = [each.sample_id for each in near]
    gone = settings.releases.hidden(ids)
    known: dict[int, tuple[OpenRelease, Row]] = {}
    for release in settings.releases.served():
        left = [number for number in ids if number not in known and number not in gone]
        known |= {number: (release, row) for number, row in release.rows(left).items()}
    return [(each, *known[each.sample_id]) for each in near if each.sample_id in known]


def _page(request: Request, settings: ExploreSettings, found: Found | None, asked: str) -> Response:
    if found is not None and asks_json(request):
        rows: list[dict[str, Any]] = [
            {"id": near.sample_id, "similarity": near.similarity, "release": release.name,
             "row": plain_row(row)}
            for near, release, row in found
        ]  # fmt: skip
        return JSONResponse({"asked": asked, "rows": rows})
    path: Callable[[OpenRelease], str] = path_of
    return render(
        request, "explore/search.html", found=found, asked=asked, path_of=path, how=HOW,
        has_service=settings.knn is not None, thumbnails=settings.thumbnails,
        text=request.query_params.get("text", ""), unsafe=request.query_params.get("unsafe", ""),
    )  # fmt: skip
