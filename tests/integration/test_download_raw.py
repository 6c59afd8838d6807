"""Raw responses over the real client: what curl and browsers take is taken, and a refusal has a name.

The table is in ``support.raw_responses``; docs/http.md has the reasons.
"""

from ipaddress import ip_network

import pytest
import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import MemoryBudget
from pairmill.workers.download.client import Client, tls_context
from pairmill.workers.download.fetcher import Answer, Fetched, Fetcher, FetchFailed, Limits
from pairmill.workers.download.network import Network
from pairmill.workers.download.response import READ_SIZE, Response
from pairmill.workers.download.url import parse
from support.raw_responses import BODY, CHUNKED, LENGTH, OK, OTHERWISE, PACKED, TAKEN, closed
from support.raw_server import Conversation, Log, serving

LOOPBACK = (ip_network("127.0.0.0/8"),)
LIMITS = Limits(connect=5.0, read=5.0, total=10.0, body=100_000)
RAW = TAKEN | {name: raw for name, (raw, _, _) in OTHERWISE.items()}
NAMES = list(RAW)
TLS = tls_context()  # one for all: it costs 42 ms


def client_of(log: Log) -> Client:
    return Client(Network(LOOPBACK, ("127.0.0.1", log.port)), limits=LIMITS, tls=TLS)


async def say(conversation: Conversation) -> None:
    """The raw response that the path has the number of, and the connection's end."""
    path = await conversation.request()
    await conversation.send(RAW[NAMES[int((path or "")[1:])]])


def fetched(name: str) -> Fetched:
    async def main() -> Fetched:
        async with serving(say) as log, client_of(log) as client:
            with MemoryBudget().room() as room:
                url = f"http://a.example/{NAMES.index(name)}"
                return await Fetcher(client, LIMITS).fetch(url, room)

    return trio.run(main)


@pytest.mark.parametrize("name", TAKEN)
def test_what_curl_or_browsers_take_is_taken(name: str) -> None:
    assert fetched(name) == Fetched(Outcome.SUCCESS, 200, BODY)


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_is_refused_has_a_name_and_the_first_status(name: str) -> None:
    _, outcome, status = OTHERWISE[name]
    assert fetched(name) == Fetched(outcome, status)


def read(raw: bytes, size: int) -> tuple[Outcome | Answer, bool, bool]:
    """How a response ends that comes in pieces of so many bytes, and then the connection's end."""
    response = Response(LIMITS.body)
    try:
        for at in range(0, len(raw), size):
            response.feed(raw[at : at + size])
            if response.complete:
                break
        else:
            response.end()
        return response.answer(), response.ended, response.reusable
    except FetchFailed as failed:
        return failed.outcome, False, False


@pytest.mark.parametrize("name", RAW)
def test_segments_change_nothing(name: str) -> None:
    """A reader that looked for a line's end, or a chunk's, within one read only."""
    raw = RAW[name]
    whole, ended, reusable = read(raw, READ_SIZE)
    for size in (1, 2, 3, 7) if len(raw) < 5000 else (1009,):
        in_pieces, ended_too, reusable_too = read(raw, size)
        assert (in_pieces, ended_too) == (whole, ended)
        assert reusable_too or not reusable  # what comes behind it may not have come yet


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (RAW["plain"], True),
        (RAW["chunked"], True),
        (RAW["a trailer"], False),
        (b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno", True),
        (b"HTTP/1.1 204 No\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH + b"\r\n" + BODY, True),
        (RAW["status line b'HTTP/1.0 200 OK'"], False),
        (OK + b"Connection: x, Close\r\n" + LENGTH + b"\r\n" + BODY, False),
        (RAW["the length twice"], False),
        (RAW["length b'25, 25'"], False),
        (RAW["a folded field"], False),
        (RAW["a space before the colon"], False),
        (RAW["no colon"], False),
        (RAW["a CR in a value"], False),
        (RAW["the length before the chunks, which win"], False),
        (RAW["transfer coding b'identity', which is none"], False),
        (RAW["transfer coding b'chunked, identity'"], False),
        (RAW["status line b'junkHTTP/1.1 200 OK'"], False),
        (RAW["an unasked response behind it"], False),
        (RAW["an unasked response behind chunks"], False),
        (RAW["an empty line behind it"], False),
    ],
)
def test_only_a_connection_whose_framing_is_beyond_doubt_is_kept(raw: bytes, kept: bool) -> None:
    """RFC 9112, 6.3 and 9.6: leniency about where a message ends, and the next one begins with it."""
    assert read(raw, READ_SIZE)[2] is kept


