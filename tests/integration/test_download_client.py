"""The HTTP client against servers on loopback that misbehave on purpose."""

import gzip
import socket
import ssl
import threading
import zlib
from dataclasses import replace
from ipaddress import ip_network

import pytest
import trio
import trustme

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.client import Client, tls_context
from pairmill.workers.download.fetcher import Fetched, Fetcher, Limits
from pairmill.workers.download.network import Network
from pairmill.workers.download.url import parse
from support.misbehaving import Script, misbehaving, request_of, saying

LOOPBACK = (ip_network("127.0.0.0/8"),)
QUICK = Limits(connect=1.0, read=0.3, total=2.0, body=100_000)


def fetch(
    url: str, network: Network, limits: Limits = QUICK, tls: ssl.SSLContext | None = None
) -> Fetched:
    async def main() -> Fetched:
        async with Client(network, contact="test", limits=limits, tls=tls) as client:
            with MemoryBudget().room() as room:
                return await Fetcher(client, limits).fetch(url, room)

    return trio.run(main)


def fetch_from(
    script: Script, url: str = "http://a.example/x.jpg", limits: Limits = QUICK
) -> Fetched:
    with misbehaving(script) as port:
        return fetch(url, Network(LOOPBACK, ("127.0.0.1", port)), limits)


OK = b"HTTP/1.1 200 OK\r\n"
UPGRADE = b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\n"
BOMB = gzip.compress(b"x" * 200_000)


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ((OK + b"Content-Length: 5\r\n\r\nhello",), b"hello"),
        ((OK + b"\r\nhel", b"lo"), b"hello"),  # until the server closes
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",), b"hello"),
        ((OK + b"Content-Length: 5\r\n\r\nhello and what is too much",), b"hello"),
        ((b"HTTP/1.1 103 E\r\nX: y\r\n\r\n", OK + b"Content-Length: 5\r\n\r\nhello"), b"hello"),
        ((OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello", mtime=0),), b"hello"),
        ((OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"hello"),), b"hello"),
        ((OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(b"hello")[2:-4],), b"hello"),
        ((b"HTTP/1.0 200 OK\r\n\r\nhello",), b"hello"),
    ],
)  # fmt: skip
def test_bodies_that_are_whole(pieces: tuple[bytes, ...], body: bytes) -> None:
    assert fetch_from(saying(*pieces)) == Fetched(Outcome.SUCCESS, 200, body)


@pytest.mark.parametrize(
    ("pieces", "outcome", "status"),
    [
        ((b"",), Outcome.CONNECTION_LOST, None),
        ((b"HTTP/1.1 200",), Outcome.CONNECTION_LOST, None),
        ((OK + b"Content-Length: 50\r\n\r\nhello",), Outcome.CONNECTION_LOST, 200),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",), Outcome.CONNECTION_LOST, 200),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",), Outcome.BAD_RESPONSE, 200),
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), Outcome.BAD_RESPONSE, None),
        ((OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhe",), Outcome.BAD_RESPONSE, 200),
        ((OK + b"Content-Length: -5\r\n\r\n",), Outcome.BAD_RESPONSE, 200),
        ((OK + b"X: " + b"y" * 200_000,), Outcome.BAD_RESPONSE, 200),
        ((OK + b"Content-Length: 99999999999\r\n\r\n",), Outcome.TOO_LARGE, 200),
        ((OK + b"\r\n" + b"x" * 200_000,), Outcome.TOO_LARGE, 200),
        ((OK + b"Content-Encoding: gzip\r\n\r\n" + BOMB,), Outcome.TOO_LARGE, 200),
        ((OK + b"Content-Encoding: gzip\r\n\r\nno gzip",), Outcome.BAD_RESPONSE, 200),
        ((OK + b"Content-Encoding: br\r\n\r\nwho knows",), Outcome.BAD_RESPONSE, 200),
        ((OK + b"Content-Length: 0\r\n\r\n",), Outcome.EMPTY, 200),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), Outcome.EMPTY, 204),
        ((b"HTTP/1.1 404 No\r\nContent-Length: 99999999999\r\n\r\n",), Outcome.HTTP_ERROR, 404),
        ((b"HTTP/1.1 304 Not Modified\r\n\r\n",), Outcome.HTTP_ERROR, 304),
        ((b"HTTP/1.1 999 Request denied\r\nContent-Length: 0\r\n\r\n",), Outcome.HTTP_ERROR, 999),
        ((OK + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nhello",), Outcome.SUCCESS, 200),
        ((OK + b"Content-Encoding: " + b"gzip, " * 5000 + b"gzip\r\nContent-Length: 1\r\n\r\nx",),
         Outcome.BAD_RESPONSE, 200),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 50_000,),
         Outcome.BAD_RESPONSE, 200),
        ((b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 50_000,),
         Outcome.BAD_RESPONSE, 404),
        ((MOVED + b"Location: /" + b"x" * 5000 + b"\r\n\r\n",), Outcome.REDIRECT_REFUSED, 302),
        ((b"HTTP/1.1 302 Found\r\n\r\n",), Outcome.HTTP_ERROR, 302),
        ((MOVED + b"Location: ftp://a.example/\r\n\r\n",), Outcome.REDIRECT_REFUSED, 302),
        ((MOVED + b"Location: http://[bad/\r\n\r\n",), Outcome.REDIRECT_REFUSED, 302),
        ((MOVED + b"Location: /x.jpg\r\n\r\n",), Outcome.TOO_MANY_REDIRECTS, 302),
        ((UPGRADE,), Outcome.BAD_RESPONSE, None),
    ],
)  # fmt: skip
def test_responses_that_are_wrong(
    pieces: tuple[bytes, ...], outcome: Outcome, status: int | None
) -> None:
    found = fetch_from(saying(*pieces))
    assert (found.outcome, found.http_status) == (outcome, status)
    assert (found.body is None) == (outcome is not Outcome.SUCCESS)


