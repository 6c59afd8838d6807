"""Logging in by a link that works once, and logging out."""

from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pairmill.ops.admin import page_sessions
from pairmill.ops.errors import UserError
from pairmill.ops.web.console.layout import page
from pairmill.ops.web.console.visitors import COOKIE, Visitor
from pairmill.ops.web.limits import network_of

# of a network: what is refused is in the audit log, and nobody can take it out again
ATTEMPTS = "10/minute;60/hour"
NO_STORE = {"Cache-Control": "no-store"}


def login_page(request: Request, visitor: Visitor | None, form: Any) -> Response:
    """A button, and not the login itself: mail scanners and previews open links, too. The link is
    not looked up: the answer is the same for every one."""
    token = request.query_params.get("token", "")
    return page(request, None, "login", token=token if len(token) < 100 else "", said="")


def login(request: Request, visitor: Visitor | None, form: Any) -> Response:
    """Opens a session under a new secret, and ends the one that this browser had: whoever planted a
    cookie knows nothing of the session. Raises HTTPException 429 beyond ATTEMPTS."""
    if request.app.state.attempts:
        request.app.state.attempts.check(request)
    try:
        with request.app.state.owner.connection() as connection:
            secret, _ = page_sessions.log_in(
                connection, str(form.get("token", "")), network_of(request)
            )
            if old := request.cookies.get(COOKIE):
                page_sessions.log_out(connection, old)
    except UserError as refused:
        return page(request, None, "login", 403, token="", said=str(refused))
    response = RedirectResponse("/", 303, NO_STORE)
    response.set_cookie(
        COOKIE, secret, max_age=page_sessions.SESSION_SECONDS, path="/", secure=True,
        httponly=True, samesite="strict",
    )  # fmt: skip
    return response


def logout(request: Request, visitor: Visitor, form: Any) -> Response:
    """Ends the session in the database, and forgets its cookie."""
    if secret := request.cookies.get(COOKIE):
        with request.app.state.owner.connection() as connection:
            page_sessions.log_out(connection, secret)
    response = RedirectResponse("/login", 303, NO_STORE)
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")
    return response
