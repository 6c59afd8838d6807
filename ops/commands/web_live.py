"""pairmill web live: the public page of the line's progress."""

import typer

from pairmill.ops.admin.logins import page_dsn
from pairmill.ops.commands.web import HOSTS, LOG, METRICS, PROXY, app, bind_option
from pairmill.ops.errors import extra


@app.command("live")
def live(
    title: str = typer.Option("pairmill", "--title", help="The project's name, for every page."),
    contact: str = typer.Option(
        "", "--contact", envvar="PAIRMILL_CONTACT", show_envvar=True,
        help="Who answers for this crawl, a URL or an address; /join has it.",
    ),
    install: str = typer.Option(
        "", "--install", help="The command that installs pairmill; /join has it."
    ),
    bind: str = bind_option("127.0.0.1:8801"),
    metrics: str | None = METRICS,
    proxy: bool = PROXY,
    hosts: list[str] = HOSTS,
    log: bool = LOG,
) -> None:  # fmt: skip
    """Serve the public page: how far the line has come, who lends machines, how to join.

    Its login reads counters and nothing else; see `pairmill web add-login live`.
    """
    with extra("web"):
        from pairmill.ops.web.live.board import Guide
        from pairmill.ops.web.live.public import public_app
        from pairmill.ops.web.serve import serve
    guide = Guide(contact, install) if install else Guide(contact)
    with page_dsn("live") as dsn:
        serve(
            public_app(dsn, title=title, guide=guide), bind,
            metrics=metrics, proxy=proxy, hosts=hosts, log=log,
        )  # fmt: skip
