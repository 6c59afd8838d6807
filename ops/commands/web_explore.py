"""pairmill web explore: the page of releases."""

import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pairmill.ops.admin.connection import has_database, home
from pairmill.ops.admin.logins import page_dsn
from pairmill.ops.commands.options import AS_JSON, counted, progress
from pairmill.ops.commands.web import HOSTS, LOG, METRICS, PROXY, app, bind_option
from pairmill.ops.errors import UserError, extra
from pairmill.ops.output import print_json
from pairmill.workers.dsn import WEB_DSN
from pairmill.workers.safe_text import say

if TYPE_CHECKING:
    from pairmill.ops.web.explore.open_releases import Releases


@app.command("explore")
def explore(
    releases: list[Path] = typer.Option(
        ..., "--releases", "--release", metavar="FOLDER",
        help="A release, or a folder of releases, new ones of which are seen; repeatable.",
    ),
    work: Path = typer.Option(
        None, "--work", help="Folder of working copies; default: explore/ in PAIRMILL_HOME."
    ),
    prepare: bool = typer.Option(
        False, "--prepare", help="Make the working copies that are missing, and serve nothing."
    ),
    knn: str = typer.Option(
        "", "--knn", metavar="URL", help="A `pairmill web knn`, for search by meaning."
    ),
    thumbnails: bool = typer.Option(
        False, "--thumbnails", help="Fetch and show small images of rows, those unsafe blurred."
    ),
    no_database: bool = typer.Option(
        False, "--no-database", help="Without removals since, requests and evidence."
    ),
    memory: str = typer.Option("512MB", "--memory", help="DuckDB's limit, of all queries."),
    threads: int = typer.Option(2, "--threads", min=1, max=256, help="Of DuckDB."),
    title: str = typer.Option("Explore", "--title", help="The page's name."),
    contact: str = typer.Option("", "--contact", help="Whom to write to; the pages have it."),
    rate: str = typer.Option(
        "30/second;900/minute", "--rate",
        help="Requests of a client's network, as `limits` writes them; none: no limit.",
    ),
    bind: str = bind_option("127.0.0.1:8802"),
    metrics: str | None = METRICS,
    proxy: bool = PROXY,
    hosts: list[str] = HOSTS,
    log: bool = LOG,
    as_json: bool = AS_JSON,
) -> None:  # fmt: skip
    """Serve releases: browse, filter, search, rows for ever by SAMPLE_ID, and requests for removal.

    A working copy of each release (about 300 bytes a row) is made at first sight, beside the page;
    until it is there, searches look at the first rows alone. `--prepare` makes them ahead.
    """
    with extra("web,ops"):
        from pairmill.ops.web.explore.open_releases import Releases
    work = work or home() / "explore"
    shown = Releases(releases, work=work, memory=memory, threads=threads)
    for each in shown.all():
        if each.trouble:
            say(f"{each.folder} is not shown: {each.trouble}", err=True)
    if prepare:
        _prepare(shown, work, threads, as_json)
        return
    with extra("web,ops"):
        from pairmill.ops.web.explore.explore_calls import ExploreCalls
        from pairmill.ops.web.explore.explore_settings import ExploreSettings
        from pairmill.ops.web.explore.explore_site import make_explore
        from pairmill.ops.web.explore.knn_client import KnnClient
        from pairmill.ops.web.explore.preparation import Preparation
        from pairmill.ops.web.serve import serve
        from pairmill.ops.web.uploads import Decoder
    with ExitStack() as stack:
        calls = None
        if not no_database:
            _require_database()
            dsn = stack.enter_context(page_dsn("explore"))
            calls = stack.enter_context(closing(ExploreCalls(dsn)))
            shown.hidden = calls.hidden
        settings = ExploreSettings(
            shown, Decoder(), calls, KnnClient(knn) if knn else None, thumbnails, contact
        )
        made = make_explore(
            settings, title=title, rate=None if rate == "none" else rate,
            preparation=Preparation(shown, work),
        )  # fmt: skip
        serve(made, bind, metrics=metrics, proxy=proxy, hosts=hosts, log=log)


def _require_database() -> None:
    if not os.environ.get(WEB_DSN) and not has_database():
        raise UserError(
            f"there is no database to ask what was removed since: set {WEB_DSN}, as `pairmill web"
            " add-login explore` prints it, or give --no-database"
        )


def _prepare(releases: "Releases", work: Path, threads: int, as_json: bool) -> None:
    from pairmill.ops.web.explore.preparation import missing, prepare
    from pairmill.ops.web.explore.working_copy import drop_old

    made = []
    for each in missing(releases):
        with progress(f"copying {each.name}") as report:
            prepare(each, work, report, threads)
        made.append(each.name)
    drop_old(work, {each.copy_name for each in releases.all()})
    if as_json:
        print_json({"made": made, "work": str(work)})
    else:
        say(f"{counted(len(made), 'working copy', 'working copies')} made in {work}")
