"""A server on loopback that says what a script tells it to, in the client's own event loop.

Nothing here waits for time: a script that wants to send later waits for a ``trio.Event``.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass
class Log:
    """What a server was asked: of each connection the requests' heads, in the order of connections."""

    port: int = 0
    connections: list[list[str]] = field(default_factory=list)

    @property
    def paths(self) -> list[list[str]]:
        return [[head.split(" ")[1] for head in heads] for heads in self.connections]


class Conversation:
    """A connection as its server sees it. number: how many there were before it."""

    def __init__(self, stream: trio.abc.Stream, number: int, heads: list[str]) -> None:
        self.stream = stream
        self.number = number
        self._heads = heads
        self._read = b""

    async def request(self) -> str | None:
        """The path of the next request; None where the client has closed."""
        while b"\r\n\r\n" not in self._read:
            more = bytes(await self.stream.receive_some())
            if not more:
                return None
            self._read += more
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        self._heads.append(head.decode("latin-1"))
        return self._heads[-1].split(" ")[1]

    @property
    def asked_to_close(self) -> bool:
        return "\r\nConnection: close" in self._heads[-1]

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            await self.stream.send_all(piece)

    async def honest(self, path: str | None = None) -> None:
        """Answer the request for ``path``, and all that follow, until the client has had enough."""
        path = path or await self.request()
        while path:
            await self.send(own(path))
            if self.asked_to_close:
                return
            path = await self.request()


Talk = Callable[[Conversation], Awaitable[None]]


def own(path: str) -> bytes:
    """The right answer: a body that no other path has."""
    return response(body_of(path))


def body_of(path: str) -> bytes:
    return b"\xff\xd8\xff the image of " + path.encode()


def response(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    head = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, head, len(body), body)


@asynccontextmanager
async def serving(talk: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[Log]:
    """A server that runs ``talk`` on each connection, and then closes it."""
    log = Log()

    async def serve(stream: trio.SocketStream) -> None:
        log.connections.append([])
        speaking: trio.abc.Stream = stream
        if tls:
            speaking = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        try:
            async with speaking:
                await talk(Conversation(speaking, len(log.connections) - 1, log.connections[-1]))
        except BROKEN:
            return

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        log.port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield log
        nursery.cancel_scope.cancel()
