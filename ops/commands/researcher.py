"""pairmill researcher: researchers' logins."""

import typer

from pairmill.ops.admin import logins
from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import RESEARCHER
from pairmill.ops.commands.people import HOST, show_dsn
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows
from pairmill.ops.queries import query_text, rows
from pairmill.workers.safe_text import say

app = typer.Typer(no_args_is_help=True, help="Researchers' logins.")


def no_researcher(name: str) -> UserError:
    return UserError(f"there is no researcher {name!r}: see `pairmill researcher list`")


@app.command()
def add(name: str = typer.Argument(help="What people will call them."), host: str = HOST) -> None:
    """Make a login that reads the views of schema report, and print its DSN once."""
    with admin() as connection:
        show_dsn(logins.add_researcher(connection, name, host))


@app.command()
def rotate(name: str = RESEARCHER, host: str = HOST) -> None:
    """Give a researcher another password and print their new DSN, once."""
    with admin() as connection:
        show_dsn(logins.rotate_researcher(connection, name, host))


@app.command("list")
def list_researchers(as_json: bool = typer.Option(False, "--json", help="A JSON array.")) -> None:
    """Researchers, and how many sessions each has open."""
    with admin() as connection:
        found = rows(connection, query_text("admin", "researchers"))
    print_rows(
        found,
        ("name", "login", "added_at", "sessions", "disabled", "disabled_at", "disabled_because"),
        as_json=as_json,
        empty="no researchers: add one with `pairmill researcher add NAME`",
    )


@app.command()
def disable(
    name: str = RESEARCHER,
    reason: str = typer.Option("", "--reason", help="Kept, for `researcher list`."),
) -> None:
    """End a researcher's login and its sessions."""
    with admin() as connection:
        row = connection.execute(
            "select mill.disable_researcher(%s, %s)", (name, reason)
        ).fetchone()
    if not row or not row[0]:
        raise no_researcher(name)
    say(f"{name} is disabled; `pairmill researcher enable` takes that back")


@app.command()
def enable(name: str = RESEARCHER) -> None:
    """Let a disabled researcher log in again, with their DSN of before."""
    with admin() as connection:
        row = connection.execute("select mill.enable_researcher(%s)", (name,)).fetchone()
    if not row or not row[0]:
        raise no_researcher(name)
    say(f"{name} may log in again")
