"""What nobody asked for is never believed, and a connection that fails when used again costs nothing.

A connection takes two requests. What comes between them or behind the second's answer must not
become another URL's image.
"""

import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_network

import pytest
import trio
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download import client as client_module
from pairmill.workers.download.budget import SMALL, MemoryBudget
from pairmill.workers.download.client import Client, tls_context
from pairmill.workers.download.fetcher import Fetched, Fetcher, Limits
from pairmill.workers.download.idle import Connection
from pairmill.workers.download.network import Network
from pairmill.workers.download.url import parse
from support.raw_responses import POISON
from support.raw_server import Conversation, Log, Talk, body_of, own, response, serving

LOOPBACK = (ip_network("127.0.0.0/8"),)
LIMITS = Limits(connect=5.0, read=5.0, total=10.0, body=1_000_000)
TLS = tls_context()
Fetch = Callable[[str], Awaitable[Fetched]]
Plan = Callable[[Fetch, Log], Awaitable[None]]


def run(
    talk: Talk,
    plan: Plan,
    *,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    limits: Limits = LIMITS,
) -> None:
    """``plan`` fetches paths, one after another, by one client from a server that does ``talk``."""

    async def main() -> None:
        async with serving(talk, tls[0] if tls else None) as log:
            network = Network(LOOPBACK, ("127.0.0.1", log.port))
            async with Client(network, limits=limits, tls=tls[1] if tls else TLS) as client:

                async def fetch(path: str) -> Fetched:
                    with MemoryBudget().room() as room:
                        url = f"http{'s' if tls else ''}://a.example{path}"
                        return await Fetcher(client, limits).fetch(url, room)

                await plan(fetch, log)

    trio.run(main)


def success(path: str) -> Fetched:
    return Fetched(Outcome.SUCCESS, 200, body_of(path))


async def both(fetch: Fetch, log: Log) -> None:
    """Two URLs, each of which has its own body, whatever happens."""
    assert [await fetch("/1"), await fetch("/2")] == [success("/1"), success("/2")]


# ---- two requests a connection -----------------------------------------------------------------


