"""Clients that are slow or rude, as bytes on a socket: each is cut off, and the others are served."""

import select
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from unittest.mock import Mock

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from pairmill.ops.web.app import Site, make_app
from pairmill.ops.web.serve import serving
from pairmill.ops.web.wire import Bounds, Wire
from support.raw_pages import WAIT_SECONDS, connect, rest, statuses, talk

BOUNDS = Bounds(
    head_seconds=0.05, body_seconds=0.05, body_bytes=64, unread_seconds=0.05,
    keep_alive_seconds=0.05, url_bytes=2_000, fields=20, head_bytes=4_000,
)  # fmt: skip
PATIENT = replace(BOUNDS, head_seconds=60.0, body_seconds=60.0, unread_seconds=60.0)
HOST = b"Host: localhost\r\n"
BODY = b"POST /count HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n"
LARGE = 8_000_000  # more than two sockets' buffers hold

Served = tuple[str, Starlette]


async def count(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def named(request: Request) -> Response:
    return PlainTextResponse(",".join(request.headers.keys()))


async def seen(request: Request) -> Response:
    request.app.state.seen.append(request.url.path)
    return PlainTextResponse("seen")


async def large(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(LARGE // 100_000):
            yield bytes(100_000)

    return StreamingResponse(parts())


def application() -> Starlette:
    site = Site("live", "Wire", rate=None, body_limits={"/large": 1_000_000})
    routes = [
        Route("/count", count, methods=["POST"]),
        Route("/large", count, methods=["POST"]),
        Route("/large", large),
        Route("/named", named, methods=["POST"]),
        Route("/{path:path}", seen, methods=["GET", "POST"]),
    ]
    return make_app(site, routes, state={"seen": []})


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served]:
    app = application()
    with serving(app, BOUNDS) as url:
        yield url, app


@pytest.fixture(scope="module")
def patient() -> Iterator[Served]:
    app = application()
    with serving(app, PATIENT) as url:
        yield url, app


def refused(app: Starlette, reason: str) -> float:
    found = app.state.metrics.registry.get_sample_value(
        "pairmill_web_refused_total", {"site": "live", "reason": reason}
    )
    return found or 0.0


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET /second HT",
    ],
    ids=["nothing", "half a header", "line ends alone", "half of a second request"],
)
def test_a_header_that_never_ends_is_cut_off(hasty: Served, sent: bytes) -> None:
    """Would catch: a connection that is held for ever by a client that sends nothing (slowloris)."""
    url, app = hasty
    before = refused(app, "slow head")
    assert statuses(talk(url, sent))[-1] == 408
    assert refused(app, "slow head") == before + 1


def test_a_byte_now_and_then_does_not_prolong_a_header(hasty: Served) -> None:
    """Would catch: a timer that each byte sets again."""
    url, _ = hasty
    with connect(url) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(2_000):
            ready, _, _ = select.select([slow], [], [], 0.02)
            if ready:
                break
            slow.sendall(b"a")
        assert statuses(rest(slow)) == [408]


@pytest.mark.parametrize("path", [b"/count", b"/large"])
@pytest.mark.parametrize(
    "length", [b"Content-Length: 10000", b"Transfer-Encoding: chunked"], ids=["length", "chunked"]
)
def test_a_body_that_trickles_is_cut_off(hasty: Served, path: bytes, length: bytes) -> None:
    """Would catch: a place among the requests at work that is held by a byte a minute."""
    url, app = hasty
    before = refused(app, "slow body")
    head = BODY.replace(b"/count", path) + length + b"\r\n\r\n"
    assert statuses(talk(url, head + b"5\r\nhello\r\n")) == [408]
    assert refused(app, "slow body") == before + 1


def hung_up(connection: socket.socket) -> bool:
    """Whether the other side has reset the connection, without reading from it."""
    poll = select.poll()
    poll.register(connection, select.POLLERR | select.POLLHUP)
    return bool(poll.poll(WAIT_SECONDS * 1000))


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["keep-alive", "close"])
def test_a_client_that_does_not_read_is_cut_off(hasty: Served, more: bytes) -> None:
    """Would catch: answers that wait for ever in the server's memory."""
    url, app = hasty
    before = refused(app, "slow reader")
    with connect(url, receive_buffer=4_096) as deaf:
        deaf.sendall(b"GET /large HTTP/1.1\r\n" + HOST + more + b"\r\n")
        assert hung_up(deaf)
    assert refused(app, "slow reader") == before + 1


