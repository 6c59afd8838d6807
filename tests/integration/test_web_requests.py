"""What stands before every page, by attacking it over HTTP."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg_pool import PoolTimeout
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.render import render
from pairmill.ops.web.security import host_allowed
from pairmill.ops.web.serve import serving
from support.pages import BROWSER, browsing
from support.raw_pages import statuses, talk

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'"
)
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m</p><img src=x onerror=alert(1)>"
RAISED: dict[str, Exception] = {
    "user": UserError(HOSTILE),
    "gone": HTTPException(404, detail=HOSTILE),
    "away": psycopg.OperationalError("password=secret host=10.0.0.7"),
    "full": PoolTimeout("couldn't get a connection"),
    "slow": psycopg.errors.QueryCanceled("statement timeout"),
    "wrong": psycopg.errors.UndefinedTable("relation mill.secret does not exist"),
    "value": psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"),
    "half": UnicodeEncodeError("utf-8", "secret\ud800", 6, 7, "surrogates not allowed"),
    "fault": ValueError("secret"),
}


def fail(request: Request) -> Response:
    raise RAISED[request.path_params["how"]]


def echo(request: Request) -> Response:
    return render(
        request, "error.html", code=200, phrase="Echo", sentence=request.query_params.get("q", "")
    )


async def body(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def half(request: Request) -> Response:
    async def sent(scope: object, receive: object, send: object) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
        await send({"type": "http.response.body", "body": b"half", "more_body": True})  # type: ignore[operator]
        raise ValueError("secret")

    return sent  # type: ignore[return-value]


def whoami(request: Request) -> Response:
    return PlainTextResponse(f"{request.client and request.client.host} {request.url.scheme}")


ROUTES = [
    Route("/", echo),
    Route("/fail/{how}", fail),
    Route("/half", half),
    Route("/body", body, methods=["POST", "PUT"]),
    Route("/upload", body, methods=["POST"]),
    Route("/whoami", whoami),
]


def site_of(**more: object) -> Site:
    return Site("live", "Pages", **({"rate": None} | more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def app() -> Starlette:
    return make_app(site_of(body_limits={"/upload": 1_000_000}), ROUTES)


@pytest.fixture(scope="module")
def client(app: Starlette) -> Iterator[httpx.Client]:
    with browsing(app) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/", {}, 200),
        ("HEAD", "/", {}, 200),
        ("GET", "/healthz", {}, 200),
        ("GET", "/robots.txt", {}, 200),
        ("GET", "/static/site.css", {}, 200),
        ("GET", "/static/no.css", {}, 404),
        ("GET", "/nothing", {}, 404),
        ("DELETE", "/", {}, 405),
        ("GET", "/fail/user", {}, 400),
        ("GET", "/fail/fault", {}, 500),
        ("GET", "/fail/away", {}, 503),
        ("POST", "/body", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/", {"Host": "rebound.example"}, 421),
        ("POST", "/body", {}, 413),
    ],
)
def test_every_answer_has_the_headers(
    client: httpx.Client, method: str, path: str, more: dict[str, str], status: int
) -> None:
    """Would catch: an error page that may be framed, sniffed or cached, or that runs a script."""
    content = bytes(70_000) if method == "POST" else None
    with client.stream(method, path, headers=more, content=content) as found:
        assert found.status_code == status
        for name, value in {
            "content-security-policy": CSP,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "referrer-policy": "same-origin",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }.items():
            assert found.headers[name] == value
        assert "geolocation=()" in found.headers["permissions-policy"]
        assert "server" not in found.headers
        assert "strict-transport-security" not in found.headers  # http
        assert "access-control-allow-origin" not in found.headers
        if status >= 400:
            assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Sec-Fetch-Site": "same-origin, cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"}, 403),
        ({"Sec-Fetch-Site": "", "Origin": "http://{host}"}, 403),
        ({"Origin": "http://{host}"}, 200),
        ({"Origin": "http://{host}.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://localhost:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        ({"Referer": "http://{host}/"}, 403),
        ({}, 403),
    ],
)
def test_only_the_sites_own_forms_change_anything(
    client: httpx.Client, app: Starlette, headers: dict[str, str], status: int
) -> None:
    """Would catch: a form of another site that acts with its visitor's session (CSRF)."""
    host = client.base_url.netloc.decode()
    sent = {name: value.format(host=host) for name, value in headers.items()}
    with httpx.Client(base_url=client.base_url) as bare:
        assert bare.post("/body", headers=sent, content=b"x").status_code == status
        assert bare.put("/body", headers=sent, content=b"x").status_code == status
        assert bare.get("/", headers=sent).status_code == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("127.0.0.1:8801", True),
        ("[::1]:8801", True),
        ("192.168.1.7:8802", True),
        ("live.example.org", True),
        ("live.example.org:443", True),
        ("live.example.org.", True),
        ("evil.example", False),
        ("live.example.org.evil.example", False),
        ("evil.example#live.example.org", False),
        ("live.example.org@evil.example", False),
        ("evil.example:80@localhost", False),
        ("127.0.0.1.evil.example", False),
        ("localhost:evil", False),
        ("localhost, evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_only_named_hosts_are_served(host: str, allowed: bool) -> None:
    """Would catch: another site's name that leads here (DNS rebinding), and links made of it."""
    assert host_allowed(host, {"live.example.org"}) is allowed


def test_a_page_of_another_name_is_not_shown(client: httpx.Client) -> None:
    found = client.get("/", headers={"Host": "rebound.example"})
    assert found.status_code == 421
    assert "rebound.example" not in found.text
    assert "--host" in found.text


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [("/body", 65_536, 200), ("/body", 65_537, 413), ("/upload", 1_000_000, 200),
     ("/upload", 1_000_001, 413), ("/upload", 4_000_000, 413)],
)  # fmt: skip
def test_a_body_has_a_limit(
    client: httpx.Client, path: str, size: int, status: int, chunked: bool
) -> None:
    """Would catch: memory that an upload fills, with or without saying its length first."""
    parts = (bytes(min(50_000, size - at)) for at in range(0, size, 50_000))
    found = client.post(path, content=parts if chunked else bytes(size))
    assert found.status_code == status
    if status == 200:
        assert found.text == str(size)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
