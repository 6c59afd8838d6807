"""What an admin does to workers: disable, enable, prove, quarantine, and the note of a network."""

from datetime import datetime
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

QUARANTINED = "quarantined by an admin"


def no_worker(name: str) -> UserError:
    return UserError(f"there is no worker {name!r}: see `pairmill worker list`")


def disable(
    connection: psycopg.Connection, name: str, reason: str, *, no_login: bool = False
) -> None:
    """End a worker's rights and its sessions. no_login: it is not even told why. Raises UserError
    where there is none of that name; so do the others."""
    _found(connection, name, "mill.disable_worker(%s, %s, %s)", name, reason, no_login)


def enable(connection: psycopg.Connection, name: str, *, proven: bool = False) -> None:
    """Let a disabled or stopped worker work again; proven: as one that an admin vouches for. Raises
    UserError where it may work already."""
    with connection.transaction():
        of = "select disabled_at is not null from mill.worker where name = %s"
        row = connection.execute(of, (name,)).fetchone()
        if not row:
            raise no_worker(name)
        if not row[0]:
            raise UserError(f"{name} is not disabled: nothing was changed")
        connection.execute("select mill.enable_worker(%s)", (name,))
        if proven:
            prove(connection, name)


def prove(connection: psycopg.Connection, name: str, *, proven: bool = True) -> None:
    """Vouch for a worker, or no longer."""
    _found(connection, name, "mill.prove_worker(%s, %s)", name, proven)


def set_network(connection: psycopg.Connection, name: str, network: str) -> None:
    """Note where a worker connects from; an empty text: not known."""
    _found(connection, name, "mill.set_network(%s, %s)", name, network)


def quarantine(
    connection: psycopg.Connection,
    name: str,
    since: datetime | None,
    reason: str,
    *,
    dry_run: bool,
) -> dict[str, int]:
    """End a worker, withdraw all that it contributed since then (None: ever) and queue that again;
    the numbers of leases, rejected and withdrawn submissions, their rows, and tasks queued. With
    dry_run they are what would be, and the worker's sessions go on."""
    if not dry_run:
        disable(connection, name, reason)
    with connection.transaction(force_rollback=dry_run):
        (found,) = rows(
            connection, "select * from mill.quarantine_worker(%s, %s, %s)", name, since, reason
        )
    if found["leases"] is None:
        raise no_worker(name)
    return found


def quarantined(name: str, found: dict[str, int], would: str) -> str:
    """The numbers of a quarantine in a sentence. would: "would be ", or nothing."""
    return (
        f"{name}: {found['rows']:,} rows of {found['withdrawn']:,} submissions {would}withdrawn,"
        f" {found['rejected']:,} submissions {would}rejected, {found['leases']:,} leases"
        f" {would}ended; {found['tasks']:,} tasks {would}queued again"
    )


def _found(connection: psycopg.Connection, name: str, call: str, *arguments: Any) -> None:
    row = connection.execute(f"select {call}", arguments).fetchone()
    if not row or not row[0]:
        raise no_worker(name)