@pytest.mark.parametrize(
    ("before", "now", "reset"),
    [(200_000, 200_000, True), (200_000, 199_000, True), (200_000, 100_000, False),
     (1_000, 1_000, True), (1_000, 0, False)],
)  # fmt: skip
def test_a_client_that_reads_slowly_is_left(before: int, now: int, reset: bool) -> None:
    """Would catch: a download over a slow line that is broken off."""
    connection = Mock(bounds=Bounds(), _left=before)
    connection.transport.get_write_buffer_size.return_value = now
    Wire._reads(connection)
    assert connection._reset.called is reset
    assert connection._await_reader.called is not reset


def test_a_client_that_reads_gets_all_of_it(hasty: Served) -> None:
    url, _ = hasty
    found = talk(url, b"GET /large HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert statuses(found) == [200]
    assert len(found) > LARGE
    assert found.endswith(b"0\r\n\r\n")


def test_a_connection_without_a_request_is_closed_after_a_while(hasty: Served) -> None:
    url, _ = hasty
    assert statuses(talk(url, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")) == [200]


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        BODY + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
        BODY + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
        BODY + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + SMUGGLED,
        BODY + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + SMUGGLED,
        BODY + b"Content-Length: 0, 0\r\n\r\n" + SMUGGLED,
        BODY + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
        BODY + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
        BODY + b"Content-Length: 99999999999999999999999\r\n\r\n" + SMUGGLED,
        BODY + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        BODY + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
        BODY + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
        BODY + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        BODY + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        BODY + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        BODY + CHUNKED + b"\r\n0x5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
        BODY + CHUNKED + b"\r\n5\nhello\r\n0\r\n\r\n" + SMUGGLED,
        BODY + CHUNKED + b"\r\n5\r\nhelloX\r\n0\r\n\r\n" + SMUGGLED,
        BODY.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + SMUGGLED,
        BODY + b"X: a\rContent-Length: 0\r\n\r\n" + SMUGGLED,
        BODY + b"X: a\0b\r\n\r\n" + SMUGGLED,
        BODY + b"Host: other.example\r\n\r\n" + SMUGGLED,
        b"GET http://other.example/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"GET /\xe9 HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"GET / HTTP/1.1 \r\nX: \r\n\r\n" + SMUGGLED,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
        b"SMUGGLE / HTTP/1.1\r\nHost: localhost\r\n\r\n" + SMUGGLED,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SMUGGLED,
    ],
)  # fmt: skip
def test_what_two_servers_might_read_in_two_ways_is_refused(patient: Served, sent: bytes) -> None:
    """Would catch: a request within another's body (request smuggling), which a proxy did not see."""
    url, app = patient
    app.state.seen.clear()
    found = statuses(talk(url, sent))
    assert len(found) == 1
    assert found[0] in (400, 405, 408, 413)
    assert app.state.seen == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /" + b"a" * 3_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /" + b"a" * 30_000, 414),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 30 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 5_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 5_000, 431),
        (b"GET / HTTP/1.1\r\n" + HOST + b"y" * 5_000, 431),
        (b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED * 20, 429),
    ],
    ids=["URL", "URL without end", "fields", "long field", "field without end", "name without end",
         "pipeline"],
)  # fmt: skip
def test_a_flood_of_a_header_is_refused(patient: Served, sent: bytes, status: int) -> None:
    """Would catch: memory that a client fills with a header, or with requests ahead of answers."""
    url, app = patient
    reason = {414: "url", 431: "head", 429: "pipeline"}[status]
    before = refused(app, reason)
    talk(url, sent)
    assert refused(app, reason) == before + 1
    if status != 429:  # which closes where an answer is under way
        assert statuses(talk(url, sent)) == [status]


