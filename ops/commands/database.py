"""pairmill migrate, pairmill db: the server and its schema."""

import os

import typer

from pairmill import migrations
from pairmill.ops.admin import migrate as migration
from pairmill.ops.admin.connection import admin, admin_dsn, connect, home
from pairmill.ops.errors import UserError
from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="The database server.")


def migrate(
    to: str = typer.Option(
        "head",
        "--to",
        help="Another revision than the newest; an older one goes down, losing what it added.",
    ),
) -> None:
    """Bring the database to this code's schema; does nothing where it is there already."""
    with admin_dsn(make=True) as dsn:
        with connect(dsn) as connection:
            migration.require_utf8(connection)
            before = migration.current(connection)
            known = migrations.revisions()
        if before is not None and before not in known:
            raise UserError(migration.TOO_NEW.format(before))
        target = known[-1] if to == "head" else to
        if target not in known:
            raise UserError(f"there is no revision {to!r}: known are {', '.join(known)}")
        if before is not None and known.index(target) < known.index(before):
            migration.downgrade(dsn, target)
            changed = True
        else:
            changed = migration.upgrade(dsn, target)
        with connect(dsn) as connection:
            secured = migration.secure(connection)
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
