"""Our HTTP client, the default backend: trio streams, connections kept for a second request.

A client of our own because it must pin the checked address, cap the body and keep every
failure's name. docs/decisions has its cost beside other clients'.
"""

import errno
import math
import ssl
from contextlib import suppress

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import SMALL, Room
from pairmill.workers.download.fetcher import Answer, FetchFailed, Limits
from pairmill.workers.download.idle import BROKEN, Connection, IdleConnections, end
from pairmill.workers.download.network import Network
from pairmill.workers.download.response import READ_SIZE, Response
from pairmill.workers.download.url import Target
from pairmill.workers.http.headers import user_agent

ENDING_SECONDS = 0.5  # for the end of a connection, which comes with the answer or right behind it
# no socket could be had: not the host's fault
OURS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def tls_context(*, verify: bool = True) -> ssl.SSLContext:
    """One for the process: making it costs 42 ms. verify: whether a certificate must be signed
    by somebody known, for this host, and in date."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """The default Backend. Call ``close`` at the end, or use ``async with``."""

    def __init__(
        self,
        network: Network,
        *,
        contact: str = "",
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.network = network
        self._limits = limits or Limits()
        self._tls = tls or tls_context()
        self._head = (
            f"User-Agent: {user_agent(contact)}\r\nAccept: image/*,*/*;q=0.1\r\n"
            "Accept-Encoding: identity\r\n\r\n"
        )
        self._idle = IdleConnections()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._idle.close()

    async def get(self, target: Target, room: Room, *, at_most: int | None = None) -> Answer:
        """See ``fetcher.Backend``."""
        if connection := await self._idle.take(target):
            with suppress(_Doubtful):
                return await self._exchange(connection, target, room, at_most)
            room.give_back()
        return await self._exchange(await self._connect(target), target, room, at_most)

    async def _exchange(
        self, connection: Connection, target: Target, room: Room, at_most: int | None
    ) -> Answer:
        """One request and one response; the connection is kept if it may be. Raises _Doubtful where
        it was used before, and what came need not be the answer."""
        most = at_most or self._limits.body
        response = Response(most, cut=at_most is not None)
        kept = False
        try:
            try:
                await self._converse(connection, target, response, room, most)
            except FetchFailed as failed:
                # silence, or a body of which all that may be was read: no more of either
                final = failed.outcome is Outcome.TIMEOUT or response.size > most
                raise failed if final or not connection.used else _Doubtful from None
            kept = response.reusable and self._idle.keeps(connection)
            if kept:
                await self._idle.put(connection)
            elif response.surplus:
                self._idle.avoid(connection)
            if response.wanted and response.encoded:
                await room.take(_needed(response, most))
            return response.answer()
        finally:
            response.drop()
            if not kept:
                await connection.close()

    async def _converse(
        self, connection: Connection, target: Target, response: Response, room: Room, most: int
    ) -> None:
        """Send the request and read; on a connection that was used before, up to its end. Raises
        FetchFailed, or _Doubtful."""
        close = "" if self._idle.keeps(connection) else "Connection: close\r\n"
        request = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\n{close}{self._head}"
        try:
            # one scope, moved on at each read: a scope of its own for each costs more
            with trio.move_on_after(self._limits.read) as patience:
                await connection.stream.send_all(request.encode("ascii"))
                await self._read(connection.stream, response, room, most, patience)
                if connection.used:
                    await self._read_end(connection, response, patience)
        except BROKEN:
            raise FetchFailed(Outcome.CONNECTION_LOST, response.status) from None
        if patience.cancelled_caught:
            if response.complete:  # the answer may still come; servers that do so are rare
                self._idle.avoid(connection)
                raise _Doubtful
            raise FetchFailed(Outcome.TIMEOUT, response.status)

    async def _read_end(
        self, connection: Connection, response: Response, patience: trio.CancelScope
    ) -> None:
        """Whether a response on a connection that was used before is the answer to its request.

        One that came unasked, for whatever reason, would look the same. So the request asks the
        server to close behind its answer, and the answer is believed when its framing is beyond
        doubt and nothing but the end follows. 408 is what servers say, unasked, to a connection
        that waits. Raises _Doubtful.
        """
        alone = response.clear and response.status != 408
        if alone:
            patience.deadline = trio.current_time() + ENDING_SECONDS
            alone = not await connection.stream.receive_some(1)
        if not alone or not connection.heard():
            raise _Doubtful

    async def _read(
        self,
        stream: trio.abc.Stream,
        response: Response,
        room: Room,
        most: int,
        patience: trio.CancelScope,
    ) -> None:
        """Until the response is complete, or its body is not worth reading."""
        while not response.complete:
            if response.wanted and (
                response.announced is not None or response.size + READ_SIZE > SMALL
            ):
                patience.deadline = math.inf
                await room.take(_needed(response, most))
            patience.deadline = trio.current_time() + self._limits.read
            data = await stream.receive_some(READ_SIZE)
            if data:
                response.feed(bytes(data))
            else:
                response.end()

    async def _connect(self, target: Target) -> Connection:
        with trio.move_on_after(self._limits.connect):
            stream: trio.abc.Stream = await self._dial(target)
            if target.scheme == "https":
                stream = await self._handshake(stream, target.host)
            return Connection(target, stream)
        raise FetchFailed(Outcome.CONNECT_TIMEOUT)

    async def _dial(self, target: Target) -> trio.SocketStream:
        """A TCP connection to the first of the checked addresses that accepts one."""
        addresses = await self.network.addresses(target.host, target.port)
        outcome = Outcome.CONNECT_FAILED
        for host, port in addresses:
            # a silent address must leave time for the next: many hosts' IPv6 is dead
            with trio.move_on_after(self._limits.connect / min(len(addresses), 3)) as scope:
                try:
                    return await self._reach(host, port)
                except OSError as error:
                    if error.errno in OURS:
                        raise FetchFailed(Outcome.INTERNAL_ERROR) from None
                    continue
            if scope.cancelled_caught:
                outcome = Outcome.CONNECT_TIMEOUT
        raise FetchFailed(outcome)

    async def _reach(self, host: str, port: int) -> trio.SocketStream:
        """Raises OSError."""
        if self.network.proxy:
            return await tunnel(self.network.proxy, host, port)
        family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
        sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
        try:
            await sock.connect((host, port))
        except BaseException:
            sock.close()
            raise
        return trio.SocketStream(sock)

    async def _handshake(self, stream: trio.abc.Stream, host: str) -> trio.abc.Stream:
        # a name without its last dot, for SNI and in certificates (RFC 6066, 3)
        name = host.removesuffix(".")
        tls = trio.SSLStream(stream, self._tls, server_hostname=name, https_compatible=True)
        try:
            await tls.do_handshake()
        except (trio.BrokenResourceError, ssl.SSLError, OSError, ValueError) as error:
            await end(tls)
            refused = isinstance(error.__cause__ or error, ssl.SSLCertVerificationError)
            raise FetchFailed(
                Outcome.CERTIFICATE_REFUSED if refused else Outcome.TLS_FAILED
            ) from None
        except BaseException:
            await end(tls)
            raise
        return tls


def _needed(response: Response, most: int) -> int:
    """Bytes that a body may come to: without a length, or once it is decoded, all that it may."""
    return min(most if response.encoded else response.announced or most, most)


class _Doubtful(Exception):
    """A kept connection failed, or what it gave need not be the answer."""


async def tunnel(proxy: tuple[str, int], host: str, port: int) -> trio.SocketStream:
    """A connection to this address through an HTTP proxy (CONNECT: RFC 9110, 9.3.6). Raises
    OSError."""
    stream = await trio.open_tcp_stream(*proxy)
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        await stream.send_all(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: the bytes after it are the host's
            more = await stream.receive_some(1)
            head += more
            if not more or len(head) > 8192:
                raise OSError("the proxy gave no answer")
        if head.split(b" ", 2)[1:2] != [b"200"]:
            raise OSError(f"the proxy refused: {head[:100]!r}")
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        raise OSError(str(error)) from None
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream
