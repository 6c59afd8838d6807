"""Pages of people: workers, checks, requests for removal, sessions, the audit log."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pairmill.ops.admin import removal_requests
from pairmill.ops.admin.page_sessions import IDLE_SECONDS
from pairmill.ops.web.console.layout import (
    PAGE,
    given,
    older,
    page,
    path_number,
    section,
    whole,
)
from pairmill.ops.web.console.readings import first, readings_of
from pairmill.ops.web.console.visitors import Visitor

WORKERS = (
    ("name", "Worker", "worker"), ("kind", "Kind", "text"), ("standing", "Standing", "text"),
    ("version", "Version", "text"), ("last_seen_at", "Last seen", "ago"),
    ("leases", "Leases", "number"), ("agreement", "Agreement", "percent"),
    ("streak", "Streak", "number"), ("disabled_because", "Why disabled", "text"),
)  # fmt: skip
HELD = (
    ("task_id", "Task", "task"), ("kind", "Kind", "text"), ("claimed_at", "Claimed", "ago"),
    ("seconds", "For", "seconds"), ("expires_at", "Late from", "ago"),
)  # fmt: skip
CAME = (
    ("state", "State", "text"), ("submissions", "Submissions", "number"),
    ("rows", "Rows", "number"), ("last_at", "Last", "ago"),
)  # fmt: skip
CHECKS = (
    ("replication_id", "Check", "number"), ("worker", "Worker", "worker"),
    ("batch_id", "Batch", "number"), ("kind", "By", "text"), ("state", "State", "text"),
    ("compared", "Compared", "number"), ("agreed", "Agreed", "number"),
    ("share", "Share", "percent"), ("opened_at", "Drawn", "ago"), ("decided_at", "Decided", "ago"),
)  # fmt: skip
REQUESTS = (
    ("request_id", "Request", "request"), ("state", "State", "text"), ("due_at", "Due", "ago"),
    ("late", "Late", "yes"), ("entries", "First entries", "list"), ("count", "Entries", "number"),
    ("received_at", "Received", "ago"), ("decided_at", "Decided", "ago"),
    ("decided_by", "By", "text"),
)  # fmt: skip
AUDIT = (
    ("audit_id", "Entry", "number"), ("at", "When", "ago"), ("actor", "Who", "text"),
    ("role", "Role", "text"), ("origin", "By", "text"), ("action", "Action", "text"),
    ("arguments", "With", "json"), ("outcome", "Outcome", "text"),
    ("affected", "Changed", "number"), ("answer", "Answer", "json"),
)  # fmt: skip
SESSIONS = (
    ("session_id", "Session", "number"), ("name", "Name", "text"), ("role", "Role", "text"),
    ("is_open", "Open", "yes"), ("made_at", "Since", "ago"), ("last_seen_at", "Last seen", "ago"),
    ("expires_at", "Ends", "ago"), ("ended_at", "Ended by hand", "ago"),
    ("network", "Network", "text"),
)  # fmt: skip
CHECK_STATES = ("open", "disputed", "agreed", "failed", "void")
REQUEST_STATES = ("open", "approved", "refused")


def _one_of(value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise HTTPException(400, "there is no such state")


def workers(request: Request, visitor: Visitor, form: Any) -> Response:
    """Those who may work, and those who were stopped."""
    found = readings_of(request).asked("workers", name=None)
    return page(
        request, visitor, "sections", title="Workers",
        lead="Whoever may work first, of them whoever was seen last.",
        sections=[section("Workers", WORKERS, found,
                          "No workers: add one with `pairmill worker add NAME --kind KIND`.")],
    )  # fmt: skip


def worker(request: Request, visitor: Visitor, form: Any) -> Response:
    """A worker, by the parameter name: a name may hold any character."""
    name = request.query_params.get("name", "")
    r = readings_of(request)
    row = first(r.rows("workers", name=name))
    if not row:
        raise HTTPException(404, "there is no worker of that name")
    checks = r.asked("checks", worker=name, state=None, before=None, limit=20)
    return page(
        request, visitor, "worker", worker=row,
        held=section("Leases that it holds", HELD, r.asked("worker_leases", name=name), "None."),
        came=section("Its newest 1,000 submissions", CAME, r.asked("worker_submissions", name=name),
                     "None yet."),
        checks=section("Its newest checks", CHECKS, checks, "None yet."),
    )  # fmt: skip


def checks(request: Request, visitor: Visitor, form: Any) -> Response:
    """Checks of workers' downloads, and disputes."""
    chosen = given(request, "worker", "state")
    _one_of(chosen["state"], CHECK_STATES)
    before = whole(request, "before")
    found = readings_of(request).asked("checks", **chosen, before=before, limit=PAGE)
    return page(
        request, visitor, "sections", title="Checks",
        lead="Repeats of samples by other workers, and gold questions. In a dispute a third worker"
        " decides; docs/trust.md says how.",
        filters=[("state", "State", chosen["state"], CHECK_STATES),
                 ("worker", "Worker", chosen["worker"], None)],
        sections=[section("Checks", CHECKS, found, "No checks: they come with the downloads of"
                          " unproven workers.")],
        next=older(request, found.rows, "replication_id"),
    )  # fmt: skip


def requests(request: Request, visitor: Visitor, form: Any) -> Response:
    """Requests for removal."""
    state = given(request, "state")["state"]
    _one_of(state, REQUEST_STATES)
    found = readings_of(request).asked("requests", state=state, before=None, limit=500)
    return page(
        request, visitor, "sections", title="Requests for removal",
        lead="Those that are due first at the top. Nothing is removed before it is approved.",
        filters=[("state", "State", state, REQUEST_STATES)],
        sections=[section("Requests", REQUESTS, found, "No such requests.")],
    )  # fmt: skip


def removal_request(request: Request, visitor: Visitor, form: Any) -> Response:
    """A request; who asked, and why they may, for an admin alone."""
    number = path_number(request)
    row = first(readings_of(request).rows("request", request=number))
    if not row:
        raise HTTPException(404, f"there is no request {number}")
    if visitor.may_act:
        with request.app.state.owner.connection() as connection, connection.transaction():
            connection.execute("set transaction read only")
            row |= {
                key: value
                for key, value in removal_requests.get(connection, number).items()
                if key in ("requester", "evidence", "attachment", "origin")
            }
    return page(request, visitor, "request", row=row)


def audit(request: Request, visitor: Visitor, form: Any) -> Response:
    """What was done, by whom."""
    chosen = given(request, "action", "actor")
    found = readings_of(request).asked(
        "audit", **chosen, before=whole(request, "before"), limit=PAGE
    )  # fmt: skip
    return page(
        request, visitor, "sections", title="Audit log",
        lead="What admins did, by this page and by the command. Nobody can change an entry.",
        filters=[("action", "Action, or its subject", chosen["action"], None),
                 ("actor", "Who", chosen["actor"], None)],
        sections=[section("Entries", AUDIT, found, "No entries.")],
        next=older(request, found.rows, "audit_id"),
    )  # fmt: skip


def sessions(request: Request, visitor: Visitor, form: Any) -> Response:
    """Who is logged in. A viewer sees their own sessions alone."""
    found = readings_of(request).rows("sessions", idle=IDLE_SECONDS)
    mine = visitor.actor.session
    shown = [row for row in found if visitor.may_act or row["session_id"] == mine]
    return page(request, visitor, "sessions", columns=SESSIONS, rows=shown, mine=mine)
