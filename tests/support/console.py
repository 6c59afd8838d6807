"""The admin's page over real HTTP: people who log in to it, and what they press."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import httpx
from starlette.applications import Starlette

from pairmill.ops.admin import logins, page_sessions
from pairmill.ops.admin.audit_log import Actor
from pairmill.ops.admin.connection import connect
from pairmill.ops.web.console.console_app import make_console
from support.database import Database
from support.pages import BROWSER, browsing

TESTER = Actor("tester@here", origin="command")
HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


class Person:
    """Somebody at the page, with the cookie of their session; it follows a redirect by hand, since
    httpx would leave the cookie behind."""

    def __init__(self, url: str, cookie: str = "") -> None:
        self.cookie = cookie
        self.http = httpx.Client(base_url=url, headers=BROWSER, timeout=30)

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        headers = how.pop("headers", {}) | ({"Cookie": self.cookie} if self.cookie else {})
        return self.http.request(method, path, headers=headers, **how)

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self._followed(self.ask("GET", path, params=params or None))

    def post(self, path: str, form: dict[str, Any]) -> httpx.Response:
        return self._followed(self.ask("POST", path, data=form))

    def act(self, action: str, words: dict[str, str] | None = None, **given: Any) -> httpx.Response:
        """Ask for an action, and confirm what its page shows."""
        shown = self.get(f"/act/{action}", **given)
        return self.post(f"/act/{action}", hidden(shown) | (words or {}))

    def _followed(self, response: httpx.Response) -> httpx.Response:
        while response.status_code == 303 or "refresh" in response.headers:
            response = self.ask("GET", response.headers.get("location", str(response.url)))
        return response


def hidden(page: httpx.Response) -> dict[str, str]:
    """The hidden fields of a page's last form, which is the one that confirms."""
    last = page.text.rpartition('class="confirm"')[2]
    return {unescape(name): unescape(value) for name, value in HIDDEN.findall(last)}


def link(db: Database, name: str, role: str) -> str:
    return page_sessions.new_link(db.admin, name, role, TESTER)


def logged_in(url: str, db: Database, name: str = "ada", role: str = "admin") -> Person:
    """Somebody new, through a link of their own."""
    person = Person(url)
    answer = person.ask("POST", "/login", data={"token": link(db, name, role)})
    assert answer.status_code == 303, answer.text
    person.cookie = answer.headers["set-cookie"].partition(";")[0]
    return person


def console(db: Database, **how: Any) -> Starlette:
    viewer = logins.add_page(db.admin, "viewer", name=f"viewer-{id(how)}")
    return make_console(db.dsn, viewer, lambda: connect(db.dsn), rate=None, **how)


@contextmanager
def served(db: Database) -> Iterator[tuple[Person, Person]]:
    """An admin and a viewer at the page of a database."""
    with browsing(console(db)) as client:
        url = str(client.base_url)
        yield logged_in(url, db), logged_in(url, db, "vera", "viewer")
