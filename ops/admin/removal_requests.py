"""Requests for removal: noted, and approved or refused before they are due."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any

import psycopg

from pairmill.ops.admin import removal
from pairmill.ops.admin.removal import Confirm, Report
from pairmill.ops.admin.removal_entries import parse
from pairmill.ops.admin.removal_search import Detached, Progress, silent
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

DAYS = 30  # until a request is due: the month of the GDPR's article 12(3)


def add(
    connection: psycopg.Connection,
    entries: Sequence[str],
    *,
    requester: str,
    evidence: str = "",
    received: datetime | None = None,
    days: int = DAYS,
    of_pages: bool = False,
) -> dict[str, Any]:
    """Note a request; as ``get`` has it. received: None is now. days: until it is due, from then
    on. Raises UserError where an entry is none, or nobody asks."""
    if not requester.strip():
        raise UserError("a request needs --from: who asked, and how to answer")
    for entry in entries:
        parse(entry)
    query = (
        "insert into mill.removal_request (entries, of_pages, requester, evidence, received_at,"
        " due_at) values (%(entries)s, %(of_pages)s, %(requester)s, %(evidence)s,"
        " coalesce(%(received)s, now()), coalesce(%(received)s, now()) + %(until)s)"
        " returning request_id"
    )
    values = {
        "entries": list(entries), "of_pages": of_pages, "requester": requester.strip(),
        "evidence": evidence, "received": received, "until": timedelta(days=days),
    }  # fmt: skip
    if received and received > _now(connection):
        raise UserError(f"the request was received on {received:%Y-%m-%d}, which is to come")
    ((number,),) = connection.execute(query, values).fetchall()
    return get(connection, number)


def listed(connection: psycopg.Connection, state: str | None, limit: int) -> list[dict[str, Any]]:
    """The requests, those that are due first at the top; late: open, and due already."""
    query = query_text("admin", "removal_requests")
    return rows(connection, query, request_id=None, state=state, limit=limit)


def get(connection: psycopg.Connection, number: int) -> dict[str, Any]:
    """One request. Raises UserError where there is none of that number."""
    query = query_text("admin", "removal_requests")
    found = rows(connection, query, request_id=number, state=None, limit=1)
    if not found:
        raise UserError(f"there is no request {number}: see `pairmill removal request list`")
    return found[0]


def approve(
    connection: psycopg.Connection,
    number: int,
    why: str,
    reason: str | None,
    *,
    dry_run: bool = False,
    progress: Progress = silent,
    detached: Detached | None = None,
    confirm: Confirm | None = None,
) -> Report:
    """Remove what a request names, and say so in it. reason: of the removals, for all who may see
    reports; None: the request's number. An approval that was interrupted is made again: what it
    added is known then."""
    with nullcontext() if dry_run else _deciding(connection, number):
        request = _open(connection, number)
        entries = request["entries"]
        if request["of_pages"]:
            entries = removal.of_pages(connection, entries)
        said = f"request {number}" if reason is None else reason
        report = removal.add(
            connection, entries, said, dry_run, progress, detached=detached, confirm=confirm
        )
        if not dry_run:
            ids = removal.named_by(connection, entries)
            _decide(connection, number, "approved", why, ids)
    return report


def refuse(connection: psycopg.Connection, number: int, why: str) -> dict[str, Any]:
    """Refuse a request, for a reason; as ``get`` has it."""
    if not why.strip():
        raise UserError("a refusal needs --why: its words are what you answer for")
    with _deciding(connection, number):
        _open(connection, number)
        _decide(connection, number, "refused", why, None)
    return get(connection, number)


def late(connection: psycopg.Connection) -> int:
    """How many requests are open and were due already."""
    query = "select count(*) from mill.removal_request where state = 'open' and due_at < now()"
    ((count,),) = connection.execute(query).fetchall()
    return int(count)


@contextmanager
def _deciding(connection: psycopg.Connection, number: int) -> Iterator[None]:
    """One admin at a time: the search of an approval may take an hour, its removals stand from the
    beginning, and a refusal meanwhile would say that nothing was removed. Raises UserError. The
    lock ends with the session, however that ends."""
    key = "hashtextextended('mill.removal_request', %s)"
    ((mine,),) = connection.execute(f"select pg_try_advisory_lock({key})", (number,)).fetchall()
    if not mine:
        raise UserError(f"request {number} is being decided by another admin: look again later")
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # a session that is lost, or in a transaction that failed
            connection.execute(f"select pg_advisory_unlock({key})", (number,))


def _open(connection: psycopg.Connection, number: int) -> dict[str, Any]:
    request = get(connection, number)
    if request["state"] != "open":
        by, when = request["decided_by"], request["decided_at"]
        raise UserError(
            f"request {number} was {request['state']} by {by} on {when:%Y-%m-%d}: note a new one"
        )
    return request


def _decide(
    connection: psycopg.Connection, number: int, state: str, why: str, removals: list[int] | None
) -> None:
    done = connection.execute(
        "update mill.removal_request set state = %s, decided_at = now(), decided_by = session_user,"
        " why = %s, removals = %s where request_id = %s and state = 'open'",
        (state, why, removals, number),
    )
    if not done.rowcount:
        raise UserError(f"request {number} was decided by another admin meanwhile")


def _now(connection: psycopg.Connection) -> datetime:
    ((now,),) = connection.execute("select now()").fetchall()
    return now  # type: ignore[no-any-return]
