"""The answer to a request that failed: a page, or JSON where JSON was asked for."""

from http import HTTPStatus

import psycopg
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pairmill.ops.errors import UserError
from pairmill.ops.web.render import render
from pairmill.workers.safe_text import safe, say_traceback

SENTENCES = {
    400: "The request is not one that this page understands.",
    403: "The request came from another site, or this is not yours to see.",
    404: "There is no such page.",
    405: "This address does not take that method.",
    413: "The request is larger than this page takes.",
    414: "The address is longer than this page takes.",
    421: "No site of that name is here: who runs this page names it with --host NAME.",
    429: "Too many requests came from your network: wait a little.",
    431: "The request's header is larger than this page takes.",
    500: "A fault of this program's: it was written to its log.",
    503: "The page is busy, or its database is away: try again in a few seconds.",
}
RETRY_SECONDS = "5"


def answer(request: Request, error: Exception) -> Response:
    """The response to an error: HTTPException as it says, UserError 400 with its sentence, a value
    that is no text of the database's 400, the database's absence 503, and everything else 500,
    whose traceback only the log has."""
    headers: dict[str, str] = {}
    if isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        plain = error.detail == HTTPStatus(status).phrase
        sentence = SENTENCES.get(status, error.detail) if plain else error.detail
    elif isinstance(error, UserError):
        status, sentence = 400, str(error)
    elif isinstance(error, (psycopg.DataError, UnicodeEncodeError)):  # NUL, half a surrogate pair
        status, sentence = 400, "The request holds a value that the database does not take."
    elif isinstance(error, psycopg.OperationalError):
        status, sentence, headers = 503, SENTENCES[503], {"Retry-After": RETRY_SECONDS}
    else:
        status, sentence = 500, SENTENCES[500]
        say_traceback(error)
    if status == 204 or status == 304:
        return Response(status_code=status, headers=headers)
    headers |= {"Cache-Control": "no-store"}
    if wants_json(request):
        return JSONResponse({"error": safe(sentence), "status": status}, status, headers)
    return render(
        request,
        "error.html",
        status,
        headers,
        code=status,
        phrase=HTTPStatus(status).phrase,
        sentence=sentence,
    )


def wants_json(request: Request) -> bool:
    """Whether JSON is asked for: by the path, by Accept, or of a site that has nothing else."""
    accept = request.headers.get("accept", "")
    return (
        request.app.state.site.json_errors
        or request.scope["path"].endswith(".json")
        or ("application/json" in accept and "text/html" not in accept)
    )