def hang(connection: socket.socket, after: bytes) -> None:
    request_of(connection)
    connection.sendall(after)
    connection.recv(1)  # until the client goes


@pytest.mark.parametrize("after", [b"", OK, OK + b"Content-Length: 5\r\n\r\nhel"])
def test_server_that_falls_silent(after: bytes) -> None:
    assert fetch_from(lambda c: hang(c, after)).outcome is Outcome.TIMEOUT


def test_server_that_never_ends_within_the_read_timeout() -> None:
    """Bytes keep coming, so only the URL's total deadline ends it."""
    gone = threading.Event()

    def drip(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(OK + b"\r\n")
        while not gone.wait(0.02):
            connection.sendall(b"x")

    found = fetch_from(drip, limits=Limits(connect=2.0, read=1.0, total=0.4))
    gone.set()
    assert found.outcome is Outcome.TIMEOUT


def test_reset_in_the_body() -> None:
    def reset(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(OK + b"Content-Length: 500\r\n\r\nhello")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    assert fetch_from(reset).outcome is Outcome.CONNECTION_LOST


def test_what_is_asked_for() -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket) -> None:
        seen.append(request_of(connection))
        connection.sendall(OK + b"Content-Length: 1\r\n\r\nx")

    fetch_from(script, "http://Bücher.example/a b/ü.jpg?q=ä&r=%20#frag")
    lines = seen[0].decode("ascii").split("\r\n")
    assert lines[0] == "GET /a%20b/%C3%BC.jpg?q=%C3%A4&r=%20 HTTP/1.1"
    assert "Host: xn--bcher-kva.example" in lines
    assert "User-Agent: pairmill/0.1.0 (+test)" in lines
    assert not any(line.lower().startswith("referer") for line in lines)


def test_redirect_to_another_host_is_followed_with_its_own_host_header() -> None:
    hosts: list[str] = []

    def script(connection: socket.socket) -> None:
        request = request_of(connection).decode()
        hosts.append(request.split("Host: ")[1].split("\r\n")[0])
        if hosts[-1] == "a.example":
            connection.sendall(b"HTTP/1.1 301 Moved\r\nLocation: //b.example:8080/y\r\n\r\n")
        else:
            connection.sendall(OK + b"Content-Length: 1\r\n\r\nx")

    assert fetch_from(script).outcome is Outcome.SUCCESS
    assert hosts == ["a.example", "b.example:8080"]


def test_five_redirects_are_followed_and_six_are_not() -> None:
    def counting(hops: int) -> Script:
        def script(connection: socket.socket) -> None:
            number = int(request_of(connection).split()[1][1:])
            if number < hops:
                connection.sendall(b"HTTP/1.1 302 F\r\nLocation: /%d\r\n\r\n" % (number + 1))
            else:
                connection.sendall(OK + b"Content-Length: 1\r\n\r\nx")

        return script

    assert fetch_from(counting(5), "http://a.example/0").outcome is Outcome.SUCCESS
    assert fetch_from(counting(6), "http://a.example/0").outcome is Outcome.TOO_MANY_REDIRECTS


@pytest.mark.parametrize(
    "url", ["ftp://a/x", "http://", "http://[::1", "http://a:99999/", "x.jpg", "http://a b/"]
)
def test_what_cannot_be_requested(url: str) -> None:
    assert fetch(url, Network(LOOPBACK)).outcome is Outcome.INVALID_URL


def resolving(**names: list[str]) -> Network:
    async def resolver(host: str, port: int) -> list[str]:
        if host.partition(".")[0] not in names:
            raise socket.gaierror("no such name")
        return names[host.partition(".")[0]]

    return Network((), resolver=resolver)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
     "ff02::1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::",
     "2001:0:4136:e378::", "192.0.2.1", "198.18.0.1", "240.0.0.1", "192.0.0.192", "168.63.129.16",
     "fec0::1", "::127.0.0.1", "::ffff:0:127.0.0.1", "5f00::1", "4000::1"],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert fetch("http://a.example/", resolving(a=[address])).outcome is Outcome.ADDRESS_REFUSED
    # also beside a public one
    mixed = resolving(a=["93.184.216.34", address])
    assert fetch("http://a.example/", mixed).outcome is Outcome.ADDRESS_REFUSED


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1"])
def test_public_addresses_are_allowed(address: str) -> None:
    assert trio.run(resolving(a=[address]).addresses, "a.example", 80) == [(address, 80)]