def test_a_connection_takes_two_requests_and_asks_to_be_closed_behind_the_second() -> None:
    async def plan(fetch: Fetch, log: Log) -> None:
        for path in ("/1", "/2", "/3"):
            assert await fetch(path) == success(path)
        assert log.paths == [["/1", "/2"], ["/3"]]
        asked = [["Connection: close" in head for head in heads] for heads in log.connections]
        assert asked == [[False, True], [False]]

    run(Conversation.honest, plan)


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_does_not_close_is_not_believed_and_not_kept_again(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """Where nothing follows, what came may have been unasked, and the answer be still to come."""
    monkeypatch.setattr(client_module, "ENDING_SECONDS", 0.02)

    async def talk(conversation: Conversation) -> None:
        while path := await conversation.request():
            right = answers or conversation.number or path == "/1"
            await conversation.send(own(path) if right else POISON)

    async def plan(fetch: Fetch, log: Log) -> None:
        for path in ("/1", "/2", "/3", "/4"):
            assert await fetch(path) == success(path)
        assert log.paths == [["/1", "/2"], ["/2"], ["/3"], ["/4"]]
        assert "Connection: close" in log.connections[2][0]

    run(talk, plan)


def test_a_redirect_and_a_404_are_read_on_for_the_sake_of_the_connection() -> None:
    async def talk(conversation: Conversation) -> None:
        while path := await conversation.request():
            if path == "/moved":
                await conversation.send(response(b"moved", b"302 F", b"Location: /2"))
            else:
                await conversation.send(own(path))
            if conversation.asked_to_close:
                return

    async def plan(fetch: Fetch, log: Log) -> None:
        assert await fetch("/moved") == success("/2")
        assert log.paths == [["/moved", "/2"]]

    run(talk, plan)


# ---- a failure of a used connection is tried again on a fresh one ------------------------------

CUT = own("/2")[:-3]
FAILURES = {
    "closed": b"",
    "nonsense": b"SSH-2.0-OpenSSH_9.2\r\n",
    "the rest of a page": b"<p>no such page</p>",
    "a head that is cut": b"HTTP/1.1 200 OK\r\nConte",
    "a body that is cut": CUT,
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    "a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a length beyond the cap": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
    "408": response(b"timeout", b"408 Request Timeout"),
    "an answer and more": own("/2") + b"more",
    "an unasked answer, then its own": POISON + own("/2"),
    "an unasked 404, then its own": response(b"no", b"404 No") + own("/2"),
    "an unasked answer without an end": b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xffPOISON!" + own("/2"),
    "an unasked answer whose trailers have none": b"HTTP/1.1 200 OK\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n\xff\xd8\xff!!\r\n0\r\n" + response(b"", b"404 No"),
    "an unasked answer of chunks without the last line": b"HTTP/1.1 200 OK\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n5\r\n\xff\xd8\xff!!\r\n0\r\n",
    "an unasked 404 without an end": b"HTTP/1.1 404 N\r\nContent-Length: 99999\r\n\r\n" + own("/2"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_used_connection_that_fails_is_tried_again_on_a_fresh_one(failure: str) -> None:
    """A 404 that was longer than its length made the next URL a bad_response."""

    async def talk(conversation: Conversation) -> None:
        if conversation.number:
            return await conversation.honest()
        await conversation.request()
        await conversation.send(own("/1"))
        assert await conversation.request() == "/2"
        return await conversation.send(FAILURES[failure])

    async def plan(fetch: Fetch, log: Log) -> None:
        await both(fetch, log)
        assert log.paths == [["/1", "/2"], ["/2"]]

    run(talk, plan)


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        ("closed", Outcome.CONNECTION_LOST),
        ("nonsense", Outcome.BAD_RESPONSE),
        ("a body that is cut", Outcome.CONNECTION_LOST),
        ("a bad chunk", Outcome.BAD_RESPONSE),
    ],
)
def test_a_fresh_connection_that_fails_is_the_last_word(failure: str, outcome: Outcome) -> None:
    """Once, and not for ever: the fresh one's result counts, and is not tried again."""

    async def talk(conversation: Conversation) -> None:
        path = await conversation.request()
        if conversation.number == 0:
            await conversation.send(own(path or ""))
            await conversation.request()
        await conversation.send(FAILURES[failure])

    async def plan(fetch: Fetch, log: Log) -> None:
        assert await fetch("/1") == success("/1")
        assert (await fetch("/2")).outcome is outcome
        assert log.paths == [["/1", "/2"], ["/2"]]

    run(talk, plan)


@pytest.mark.parametrize("before", [b"", CUT[:9], CUT])
def test_silence_is_a_timeout_on_a_used_connection_too(before: bytes) -> None:
    """A slow server is not asked twice, nor waited for twice."""

    async def talk(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(own("/1"))
        await conversation.request()
        await conversation.send(before)
        await conversation.stream.receive_some()  # until the client goes

    async def plan(fetch: Fetch, log: Log) -> None:
        assert await fetch("/1") == success("/1")
        assert (await fetch("/2")).outcome is Outcome.TIMEOUT
        assert log.paths == [["/1", "/2"]]

    run(talk, plan, limits=Limits(connect=5.0, read=0.05, total=10.0))


def test_a_body_above_the_cap_is_read_once() -> None:
    """10 MB a URL were read twice, and the second time had no time left."""

    async def talk(conversation: Conversation) -> None:
        await conversation.request()
        await conversation.send(own("/1"))
        await conversation.request()
        await conversation.send(b"HTTP/1.1 200 OK\r\n\r\n", bytes(LIMITS.body + 1))

    async def plan(fetch: Fetch, log: Log) -> None:
        assert await fetch("/1") == success("/1")
        assert (await fetch("/2")).outcome is Outcome.TOO_LARGE
        assert log.paths == [["/1", "/2"]]

    run(talk, plan)


def test_room_that_a_doubtful_answer_took_is_given_back() -> None:
    """The fresh answer may be larger, and must be asked room for."""
    large = b"\xff\xd8\xff" + b"x" * (3 * SMALL)

    async def talk(conversation: Conversation) -> None:
        await conversation.request()
        if conversation.number:
            return await conversation.send(response(large))
        await conversation.send(own("/1"))
        await conversation.request()
        return await conversation.send(response(large[: 2 * SMALL]) + b"more")

    async def main() -> None:
        budget = MemoryBudget()
        async with serving(talk) as log:
            network = Network(LOOPBACK, ("127.0.0.1", log.port))
            async with Client(network, limits=LIMITS, tls=TLS) as client:
                for path in ("/1", "/2"):
                    with budget.room() as room:
                        await client.get(parse(f"http://a.example{path}"), room)
                        assert room.taken == (len(large) if path == "/2" else 0)
        assert budget._free == budget._size

    trio.run(main)


# ---- bytes that nobody asked for ---------------------------------------------------------------

FIRST = {
    "a length": own("/1"),
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (len(body_of("/1")), body_of("/1")),
    "404": response(b"no", b"404 No"),
    "204": b"HTTP/1.1 204 No\r\n\r\n",
    "302": response(b"", b"302 F", b"Location: ftp://elsewhere.example/"),
}
EXPECTED = {
    "404": Fetched(Outcome.HTTP_ERROR, 404),
    "204": Fetched(Outcome.EMPTY, 204),
    "302": Fetched(Outcome.REDIRECT_REFUSED, 302),
}
WITH, WHILE_IDLE, BEFORE_THE_ANSWER, BEHIND_THE_ANSWER = range(4)


@st.composite
def unasked(draw: st.DrawFn) -> list[tuple[int, bytes]]:
    """Bytes, in segments each of which comes at its time: with the first response, while the
    connection waits, when the second request is there, or behind its answer."""
    whole = draw(
        st.sampled_from([POISON, POISON * 2, response(b"no", b"404 No"), b"HTTP/1.1 100 C\r\n\r\n"])
        | st.sampled_from(
            [b"HTTP/1.1 200 OK\r\n\r\n\xff\xd8\xffPOISON", POISON.replace(b"10", b"99")]
        )
        | st.sampled_from([POISON[:30], b"\r\n", b"<p>more</p>", b"0\r\n\r\n"])
        | st.binary(min_size=1, max_size=60)
    )
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    times = sorted(
        draw(st.lists(st.integers(0, 3), min_size=len(cuts) + 1, max_size=len(cuts) + 1))
    )
    edges = zip([0, *cuts], [*cuts, len(whole)], strict=True)
    return [(time, whole[a:b]) for time, (a, b) in zip(times, edges, strict=True)]


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(FIRST)), unasked(), st.booleans(), st.booleans())
def test_whatever_comes_behind_a_message_the_next_url_has_its_own_body(
    first: str, segments: list[tuple[int, bytes]], waits: bool, closes: bool
) -> None:
    """A second response behind the first one became the body of the next URL. waits: whether the
    next URL is asked for once the server has said what it says meanwhile. closes: whether the server
    closes behind that, and has not read what came."""

    async def main() -> None:
        asked, said = trio.Event(), trio.Event()

        async def talk(conversation: Conversation) -> None:
            if conversation.number:
                return await conversation.honest()
            try:
                await conversation.request()
                await conversation.send(
                    FIRST[first] + b"".join(data for time, data in segments if time == WITH)
                )
                await asked.wait()
                await conversation.send(*(data for time, data in segments if time == WHILE_IDLE))
            finally:
                said.set()
            if closes:
                return None
            path = await conversation.request()
            if path:
                await conversation.send(*(d for time, d in segments if time == BEFORE_THE_ANSWER))
                await conversation.send(own(path))
                await conversation.send(*(d for time, d in segments if time == BEHIND_THE_ANSWER))
            return None

        async def plan(fetch: Fetch) -> None:
            assert await fetch("/1") == EXPECTED.get(first, success("/1"))
            asked.set()
            if waits:
                await said.wait()
            assert await fetch("/2") == success("/2")
            assert await fetch("/3") == success("/3")

        async with serving(talk) as log:
            network = Network(LOOPBACK, ("127.0.0.1", log.port))
            async with Client(network, limits=LIMITS, tls=TLS) as client:

                async def fetch(path: str) -> Fetched:
                    with MemoryBudget().room() as room:
                        return await Fetcher(client, LIMITS).fetch(f"http://a.example{path}", room)

                await plan(fetch)

    trio.run(main)


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side and the client's."""
    authority = trustme.CA()
    server, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("a.example").configure_cert(server)
    authority.configure_trust(ours)
    return server, ours


