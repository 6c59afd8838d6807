"""Who comes in through the admin's page: links, sessions, identities of a proxy."""

from collections.abc import Iterator

import psycopg
import pytest
from starlette.applications import Starlette

from pairmill.ops.commands.web_admin import require_safe
from pairmill.ops.errors import UserError
from pairmill.ops.web.console.console_app import ADMIN, NOBODY, PAGES, VIEWER
from pairmill.ops.web.console.entrance import ATTEMPTS
from pairmill.ops.web.console.visitors import COOKIE, ByProxy
from pairmill.ops.web.limits import Rate
from support.console import Person, console, link, logged_in
from support.database import Database, new_database
from support.pages import browsing

PATHS = {"{action}": "task.discard", "{number:int}": "1", "{job}": "nothing"}


def filled(path: str) -> str:
    for part, value in PATHS.items():
        path = path.replace(part, value)
    return path


@pytest.fixture(scope="module")
def db(server: str) -> Iterator[Database]:
    with new_database(server) as database:
        database.add_wat()
        yield database


@pytest.fixture(scope="module")
def app(db: Database) -> Starlette:
    return console(db)


@pytest.fixture(scope="module")
def url(app: Starlette) -> Iterator[str]:
    with browsing(app) as client:
        yield str(client.base_url)


def test_a_link_opens_one_session_by_a_press_of_a_button(db: Database, url: str) -> None:
    """Would catch: a link that a mail scanner uses up, or that lets two people in."""
    token, person = link(db, "ada", "admin"), Person(url)
    for _ in range(2):  # looked at, and looked at again: nothing is used up
        assert "Log in" in person.get("/login", token=token).text
    answer = person.ask("POST", "/login", data={"token": token})
    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert COOKIE.startswith("__Host-")
    for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=strict", "Max-Age=28800"):
        assert attribute in cookie.split("; ")
    assert "domain" not in cookie.lower()
    again = person.ask("POST", "/login", data={"token": token})
    assert (again.status_code, "set-cookie" in again.headers) == (403, False)


@pytest.mark.parametrize(
    ("change", "who"),
    [
        ("update mill.admin_link set expires_at = now() - interval '1 second'", "late"),
        ("update mill.admin_link set used_at = now()", "used"),
        ("delete from mill.admin_link", "unknown"),
    ],
)
def test_a_link_that_is_none_lets_nobody_in(db: Database, url: str, change: str, who: str) -> None:
    token = link(db, who, "admin")
    db.admin.execute(change)
    answer = Person(url).ask("POST", "/login", data={"token": token})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert "another" in answer.text
    assert db.rows(
        "select actor, role, outcome from mill.audit where action = 'session.login'"
        " order by audit_id desc limit 1"
    ) == [("127.0.0.0/24", "none", "refused")]


def test_a_session_has_a_new_secret_at_each_login(db: Database, url: str) -> None:
    """Would catch: fixation, where whoever planted a cookie shares the session that follows."""
    planted = Person(url, f"{COOKIE}=planted-by-eve")
    answer = planted.ask("POST", "/login", data={"token": link(db, "ada", "admin")})
    assert "planted-by-eve" not in answer.headers["set-cookie"]
    assert planted.get("/").status_code == 401
    first = logged_in(url, db)
    second = first.ask("POST", "/login", data={"token": link(db, "ada", "admin")})
    assert second.headers["set-cookie"].partition(";")[0] != first.cookie
    assert first.get("/").status_code == 401  # the session before is over


@pytest.mark.parametrize(
    "ended",
    [
        "expires_at = now() - interval '1 second'",
        "last_seen_at = now() - interval '3 hours'",
        "ended_at = now()",
    ],
)
def test_a_session_ends(db: Database, url: str, ended: str) -> None:
    """Would catch: a cookie that is good for longer than eight hours, or two without a look, or
    after an admin ended its session."""
    person = logged_in(url, db)
    assert person.get("/tasks").status_code == 200
    db.admin.execute(f"update mill.admin_session set {ended}")
    assert person.get("/tasks").status_code == 401


def test_logging_out_ends_the_session_and_not_the_cookie_alone(db: Database, url: str) -> None:
    person = logged_in(url, db)
    answer = person.ask("POST", "/logout")
    assert answer.status_code == 303
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert person.get("/").status_code == 401


def test_the_database_has_no_secret_that_lets_anybody_in(db: Database, url: str) -> None:
    token = link(db, "ada", "admin")
    person = logged_in(url, db)
    secret = person.cookie.partition("=")[2]
    for table in ("admin_link", "admin_session", "audit_entry"):
        kept = " ".join(str(row) for row in db.rows(f"select t::text from mill.{table} t"))
        assert secret not in kept
        assert token not in kept


@pytest.mark.parametrize(("method", "path", "who", "endpoint"), PAGES)
def test_each_page_asks_who_comes(
    db: Database, url: str, method: str, path: str, who: str, endpoint: object
) -> None:
    """Would catch: a page that was forgotten, for nobody or for a viewer."""
    form = {"data": {"confirmation": "x"}} if method == "POST" else {}
    stranger = Person(url).ask(method, filled(path), **form)
    assert (stranger.status_code == 401) == (who != NOBODY)
    viewer = logged_in(url, db, "vera", "viewer").ask(method, filled(path), **form)
    assert (viewer.status_code == 403) == (who == ADMIN or (path == "/login" and method == "POST"))
    if who == VIEWER and method == "GET" and "{" not in path and path != "/worker":
        assert viewer.status_code == 200
        assert 'action="/act/' not in viewer.text
        assert viewer.headers["cache-control"] == "no-store"