def test_literal_private_address_is_refused() -> None:
    assert fetch("http://127.0.0.1/", Network()).outcome is Outcome.ADDRESS_REFUSED
    assert fetch("http://2130706433/", Network()).outcome is Outcome.ADDRESS_REFUSED
    assert fetch("http://[::1]/", Network()).outcome is Outcome.ADDRESS_REFUSED


def test_redirect_to_a_private_address_is_refused() -> None:
    """The first hop is allowed by name; the second leads inside."""
    with misbehaving(saying(b"HTTP/1.1 302 F\r\nLocation: http://inside.example/\r\n\r\n")) as port:

        async def resolver(host: str, _: int) -> list[str]:
            return ["127.0.0.1"] if host == "a.example" else ["127.0.0.2"]

        network = Network((ip_network("127.0.0.1/32"),), resolver=resolver)
        found = fetch(f"http://a.example:{port}/", network)
    assert found.outcome is Outcome.ADDRESS_REFUSED


def test_connect_to_is_replicated_too() -> None:
    network = Network((), ("127.0.0.1", 80))
    assert fetch("http://a.example/", network).outcome is Outcome.ADDRESS_REFUSED


def test_names_and_ports() -> None:
    assert fetch("http://nowhere.example/", resolving()).outcome is Outcome.DNS_FAILED
    assert fetch(f"http://{'a' * 70}.example/", Network()).outcome is Outcome.DNS_FAILED
    assert (
        fetch("http://a.example:22/", resolving(a=["93.184.216.34"])).outcome
        is Outcome.PORT_REFUSED
    )


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    network = Network(LOOPBACK, ("127.0.0.1", port))
    assert fetch("http://a.example/", network).outcome is Outcome.CONNECT_FAILED


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls_is_verified_against_the_name_in_the_url(authority: trustme.CA) -> None:
    good = server_context(authority.issue_cert("a.example"))
    with misbehaving(saying(OK + b"Content-Length: 1\r\n\r\nx"), good) as port:
        network = Network(LOOPBACK, ("127.0.0.1", port))
        trusted = client_context(authority)
        assert fetch("https://a.example/", network, tls=trusted).outcome is Outcome.SUCCESS
        refused = Outcome.CERTIFICATE_REFUSED
        assert fetch("https://b.example/", network, tls=trusted).outcome is refused
        assert fetch("https://a.example/", network).outcome is refused  # nobody that we know
        anyway = tls_context(verify=False)
        assert fetch("https://b.example/", network, tls=anyway).outcome is Outcome.SUCCESS