@pytest.mark.parametrize("size", [1, READ_SIZE])
def test_chunks_that_are_only_framing_are_no_memory(size: int) -> None:
    """A size of a megabyte of zeros, or of extensions, that never ends."""
    assert read(closed(CHUNKED, b"0" * 1_000_000), size * 100)[0] is Outcome.BAD_RESPONSE
    assert read(closed(CHUNKED, b"1;" + b"a" * 1_000_000), size * 100)[0] is Outcome.BAD_RESPONSE


@pytest.mark.parametrize(
    ("headers", "body", "found"),
    [
        (b"", b"Disallow: /\n", b"Disallow: /\n"),
        (b"Content-Encoding: gzip\r\n", b"Disallow: /\n", b"Disallow: /\n"),
        (b"Content-Encoding: br\r\n", b"# caf\xe9\nDisallow: /\n", b"# caf\xe9\nDisallow: /\n"),
        (b"Content-Encoding: none\r\n", b"\xef\xbb\xbfDisallow: /\n", b"\xef\xbb\xbfDisallow: /\n"),
        (b"Content-Encoding: gzip\r\n", PACKED, BODY),
        (b"Content-Encoding: gzip\r\n", PACKED[:-12], Outcome.CONNECTION_LOST),
        (b"Content-Encoding: br\r\n", b"\x8b\x0b\x80an\x03", Outcome.BAD_RESPONSE),
        (b"Content-Encoding: gzip\r\n", b"\xff\xd8\xff\xe0\0\x10JFIF\0", Outcome.BAD_RESPONSE),
    ],
)
def test_text_that_is_not_coded_as_it_says_is_taken(
    headers: bytes, body: bytes, found: bytes | Outcome
) -> None:
    """A robots.txt with a Content-Encoding that was never applied cost the whole host."""
    response = Response(LIMITS.body, cut=True)
    response.feed(closed(headers, body))
    response.end()
    try:
        assert response.answer().body == found
    except FetchFailed as failed:
        assert failed.outcome is found


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"/caf\xc3\xa9.jpg", "/caf%C3%A9.jpg"),
        (b"/caf\xe9.jpg", "/caf%E9.jpg"),
        (b"/caf%C3%A9.jpg?\xe4\xbd\xa0", "/caf%C3%A9.jpg?%E4%BD%A0"),
        (b"http:\\\\b.example\\x\\y", "b.example/x/y"),
        (b"///b.example/x", "b.example/x"),
        (b"http:/x", "/x"),
        (b"http:x", "/a/x"),
        (b"//u:p@b.example:80/x#y", "b.example/x"),
        (b"http://stra\xc3\x9fe.example/x", "xn--strae-oqa.example/x"),
        (b"http://stra%C3%9Fe.example/x", "xn--strae-oqa.example/x"),
        (b" /x\t", "/x"),
        (b"/x\r\n y", "/x%20y"),
        (b"?q", "/a/start?q"),
        (b"../%2e%2E/x", "/x"),
        (b"//127.1:8080/x", "127.0.0.1:8080/x"),
    ],
)
def test_location_is_read_as_browsers_read_it(location: bytes, asked: str) -> None:
    """Raw UTF-8 was asked for as if it were Latin-1; backslashes were asked for as they stand."""

    async def redirect(conversation: Conversation) -> None:
        path = await conversation.request()
        if path == "/a/start":
            moved = b"HTTP/1.1 302 F\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location
            await conversation.send(moved)
        else:
            await conversation.send(RAW["plain"])

    async def main() -> Log:
        async with serving(redirect) as log, client_of(log) as client:
            with MemoryBudget().room() as room:
                found = await Fetcher(client, LIMITS).fetch("http://a.example/a/start", room)
                assert found.outcome is Outcome.SUCCESS
            return log

    head = trio.run(main).connections[-1][-1]
    host = head.partition("\r\nHost: ")[2].partition("\r\n")[0]
    assert host + head.split(" ")[1] == (asked if asked[0] != "/" else f"a.example{asked}")


def test_port_0_is_refused_where_every_port_may_be() -> None:
    """It was taken for port 80."""

    async def main() -> Fetched:
        async with Client(Network(LOOPBACK), limits=LIMITS, tls=TLS) as client:
            with MemoryBudget().room() as room:
                return await Fetcher(client, LIMITS).fetch("http://127.0.0.1:0/x", room)

    assert parse("http://h:0/").port == 0
    assert trio.run(main).outcome is Outcome.PORT_REFUSED