@pytest.mark.parametrize(
    ("how", "status"),
    [("user", 400), ("value", 400), ("half", 400), ("gone", 404), ("away", 503), ("full", 503), ("slow", 503), ("wrong", 500),
     ("fault", 500)],
)  # fmt: skip
def test_errors_say_what_the_visitor_may_know(
    client: httpx.Client, capfd: pytest.CaptureFixture[str], how: str, status: int, accept: str
) -> None:
    """Would catch: a page that shows a traceback, a password, a table's name, or markup of
    outside."""
    found = client.get(f"/fail/{how}", headers={"Accept": accept})
    assert found.status_code == status
    assert found.headers["content-type"].startswith(accept)
    markup = ("<script>alert", "<img") if accept == "text/html" else ()
    for never in ("secret", "Traceback", "10.0.0.7", "\u202e", "\x1b", *markup):
        assert never not in found.text
    assert ("retry-after" in found.headers) is (status == 503)
    if accept == "application/json":
        assert found.json()["status"] == status
    assert ("secret" in capfd.readouterr().err) is (status == 500)


def test_half_an_answer_does_not_pass_for_one(
    client: httpx.Client, capfd: pytest.CaptureFixture[str]
) -> None:
    """Would catch: a fault in the middle of an export that looks like its end."""
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/half")
    assert "ValueError: secret" in capfd.readouterr().err


@pytest.mark.parametrize("path", ["/", "/nothing", "/fail/user"])
def test_what_is_asked_for_is_never_markup(client: httpx.Client, path: str) -> None:
    """Would catch: a query or a path that is repeated in the page as HTML (XSS)."""
    for where in (f"{path}?q=", f"{path}/"):
        text = client.get(where + "%3Cscript%3Ealert(1)%3C/script%3E%22%20onload=%22x").text
        assert "<script>alert" not in text
        assert '" onload="' not in text


@pytest.mark.parametrize(
    "name",
    ["../app.py", "..%2fapp.py", "%2e%2e/app.py", "%2e%2e%2fapp.py", "..%5capp.py", "/etc/passwd",
     "%2fetc%2fpasswd", "site.css%00.png", "site.css/", "", ".", "..", "templates/base.html"],
)  # fmt: skip
def test_static_files_are_those_of_one_folder(client: httpx.Client, name: str) -> None:
    """Would catch: a path that leads out of the folder of static files."""
    request = f"GET /static/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    found = talk(str(client.base_url), request.encode())
    assert statuses(found) == [404]
    assert b"import" not in found


