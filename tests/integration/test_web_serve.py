"""The server of a page's process: where it listens, how it ends, what it counts and logs."""

import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pairmill.ops.errors import UserError
from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.serve import is_local, listening, serve, serving
from pairmill.workers.metrics import listen
from support.pages import browsing

PROGRAM = textwrap.dedent("""
    import signal
    import sys
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route
    from pairmill.ops.cli import run
    from pairmill.ops.web.app import Site, make_app
    from pairmill.ops.web.serve import serve
    from pairmill.workers.safe_text import say

    def work():
        routes = [Route(path, lambda r: PlainTextResponse("ok")) for path in ("/", "/request/{token}")]
        app = make_app(Site("live", "T", rate=None), routes)
        try:
            serve(app, sys.argv[1], metrics=sys.argv[2], log=True)
        finally:
            say("closed {}", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)

    run(work)
""")


def page(request: Request) -> Response:
    return PlainTextResponse(request.path_params["name"])


def app_of(**more: object) -> Starlette:
    return make_app(
        Site("live", "T", rate=None, **more),  # type: ignore[arg-type]
        [Route("/of/{name}", page)],
    )


@pytest.mark.parametrize(
    ("bind", "said"),
    [
        ("8801", "HOST:PORT or unix:PATH"),
        ("127.0.0.1:x", "HOST:PORT or unix:PATH"),
        ("127.0.0.1:99999", "cannot listen on 127.0.0.1:99999"),
        ("[2001:db8::1]:8801", "cannot listen on [2001:db8::1]:8801"),
        ("unix:/nowhere/x.sock", "cannot listen on unix:/nowhere/x.sock"),
        (f"unix:{__file__}", "it is a file"),
    ],
)
def test_an_address_that_cannot_be_had_is_named(bind: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        serve(app_of(), bind)


def test_a_port_in_use_is_named() -> None:
    with listening("127.0.0.1:0") as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match="in use"):
            serve(app_of(), bind)


def test_a_socket_of_a_process_that_is_gone_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "live.sock"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
    with listening(f"unix:{path}"):
        assert path.stat().st_mode & 0o007 == 0  # others than owner and group do not connect
        with pytest.raises(UserError, match="another process listens"):
            listening(f"unix:{path}")


@pytest.mark.parametrize(
    ("bind", "local"),
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/run/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("127.evil.example:1", False),
        ("localhost.evil.example:1", False),
    ],
)
def test_what_asks_nobody_is_for_this_machine_alone(bind: str, local: bool) -> None:
    """Would catch: the admin's page, open to a network; a proxy's headers, of anybody."""
    assert is_local(bind) is local
    if not local:
        with pytest.raises(UserError, match="for this machine alone"):
            serve(app_of(loopback_only=True), bind)
        with pytest.raises(UserError, match="could name any client"):
            serve(app_of(), bind, proxy=True)


def test_what_fails_at_the_start_is_said() -> None:
    """Would catch: a server that ends without a word, since the server's own log is off."""

    @asynccontextmanager
    async def broken(app: Starlette) -> AsyncIterator[None]:
        raise UserError("the index is not there")
        yield

    with pytest.raises(UserError, match="the index is not there"):
        serve(make_app(Site("knn", "T"), [], lifespan=broken), "127.0.0.1:0")
    with (
        pytest.raises(UserError, match="the index is not there"),
        serving(make_app(Site("knn", "T"), [], lifespan=broken)),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_ends_it_after_what_was_opened_is_closed(number: int, code: int) -> None:
    """Would catch: an embedded server that stays when its page is stopped, an idle browser's
    connection that keeps it, and a log line with what was searched for, or with the token that
    shows a request."""
    with listening("127.0.0.1:0") as free:
        metrics = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "127.0.0.1:0", metrics],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout
    url = process.stdout.readline().removeprefix("live: ").strip()
    with httpx.Client() as client:  # its connection stays open
        assert client.get(f"{url}?q=secret%0aline").text == "ok"
        assert client.get(f"{url}metrics").status_code == 404
        assert client.get(f"{url}request/secret").text == "ok"
        assert client.get(f"{url}request/secret/").status_code == 404
        assert client.post(f"{url}request/secret").status_code == 403  # before any route is asked
        shown = client.get(f"http://{metrics}/metrics").text
        assert 'pairmill_web_requests_total{route="/",site="live",status="200"} 1.0' in shown
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == "closed True\n"
    assert "127.0.0.0/24 GET / 200" in err
    assert "127.0.0.0/24 GET /request/{token} 200" in err
    assert "secret" not in err
    assert "127.0.0.1" not in err


def test_metrics_have_templates_and_no_paths(capfd: pytest.CaptureFixture[str]) -> None:
    """Would catch: a series for each path that a visitor makes up; a log that nobody asked for."""
    app = app_of()
    with browsing(app) as client:
        for path in ("/of/1", "/of/2", "/nothing/1", "/nothing/2"):
            client.get(path)
        client.post("/of/1", headers={"Sec-Fetch-Site": "cross-site"})
    assert capfd.readouterr().err == ""
    value = app.state.metrics.registry.get_sample_value
    for route, status, count in (("/of/{name}", "200", 2), ("none", "404", 2), ("none", "403", 1)):
        labels = {"site": "live", "route": route, "status": status}
        assert value("pairmill_web_requests_total", labels) == count
    assert value("pairmill_web_refused_total", {"site": "live", "reason": "csrf"}) == 1
    assert value("pairmill_web_in_flight", {"site": "live"}) == 0


def test_the_metrics_port_says_what_is_wrong() -> None:
    app = app_of()
    app.state.metrics.trouble = "the database is away"
    with listening("127.0.0.1:0") as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    end = listen(app.state.metrics, address)
    try:
        found = httpx.get(f"http://{address}/healthz")
        assert (found.status_code, found.text) == (503, "the database is away\n")
    finally:
        end()
