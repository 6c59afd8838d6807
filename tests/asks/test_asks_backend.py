"""The backend on asks against servers on loopback that misbehave on purpose: `make asks-env`.

The last test holds what asks cannot do; where it fails, the module's docstring is out of date.
"""

import gzip
import socket
import ssl
import threading
import time
import zlib
from ipaddress import ip_network

import pytest
import trio
import trustme

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.asks_backend import AsksBackend
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.fetcher import Answer, Fetched, Fetcher, Limits
from pairmill.workers.download.network import Network
from pairmill.workers.download.url import parse
from support.misbehaving import Script, misbehaving, request_of, saying

LOOPBACK = (ip_network("127.0.0.0/8"),)
QUICK = Limits(connect=1.0, read=0.3, total=2.0, body=100_000)
URL = "http://a.example/x.jpg"


def fetch(
    url: str, network: Network, limits: Limits = QUICK, tls: ssl.SSLContext | None = None
) -> Fetched:
    async def main() -> Fetched:
        async with AsksBackend(network, contact="test", limits=limits, tls=tls) as backend:
            with MemoryBudget().room() as room:
                return await Fetcher(backend, limits).fetch(url, room)

    return trio.run(main)


def fetch_from(script: Script, url: str = URL, limits: Limits = QUICK) -> Fetched:
    with misbehaving(script) as port:
        return fetch(url, Network(LOOPBACK, ("127.0.0.1", port)), limits)


def answer_of(script: Script, at_most: int | None = None) -> Answer:
    """What the backend itself gives."""

    async def main(port: int) -> Answer:
        backend = AsksBackend(Network(LOOPBACK, ("127.0.0.1", port)), limits=QUICK)
        with MemoryBudget().room() as room:
            return await backend.get(parse(URL), room, at_most=at_most)

    with misbehaving(script) as port:
        return trio.run(main, port)


OK = b"HTTP/1.1 200 OK\r\n"
CLOSE = OK + b"Connection: close\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\n"
BOMB = gzip.compress(b"x" * 200_000)


@pytest.mark.parametrize(
    "pieces",
    [
        (OK + b"Content-Length: 5\r\n\r\nhello",),
        (OK + b"Content-Length: 5\r\n\r\n", b"hel", b"lo"),
        (CLOSE + b"\r\nhel", b"lo"),  # until the server closes
        (b"HTTP/1.0 200 OK\r\n\r\nhello",),
        (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",),
        (OK + b"Content-Length: 5\r\n\r\nhello and what is too much",),
        (CLOSE + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello"),),
        (CLOSE + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"hello"),),
        (CLOSE + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"hello")[2:-4],),
    ],
)
def test_bodies_that_are_whole(pieces: tuple[bytes, ...]) -> None:
    assert fetch_from(saying(*pieces)) == Fetched(Outcome.SUCCESS, 200, b"hello")