def test_every_route_is_in_the_list_of_who_may_ask(app: Starlette) -> None:
    """Would catch: a route that the tests of these lists do not see."""
    ours = {(m, p) for m, p, _, _ in PAGES}
    unsafe = {
        (method, route.path)
        for route in app.routes
        for method in getattr(route, "methods", None) or ()
        if method not in ("GET", "HEAD")
    }
    assert unsafe == {(m, p) for m, p in ours if m != "GET"}
    assert len(unsafe) == 3


@pytest.mark.parametrize("path", [filled(p) for m, p, _, _ in PAGES if m == "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
    ],
    ids=lambda headers: headers["Sec-Fetch-Site"],
)
def test_another_site_cannot_press_a_button(
    db: Database, url: str, path: str, headers: dict[str, str]
) -> None:
    person = logged_in(url, db)
    before = db.value("select count(*) from mill.audit_entry")
    assert person.ask("POST", path, data={"token": "x"}, headers=headers).status_code == 403
    assert db.value("select count(*) from mill.audit_entry") == before
    assert person.get("/tasks").status_code == 200  # nor was it logged out


def test_another_site_cannot_have_an_action_rehearsed(db: Database, url: str) -> None:
    """Would catch: an image's address elsewhere that, with a proxy's cookie, locks tasks."""
    person = logged_in(url, db)
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 303)):
        headers = {"Sec-Fetch-Site": site}
        asked = person.ask("GET", "/act/task.discard", params={"id": "1"}, headers=headers)
        assert asked.status_code == status


def test_refused_links_do_not_fill_the_log_nor_end_a_session(db: Database) -> None:
    """Would catch: entries that nobody can delete, written by whoever reaches the page; a stale
    link that logs its owner out."""
    refused = (
        "select count(*) from mill.audit where action = 'session.login' and outcome = 'refused'"
    )
    app = console(db)
    with browsing(app) as client:
        person = logged_in(str(client.base_url), db)
        app.state.attempts = Rate(ATTEMPTS)
        before = db.value(refused)
        answers = [person.ask("POST", "/login", data={"token": "x"}).status_code for _ in range(12)]
        assert answers == [403] * 10 + [429] * 2
        assert db.value(refused) == before + 10
        assert person.get("/tasks").status_code == 200


def test_what_a_viewer_tried_is_in_the_log(db: Database, url: str) -> None:
    viewer = logged_in(url, db, "vera", "viewer")
    viewer.ask("POST", "/act/task.discard", data={"id": "1"})
    assert db.rows(
        "select actor, role, arguments, outcome from mill.audit order by audit_id desc limit 1"
    ) == [("vera", "viewer", {"request": "POST /act/task.discard"}, "refused")]


def test_the_viewers_login_cannot_change_or_read_more(db: Database, app: Starlette) -> None:
    """Would catch: a grant that lets a fault of the page show who asked, secrets, or pairs."""
    with app.state.readings._pool.connection() as connection:
        for query in (
            "update mill.task set state = 'discarded'",
            "select requester from mill.removal_request",
            "select evidence from mill.removal_request",
            "select secret_sha256 from mill.admin_session",
            "select * from mill.admin_link",
            "select * from mill.worker",
            "select * from mill.pair",
            "select * from report.sample",
            "select mill.disable_worker('x')",
            "insert into mill.audit_entry (actor, role, origin, action, outcome)"
            " values ('vera', 'admin', 'page', 'x', 'done')",
        ):
            with pytest.raises(
                (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)
            ):
                connection.execute(query)


@pytest.mark.parametrize(
    ("names", "status", "may_act"),
    [
        ([], 401, False),
        (["ada"], 200, True),
        (["vera"], 200, False),
        (["eve"], 401, False),
        (["vera", "ada"], 400, False),
        ([""], 401, False),
    ],
)
def test_a_proxy_says_who_comes(db: Database, names: list[str], status: int, may_act: bool) -> None:
    """Would catch: a second header of the client's own that is believed."""
    visitors = ByProxy("X-Forwarded-User", ["ada"], ["vera"])
    with browsing(console(db, visitors=visitors)) as client:
        answer = client.get("/tasks/1", headers=[("X-Forwarded-User", name) for name in names])
        assert answer.status_code == status
        assert ('action="/act/' in answer.text) == may_act


def test_by_a_proxy_no_cookie_lets_anybody_in(db: Database, url: str) -> None:
    session = logged_in(url, db)
    visitors = ByProxy("X-Forwarded-User", ["ada"], ["*"])
    with browsing(console(db, visitors=visitors)) as client:
        assert client.get("/", headers={"Cookie": session.cookie}).status_code == 401
        assert client.get("/", headers={"X-Forwarded-User": "anybody"}).status_code == 200


@pytest.mark.parametrize(
    ("bind", "header", "safe"),
    [
        ("127.0.0.1:8804", "", True),
        ("[::1]:8804", "", True),
        ("localhost:8804", "", True),
        ("unix:/run/pairmill/admin.sock", "X-Forwarded-User", True),
        ("0.0.0.0:8804", "", False),
        ("[::]:8804", "", False),
        ("192.168.1.7:8804", "", False),
        ("127.evil.example:8804", "", False),
        ("127.0.0.1:8804", "X-Forwarded-User", False),
        ("0.0.0.0:8804", "X-Forwarded-User", False),
    ],
)
def test_it_is_bound_where_nobody_reads_along_or_pretends(
    bind: str, header: str, safe: bool
) -> None:
    if safe:
        require_safe(bind, header=header)
        return
    with pytest.raises(UserError, match="unix:PATH"):
        require_safe(bind, header=header)


@pytest.mark.parametrize("lists", [((), ()), (("*",), ())])
def test_a_proxys_lists_name_people(lists: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    with pytest.raises(UserError, match="--admins"):
        ByProxy("X-Forwarded-User", *lists)
