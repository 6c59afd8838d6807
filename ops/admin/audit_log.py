"""The audit log: what admins do, by a page or by a command, with what came of it."""

import getpass
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows
from pairmill.workers.errors import WorkerError
from pairmill.workers.safe_text import safe

LONGEST = 2_000  # characters of a text in an entry: a reason may be a page long
MOST = 50  # values of a list in an entry: a bulk names a thousand tasks


@dataclass(frozen=True)
class Actor:
    """Who acts. role: admin, viewer, or none where nobody was let in. origin: page or command."""

    name: str
    role: str = "admin"
    origin: str = "page"
    session: int | None = None


@dataclass
class Deed:
    """What came of an action: how many tasks, rows or pairs it changed, and what it said."""

    affected: int | None = None
    answer: dict[str, Any] = field(default_factory=dict)


def of_command() -> Actor:
    """Whoever runs the command, as this machine names them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        user = "unknown"
    return Actor(f"{user}@{socket.gethostname()}", origin="command")


@contextmanager
def acting(
    connection: psycopg.Connection, by: Actor, action: str, arguments: Mapping[str, Any]
) -> Iterator[Deed]:
    """An action that is in the audit log however it ends: an entry before it, so that not even a
    crash leaves a change without one, and another after it. Rehearsals are not noted."""
    begun = note(connection, by, action, arguments, "begun")
    deed = Deed()
    try:
        yield deed
    except BaseException as error:
        outcome = "refused" if isinstance(error, UserError | WorkerError) else "failed"
        said = str(error) or type(error).__name__
        with suppress(psycopg.Error):  # a connection that was lost: the entry stays unfinished
            note(connection, by, action, {}, outcome, begun, None, {"why": said})
        raise
    note(connection, by, action, {}, "done", begun, deed.affected, deed.answer)


def note(
    connection: psycopg.Connection,
    by: Actor,
    action: str,
    arguments: Mapping[str, Any],
    outcome: str,
    begun: int | None = None,
    affected: int | None = None,
    answer: Mapping[str, Any] | None = None,
) -> int:
    """Add an entry; its number. Texts are kept as they would be shown, so that no character of
    theirs hides one. outcome: begun, done, refused or failed; begun: the entry of the beginning."""
    values = {
        "actor": safe(by.name, LONGEST), "role": by.role, "origin": by.origin,
        "session": by.session, "action": safe(action, LONGEST),
        "arguments": Jsonb(_kept(dict(arguments))), "outcome": outcome, "begun": begun,
        "affected": affected, "answer": Jsonb(_kept(dict(answer or {}))),
    }  # fmt: skip
    ((number,),) = connection.execute(query_text("admin", "audit/add"), values).fetchall()
    return int(number)


def entries(
    connection: psycopg.Connection,
    *,
    action: str | None = None,
    actor: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """The log, the newest first. action: its name, or its subject (task). before: a number."""
    query = query_text("admin", "audit/list")
    return rows(connection, query, action=action, actor=actor, before=before, limit=limit)


def _kept(value: Any) -> Any:
    """A value as JSON whose texts are of bounded length and safe to show."""
    match value:
        case dict():
            return {safe(k, LONGEST): _kept(v) for k, v in value.items()}
        case list() | tuple():
            kept = [_kept(v) for v in value[:MOST]]
            return kept if len(value) <= MOST else [*kept, f"and {len(value) - MOST:,} more"]
        case bool() | int() | float() | None:
            return value
    return safe(value, LONGEST)
