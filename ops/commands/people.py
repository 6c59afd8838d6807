"""pairmill worker: workers' logins."""

import os
import sys
from datetime import datetime
from typing import Any

import typer

from pairmill.ops.admin import logins, worker_changes
from pairmill.ops.admin.audit_log import acting, of_command
from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import WORKER, login_kinds
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json, print_rows
from pairmill.ops.queries import rows
from pairmill.schema.kinds import worker_kinds
from pairmill.workers.dsn import WORKER_DSN, checked
from pairmill.workers.queue import Queue
from pairmill.workers.safe_text import say

worker = typer.Typer(no_args_is_help=True, help="Workers' logins.")
HOST = typer.Option(
    "", "--host", help="HOST or HOST:PORT of the DSN, where others reach the database by another."
)
REASON = typer.Option("", "--reason", help="Kept, and told to whoever logs in with it.")
SHOWN = ("name", "kind", "version", "last_seen_at", "live_leases", "rows_accepted", "streak",
         "agreement", "disabled_at", "disabled_because")  # fmt: skip


def show_dsn(dsn: str) -> None:
    """Print a new DSN, and on standard error what it is not good for."""
    say(dsn)
    if problem := logins.warning(dsn):
        say(f"pairmill: warning: {problem}", err=True)


@worker.command("add")
def worker_add(
    name: str = typer.Argument(help="What people will call it."),
    kind: str = typer.Option(
        ..., "--kind", help=f"{', '.join(worker_kinds())}.", autocompletion=login_kinds
    ),
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
    show_dsn(dsn)


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
def worker_disable(
    name: str = WORKER,
    reason: str = REASON,
    no_login: bool = typer.Option(
        False,
        "--no-login",
        help="Do not let it in to be told why: for a login that floods the server.",
    ),
) -> None:
    """End a worker's rights and its sessions. Its leases run out; what was accepted stays."""
    with (
        admin() as connection,
        acting(connection, of_command(), "worker.disable", {"name": name, "reason": reason}),
    ):
        worker_changes.disable(connection, name, reason, no_login=no_login)
    say(f"{name} is disabled; `pairmill worker enable` takes that back")


@worker.command("enable")
def worker_enable(
    name: str = WORKER,
    proven: bool = typer.Option(False, "--proven", help="It is your own; see `prove`."),
) -> None:
    """Let a disabled or stopped worker work again, as an unproven one.

    It keeps its DSN. Its streak begins anew at 0, and it is no longer proven; its agreement stays,
    so that the first check that fails stops a stopped worker again. What was withdrawn stays
    withdrawn.
    """
    with (
        admin() as connection,
        acting(connection, of_command(), "worker.enable", {"name": name, "proven": proven}),
    ):
        worker_changes.enable(connection, name, proven=proven)
    say(f"{name} may work again{'' if proven else ', as an unproven worker'}; its DSN is as before")


@worker.command("rotate")
def worker_rotate(name: str = WORKER, host: str = HOST) -> None:
    """Give a worker another password and print its new DSN, once. Its leases stay."""
    with admin() as connection:
        show_dsn(logins.rotate_worker(connection, name, host))


@worker.command("quarantine")
def worker_quarantine(
    name: str = WORKER,
    since: datetime = typer.Option(None, "--since", help="Only what came in since then."),
    reason: str = typer.Option(worker_changes.QUARANTINED, "--reason", help="Kept with each row."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would be done."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    as_json: bool = typer.Option(False, "--json", help="A JSON object; with --yes or --dry-run."),
) -> None:
    """End a worker, withdraw all that it contributed, and queue that again."""
    asked = {"name": name, "since": since, "reason": reason}
    with admin() as connection:
        planned = worker_changes.quarantine(connection, name, since, reason, dry_run=True)
        if not as_json:
            say(worker_changes.quarantined(name, planned, "would be "))
        if dry_run:
            if as_json:
                print_json(planned)
            return
        if not yes and not (sys.stdin.isatty() and typer.confirm("Do it?")):
            raise UserError("not confirmed, nothing was done: --yes does it without a question")
        with acting(connection, of_command(), "worker.quarantine", asked) as deed:
            done = worker_changes.quarantine(connection, name, since, reason, dry_run=False)
            deed.affected, deed.answer = done["rows"], done
    if as_json:
        print_json(done)
    else:
        say(worker_changes.quarantined(name, done, ""))


@worker.command("prove")
def worker_prove(
    name: str = WORKER,
    withdraw: bool = typer.Option(False, "--not", help="From now on, check it like any other."),
) -> None:
    """Vouch for a download worker: nobody checks it; what it reads in robots.txt is relied on.

    Any other is checked, and proven once ten checks in a row agreed. See docs/trust.md.
    """
    asked = {"name": name, "proven": not withdraw}
    with admin() as connection, acting(connection, of_command(), "worker.prove", asked):
        worker_changes.prove(connection, name, proven=not withdraw)
    say(f"{name} is {'not proven' if withdraw else 'proven'}")


@worker.command("network")
def worker_network(
    name: str = WORKER,
    network: str = typer.Argument(help="Any word, the same for all behind one line; '' unsets it."),
) -> None:
    """Note where a worker connects from: a dead link is believed once two networks found it so."""
    asked = {"name": name, "network": network}
    with admin() as connection, acting(connection, of_command(), "worker.network", asked):
        worker_changes.set_network(connection, name, network)
    say(f"{name} connects from {network or 'a network that is not known'}")


@worker.command("me")
def worker_me(
    dsn: str = typer.Option(None, "--dsn", help=f"The worker's DSN; {WORKER_DSN} by default."),
    quick: bool = typer.Option(
        False, "--quick", help="Without the rank, for which all workers' rows are counted."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON object."),
) -> None:
    """The work done by the worker of this DSN, and whether it may go on; exit code 1 if not."""
    # a question is not work: nobody waits 15 s for the answer that nothing listens there
    queue = Queue(checked(dsn or os.environ.get(WORKER_DSN, "")), patience=0.0)
    try:
        me = queue.me(with_rank=not quick)
    finally:
        queue.close()
    if as_json:
        print_json(me)
    else:
        for name, value in _credit(me).items():
            say(f"{name:14} {value}")
    if me["why"]:
        raise UserError(me["why"])


def _credit(me: dict[str, Any]) -> dict[str, str]:
    """What api.me_v1 says, for people; without what is not known."""
    shown = {
        "name": me["name"],
        "kind": me["kind"],
        "state": me["state"],
        "added": _moment(me["added_at"]),
        "last seen": _moment(me["last_seen_at"]),
        "version": me["version"],
        "live leases": me["live_leases"],
        "accepted": f"{me['rows_accepted']:,}",
        "in 24 hours": f"{me['rows_accepted_last_day']:,}",
        "waiting": f"{me['rows_waiting']:,}",
        "rejected": f"{me['rows_rejected']:,}",
        "withdrawn": f"{me['rows_withdrawn']:,}",
        "success share": _percent(me["success_share"]),
        "agreement": _percent(me["agreement"]),
        "rank": f"{me['rank']} of {me['ranked']}" if me["rank"] else None,
        "named": "on the public page" if me["is_shown"] else "nowhere",
    }
    return {name: str(value) for name, value in shown.items() if value is not None}


def _moment(iso: str | None) -> str | None:
    return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M:%S} UTC" if iso else None


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
