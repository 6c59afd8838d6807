"""pairmill web admin, login, sessions, end-session, audit: the admin's page, and who comes in."""

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING
from urllib.parse import quote

import typer

from pairmill.ops.admin import audit_log, page_sessions
from pairmill.ops.admin import connection as database
from pairmill.ops.admin.logins import local_page
from pairmill.ops.commands.options import AS_JSON, counted
from pairmill.ops.commands.web import HOSTS, LOG, METRICS, PROXY, app, bind_option
from pairmill.ops.errors import UserError, extra
from pairmill.ops.output import print_json, print_rows
from pairmill.workers.dsn import WEB_DSN, checked_pages
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.web.console.visitors import Visitors

HERE = "http://127.0.0.1:8804"
SESSIONS = ("session_id", "name", "role", "is_open", "made_at", "last_seen_at", "expires_at",
            "network")  # fmt: skip
ENTRIES = ("audit_id", "at", "actor", "origin", "action", "arguments", "outcome", "affected")


@app.command("admin")
def admin(
    bind: str = bind_option("127.0.0.1:8804"),
    metrics: str | None = METRICS,
    proxy: bool = PROXY,
    proxy_header: str = typer.Option(
        "", "--proxy-header", metavar="NAME",
        help="The header in which a proxy names who comes (X-Forwarded-User); only with --bind"
        " unix:PATH.",
    ),
    admins: str = typer.Option(
        "", "--admins", help="With --proxy-header: who may act; names with commas between."
    ),
    viewers: str = typer.Option(
        "", "--viewers", help="The same for who may look; * for all whom the proxy lets in."
    ),
    hosts: list[str] = HOSTS,
    log: bool = LOG,
) -> None:  # fmt: skip
    """Serve the admin's page: the queue, workers, requests for removal, and the audit log.

    Somebody comes in by a link of `pairmill web login`, or as a proxy names them. It listens on
    this machine alone; for others a proxy with TLS stands before it, at a Unix socket.
    """
    with extra("web"):
        from pairmill.ops.web.console.console_app import make_console
        from pairmill.ops.web.serve import serve
    require_safe(bind, header=proxy_header)
    with ExitStack() as stack:
        dsn = stack.enter_context(database.admin_dsn())
        with database.admin() as connection:
            given = os.environ.get(WEB_DSN)
            viewer = checked_pages(given) if given else local_page(connection, "viewer")
        console = make_console(
            dsn, viewer, lambda: database.connect(dsn),
            visitors=_by_proxy(proxy_header, admins, viewers) if proxy_header else None,
        )  # fmt: skip
        serve(console, bind, metrics=metrics, proxy=proxy, hosts=hosts, log=log)


def _by_proxy(header: str, admins: str, viewers: str) -> "Visitors":
    from pairmill.ops.web.console.visitors import ByProxy

    names = [
        [name.strip() for name in given.split(",") if name.strip()] for given in (admins, viewers)
    ]
    return ByProxy(header, *names)


def require_safe(bind: str, *, header: str) -> None:
    """Raises UserError where others could read what the page and its browser say, or could say
    that they are somebody. ``serve`` refuses the first, too: here it is said before a database is
    started."""
    from pairmill.ops.web.serve import is_local

    if header and not bind.startswith("unix:"):
        raise UserError(
            "--proxy-header needs --bind unix:PATH: whoever reaches an address and a port could"
            " send that header, and be anybody"
        )
    if not is_local(bind):
        raise UserError(
            f"--bind {bind} reaches beyond this machine, where passwords and cookies need TLS: bind"
            " it to 127.0.0.1 (and `ssh -L 8804:127.0.0.1:8804`), or to unix:PATH behind a proxy"
            " with TLS"
        )


@app.command("login")
def login(
    name: str = typer.Option("", "--name", help="Who it is for; you, by default."),
    viewer: bool = typer.Option(False, "--viewer", help="They may look, and change nothing."),
    at: str = typer.Option(
        HERE, "--at", metavar="URL", help="Where their browser finds the page."
    ),
    as_json: bool = AS_JSON,
) -> None:  # fmt: skip
    """Print a link into the admin's page. It works once, within ten minutes."""
    if not at.startswith(("http://", "https://")):
        raise UserError(f"--at is the page's address, like {HERE}, not {at!r}")
    by, role = audit_log.of_command(), "viewer" if viewer else "admin"
    with database.admin() as connection:
        token = page_sessions.new_link(connection, name or by.name, role, by)
    url = f"{at.rstrip('/')}/login?token={quote(token)}"
    if as_json:
        print_json({"url": url, "role": role, "seconds": page_sessions.LINK_SECONDS})
    else:
        say(url)


@app.command("sessions")
def sessions(as_json: bool = AS_JSON) -> None:
    """Sessions of the admin's page, the open ones first."""
    with database.admin() as connection:
        found = page_sessions.sessions(connection)
    print_rows(found, SESSIONS, as_json=as_json, empty="no sessions: `pairmill web login`")


@app.command("end-session")
def end_session(
    number: int = typer.Argument(None, metavar="NUMBER", help="As `web sessions` gives it."),
    every: bool = typer.Option(False, "--all", help="All of them, and links not used yet."),
) -> None:
    """End a session of the admin's page, at once."""
    if (number is None) != every:
        raise UserError("name one session (`pairmill web sessions`), or say --all")
    asked = {"session": "all" if every else number}
    with (
        database.admin() as connection,
        audit_log.acting(connection, audit_log.of_command(), "session.end", asked) as deed,
    ):
        ended = deed.affected = page_sessions.end_sessions(connection, number)
    say(f"{counted(ended, 'session')} ended")


@app.command("audit")
def audit(
    action: str = typer.Option(
        None, "--action", help="Only these: task.retry, or a subject's, like task."
    ),
    actor: str = typer.Option(None, "--actor", help="Only of this name."),
    before: int = typer.Option(None, "--before", help="Only entries below this number."),
    limit: int = typer.Option(100, "--limit", min=1, help="At most so many; the newest first."),
    as_json: bool = AS_JSON,
) -> None:
    """What admins did, by the page and by commands, the newest first. Nobody can change it."""
    with database.admin() as connection:
        found = audit_log.entries(
            connection, action=action, actor=actor, before=before, limit=limit
        )  # fmt: skip
    print_rows(found, ENTRIES, as_json=as_json, empty="no entries")
