"""HTTP/1.1 of the pages: uvicorn's protocol over httptools, with bounds on what a slow or a rude
client holds.

uvicorn itself waits for ever for the end of a header, of a body, and for a reader; it takes a
header of any length. The parser, llhttp, refuses what two servers might read in two ways: a
Content-Length beside a Transfer-Encoding, several of either, bare line feeds, white space before a
colon.
"""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pairmill.ops.web.limits import OWN_MACHINE, network


@dataclass(frozen=True)
class Bounds:
    """What a connection may take of the server.

    head_seconds: from a request's first byte to the end of its header. body_bytes: what a body has
    to bring in body_seconds at least. unread_bytes: what a client has to read in unread_seconds.
    late_bytes: of a body that comes after its answer. connections: of all clients; network_share:
    those of one /24 or /64, this machine's own excepted unless own_machine. pipelined: requests
    sent before the first one's answer.
    """

    head_seconds: float = 10.0
    head_bytes: int = 32 * 1024
    url_bytes: int = 8 * 1024
    fields: int = 100
    body_seconds: float = 10.0
    body_bytes: int = 32 * 1024
    late_bytes: int = 32 * 1024 * 1024
    unread_seconds: float = 20.0
    unread_bytes: int = 64 * 1024
    keep_alive_seconds: float = 15.0
    connections: int = 1_000
    network_share: int = 64
    own_machine: bool = False
    pipelined: int = 8


BOUNDS = Bounds()


