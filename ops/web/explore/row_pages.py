"""The pages of releases and of their rows: /, /r/NAME, /r/NAME/SAMPLE_ID, /id/SAMPLE_ID.

Each of them is JSON as well, with Accept: application/json or ?format=json.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.explore.duck import QueryTooLong
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.listing import Listing, RowPage
from pairmill.ops.web.explore.release_rows import OpenRelease, Row
from pairmill.ops.web.explore.row_filters import CHOICES, NONE, RANGES, AskedRows, parse, sorts
from pairmill.ops.web.explore.row_summaries import RowHistogram
from pairmill.ops.web.explore.same_pictures import same_pictures
from pairmill.ops.web.failures import wants_json
from pairmill.ops.web.render import number, render
from pairmill.workers.safe_text import safe

FEW = 24  # values of a choice that the form offers
Answer = Callable[[Request], Response]


def routes(settings: ExploreSettings) -> list[BaseRoute]:
    listing = Listing()
    releases = settings.releases

    def index(request: Request) -> Response:
        found = releases.all()
        if asks_json(request):
            return JSONResponse({"releases": [_about(each) for each in found]})
        return render(request, "explore/releases.html", releases=found, path_of=path_of)

    def browse(request: Request) -> Response:
        release = served(settings, request.path_params["name"])
        asked = parse(request.query_params.multi_items(), release)
        page = listing.page(release, asked, releases.hidden)
        if asks_json(request):
            return JSONResponse(_listed(release, asked, page))
        return render(
            request, "explore/listing.html", release=release, asked=asked, page=page,
            shape=release.shape, offered=_offered(release, asked),
            given=_given(asked), orders=_orders(release), bounds=_bounds(release),
            without=lambda name: replace(asked, filter=asked.filter.without(name)).link(),
            numbers=_numbers, shown=_shown, path_of=path_of, choices=CHOICES,
            thumbnails=settings.thumbnails,
            query=asked.link(), next=asked.link(page.after) if page.after else "",
        )  # fmt: skip

    def row(request: Request) -> Response:
        release = served(settings, request.path_params["name"])
        sample_id = request.path_params["sample_id"]
        found = shown_row(settings, release, sample_id)
        same = same_pictures(settings, release, sample_id, found)
        others = [each for each in _having(settings, sample_id) if each.name != release.name]
        if asks_json(request):
            others_named = [each.name for each in others]
            body = {"release": release.name, "id": sample_id, "row": plain_row(found)}
            return JSONResponse(body | {"releases": others_named, "same": same.as_dict()})
        return render(
            request, "explore/row.html", release=release, sample_id=sample_id, row=found,
            shape=release.shape, others=others, path_of=path_of, same=same, settings=settings,
        )  # fmt: skip

    def by_id(request: Request) -> Response:
        sample_id = request.path_params["sample_id"]
        gone = sample_id in releases.hidden([sample_id])
        found = [] if gone else _having(settings, sample_id)
        if asks_json(request):
            return JSONResponse({"id": sample_id, "releases": [each.name for each in found]})
        if not found:
            raise HTTPException(404, f"no release that is shown here has the SAMPLE_ID {sample_id}")
        if len(found) == 1:
            return RedirectResponse(f"{path_of(found[0])}/{sample_id}")
        return render(
            request, "explore/sample.html", sample_id=sample_id, found=found, path_of=path_of
        )

    def of_form(request: Request) -> Response:
        number = request.query_params.get("id", "").strip()
        if not number.isascii() or not number.isdecimal() or len(number) > 19:
            raise UserError("id: a SAMPLE_ID is a whole number")
        return RedirectResponse(f"/id/{int(number)}")

    pages: list[tuple[str, Answer]] = [
        ("/", index), ("/id", of_form), ("/id/{sample_id:int}", by_id),
        ("/r/{name}", browse), ("/r/{name}/{sample_id:int}", row),
    ]  # fmt: skip
    return [Route(path, told(page), methods=["GET"]) for path, page in pages]


def told(page: Answer) -> Answer:
    """The page, which answers 503 where its query took too long."""

    def answered(request: Request) -> Response:
        try:
            return page(request)
        except QueryTooLong as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from None

    return answered


def asks_json(request: Request) -> bool:
    return request.query_params.get("format") == "json" or wants_json(request)


def path_of(release: OpenRelease) -> str:
    return f"/r/{quote(release.name, safe='')}"


def served(settings: ExploreSettings, name: str) -> OpenRelease:
    """A release by its name. Raises HTTPException 404 where there is none, 503 where it is not
    whole."""
    release = settings.releases.get(name)
    if release is None:
        raise HTTPException(404, "there is no such release here")
    if release.trouble:
        raise HTTPException(503, f"this release cannot be shown: {release.trouble}")
    return release


def shown_row(settings: ExploreSettings, release: OpenRelease, sample_id: int) -> Row:
    """Raises HTTPException 404 for a row that there is not, 410 for one that was removed since."""
    found = release.row(sample_id)
    if found is None:
        raise HTTPException(404, f"{release.name} has no row with the SAMPLE_ID {sample_id}")
    if sample_id in settings.releases.hidden([sample_id]):
        raise HTTPException(410, "this row was removed, and is not shown any more")
    return found


def plain_row(row: Row) -> dict[str, Any]:
    """A row as JSON has it: no NaN and no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _having(settings: ExploreSettings, sample_id: int) -> list[OpenRelease]:
    return [each for each in settings.releases.served() if each.row(sample_id) is not None]


