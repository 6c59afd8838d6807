"""pairmill migrate, pairmill db: the server and its schema."""

import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill import migrations
from pairmill.ops.admin import migrate as migration
from pairmill.ops.admin.connection import admin, admin_dsn, connect, home
from pairmill.ops.commands.options import YES, confirm
from pairmill.ops.commands.recount import recount
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_json
from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.admin.downgrade import Plan

app = typer.Typer(no_args_is_help=True, help="The database server.")
app.command()(recount)


def migrate(
    to: str = typer.Option(
        "head", "--to", help="Another revision than the newest; an older one goes down."
    ),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say where it would go, and what going down would lose."
    ),
    yes: bool = YES,
    force: bool = typer.Option(
        False, "--force", help="Go down although some data cannot be carried over."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON object; with --yes or --dry-run."),
) -> None:
    """Bring the database to this code's schema; does nothing where it is there already.

    Going down to an older revision loses data: it is said, by count, with the command for a backup,
    and asked for.
    """
    with admin_dsn(make=not dry_run) as dsn:
        with connect(dsn) as connection:
            migration.require_utf8(connection)
            before = migration.current(connection)
        target = _target(to, before)
        if before is not None and target < before:
            _go_down(dsn, target, dry_run=dry_run, yes=yes, force=force, as_json=as_json)
            if dry_run:
                return
            changed = True
        elif dry_run:
            with connect(dsn) as connection:
                _say_ahead(connection, before, target, as_json)
            return
        else:
            changed = migration.upgrade(dsn, target)
        with connect(dsn) as connection:
            secured = migration.secure(connection)
    _say_done(before, target, changed=changed, secured=secured, as_json=as_json)


def _target(to: str, before: str | None) -> str:
    known = migrations.revisions()
    if before is not None and before not in known:
        raise UserError(migration.TOO_NEW.format(before))
    target = known[-1] if to == "head" else to
    if target in known:
        return target
    newer = target.isdecimal() and target > known[-1]
    hint = ": a newer one needs a newer pairmill" if newer else ""
    raise UserError(f"there is no revision {to!r}: known are {', '.join(known)}{hint}")


def _go_down(
    dsn: str, target: str, *, dry_run: bool, yes: bool, force: bool, as_json: bool
) -> None:
    from pairmill.ops.admin import downgrade

    chosen = downgrade.plan(dsn, target)
    if as_json and dry_run:
        print_json(chosen.as_dict() | {"backup": _backup(dsn, chosen.at), "dry_run": True})
        return
    for line in _losses(chosen, _backup(dsn, chosen.at)):
        say(line, err=as_json)
    if dry_run:
        return
    if chosen.refused() and not force:
        raise UserError(
            f"revision {target} cannot hold all of it, and nothing was changed: --force goes down"
            " all the same"
        )
    confirm(yes)
    downgrade.downgrade(dsn, chosen)


def _losses(chosen: "Plan", backup: str) -> Iterator[str]:
    """What going down loses, for people: a line each."""
    head = f"going down from revision {chosen.at} to {chosen.to}"
    lost = [loss for loss in chosen.losses if not loss.refused]
    if not chosen.losses and not chosen.logins:
        yield f"{head} loses no data"
    if lost:
        yield f"{head} loses"
        yield from (f"  {loss.what}: {loss.count:,}" for loss in lost)
    if refused := chosen.refused():
        yield f"revision {chosen.to} cannot hold"
        yield from (f"  {loss.what}: {loss.count:,}" for loss in refused)
    if chosen.unknown_kinds:
        yield f"open tasks of kind {', '.join(chosen.unknown_kinds)} are discarded"
    if chosen.logins:
        yield f"no table of revision {chosen.to} knows these logins, which end:"
        yield from (f"  {login}: {owner}" for login, owner in chosen.logins.items())
    yield f"a backup first, in another shell: {backup}"


def _backup(dsn: str, at: str) -> str:
    """The command for a backup, without the password, which pg_dump asks for."""
    file = f"pg_dump -Fc --file pairmill-{at}.dump"
    if not os.environ.get("DATABASE_URL"):
        return f'pairmill db start && {file} "$(pairmill db url)"'
    shown = {k: v for k, v in conninfo_to_dict(dsn).items() if "password" not in k}
    return f"{file} --dbname {shlex.quote(make_conninfo('', **shown))}"


def _say_ahead(
    connection: psycopg.Connection, before: str | None, target: str, as_json: bool
) -> None:
    made_anew = before is not None and not migration.has_our_routines(connection)
    if as_json:
        print_json({
            "at": before, "to": target, "losses": [], "logins": {},
            "routines_made_anew": made_anew or before != target, "dry_run": True,
        })  # fmt: skip
    elif before != target:
        say(f"schema would go from {before or 'empty'} to revision {target}; nothing is lost")
    elif made_anew:
        say(f"schema is at revision {target}; functions and views would be made anew")
    else:
        say(f"schema at revision {target} already: there is nothing to do")


def _say_done(
    before: str | None, target: str, *, changed: bool, secured: bool, as_json: bool
) -> None:
    if as_json:
        print_json({"from": before, "to": target, "changed": changed, "secured": secured})
        return
    if before != target:
        say(f"schema at revision {target}, was {before or 'empty'}")
    elif changed:
        say(f"schema at revision {target}; functions and views made anew")
    else:
        say(f"schema at revision {target} already")
    if not secured:
        say(
            "not a superuser: have one run `pairmill db secure` once;"
            " `pairmill doctor` says what is missing"
        )


@app.command()
def restored() -> None:
    """After a restore and before workers connect: no lease from before counts any more."""
    with admin() as connection:
        row = connection.execute("select * from mill.restored()").fetchone()
    assert row is not None
    say(f"epoch {row[0]}; {row[1]:,} leased tasks returned to the queue")


@app.command()
def start() -> None:
    """Start the embedded server and leave it running."""
    EmbeddedServer(home()).start(keep=True)
    say(EmbeddedServer(home()).url())


@app.command()
def stop() -> None:
    """Stop the embedded server."""
    say("stopped" if EmbeddedServer(home()).stop() else "it was not running")


@app.command()
def url() -> None:
    """Print the admin's URL, for psql: psql "$(pairmill db url)". The embedded server must run."""
    if os.environ.get("DATABASE_URL"):
        with admin_dsn() as dsn:
            say(dsn)
        return
    embedded = EmbeddedServer(home())
    if not embedded.running():
        raise UserError("the embedded server does not run: start it with `pairmill db start`")
    say(embedded.url())


@app.command()
def secure() -> None:
    """Revoke rights of PUBLIC that no worker needs: temporary tables, large objects, advisory
    locks. Bound workers' temporary files, and let the steward end workers' sessions."""
    with admin() as connection:
        if not migration.secure(connection):
            raise UserError("this needs a superuser: DATABASE_URL names another kind of user")
    say("secured")