def test_a_static_file_is_sent_once(client: httpx.Client) -> None:
    """Would catch: a style sheet that each page of a visitor asks for again, or an old one kept."""
    page = client.get("/").text
    url = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    found = client.get(url, headers={"Accept-Encoding": "gzip"})
    assert "immutable" in found.headers["cache-control"]
    assert found.headers["content-encoding"] == "gzip"
    assert found.headers["vary"] == "Accept-Encoding"
    plain = client.get("/static/site.css", headers={"Accept-Encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in plain.headers
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.text == found.text
    tag = found.headers["etag"]
    for known in (tag, f'W/{tag}, "other"', "*"):
        assert client.get(url, headers={"If-None-Match": known}).status_code == 304
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200
    head = client.head(url)
    assert (head.status_code, head.content) == (200, b"")


def test_a_page_is_packed_where_the_client_takes_it(client: httpx.Client) -> None:
    long = "a" * 3_000
    packed = client.get("/", params={"q": long})
    assert packed.headers["content-encoding"] == "gzip"
    plain = client.get("/", params={"q": long}, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.text == packed.text
    assert "accept-encoding" in plain.headers["vary"].lower()


def test_a_service_for_any_origin_is_read_by_any(capfd: pytest.CaptureFixture[str]) -> None:
    """Would catch: clip-retrieval's front, elsewhere, that may not ask or read; an error that is no
    JSON."""
    app = make_app(site_of(cors=True, json_errors=True), ROUTES)
    elsewhere = {"Origin": "https://other.example", "Sec-Fetch-Site": "cross-site"}
    with browsing(app) as client:
        asked = elsewhere | {"Access-Control-Request-Method": "POST"}
        found = client.options("/body", headers=asked)
        assert found.status_code == 204
        assert "POST" in found.headers["access-control-allow-methods"]
        found = client.post("/body", headers=elsewhere, content=b"x")
        assert (found.status_code, found.text) == (200, "1")
        assert found.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in found.headers
        for path, status in (("/nothing", 404), ("/fail/fault", 500), ("/fail/away", 503)):
            found = client.get(path, headers=elsewhere)
            assert found.json()["status"] == status
            assert found.headers["access-control-allow-origin"] == "*"
        assert client.get("/", headers={"Host": "x.example"}).json()["status"] == 421


def test_a_network_that_asks_too_often_is_told_to_wait() -> None:
    """Would catch: one client that takes the service from all, or that escapes by another path."""
    app = make_app(site_of(rate="3/hour"), ROUTES)
    with browsing(app) as client:
        assert [client.get(f"/?{n}").status_code for n in range(4)] == [200, 200, 200, 429]
        refused = client.get("/nothing")
        assert refused.status_code == 429
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        assert client.get("/static/site.css").status_code == 200
        assert client.get("/healthz").status_code == 200


def test_forwarded_addresses_are_believed_of_a_proxy_alone(
    client: httpx.Client, tmp_path: Path
) -> None:
    """Would catch: a client that names itself another network, to escape the rate, or https."""
    forged = {"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https"}
    assert client.get("/whoami", headers=forged).text == "127.0.0.1 http"
    path = tmp_path / "live.sock"
    app = make_app(site_of(rate="2/hour"), ROUTES)
    with (
        serving(app, bind=f"unix:{path}"),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), headers=BROWSER) as proxy,
    ):
        url = "http://localhost/whoami"
        found = proxy.get(url, headers=forged | {"X-Forwarded-For": "6.6.6.6, 8.8.8.8"})
        assert found.text == "8.8.8.8 https"
        assert found.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        codes = [
            proxy.get(url, headers={"X-Forwarded-For": address}).status_code
            for address in ("9.9.9.1", "9.9.9.2", "9.9.9.3", "8.8.4.4", "2001:db8::1",
                            "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")
        ]  # fmt: skip
        assert codes == [200, 200, 429, 200, 200, 200, 429, 200]


def test_one_network_does_not_take_all_places(tmp_path: Path) -> None:
    """Would catch: slow requests of one client, few enough for the rate, that keep all others out."""
    entered, go = threading.Semaphore(0), threading.Event()

    def wait(request: Request) -> Response:
        entered.release()
        go.wait()
        return PlainTextResponse("done")

    path = tmp_path / "explore.sock"
    app = make_app(site_of(concurrency=2), [Route("/wait", wait)])
    with (
        serving(app, bind=f"unix:{path}"),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=30) as proxy,
        ThreadPoolExecutor(2) as pool,
    ):

        def ask(address: str) -> int:
            sent = {"X-Forwarded-For": address}
            return proxy.get("http://localhost/wait", headers=sent).status_code

        first = pool.submit(ask, "9.9.9.1")
        assert entered.acquire(timeout=20)
        assert ask("9.9.9.2") == 429
        second = pool.submit(ask, "8.8.8.8")
        assert entered.acquire(timeout=20)
        go.set()
        assert (first.result(), second.result(), ask("9.9.9.3")) == (200, 200, 200)


def test_at_overload_the_others_are_told_at_once() -> None:
    """Would catch: a queue without end, in which every request waits until its client is gone."""
    entered, go = threading.Semaphore(0), threading.Event()

    def wait(request: Request) -> Response:
        entered.release()
        go.wait()
        return PlainTextResponse("done")

    app = make_app(site_of(concurrency=1), [Route("/wait", wait)])
    with browsing(app) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.get, "/wait")
        assert entered.acquire(timeout=20)
        second = pool.submit(client.get, "/wait")  # waits in the queue
        in_flight = app.state.metrics.registry.get_sample_value
        while (in_flight("pairmill_web_in_flight", {"site": "live"}) or 0) < 2:
            go.wait(0.005)
        third = client.get("/wait")
        assert third.status_code == 503
        assert int(third.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        go.set()
        assert (first.result().text, second.result().text) == ("done", "done")
