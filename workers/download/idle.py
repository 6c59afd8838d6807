"""Connections that wait for another request to their host.

A host's robots.txt and its first image then cost one TLS handshake and not two.
"""

from collections import OrderedDict

import trio

from pairmill.workers.download.url import Target

SECONDS = 10.0  # servers close theirs after 5 to 75
AT_MOST = 128  # each takes about 110 KB with TLS


class Connection:
    """An open connection to a host. used: whether it has carried a request before."""

    def __init__(self, target: Target, stream: trio.abc.Stream) -> None:
        self.key = target.scheme, target.host, target.port
        self.stream = stream
        self.used = False
        self.since = 0.0

    async def close(self) -> None:
        await end(self.stream)


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
    """The least recently used are closed first, and none is used after ten seconds."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Connection, None] = OrderedDict()
        self._of_host: dict[tuple[str, str, int], list[Connection]] = {}

    def take(self, target: Target) -> Connection | None:
        """One to this host, the newest; the caller owns it."""
        of_host = self._of_host.get((target.scheme, target.host, target.port))
        if not of_host or of_host[-1].since + SECONDS < trio.current_time():
            return None
        return self._remove(of_host[-1])

    async def put(self, connection: Connection) -> None:
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
