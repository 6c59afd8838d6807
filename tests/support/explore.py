"""The page of releases as tests serve it: a database's login of its own, and these routes."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from psycopg.conninfo import make_conninfo
from starlette.routing import BaseRoute

from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.explore.explore_calls import ExploreCalls
from pairmill.ops.web.explore.explore_settings import ExploreSettings
from pairmill.ops.web.explore.open_releases import Releases, nothing_hidden
from pairmill.ops.web.uploads import Decoder
from support.database import Database
from support.pages import browsing

BODY = 11_000_000  # as `pairmill web explore` takes uploads
SITE = Site(
    "explore", "Releases", rate=None, body_limits={"/mine": BODY, "/remove": BODY},
)  # fmt: skip
Routes = Callable[[ExploreSettings], Sequence[BaseRoute]]


def page_login(db: Database, page: str = "explore") -> str:
    """A DSN of a new login of a page."""
    login = f"t_{uuid.uuid4().hex[:12]}"
    db.admin.execute("select mill.add_page_login(%s, %s, %s, 'secret')", (login, page, login))
    return make_conninfo(db.dsn, user=login, password="secret")


@contextmanager
def exploring(
    routes: Sequence[Routes], dsn: str | None, *folders: Path, **settings: Any
) -> Iterator[httpx.Client]:
    """A browser on the page of releases with these routes. dsn: of its login. folders: releases."""
    calls = ExploreCalls(dsn) if dsn else None
    decoder = Decoder(1)
    decoder.start()
    releases = Releases(folders, hidden=calls.hidden if calls else nothing_hidden)
    made = ExploreSettings(releases=releases, decoder=decoder, calls=calls, **settings)
    try:
        with browsing(make_app(SITE, [r for each in routes for r in each(made)])) as client:
            yield client
    finally:
        decoder.stop()
        if calls:
            calls.close()
