"""pairmill migrate, pairmill db: the server and its schema."""

import os

import typer

from pairmill.ops import migrate as migration
from pairmill.ops.connection import admin, connect, home, server
from pairmill.ops.problem import Problem
from pairmill.schema.embedded import Embedded

app = typer.Typer(no_args_is_help=True, help="The database server.")


def migrate(
    to: str = typer.Option(
        "head",
        "--to",
        help="Another revision than the newest; an older one goes down, losing what it added.",
    ),
) -> None:
    """Bring the database to this code's schema; does nothing where it is there already."""
    with server() as dsn:
        with connect(dsn) as connection:
            before = migration.current(connection)
            known = migration.revisions()
        if before is not None and before not in known:
            raise Problem(migration.TOO_NEW.format(before))
        target = known[-1] if to == "head" else to
        if target not in known:
            raise Problem(f"there is no revision {to!r}: known are {', '.join(known)}")
        if before is not None and known.index(target) < known.index(before):
            migration.downgrade(dsn, target)
        else:
            migration.upgrade(dsn, target)
        with connect(dsn) as connection:
            secured = migration.secure(connection)
    print(
        f"schema at revision {target}"
        + (" already" if before == target else f", was {before or 'empty'}")
    )
    if not secured:
        print(
            "not a superuser: have one run `pairmill db secure` once;"
            " `pairmill doctor` says what is missing"
        )


@app.command()
def restored() -> None:
    """After a restore and before workers connect: no lease from before counts any more."""
    with admin() as connection:
        row = connection.execute("select * from mill.restored()").fetchone()
    assert row is not None
    print(f"epoch {row[0]}; {row[1]:,} leased tasks returned to the queue")


@app.command()
def start() -> None:
    """Start the embedded server and leave it running."""
    Embedded(home()).start(keep=True)
    print(Embedded(home()).url())


@app.command()
def stop() -> None:
    """Stop the embedded server."""
    print("stopped" if Embedded(home()).stop() else "it was not running")


@app.command()
def url() -> None:
    """Print the admin's URL, for psql: psql "$(pairmill db url)". The embedded server must run."""
    if os.environ.get("DATABASE_URL"):
        with server() as dsn:
            print(dsn)
        return
    embedded = Embedded(home())
    if not embedded.running():
        raise Problem("the embedded server does not run: start it with `pairmill db start`")
    print(embedded.url())


@app.command()
def secure() -> None:
    """Take from PUBLIC what no worker needs: temporary tables, large objects, advisory locks. Bound
    workers' temporary files, and let the steward end workers' sessions."""
    with admin() as connection:
        if not migration.secure(connection):
            raise Problem("this needs a superuser: DATABASE_URL names another kind of user")
    print("secured")