@pytest.mark.parametrize("over_tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("when", ["with it", "in a segment of its own", "while it waits"])
def test_a_server_that_sends_what_nobody_asked_for_is_never_kept_again(
    monkeypatch: pytest.MonkeyPatch,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    over_tls: bool,
    when: str,
) -> None:
    """The server answers no second request on that connection: what was believed would be the
    poison. Of TLS it may be in a record that is not decrypted yet, where no poll sees it."""
    idle, said = trio.Event(), trio.Event()

    async def talk(conversation: Conversation) -> None:
        if conversation.number:
            return await conversation.honest()
        await conversation.request()
        if when == "with it":
            await conversation.send(own("/1") + POISON)
        else:
            await conversation.send(own("/1"))
            if when == "while it waits":
                await idle.wait()
            await conversation.send(POISON)
        said.set()
        return await conversation.stream.receive_some()  # and no answer

    async def plan(fetch: Fetch, log: Log) -> None:
        assert await fetch("/1") == success("/1")
        idle.set()
        await said.wait()
        for path in ("/2", "/3"):
            assert await fetch(path) == success(path)
        assert log.paths[1:] == [["/2"], ["/3"]]
        assert log.paths[0] == ["/1"] or over_tls  # or it has been tried in vain

    monkeypatch.setattr(client_module, "ENDING_SECONDS", 0.02)
    run(talk, plan, tls=tls if over_tls else None)


def test_an_end_while_it_waits_is_no_offence() -> None:
    """Servers close what waits too long: their next connection is kept as any other."""
    idle, gone = trio.Event(), trio.Event()

    async def talk(conversation: Conversation) -> None:
        if conversation.number:
            return await conversation.honest()
        await conversation.request()
        await conversation.send(own("/1"))
        await idle.wait()
        await conversation.stream.aclose()
        return gone.set()

    async def plan(fetch: Fetch, log: Log) -> None:
        assert await fetch("/1") == success("/1")
        idle.set()
        await gone.wait()
        for path in ("/2", "/3"):
            assert await fetch(path) == success(path)
        assert log.paths == [["/1"], ["/2", "/3"]]

    run(talk, plan)


def test_an_answer_before_its_request_has_arrived_is_none() -> None:
    """Bytes that were sent, and not acknowledged yet: what came meanwhile is no answer to them."""

    async def main() -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
            other = await listener.accept()
            connection = Connection(parse("http://a.example/"), stream)
            assert connection.heard()
            with trio.move_on_after(0.05):  # more than the two sides' buffers hold
                await stream.send_all(bytes(20_000_000))
            assert not connection.heard()
            await trio.aclose_forcefully(other)
            await trio.aclose_forcefully(stream)

    trio.run(main)
