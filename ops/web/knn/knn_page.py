"""A page to search by, which works without a script: text, an image, or a sample; the results are
links, and no image is loaded from anywhere."""

from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pairmill.ops.errors import UserError
from pairmill.ops.web.knn.request import KnnQuery, QueryPart, sample_id
from pairmill.ops.web.knn.service import KnnService
from pairmill.ops.web.render import render

SEARCH, UPLOAD = "/search", "/search/image"
COUNT, MOST = 20, 100


async def search_page(request: Request) -> Response:
    """The form; with ?text= or ?id= its answer, too."""
    given = request.query_params
    text, sample = given.get("text", "").strip(), given.get("id", "").strip()
    asked: dict[str, Any] = {"text": text, "id": sample}
    try:
        part = _part(text, sample)
    except UserError as error:
        return _shown(request, asked, error=str(error), status=400)
    return await _found(request, given.get("index", ""), given.get("unsafe") == "1", asked, part)


async def upload(request: Request) -> Response:
    """The answer to an image, which is not kept."""
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("image")
        index, unsafe = str(form.get("index", "")), form.get("unsafe") == "1"
        body = await file.read() if isinstance(file, UploadFile) else b""
    if not body:
        return _shown(request, {}, error="choose an image first", status=400)
    return await _found(request, index, unsafe, {}, QueryPart(image=body))


async def _found(
    request: Request, index: str, unsafe: bool, asked: dict[str, Any], part: QueryPart | None
) -> Response:
    asked = asked | {"index": index, "unsafe": unsafe}
    if part is None:
        return _shown(request, asked)
    service: KnnService = request.app.state.service
    query = KnnQuery((part,), index or None, COUNT, COUNT, safe=not unsafe)
    try:
        result = await service.knn(query)
    except UserError as error:
        return _shown(request, asked, error=str(error), status=400)
    except HTTPException as error:
        return _shown(
            request, asked, error=error.detail, status=error.status_code, headers=error.headers
        )
    return _shown(request, asked, rows=result.rows, notes=result.notes)


def _part(text: str, sample: str) -> QueryPart | None:
    if text:
        if len(text) > 1_000:
            raise UserError("the text has 1,000 characters at most")
        return QueryPart(text=text)
    if not sample:
        return None
    if not (sample.isascii() and sample.isdigit() and len(sample) < 20):
        raise UserError("a SAMPLE_ID is a whole number")
    return QueryPart(sample_id=sample_id(int(sample)))


def _shown(
    request: Request,
    asked: dict[str, Any],
    *,
    rows: list[dict[str, Any]] | None = None,
    notes: list[str] | None = None,
    error: str = "",
    status: int = 200,
    headers: Any = None,
) -> Response:
    service: KnnService = request.app.state.service
    return render(
        request,
        "knn/search.html",
        status,
        {"Cache-Control": "no-store"} | dict(headers or {}),
        asked={"text": "", "id": "", "index": "", "unsafe": False} | asked,
        indexes=service.indexes.names(),
        models=bool(service.encoders),
        allow_unsafe=service.allowed.unsafe,
        rows=rows,
        notes=notes or [],
        error=error,
        search=SEARCH,
        upload=UPLOAD,
    )
