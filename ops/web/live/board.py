"""What visitors are given: pages made once a snapshot, as bytes that are sent as they are."""

import gzip
import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from pairmill import __version__
from pairmill.ops.web.app import Site
from pairmill.ops.web.live.line_state import tree
from pairmill.ops.web.live.shown import view
from pairmill.ops.web.render import environment
from pairmill.workers.download import consent

PAGES = {"/": "index", "/leaderboard": "leaderboard", "/join": "join", "/crawls": "crawls"}
JSON = "/live.json"
FRESH = "public, max-age=10"
SHOWN = 500  # names on the leaderboard's page
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Made:
    """A response whose headers and bodies are ready: plain and gzip, which one etag stands for."""

    status: int
    etag: bytes
    body: bytes
    packed: bytes
    headers: list[tuple[bytes, bytes]]


def made(body: str, media_type: str = HTML, status: int = 200) -> Made:
    data = body.encode()
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'.encode()
    headers = [(b"content-type", media_type.encode()), (b"vary", b"accept-encoding")]
    if status == 200:
        headers += [(b"etag", b"W/" + etag), (b"cache-control", FRESH.encode())]
    else:
        headers += [(b"cache-control", b"no-store"), (b"retry-after", b"10")]
    return Made(status, etag, data, gzip.compress(data, 6, mtime=0), headers)


@dataclass(frozen=True)
class Guide:
    """What /join tells beside the consent. contact: who answers for the crawl, a URL or an address;
    install: the command that installs pairmill."""

    contact: str = ""
    install: str = f"pip install './pairmill-{__version__}-py3-none-any.whl[download]'"


@dataclass
class Board:
    """The pages of the newest snapshot. ``show`` replaces them all at once; a reader takes one
    reference, and needs no lock."""

    site: Site
    guide: Guide = field(default_factory=Guide)
    pages: Mapping[str, Made] = field(default_factory=dict)
    seen_at: datetime | None = None  # the snapshot's moment, by the database's clock
    _people: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    _workers: dict[str, Made] = field(default_factory=dict)
    _tree: dict[str, Any] = field(default_factory=dict)
    _trouble: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, parts: Mapping[str, list[dict[str, Any]]]) -> None:
        """Make the pages of what the database says now."""
        now = tree(parts)
        before = self._tree, self.seen_at, self._trouble
        self._tree, self.seen_at, self._trouble = now, now["at"], ""
        try:
            self._make({row["name"]: row for row in parts["people"]})
        except BaseException:
            self._tree, self.seen_at, self._trouble = before  # which can be shown
            raise

    def trouble(self, why: str) -> None:
        """Say on every page that the database does not answer, and how old its numbers are."""
        self._trouble = why
        self._make(self._people)

    def worker(self, name: str) -> Made:
        """The page of a worker whose owner wants to be named. Raises HTTPException 404 for every
        other name, whether there is such a worker or not."""
        person = self._people.get(name)
        if person is None:
            raise HTTPException(404)
        workers = self._workers
        if (found := workers.get(name)) is None:
            found = workers[name] = made(
                self._render(f"/worker/{quote(name, safe='')}", "worker", person=person)
            )
        return found

    def _make(self, people: Mapping[str, dict[str, Any]]) -> None:
        if self.seen_at is None:
            nothing = made(self._render("/", "nothing"), status=503)
            said = made(
                json.dumps({"error": "the database has not answered yet", "status": 503}) + "\n",
                "application/json", 503,
            )  # fmt: skip
            self.pages = dict.fromkeys(PAGES, nothing) | {JSON: said}
            return
        downloaders = [row for row in people.values() if row["kind"] == "download"]
        shown = view(self._tree, downloaders[:SHOWN], len(downloaders))
        pages = {path: made(self._render(path, name, view=shown)) for path, name in PAGES.items()}
        pages[JSON] = made(
            json.dumps(self._tree | {"answering": not self._trouble}, default=_plain) + "\n",
            "application/json",
        )
        with self._lock:
            self.pages, self._people, self._workers = pages, people, {}

    def _render(self, path: str, name: str, **values: Any) -> str:
        known = {"now": self._tree, "trouble": self._trouble, "guide": self.guide}
        text: str = (
            environment()
            .get_template(f"live/{name}.html")
            .render(
                known | values,
                site=self.site, path=path, consent=consent.text(), version=__version__,
            )
        )  # fmt: skip
        return text


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    raise TypeError(type(value))


class KeptPage:
    """An ASGI endpoint that sends a page of the board as it is: no query and no template."""

    def __init__(self, board: Board, path: str | None = None) -> None:
        self.board, self.path = board, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        if self.path is None:
            page = self.board.worker(scope["path_params"]["name"])
        else:
            page = self.board.pages[self.path]
        await _send(page, scope, send)


async def _send(page: Made, scope: Scope, send: Send) -> None:
    accepts = known = b""
    for name, value in scope["headers"]:
        if name == b"accept-encoding":
            accepts = value
        elif name == b"if-none-match":
            known = value
    if page.status == 200 and page.etag in known:
        await send({"type": "http.response.start", "status": 304, "headers": list(page.headers)})
        await send({"type": "http.response.body", "body": b""})
        return
    packed = b"gzip" in accepts
    body = page.packed if packed else page.body
    headers = [*page.headers, (b"content-length", str(len(body)).encode())]
    if packed:
        headers.append((b"content-encoding", b"gzip"))
    await send({"type": "http.response.start", "status": page.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