def test_a_trailer_is_no_header(patient: Served) -> None:
    """Would catch: who comes, said behind the body, where a proxy does not look for it."""
    url, _ = patient
    sent = b"POST /named HTTP/1.1\r\n" + HOST + b"Sec-Fetch-Site: same-origin\r\n" + CHUNKED
    sent += b"Connection: close\r\n\r\n1\r\nx\r\n0\r\nX-Forwarded-User: admin\r\n"
    found = talk(url, sent + b"Host: other\r\n" * 5 + b"\r\n")
    assert statuses(found) == [200]
    assert b"x-forwarded-user" not in found
    assert found.endswith(b"host,sec-fetch-site,transfer-encoding,connection")
    assert statuses(talk(url, sent + b"X: y\r\n" * 30 + b"\r\n")) == [431]


def test_requests_in_a_row_are_answered_in_order(patient: Served) -> None:
    """Would catch: a bound that refuses what a proxy's kept connection sends."""
    url, app = patient
    app.state.seen.clear()
    first = b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\nGET /2 HTTP/1.1\r\n" + HOST
    found = talk(url, first + b"Connection: close\r\n\r\n")
    assert statuses(found) == [200, 200]
    assert app.state.seen == ["/1", "/2"]


@pytest.mark.parametrize(
    "bounds",
    [replace(PATIENT, connections=2), replace(PATIENT, network_share=2, own_machine=True)],
    ids=["of all", "of a network"],
)
def test_connections_are_bounded(bounds: Bounds) -> None:
    """Would catch: one client that takes all the connections there are."""
    app = application()
    with serving(app, bounds) as url, connect(url) as first, connect(url) as second:
        assert statuses(talk(url, b"")) == [503]
        for each in (first, second):
            each.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
            assert statuses(rest(each)) == [200]
        again = b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        assert statuses(talk(url, again)) == [200]
        assert refused(app, "connections") == 1


def test_a_crowd_of_one_network_keeps_no_connections() -> None:
    """Would catch: readers behind one address who wait for each other's idle connections."""
    bounds = replace(PATIENT, keep_alive_seconds=60.0, network_share=2, own_machine=True)
    with serving(application(), bounds) as url, connect(url) as first:
        asked = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
        first.sendall(asked)
        assert b"connection: close" not in first.recv(65_536)
        for _ in range(4):
            assert b"connection: close" in talk(url, asked)
        first.sendall(asked)
        assert statuses(first.recv(65_536)) == [200]


def test_what_comes_after_its_answer_is_bounded() -> None:
    """Would catch: a body without end that is read because its answer, 413, was kind."""
    with (
        serving(application(), replace(PATIENT, late_bytes=100_000)) as url,
        connect(url) as endless,
        pytest.raises((ConnectionResetError, BrokenPipeError)),
    ):
        endless.sendall(BODY + b"Content-Length: 900000000\r\n\r\n")
        for _ in range(9_000):
            endless.sendall(bytes(100_000))


def test_a_small_body_that_comes_slowly_holds_no_place() -> None:
    """Would catch: as many half-sent forms as there are places, and nobody else is served."""
    site = Site("live", "Wire", rate=None, concurrency=1)
    app = make_app(site, [Route("/count", count, methods=["POST"])])
    with serving(app, PATIENT) as url, connect(url) as slow:
        head = BODY + b"Content-Length: 2\r\nConnection: close\r\n\r\n"
        slow.sendall(head + b"x")
        for _ in range(3):
            assert statuses(talk(url, head + b"xy")) == [200]
        slow.sendall(b"y")
        assert statuses(rest(slow)) == [200]


@pytest.mark.parametrize(
    ("more", "then", "answers"),
    [(b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", [413, 200]),
     (b"Connection: close\r\n", b"", [413])],
)  # fmt: skip
def test_a_body_too_large_is_answered_while_it_comes(
    patient: Served, more: bytes, then: bytes, answers: list[int]
) -> None:
    """Would catch: a browser that shows a broken connection in place of the reason."""
    url, _ = patient
    head = BODY + b"Content-Length: 3000000\r\n" + more + b"\r\n"
    with connect(url) as large_one:
        large_one.sendall(head)
        answer = large_one.recv(65_536)  # before the body
        for _ in range(30):
            large_one.sendall(bytes(100_000))
        large_one.sendall(then)
        assert statuses(answer + rest(large_one)) == answers