class Wire(HttpToolsProtocol):
    """A connection within bounds. ``wire`` makes the class of a server."""

    bounds: Bounds
    networks: Counter[str]  # connections by network, of the server
    refused: Callable[[str], None]

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._timer: asyncio.TimerHandle | None = None  # of the header, then of the body
        self._unread: asyncio.TimerHandle | None = None
        self._network: str | None = None
        self._within = ""  # "head" or "body" of a message, "" between two
        self._head = self._body = self._late = self._left = 0  # bytes
        self._fields = 0
        self._last = False  # the client wants no further answer
        self._status = 400

    # connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._network = name = network(self.client[0] if self.client else "")
        self.networks[name] += 1
        if (
            len(self.connections) > self.bounds.connections
            or self._share() > self.bounds.network_share
        ):
            self._refuse(503, "connections")
            return
        self._arm(self.bounds.head_seconds, self._no_head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._unread:
            self._unread.cancel()
        if self._network is not None:
            self.networks[self._network] -= 1
            if not self.networks[self._network]:
                del self.networks[self._network]
        super().connection_lost(exc)

    def _share(self) -> int:
        """Connections of this one's network, where they are counted."""
        name = self._network
        if name is None or (name in OWN_MACHINE and not self.bounds.own_machine):
            return 0
        return self.networks[name]

    # what comes in

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._within == "body":
            if self._timer is None:
                self._body = 0
                self._arm(self.bounds.body_seconds, self._slow_body)
            return
        if self._within == "head":
            self._head += len(data)
            if self._head > self.bounds.head_bytes:
                self._refuse(431, "head")
                return
        elif self.cycle is not None and not self.cycle.response_complete:
            return  # a whole request, which is at work
        elif self.timeout_keep_alive_task is not None:
            return  # answered already
        if self._timer is None:  # line ends before a request count as its header
            self._arm(self.bounds.head_seconds, self._no_head)

    def on_message_begin(self) -> None:
        self._within, self._head, self._fields = "head", 0, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.bounds.url_bytes:
            raise self._fault(414, "url")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        if self._fields > self.bounds.fields:
            raise self._fault(431, "head")
        if self._within == "head":  # else a trailer: no proxy has checked what it says
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._disarm()
        self._within, self._late = "body", 0
        if sum(len(n) + len(v) + 4 for n, v in self.headers) > self.bounds.head_bytes:
            raise self._fault(431, "head")
        hosts = sum(name == b"host" for name, _ in self.headers)
        # the absolute form names a host beside the header's
        if hosts > 1 or not (self.url.startswith(b"/") or self.url == b"*"):
            raise self._fault(400, "request")
        if len(self.pipeline) >= self.bounds.pipelined:
            raise self._fault(429, "pipeline")
        super().on_headers_complete()
        # A connection that is closed while a body comes is reset, and the answer lost: that of a
        # body too large. So it is closed at the body's end.
        # A telephone company has thousands of readers behind a /24: past half of its share, none
        # keeps a connection that waits.
        crowded = self._share() > self.bounds.network_share // 2
        self._last = crowded or not self.cycle.keep_alive
        self.cycle.keep_alive = True

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self.cycle.response_complete:
            self._late += len(body)
            if self._late > self.bounds.late_bytes:
                self.transport.abort()
                return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._within = ""
        self._disarm()
        if self._last and self.cycle.response_complete:
            self.transport.close()
        elif self._last:
            self.cycle.keep_alive = False
        super().on_message_complete()

    def _no_head(self) -> None:
        self._timer = None
        self._refuse(408, "slow head")

    def _slow_body(self) -> None:
        self._timer = None
        if not self.flow.read_paused and self._body < self.bounds.body_bytes:
            self._refuse(408, "slow body")
            return
        self._body = 0
        self._arm(self.bounds.body_seconds, self._slow_body)

    # what goes out

    def pause_writing(self) -> None:
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        if self._unread:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._await_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._await_reader()

    def _await_reader(self) -> None:
        """Look after a while whether what waits to be sent has become less."""
        self._left = self.transport.get_write_buffer_size()
        if self._unread is None and self._left:
            self._unread = self.loop.call_later(self.bounds.unread_seconds, self._reads)

    def _reads(self) -> None:
        self._unread = None
        left = self.transport.get_write_buffer_size()
        if left > self._left - min(self._left, self.bounds.unread_bytes):
            self.refused("slow reader")
            self._reset()
        else:
            self._await_reader()

    def _reset(self) -> None:
        """End the connection with what waits in it, the kernel's part too."""
        found = self.transport.get_extra_info("socket")
        if found is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # refusals

    def _fault(self, status: int, reason: str) -> ValueError:
        """What a callback of the parser raises: data_received answers it by send_400_response."""
        self._status = status
        self.refused(reason)
        return ValueError(reason)

    def send_400_response(self, msg: str) -> None:
        if self._status == 400:
            self.refused("request")
        self._answer(self._status)

    def _refuse(self, status: int, reason: str) -> None:
        self.refused(reason)
        self._answer(status)

    def _answer(self, status: int) -> None:
        """Answer, and close. Where an earlier answer is under way, only close."""
        self._disarm()
        self._unset_keepalive_if_required()
        under_way = self.cycle is not None and not self.cycle.response_complete
        begun = under_way and (self.cycle.response_started or bool(self.pipeline))
        if under_way:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if begun:
            self._reset()
            return
        phrase = HTTPStatus(status).phrase
        retry = "Retry-After: 5\r\n" if status in (429, 503) else ""
        self.transport.write(
            f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            "X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'\r\n"
            f"Cache-Control: no-store\r\n{retry}Content-Length: {len(phrase) + 1}\r\n"
            f"Connection: close\r\n\r\n{phrase}\n".encode()
        )
        self.transport.close()
        self._await_reader()

    def _arm(self, seconds: float, then: Callable[[], None]) -> None:
        self._timer = self.loop.call_later(seconds, then)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def wire(bounds: Bounds, refused: Callable[[str], None]) -> type[Wire]:
    """The protocol of one server. refused: told the reason of each refusal."""

    class OfServer(Wire):
        pass

    OfServer.bounds = bounds
    OfServer.networks = Counter()
    OfServer.refused = staticmethod(refused)
    return OfServer
