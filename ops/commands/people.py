"""pairmill worker, pairmill researcher: logins."""

import os
import sys
from datetime import datetime
from importlib.resources import files

import psycopg
import typer

from pairmill.ops.admin import logins
from pairmill.ops.admin.connection import admin, rows
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.schema.kinds import worker_kinds
from pairmill.workers.queue import Queue
from pairmill.workers.safe_text import say

worker = typer.Typer(no_args_is_help=True, help="Workers' logins.")
researcher = typer.Typer(no_args_is_help=True, help="Researchers' logins.")
HOST = typer.Option(
    "", "--host", help="HOST or HOST:PORT of the DSN, where others reach the database by another."
)
SHOWN = ("name", "kind", "live_leases", "rows_accepted", "streak", "agreement", "started_at",
         "disabled_at")  # fmt: skip


@worker.command("add")
def worker_add(
    name: str = typer.Argument(help="What people will call it."),
    kind: str = typer.Option(..., "--kind", help=f"{', '.join(worker_kinds())}."),
    host: str = HOST,
    network: str = typer.Option("", "--network", help="Where it connects from; see `network`."),
    proven: bool = typer.Option(False, "--proven", help="It is your own; see `prove`."),
) -> None:
    """Make a worker's login and print its DSN, once: its password is kept nowhere."""
    with admin() as connection, connection.transaction():
        dsn = logins.add_worker(connection, name, kind, host)
        connection.execute("select mill.set_network(%s, %s)", (name, network))
        if proven:
            connection.execute("select mill.prove_worker(%s, true)", (name,))
    say(dsn)


@worker.command("list")
def worker_list(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """Workers, and the amounts accepted from each."""
    with admin() as connection:
        found = rows(connection, "select * from report.worker order by name")
    print_rows(
        found,
        SHOWN,
        as_json=as_json,
        empty="no workers: add one with `pairmill worker add NAME --kind KIND`",
    )


@worker.command("disable")
def worker_disable(name: str) -> None:
    """End a worker's login and its sessions. Its leases run out; what was accepted stays."""
    with admin() as connection:
        row = connection.execute("select mill.disable_worker(%s)", (name,)).fetchone()
    if not row or not row[0]:
        raise UserError(f"there is no worker {name!r}: see `pairmill worker list`")
    say(f"{name} is disabled")


@worker.command("rotate")
def worker_rotate(name: str, host: str = HOST) -> None:
    """Give a worker another password and print its new DSN, once. Its leases stay."""
    with admin() as connection:
        say(logins.rotate_worker(connection, name, host))


@worker.command("quarantine")
def worker_quarantine(
    name: str,
    since: datetime = typer.Option(None, "--since", help="Only what came in since then."),
    reason: str = typer.Option("quarantined by an admin", "--reason", help="Kept with each row."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be done."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = typer.Option(False, "--json", help="A JSON object; with --yes or --dry-run."),
) -> None:
    """End a worker, withdraw all that it contributed, and queue that again."""
    with admin() as connection:
        planned = _quarantine(connection, name, since, reason, rehearse=True)
        if not as_json:
            say(_said(name, planned, "would be "))
        if dry_run:
            if as_json:
                print_json(planned)
            return
        if not yes and not (sys.stdin.isatty() and typer.confirm("Do it?")):
            raise UserError("not confirmed, nothing was done: --yes does it without a question")
        connection.execute("select mill.disable_worker(%s)", (name,))
        done = _quarantine(connection, name, since, reason, rehearse=False)
    if as_json:
        print_json(done)
    else:
        say(_said(name, done, ""))


def _quarantine(
    connection: psycopg.Connection,
    name: str,
    since: datetime | None,
    reason: str,
    *,
    rehearse: bool,
) -> dict[str, int]:
    with connection.transaction(force_rollback=rehearse):
        (found,) = rows(
            connection, "select * from mill.quarantine_worker(%s, %s, %s)", name, since, reason
        )
    if found["leases"] is None:
        raise UserError(f"there is no worker {name!r}: see `pairmill worker list`")
    return found


def _said(name: str, found: dict[str, int], would: str) -> str:
    return (
        f"{name}: {found['rows']:,} rows of {found['withdrawn']:,} submissions {would}withdrawn,"
        f" {found['rejected']:,} submissions {would}rejected, {found['leases']:,} leases"
        f" {would}ended; {found['tasks']:,} tasks {would}queued again"
    )


@worker.command("prove")
def worker_prove(
    name: str,
    withdraw: bool = typer.Option(False, "--not", help="From now on, check it like any other."),
) -> None:
    """Vouch for a download worker: nobody checks it; what it reads in robots.txt is relied on.

    Any other is checked, and proven once ten checks in a row agreed. See docs/trust.md.
    """
    with admin() as connection:
        row = connection.execute(
            "select mill.prove_worker(%s, %s)", (name, not withdraw)
        ).fetchone()
    if not row or not row[0]:
        raise UserError(f"there is no worker {name!r}: see `pairmill worker list`")
    say(f"{name} is {'not proven' if withdraw else 'proven'}")


@worker.command("network")
def worker_network(
    name: str,
    network: str = typer.Argument(help="Any word, the same for all behind one line; '' unsets it."),
) -> None:
    """Note where a worker connects from: a dead link is believed once two networks found it so."""
    with admin() as connection:
        row = connection.execute("select mill.set_network(%s, %s)", (name, network)).fetchone()
    if not row or not row[0]:
        raise UserError(f"there is no worker {name!r}: see `pairmill worker list`")
    say(f"{name} connects from {network or 'a network that is not known'}")


@worker.command("me")
def worker_me(
    dsn: str = typer.Option(
        None, "--dsn", help="The worker's DSN; PAIRMILL_WORKER_DSN by default."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON object."),
) -> None:
    """The work done by the worker of this DSN."""
    dsn = dsn or os.environ.get("PAIRMILL_WORKER_DSN", "")
    if not dsn:
        raise UserError("which worker? Give its DSN with --dsn, or in PAIRMILL_WORKER_DSN")
    queue = Queue(dsn)
    try:
        me = queue.me()
    finally:
        queue.close()
    if as_json:
        print_json(me)
    else:
        for name, value in me.items():
            say(f"{name.replace('_', ' '):14} {value}")


@researcher.command("add")
def researcher_add(name: str = typer.Argument(help="What people will call them.")) -> None:
    """Make a login that reads the views of schema report, and print its DSN once."""
    with admin() as connection:
        say(logins.add_researcher(connection, name))


@researcher.command("list")
def researcher_list(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """Researchers, and how many sessions each has open."""
    with admin() as connection:
        query = files("pairmill.ops.admin") / "sql" / "researchers.sql"
        found = rows(connection, query.read_text("utf-8"))
    print_rows(
        found,
        ("name", "login", "added_at", "sessions", "disabled"),
        as_json=as_json,
        empty="no researchers: add one with `pairmill researcher add NAME`",
    )


@researcher.command("disable")
def researcher_disable(name: str) -> None:
    """End a researcher's login and its sessions."""
    with admin() as connection:
        if not logins.disable_researcher(connection, name):
            raise UserError(f"there is no researcher {name!r}: see `pairmill researcher list`")
    say(f"{name} is disabled")