def test_plain_http_on_the_tls_port(authority: trustme.CA) -> None:
    with misbehaving(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        network = Network(LOOPBACK, ("127.0.0.1", port))
        found = fetch("https://a.example/", network, tls=client_context(authority))
    assert found.outcome in (Outcome.TLS_FAILED, Outcome.CONNECT_TIMEOUT)


def test_large_bodies_take_turns_and_all_arrive() -> None:
    """More at once than have a place: they wait for each other and none is lost."""
    size = 1_500_000
    limits = Limits(connect=5.0, read=5.0, total=30.0, body=2_000_000)
    with misbehaving(saying(OK + b"Content-Length: %d\r\n\r\n" % size, b"x" * size)) as port:
        found: list[Fetched] = []
        budget = MemoryBudget(4 * size)
        least = 4 * size

        async def one(fetcher: Fetcher) -> None:
            nonlocal least
            with budget.room() as room:
                found.append(await fetcher.fetch("http://a.example/", room))
                least = min(least, budget._free)

        async def all_of_them() -> None:
            network = Network(LOOPBACK, ("127.0.0.1", port))
            async with Client(network, limits=limits) as client, trio.open_nursery() as nursery:
                for _ in range(12):
                    nursery.start_soon(one, Fetcher(client, limits))

        trio.run(all_of_them)
    assert [(f.outcome, len(f.body or b"")) for f in found] == [(Outcome.SUCCESS, size)] * 12
    assert 0 <= least < 4 * size
    assert budget._free == 4 * size


def proxy_saying(answer: bytes, seen: list[bytes]) -> Script:
    """A proxy that says this, and is then the host behind itself."""

    def script(connection: socket.socket) -> None:
        seen.append(request_of(connection).split(b"\r\n")[0])
        connection.sendall(answer)
        seen.append(request_of(connection).split(b"\r\n")[0])
        connection.sendall(OK + b"Content-Length: 1\r\n\r\nx")

    return script


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"HTTP/1.1 200 Connection established\r\n\r\n", Outcome.SUCCESS),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", Outcome.CONNECT_FAILED),
        (b"nonsense", Outcome.CONNECT_TIMEOUT),
        (b"x" * 9000, Outcome.CONNECT_FAILED),
    ],
)
def test_proxy_is_asked_for_the_checked_address(answer: bytes, outcome: Outcome) -> None:
    seen: list[bytes] = []
    with misbehaving(proxy_saying(answer, seen)) as port:
        network = replace(resolving(a=["93.184.216.34"]), proxy=("127.0.0.1", port))
        assert fetch("http://a.example/x", network).outcome is outcome
        inside = replace(resolving(a=["10.0.0.1"]), proxy=("127.0.0.1", port))
        assert fetch("http://a.example/x", inside).outcome is Outcome.ADDRESS_REFUSED
    assert seen[0] == b"CONNECT 93.184.216.34:80 HTTP/1.1"
    if outcome is Outcome.SUCCESS:
        assert seen[1] == b"GET /x HTTP/1.1"


def test_address_that_is_silent_leaves_time_for_the_next() -> None:
    """The first address of a name accepts nothing: its queue of connections is full."""
    with socket.socket() as full, misbehaving(saying(OK + b"Content-Length: 1\r\n\r\nx")) as port:
        full.bind(("127.0.0.2", port))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", port))

        async def resolver(host: str, _: int) -> list[str]:
            return ["127.0.0.2", "127.0.0.1"]

        network = Network(LOOPBACK, resolver=resolver)
        found = fetch(f"http://a.example:{port}/", network)
        for one in waiting:
            one.close()
    assert found.outcome is Outcome.SUCCESS


def test_trailer_says_nothing_and_small_chunks_are_no_attack() -> None:
    chunks = b"".join(b"1\r\nx\r\n" for _ in range(50_000))
    trailer = b"0\r\nX-Robots-Tag: noai\r\nContent-Encoding: gzip\r\n\r\n"
    found = fetch_from(saying(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + trailer))
    assert (found.outcome, len(found.body or b"")) == (Outcome.SUCCESS, 50_000)


def test_what_a_body_becomes_is_asked_room_for() -> None:
    packed = gzip.compress(b"x" * 3_000_000)
    answer = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    limits = Limits(connect=1.0, read=1.0, total=5.0, body=4_000_000)
    taken: list[int] = []

    async def main(port: int) -> Fetched:
        network = Network(LOOPBACK, ("127.0.0.1", port))
        async with Client(network, limits=limits) as client:
            with MemoryBudget().room() as room:
                found = await Fetcher(client, limits).fetch("http://a.example/", room)
                taken.append(room.taken)
                return found

    with misbehaving(saying(answer)) as port:
        assert len(trio.run(main, port).body or b"") == 3_000_000
    assert taken == [4_000_000]


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/a/../b", "/b"), ("/a/./b/", "/a/b/"), ("/../../b", "/b"), ("/a/%2e%2E/b", "/b"), ("/a/..", "/"),
     ("/a/b/..", "/a/"), ("//a", "//a"), ("/a..b/.c", "/a..b/.c"), ("/..", "/")],
)  # fmt: skip
def test_dot_segments_are_removed(path: str, asked: str) -> None:
    assert parse(f"http://a.example{path}").path == asked
