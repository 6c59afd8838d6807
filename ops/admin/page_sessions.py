"""Who may come in through the admin's page: links that work once, and the sessions that they open.

Of a link or a cookie the database has the sha256 alone: a copy of it lets nobody in.
"""

import hashlib
import secrets
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.admin.audit_log import Actor, note
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

LINK_SECONDS = 10 * 60
SESSION_SECONDS = 8 * 3600
IDLE_SECONDS = 2 * 3600
BYTES = 32  # 256 bits: OWASP ASVS 5, 7.2.3 wants 128


@dataclass(frozen=True)
class PageSession:
    """An open session of the admin's page. role: admin or viewer."""

    session_id: int
    name: str
    role: str
    expires_at: Any

    @property
    def actor(self) -> Actor:
        return Actor(self.name, self.role, "page", self.session_id)


def new_link(connection: psycopg.Connection, name: str, role: str, by: Actor) -> str:
    """The token of a new link, which opens one session within ten minutes. Raises UserError."""
    if not name.strip() or len(name) > 200:
        raise UserError("--name is the name that the audit log shows: 1 to 200 characters")
    token = secrets.token_urlsafe(BYTES)
    values = {
        "hash": _hash(token), "name": name.strip(), "role": role, "by": by.name,
        "seconds": LINK_SECONDS,
    }  # fmt: skip
    with connection.transaction():
        connection.execute(_query("new_link"), values)
        note(connection, by, "session.link", {"name": name, "role": role}, "done")
    return token


def log_in(connection: psycopg.Connection, token: str, network: str) -> tuple[str, PageSession]:
    """A new session's secret, for its cookie, and the session. Raises UserError where the link was
    used, is older than ten minutes, or never was one: which of these is not said."""
    secret = secrets.token_urlsafe(BYTES)
    values = {
        "link": _hash(token), "hash": _hash(secret), "network": network,
        "seconds": SESSION_SECONDS,
    }  # fmt: skip
    with connection.transaction():
        found = rows(connection, _query("log_in"), **values)
        for each in found:
            note(connection, PageSession(**each).actor, "session.login", {}, "done")
    if not found:
        nobody = Actor(network or "unknown", "none")
        note(connection, nobody, "session.login", {}, "refused", answer={"why": "no such link"})
        raise UserError(
            "this link was used, or is older than ten minutes: `pairmill web login` prints another"
        )
    return secret, PageSession(**found[0])


def session_of(connection: psycopg.Connection, secret: str) -> PageSession | None:
    """The session of a cookie, which is noted as seen; None where there is none that is open."""
    found = rows(connection, _query("session"), hash=_hash(secret), idle=IDLE_SECONDS)
    return PageSession(**found[0]) if found else None


def log_out(connection: psycopg.Connection, secret: str) -> None:
    """End the session of a cookie."""
    with connection.transaction():
        for each in rows(connection, _query("log_out"), hash=_hash(secret)):
            note(connection, PageSession(**each).actor, "session.logout", {}, "done")


def sessions(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """The sessions of the last 90 days, the open ones first."""
    return rows(connection, _query("sessions"), idle=IDLE_SECONDS)


def end_sessions(connection: psycopg.Connection, session_id: int | None) -> int:
    """End one session, or, of None, all of them and every link that nobody used; how many
    sessions that were. Raises UserError where the one is not open."""
    ended = connection.execute(_query("end_sessions"), {"session_id": session_id}).rowcount
    if session_id is not None and not ended:
        raise UserError(f"there is no open session {session_id}: see `pairmill web sessions`")
    if session_id is None:
        connection.execute("update mill.admin_link set expires_at = now() where used_at is null")
    return ended


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _query(name: str) -> str:
    return query_text("admin", f"page_sessions/{name}")
