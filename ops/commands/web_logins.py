"""pairmill web add-login and its like: the logins of processes that serve pages."""

import typer

from pairmill.ops.admin import logins
from pairmill.ops.admin.connection import admin
from pairmill.ops.commands.completion import from_database, one_of
from pairmill.ops.commands.options import AS_JSON
from pairmill.ops.commands.people import HOST, show_dsn
from pairmill.ops.commands.web import app
from pairmill.ops.errors import UserError
from pairmill.ops.output import print_rows
from pairmill.ops.queries import query_text, rows
from pairmill.schema.kinds import PAGES
from pairmill.workers.safe_text import say

NAME = typer.Argument(
    metavar="NAME", help="As `pairmill web logins` names it.",
    autocompletion=from_database("select name, page from mill.page_login order by name"),
)  # fmt: skip


@app.command("add-login")
def add_login(
    page: str = typer.Argument(
        metavar="PAGE", help=f"{', '.join(PAGES)}.", autocompletion=one_of(*PAGES)
    ),
    name: str = typer.Option("", "--name", help="What people call it; the page's by default."),
    host: str = HOST,
) -> None:
    """Make the login of a process that serves a page, and print its DSN once.

    It has the rights of that page and no others. The process finds the DSN in PAIRMILL_WEB_DSN;
    beside the database it makes one for itself. viewer is the admin's page for who may only look.
    """
    with admin() as connection:
        show_dsn(logins.add_page(connection, page, host, name))


@app.command("rotate-login")
def rotate_login(name: str = NAME, host: str = HOST) -> None:
    """Give a page's login another password and print its new DSN, once."""
    with admin() as connection:
        show_dsn(logins.rotate_page(connection, name, host))


@app.command("remove-login")
def remove_login(name: str = NAME) -> None:
    """End a page's login and its sessions. The page says that its database is away."""
    with admin() as connection:
        row = connection.execute("select mill.remove_page_login(%s)", (name,)).fetchone()
    if not row or not row[0]:
        raise UserError(f"there is no page's login {name!r}: see `pairmill web logins`")
    say(f"{name} may log in no more; `pairmill web add-login` makes another")


@app.command("logins")
def list_logins(as_json: bool = AS_JSON) -> None:
    """Logins of pages, and how many sessions each has open."""
    with admin() as connection:
        found = rows(connection, query_text("admin", "page_logins"))
    print_rows(
        found,
        ("name", "page", "login", "added_at", "sessions"),
        as_json=as_json,
        empty="no page has a login: add one with `pairmill web add-login PAGE`",
    )