def _about(release: OpenRelease) -> dict[str, Any]:
    recipe = release.manifest.get("recipe", {})
    return {
        "name": release.name, "rows": release.count, "trouble": release.trouble or None,
        "partial": release.partial, "recipe": recipe.get("name"), "version": recipe.get("version"),
        "licence": recipe.get("licence"), "manifest_sha256": release.manifest_sha256 or None,
        "columns": release.manifest.get("columns", {}),
    }  # fmt: skip


def _listed(release: OpenRelease, asked: AskedRows, page: RowPage) -> dict[str, Any]:
    summary = page.summary
    following = f"{path_of(release)}?{asked.link(page.after)}" if page.after else None
    return {
        "release": release.name, "partial": release.partial, "searched_rows": release.searched,
        "count": summary.count, "about": summary.about, "sampled_one_in": summary.sampled,
        "rows": [{"id": number, "row": plain_row(row)} for number, row in page.rows],
        "hidden": page.hidden, "next": following, "after": page.after or None,
        "histograms": [asdict(each) for each in summary.histograms],
        "values": [asdict(each) for each in summary.values],
        "loosen": [{"filter": a, "without_it": n} for a, _, n in summary.loosen],
    }  # fmt: skip


def _offered(release: OpenRelease, asked: AskedRows) -> dict[str, list[str]]:
    """Of each choice the values that the form offers: those that the release has most of, and
    those that are chosen."""
    keys = {"language": "languages", "licence": "licences"}
    tops = release.statistics.get("top", {})
    found = {}
    for role in CHOICES:
        if column := release.shape.get(role):
            known = tops.get(keys.get(role, column), {}).get("values", [])
            values = [str(each["value"]) for each in known[:FEW]]
            values += dict(asked.filter.choices).get(role, ())
            found[role] = list(dict.fromkeys([*values, NONE]))
    return found


def _given(asked: AskedRows) -> dict[str, Any]:
    """The form's values."""
    ranges = {
        f"{end}_{name}": f"{value:g}"
        for name, bounds in asked.filter.ranges
        for end, value in (("min", bounds.low), ("max", bounds.high))
        if value is not None
    }
    return ranges | {name: list(values) for name, values in asked.filter.choices}


def _orders(release: OpenRelease) -> list[tuple[str, str]]:
    found = [("id", "SAMPLE_ID")]
    for name in sorts(release):
        if name != "id":
            found += [(f"-{name}", f"{safe(name)}, high first"), (name, f"{safe(name)}, low first")]
    return found


def _bounds(release: OpenRelease) -> list[tuple[str, str]]:
    """(name, label) of the ranges that the form has."""
    shape = release.shape
    found = [(name, said) for name, said in RANGES.items() if shape.get(name)]
    if shape.get("width") and shape.get("height"):
        found.insert(2, ("aspect", RANGES["aspect"]))
    return found + [(tag.lower(), tag) for tag in shape.tags]


def _numbers(histogram: RowHistogram) -> list[tuple[str, str]]:
    edges = zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
    return [(f"{low:g} to {high:g}", number(count)) for low, high, count in edges]


def _shown(rows: list[tuple[str, int]]) -> list[tuple[str, str]]:
    return [(safe(value), number(count)) for value, count in rows]
