"""Pages over real HTTP: a server in a thread, and a browser's requests to it."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from starlette.applications import Starlette

from pairmill.ops.web.serve import serving

BROWSER = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}


@contextmanager
def browsing(app: Starlette) -> Iterator[httpx.Client]:
    """A client of an application that is served on loopback; it sends what a browser sends from the
    site's own pages. ``client.base_url`` is the server's."""
    with serving(app) as url, httpx.Client(base_url=url, headers=BROWSER, timeout=30) as client:
        yield client