@pytest.mark.parametrize(
    ("pieces", "outcome", "status"),
    [
        ((b"",), Outcome.CONNECTION_LOST, None),
        ((b"HTTP/1.1 200",), Outcome.CONNECTION_LOST, None),
        ((OK + b"Content-Length: 50\r\n\r\nhello",), Outcome.CONNECTION_LOST, 200),
        ((CHUNKED + b"5\r\nhel",), Outcome.CONNECTION_LOST, 200),
        ((CHUNKED + b"zz\r\nhello",), Outcome.BAD_RESPONSE, 200),
        ((b"SSH-2.0-OpenSSH_9.2\r\n\r\n",), Outcome.BAD_RESPONSE, None),
        ((OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhe",), Outcome.BAD_RESPONSE, None),
        ((OK + b"Content-Length: -5\r\n\r\n",), Outcome.BAD_RESPONSE, None),
        ((OK + b"X: " + b"y" * 200_000,), Outcome.BAD_RESPONSE, None),
        ((OK + b"Content-Length: 99999999999\r\n\r\n",), Outcome.TOO_LARGE, 200),
        ((CLOSE + b"\r\n" + b"x" * 200_000,), Outcome.TOO_LARGE, 200),
        ((CHUNKED + b"30d40\r\n" + b"x" * 200_000,), Outcome.TOO_LARGE, 200),
        ((CLOSE + b"Content-Encoding: gzip\r\n\r\n" + BOMB,), Outcome.TOO_LARGE, 200),
        ((CLOSE + b"Content-Encoding: gzip\r\n\r\nno gzip",), Outcome.BAD_RESPONSE, 200),
        ((CLOSE + b"Content-Encoding: br\r\n\r\nwho knows",), Outcome.BAD_RESPONSE, 200),
        ((OK + b"Content-Length: 0\r\n\r\n",), Outcome.EMPTY, 200),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), Outcome.EMPTY, 204),
        ((b"HTTP/1.1 404 No\r\nContent-Length: 99999999999\r\n\r\n",), Outcome.HTTP_ERROR, 404),
        ((b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",), Outcome.HTTP_ERROR, 404),
        ((b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",), Outcome.SERVER_ERROR, 500),
        ((b"HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n",), Outcome.RETRY_LATER, 429),
        ((b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",), Outcome.HTTP_ERROR, 304),
        ((b"HTTP/1.1 302 Found\r\n\r\n",), Outcome.HTTP_ERROR, 302),
        ((MOVED + b"Location: ftp://a.example/\r\n\r\n",), Outcome.REDIRECT_REFUSED, 302),
        ((MOVED + b"Location: /x.jpg\r\n\r\n",), Outcome.TOO_MANY_REDIRECTS, 302),
        ((b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",), Outcome.BAD_RESPONSE, None),
    ],
)
def test_responses_that_are_wrong(
    pieces: tuple[bytes, ...], outcome: Outcome, status: int | None
) -> None:
    found = fetch_from(saying(*pieces))
    assert (found.outcome, found.http_status, found.body) == (outcome, status, None)


def hang(connection: socket.socket, after: bytes) -> None:
    request_of(connection)
    connection.sendall(after)
    connection.recv(1)  # until the client goes


@pytest.mark.parametrize(
    ("after", "status"), [(b"", None), (OK, None), (OK + b"Content-Length: 5\r\n\r\nhel", 200)]
)
def test_server_that_falls_silent(after: bytes, status: int | None) -> None:
    found = fetch_from(lambda c: hang(c, after))
    assert (found.outcome, found.http_status) == (Outcome.TIMEOUT, status)


def test_server_that_never_ends_within_the_read_timeout() -> None:
    """Bytes keep coming, so only the URL's total deadline ends it."""
    gone = threading.Event()

    def drip(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(CLOSE + b"\r\n")
        while not gone.wait(0.02):
            connection.sendall(b"x")

    found = fetch_from(drip, limits=Limits(connect=2.0, read=1.0, total=0.4))
    gone.set()
    assert found.outcome is Outcome.TIMEOUT


def test_connection_that_nobody_takes_up() -> None:
    """A server whose queue is full lets the client's SYN wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(address)
            time.sleep(0.05)
            found = fetch(URL, Network(LOOPBACK, address), Limits(connect=0.3, total=2.0))
    assert found.outcome is Outcome.CONNECT_TIMEOUT


@pytest.mark.parametrize(
    ("before", "status"), [(b"", None), (OK + b"Content-Length: 500\r\n\r\nhello", 200)]
)
def test_reset(before: bytes, status: int | None) -> None:
    def reset(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(before)
        time.sleep(0.1)  # a reset would take with it what is not read yet
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    found = fetch_from(reset)
    assert (found.outcome, found.http_status) == (Outcome.CONNECTION_LOST, status)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert fetch(URL, Network(LOOPBACK, ("127.0.0.1", port))).outcome is Outcome.CONNECT_FAILED


def test_what_is_asked_for() -> None:
    """Who we are, no Referer; and no cookie, although the server has set one."""
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        seen.append(request_of(connection))
        location = b"Location: /y\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n"
        connection.sendall(
            MOVED + location if len(seen) == 1 else OK + b"Content-Length: 0\r\n\r\n"
        )

    fetch_from(script, "http://Bücher.example:8080/a b/ü.jpg;p?q=ä&r=%20#frag")
    lines = seen[0].decode("ascii").split("\r\n")
    assert lines[0] == "GET /a%20b/%C3%BC.jpg;p?q=%C3%A4&r=%20 HTTP/1.1"
    assert {name: value for name, _, value in (line.partition(": ") for line in lines[1:-2])} == {
        "Host": "xn--bcher-kva.example:8080",
        "User-Agent": "pairmill/0.1.0 (+test)",
        "Accept": "image/*,*/*;q=0.1",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Length": "0",
    }
    assert seen[1].split(b"\r\n")[1:] == seen[0].split(b"\r\n")[1:]  # nothing of the cookie


def test_a_redirect_is_given_and_not_followed() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        seen.append(request_of(connection))
        connection.sendall(MOVED + b"Location: http://b.example/\r\nContent-Length: 2\r\n\r\nno")

    answer = answer_of(script)
    assert (answer.status, answer.header("location")) == (302, "http://b.example/")
    assert (answer.body, len(seen)) == (b"", 1)


def test_every_line_of_a_header_is_kept() -> None:
    """asks keeps the last of a name: an opt-out in the first would be lost."""
    head = b"X-Robots-Tag: noai\r\nX: a\r\n  b\r\nX-ROBOTS-TAG:  googlebot: nofollow \r\n"
    head += b"Set-Cookie: a=b; Path=/\r\nContent-Length: 1\r\n\r\nx"
    assert answer_of(saying(OK + head)).lines == (
        ("x-robots-tag", "noai"),
        ("x", "a b"),
        ("x-robots-tag", "googlebot: nofollow"),
        ("set-cookie", "a=b; Path=/"),
        ("content-length", "1"),
    )
    assert fetch_from(saying(OK + head)).outcome is Outcome.OPTED_OUT


@pytest.mark.parametrize("length", [b"Content-Length: 300000\r\n", b"Connection: close\r\n"])
def test_body_is_cut_where_that_is_wanted(length: bytes) -> None:
    answer = answer_of(saying(OK + length + b"\r\n" + b"x" * 300_000), at_most=1000)
    assert (answer.status, answer.body) == (200, b"x" * 1000)


def test_the_checked_address_is_the_one_connected_to() -> None:
    """The name is asked for once; another answer afterwards has no effect."""
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    with misbehaving(saying(OK + b"Content-Length: 1\r\n\r\nx")) as port:

        async def resolver(host: str, _: int) -> list[str]:
            return answers.pop(0)

        network = Network((ip_network("127.0.0.1/32"),), resolver=resolver)
        url = f"http://a.example:{port}/"
        assert fetch(url, network).outcome is Outcome.SUCCESS
        assert fetch(url, network).outcome is Outcome.ADDRESS_REFUSED
    assert fetch("http://127.0.0.1/", Network()).outcome is Outcome.ADDRESS_REFUSED


def test_redirect_to_a_private_address_is_refused() -> None:
    with misbehaving(saying(MOVED + b"Location: http://inside.example/\r\n\r\n")) as port:

        async def resolver(host: str, _: int) -> list[str]:
            return ["127.0.0.1"] if host == "a.example" else ["127.0.0.2"]

        network = Network((ip_network("127.0.0.1/32"),), resolver=resolver)
        found = fetch(f"http://a.example:{port}/", network)
    assert found.outcome is Outcome.ADDRESS_REFUSED


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_is_verified_against_the_name_in_the_url(authority: trustme.CA) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("a.example").configure_cert(server)
    with misbehaving(saying(OK + b"Content-Length: 1\r\n\r\nx"), server) as port:
        network = Network(LOOPBACK, ("127.0.0.1", port))
        trusted = client_context(authority)
        found = fetch("https://a.example/", network, tls=trusted)
        other = fetch("https://b.example/", network, tls=trusted)
        unknown = fetch("https://a.example/", network)
    assert found == Fetched(Outcome.SUCCESS, 200, b"x")
    assert other.outcome is unknown.outcome is Outcome.CERTIFICATE_REFUSED


def test_plain_http_on_the_tls_port(authority: trustme.CA) -> None:
    with misbehaving(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        network = Network(LOOPBACK, ("127.0.0.1", port))
        found = fetch("https://a.example/", network, tls=client_context(authority))
    assert found.outcome in (Outcome.TLS_FAILED, Outcome.CONNECT_TIMEOUT)


def test_many_at_once_and_one_cancelled() -> None:
    """One backend serves many requests at once; who is cancelled leaves no connection."""
    ended = threading.Event()

    def script(connection: socket.socket) -> None:
        if b" /hang " in request_of(connection):
            connection.recv(1)
            ended.set()
        else:
            connection.sendall(OK + b"Content-Length: 50000\r\n\r\n" + b"x" * 50_000)

    async def main(port: int) -> list[int]:
        limits = Limits(read=5.0, body=100_000)
        backend = AsksBackend(Network(LOOPBACK, ("127.0.0.1", port)), limits=limits)
        sizes: list[int] = []

        async def one() -> None:
            with MemoryBudget().room() as room:
                sizes.append(len((await backend.get(parse(URL), room)).body))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one)
            with trio.move_on_after(0.3), MemoryBudget().room() as room:
                await backend.get(parse("http://a.example/hang"), room)
        return sizes

    with misbehaving(script) as port:
        assert trio.run(main, port) == [50_000] * 50
        assert ended.wait(5)


def test_what_asks_sends_other_than_it_is_told() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        seen.append(request_of(connection).split()[1])
        connection.sendall(OK + b"Content-Length: 0\r\n\r\n")

    for path in ("%41%7e%2F", "a%20b%zz", "x;"):
        fetch_from(script, f"http://a.example/{path}")
    assert seen == [b"/A~%2F", b"/a%2520b%25zz", b"/x"]


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ((OK + b"\r\nhello",), Outcome.BAD_RESPONSE),  # the default client reads it
        ((b"HTTP/1.1 103 E\r\n\r\n", OK + b"Content-Length: 1\r\n\r\nx"), Outcome.BAD_RESPONSE),
        ((OK + b"X: \xe4\r\nContent-Length: 1\r\n\r\nx",), Outcome.BAD_RESPONSE),
        ((OK + b"Set-Cookie: a\r\nContent-Length: 1\r\n\r\nx",), Outcome.BAD_RESPONSE),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), Outcome.CONNECTION_LOST),  # it is no HTTP
    ],
)
def test_what_asks_cannot_do(pieces: tuple[bytes, ...], outcome: Outcome) -> None:
    assert fetch_from(saying(*pieces)).outcome is outcome


def test_header_section_of_more_than_16_kb_must_come_at_once() -> None:
    section = OK + b"X: %b\r\nContent-Length: 1\r\n\r\nx" % (b"y" * 20_000)

    def slowly(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(section[:18_000])
        time.sleep(0.1)
        connection.sendall(section[18_000:])

    assert fetch_from(saying(section)).outcome is Outcome.SUCCESS
    assert fetch_from(slowly).outcome is Outcome.BAD_RESPONSE
