"""Who is at the admin's page: by the cookie of a session, or as a proxy names them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import psycopg
from psycopg_pool import ConnectionPool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from pairmill.ops.admin import page_sessions
from pairmill.ops.admin.audit_log import Actor
from pairmill.ops.errors import UserError

# __Host-: browsers take it only with Secure, without a domain, for the path /: no other host of the
# domain and no page without TLS can set it. They count loopback as secure
COOKIE = "__Host-pairmill-admin"
EVERYBODY = "*"
Pool = ConnectionPool[psycopg.Connection]


@dataclass(frozen=True)
class Visitor:
    """Somebody who was let in. key: what belongs to this session and no other is kept under it.
    expires_at: None where a proxy decides."""

    actor: Actor
    key: str
    expires_at: datetime | None = None

    @property
    def name(self) -> str:
        return self.actor.name

    @property
    def may_act(self) -> bool:
        return self.actor.role == "admin"


class Visitors(Protocol):
    """Knows who a request is of."""

    has_sessions: bool

    def of(self, request: Request) -> Visitor | None:
        """None: nobody whom it lets in. Raises HTTPException where that cannot be told."""
        ...


class BySession:
    """By the cookie that `pairmill web login`'s link set."""

    has_sessions = True

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def of(self, request: Request) -> Visitor | None:
        secret = request.cookies.get(COOKIE, "")
        if not secret:
            return None
        with self._pool.connection() as connection:
            found = page_sessions.session_of(connection, secret)
        if not found:
            return None
        return Visitor(found.actor, f"session {found.session_id}", found.expires_at)


class ByProxy:
    """By a header of the proxy, which is the only one that reaches the Unix socket.

    admins, viewers: the identities that are let in; * stands for everybody whom the proxy lets in.
    """

    has_sessions = False

    def __init__(self, header: str, admins: Collection[str], viewers: Collection[str]) -> None:
        if not admins and not viewers:
            raise UserError(
                "--proxy-header lets in whom --admins and --viewers name: give one of them"
            )
        if EVERYBODY in admins:
            raise UserError("--admins names people, one by one; --viewers may be *")
        self._header = header
        self._admins = frozenset(admins)
        self._viewers = frozenset(viewers)

    def of(self, request: Request) -> Visitor | None:
        names = request.headers.getlist(self._header)
        # two are the proxy's and somebody else's: which is which is not told
        if len(names) > 1:
            raise HTTPException(400, f"the header {self._header} came more than once")
        name = names[0].strip() if names else ""
        if not name:
            return None
        if name in self._admins:
            role = "admin"
        elif name in self._viewers or EVERYBODY in self._viewers:
            role = "viewer"
        else:
            return None
        return Visitor(Actor(name, role), f"proxy {name}")
