"""The application of the admin's page: its routes, each with who may ask for it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pairmill.ops.admin.audit_log import note
from pairmill.ops.errors import UserError
from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.console import act, entrance, pages_data, pages_people, pages_queue
from pairmill.ops.web.console.background import Jobs
from pairmill.ops.web.console.confirmations import Confirmations
from pairmill.ops.web.console.growth import Growth
from pairmill.ops.web.console.layout import page
from pairmill.ops.web.console.readings import TIMEOUT_MS, Readings
from pairmill.ops.web.console.visitors import BySession, Visitor, Visitors
from pairmill.ops.web.database import pool
from pairmill.ops.web.limits import Rate

Endpoint = Callable[[Request, Any, Any], Response]
LONGEST = 10_000  # characters of a parameter: a thousand task numbers are some 8,000
NAV = (
    ("/", "Overview"), ("/failures", "Failures"), ("/tasks", "Tasks"), ("/waiting", "Waiting"),
    ("/workers", "Workers"), ("/checks", "Checks"), ("/requests", "Removal requests"),
    ("/data", "Data"), ("/storage", "Storage"), ("/audit", "Audit log"), ("/sessions", "Sessions"),
)  # fmt: skip
NOBODY, VIEWER, ADMIN = "nobody", "viewer", "admin"
# who may ask: nobody needs to be known, a viewer may look, an admin may act
PAGES: tuple[tuple[str, str, str, Endpoint], ...] = (
    ("GET", "/login", NOBODY, entrance.login_page),
    ("POST", "/login", NOBODY, entrance.login),
    ("POST", "/logout", VIEWER, entrance.logout),
    ("GET", "/", VIEWER, pages_queue.overview),
    ("GET", "/failures", VIEWER, pages_queue.failures),
    ("GET", "/waiting", VIEWER, pages_queue.waiting),
    ("GET", "/tasks", VIEWER, pages_queue.tasks),
    ("GET", "/tasks/{number:int}", VIEWER, pages_queue.task),
    ("GET", "/workers", VIEWER, pages_people.workers),
    ("GET", "/worker", VIEWER, pages_people.worker),
    ("GET", "/checks", VIEWER, pages_people.checks),
    ("GET", "/requests", VIEWER, pages_people.requests),
    ("GET", "/requests/{number:int}", VIEWER, pages_people.removal_request),
    ("GET", "/data", VIEWER, pages_data.data),
    ("GET", "/storage", VIEWER, pages_data.storage),
    ("GET", "/audit", VIEWER, pages_people.audit),
    ("GET", "/sessions", VIEWER, pages_people.sessions),
    ("GET", "/act/{action}", ADMIN, act.ask),
    ("POST", "/act/{action}", ADMIN, act.confirm),
    ("GET", "/work/{job}", ADMIN, act.work),
)


def make_console(
    owner_dsn: str,
    viewer_dsn: str,
    connect: Callable[[], psycopg.Connection],
    *,
    visitors: Visitors | None = None,
    rate: str | None = "20/second;300/minute",
) -> Starlette:
    """The application. owner_dsn: an admin's, for sessions and the audit log; viewer_dsn: for what
    is shown; connect: a connection as the command's, for each action. visitors: by session, unless
    a proxy names them. rate: as Site's."""
    owner = pool(owner_dsn, read_only=False)
    reader = pool(viewer_dsn, timeout_ms=TIMEOUT_MS)
    jobs, readings = Jobs(connect), Readings(reader)
    growth = Growth(readings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        growth.start()
        try:
            yield
        finally:
            growth.stop()
            await run_in_threadpool(jobs.close)
            for each in (owner, reader):
                await run_in_threadpool(each.close, 2.0)

    site = Site(
        "admin", "Pairmill admin", nav=NAV, loopback_only=True, concurrency=16, rate=rate,
        robots="User-agent: *\nDisallow: /\n",
    )  # fmt: skip
    return make_app(
        site,
        routes(),
        lifespan=lifespan,
        state={
            "owner": owner, "readings": readings, "jobs": jobs, "growth": growth,
            "confirmations": Confirmations(), "visitors": visitors or BySession(owner),
            "attempts": Rate(entrance.ATTEMPTS) if rate else None,
        },
    )  # fmt: skip


def routes() -> list[Route]:
    """A route for each of PAGES."""
    return [
        Route(path, _guarded(endpoint, who), methods=[method])
        for method, path, who, endpoint in PAGES
    ]


def _guarded(endpoint: Endpoint, who: str) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        form = await request.form() if request.method == "POST" else {}
        _check([*request.query_params.multi_items(), *getattr(form, "multi_items", list)()])
        return await run_in_threadpool(_answered, request, form, endpoint, who)

    return handle


def _answered(request: Request, form: Any, endpoint: Endpoint, who: str) -> Response:
    if who == NOBODY:
        return endpoint(request, None, form)
    visitors: Visitors = request.app.state.visitors
    visitor = visitors.of(request)
    if visitor is None:
        return page(request, None, "login", 401, token="", said="")
    if who == ADMIN and not visitor.may_act:
        _note_refusal(request, visitor)
        raise HTTPException(403, "You may look, and change nothing: this is for an admin.")
    # a proxy's own cookie may come along from another site, and a rehearsal holds locks
    if who == ADMIN and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise HTTPException(403, "Another site led here: come by this page's own buttons.")
    try:
        return endpoint(request, visitor, form)
    except UserError as refused:
        return page(request, visitor, "refused", 409, title="Not done", said=str(refused))


def _note_refusal(request: Request, visitor: Visitor) -> None:
    asked = f"{request.method} {request.scope['path']}"
    with request.app.state.owner.connection() as connection:
        note(connection, visitor.actor, "page.refused", {"request": asked}, "refused")


def _check(given: Sequence[tuple[str, Any]]) -> None:
    """Raises HTTPException for what no column takes: NUL, half a character, files, long texts."""
    for name, value in given:
        for text in (name, value):
            if not isinstance(text, str) or len(text) > LONGEST:
                raise HTTPException(400, "a parameter is longer than this page takes")
            if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
                raise HTTPException(400, "a parameter holds a character that is none")
