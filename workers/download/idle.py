"""Connections that wait for another request to their host.

A host's robots.txt and its first image then cost one TLS handshake and not two. A connection takes
two requests at most: docs/http.md says why.
"""

import fcntl
import select
import socket
import termios
from collections import OrderedDict

import trio

from pairmill.workers.download.url import Target

SECONDS = 10.0  # servers close theirs after 5 to 75
AT_MOST = 128  # each takes about 110 KB with TLS
LOOK_SECONDS = 0.001  # what has come is read in microseconds
AVOIDED = 10_000  # hosts, of about 200 bytes each
Key = tuple[str, str, int]
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Connection:
    """An open connection to a host. used: whether it has carried a request before."""

    def __init__(self, target: Target, stream: trio.abc.Stream) -> None:
        self.key: Key = target.scheme, target.host, target.port
        self.stream = stream
        self.used = False
        self.since = 0.0

    async def close(self) -> None:
        await end(self.stream)

    async def come(self) -> bytes | None:
        """A byte of what came since the last response; none where that is no content, or the end;
        None where nothing came that can be seen: a record of TLS behind another may be unread."""
        if not self._readable():
            return None
        with trio.move_on_after(LOOK_SECONDS):  # of TLS it may be a ticket only
            return await self._byte()
        return b""

    async def _byte(self) -> bytes:
        try:
            return bytes(await self.stream.receive_some(1))
        except BROKEN:
            return b""

    def _readable(self) -> bool:
        if isinstance(self.stream, trio.SSLStream) and self.stream.pending():
            return True
        poll = select.poll()  # select knows no socket above 1,024
        poll.register(self._socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def _socket(self) -> trio.socket.SocketType:
        stream = self.stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        assert isinstance(stream, trio.SocketStream)
        return stream.socket

    def heard(self) -> bool:
        """Whether all that was sent has arrived, as far as the system knows. An answer that came
        before its request had is none."""
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        try:
            on_the_way = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return True  # not a system that tells
        return not any(on_the_way)


async def end(stream: trio.abc.AsyncResource) -> None:
    """Close at once: an orderly end would wait for the other side."""
    try:
        await trio.aclose_forcefully(stream)
    finally:
        if isinstance(stream, trio.SSLStream):
            # it is in a cycle with itself and would hold its TLS state until a full collection:
            # 2,000 URLs over TLS took 150 MB, and 67 without the cycle
            vars(stream).clear()


class IdleConnections:
    """The least recently used are closed first, and none is used after ten seconds, or to a host
    that has sent what nobody asked for."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._of_host: dict[Key, list[Connection]] = {}
        self._avoided: OrderedDict[Key, None] = OrderedDict()

    async def take(self, target: Target) -> Connection | None:
        """One to this host, the newest, on which nothing came since; the caller owns it."""
        key = target.scheme, target.host, target.port
        while of_host := self._of_host.get(key):
            if of_host[-1].since + SECONDS < trio.current_time():
                return None
            connection = self._remove(of_host[-1])
            try:
                come = await connection.come()
            except BaseException:
                await connection.close()
                raise
            if come is None:
                return connection
            if come:
                self.avoid(connection)
            await connection.close()
        return None

    async def put(self, connection: Connection) -> None:
        if connection.used or connection.key in self._avoided:
            await connection.close()
            return
        connection.used = True
        connection.since = trio.current_time()
        self._waiting[connection] = None
        self._of_host.setdefault(connection.key, []).append(connection)
        while self._waiting:
            oldest = next(iter(self._waiting))
            late = oldest.since + SECONDS < trio.current_time()
            if not late and len(self._waiting) <= AT_MOST:
                break
            await self._remove(oldest).close()

    def avoid(self, connection: Connection) -> None:
        """Never keep one to this host again."""
        self._avoided[connection.key] = None
        while len(self._avoided) > AVOIDED:
            self._avoided.popitem(last=False)

    def keeps(self, connection: Connection) -> bool:
        """Whether ``put`` would keep it."""
        return not connection.used and connection.key not in self._avoided

    async def close(self) -> None:
        while self._waiting:
            await self._remove(next(iter(self._waiting))).close()

    def _remove(self, connection: Connection) -> Connection:
        del self._waiting[connection]
        of_host = self._of_host[connection.key]
        of_host.remove(connection)
        if not of_host:
            del self._of_host[connection.key]
        return connection
