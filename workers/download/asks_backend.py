"""The second backend: requests and responses by the `asks` library, in an environment of its own.

asks 3.0.0 (2022) is not maintained and pins anyio 3, so no extra can bring it: `make asks-env`.
Connecting is the default client's, since asks cannot pin the address that was checked; asks is
handed the open connection. The cap, the deadlines and the content's decoding are ours too.

What asks cannot do, and how it ends here:
- A body that lasts until the server closes, in HTTP/1.1 without `Connection: close`; any interim
  response (100, 103); a header that is not UTF-8; a Set-Cookie without `=`: BAD_RESPONSE.
- What is not HTTP is noticed at a blank line only: else CONNECTION_LOST or TIMEOUT.
- A header section may have 16 KB (h11's cap), or up to 64 KB if one read brings it all; the default
  client's 64 KB.
- Every connection serves one request: asks' pool scans its idle ones one by one, evicts none.
- The request has `Content-Length: 0`, and asks writes the path anew: `%41` is sent as `A`, a last
  `;` is lost, and with one `%zz`, which encodes nothing, `%20` and every other becomes `%2520`.
- asks keeps the last of several headers of one name, which would lose an X-Robots-Tag; so the
  header section is read again here, from the bytes.
"""

import re
import ssl

import asks
import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.budget import Room
from pairmill.workers.download.client import Client
from pairmill.workers.download.fetcher import Answer, FetchFailed, Limits
from pairmill.workers.download.message import Lines, framed
from pairmill.workers.download.network import Network
from pairmill.workers.download.response import READ_SIZE, Response
from pairmill.workers.download.url import Target
from pairmill.workers.http.headers import user_agent


class AsksBackend(Client):
    """A Backend that connects as the default client does, and leaves the rest to asks."""

    def __init__(
        self,
        network: Network,
        *,
        contact: str = "",
        limits: Limits | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(network, contact=contact, limits=limits, tls=tls)
        self._headers = {
            "User-Agent": user_agent(contact),
            "Accept": "image/*,*/*;q=0.1",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }

    async def get(self, target: Target, room: Room, *, at_most: int | None = None) -> Answer:
        """See ``fetcher.Backend``."""
        connection = await self._connect(target)
        try:
            wire = _Wire(connection.stream, self._limits.read, target.port)
            return await self._ask(wire, target, room, at_most)
        finally:
            await connection.close()

    async def _ask(self, wire: "_Wire", target: Target, room: Room, at_most: int | None) -> Answer:
        """One request and one response."""
        most = at_most or self._limits.body
        response = Response(most, cut=at_most is not None)
        try:
            answer = await _Session(wire).get(
                f"{target.scheme}://{target.authority}{target.path}",
                headers={"Host": target.authority, **self._headers},
                retries=0,
                follow_redirects=False,
                stream=True,
            )
            response.start(framed(answer.status_code, wire.header_lines()))
            if response.wanted and answer.body:  # a bytearray, and empty, where there is none
                await _read(answer.body, response, room, most, cut=at_most is not None)
            return response.answer()
        except FetchFailed:
            raise
        except trio.TooSlowError:
            raise FetchFailed(Outcome.TIMEOUT, response.status) from None
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            raise FetchFailed(Outcome.CONNECTION_LOST, response.status) from None
        except Exception:
            # on hostile responses asks raises its own errors, h11's, and errors of its own code
            # (AssertionError, UnicodeDecodeError, ValueError): no list of them is complete
            outcome = Outcome.CONNECTION_LOST if wire.ended else Outcome.BAD_RESPONSE
            raise FetchFailed(outcome, response.status) from None
        finally:
            response.drop()


async def _read(
    body: "asks.response_objects.StreamBody",
    response: Response,
    room: Room,
    most: int,
    *,
    cut: bool,
) -> None:
    """The body as it comes, up to the cap."""
    if (response.announced or 0) > most and not cut:
        raise FetchFailed(Outcome.TOO_LARGE, response.status)
    # without a length it may come to all that a body may be
    await room.take(min(response.announced or most, most))
    body.decompress_data = False  # asks would inflate without a cap
    body.read_size = READ_SIZE
    async for data in body:
        response.add(bytes(data))
        if response.size > most:
            if cut:
                return
            raise FetchFailed(Outcome.TOO_LARGE, response.status)


class _Session(asks.Session):  # type: ignore[misc]
    """A session for one request, on a connection that is there."""

    def __init__(self, wire: "_Wire") -> None:
        super().__init__()
        self._wire = wire

    async def _grab_connection(self, url: str) -> "_Wire":
        return self._wire


class _Wire:
    """What asks takes for anyio's stream: a stream of trio's, with the deadline for reading.

    ended: whether the server has closed. host, port and _active are asks' own.
    """

    def __init__(self, stream: trio.abc.Stream, seconds: float, port: int) -> None:
        self._stream = stream
        self._seconds = seconds
        self._head: bytes | None = b""  # bytes received; None once the header section is read
        self.ended = False
        self.host = ""
        self.port = str(port)
        self._active = True

    async def send(self, data: bytes) -> None:
        with trio.fail_after(self._seconds):
            await self._stream.send_all(data)

    async def receive(self, size: int = READ_SIZE) -> bytes:
        """Empty at the end, where anyio's raises: in a body asks does not expect that."""
        with trio.fail_after(self._seconds):
            data = bytes(await self._stream.receive_some(size))
        self.ended = not data
        if self._head is not None:
            self._head += data
        return data

    async def aclose(self) -> None:
        """asks closes in most cases, and not in all; so the backend does."""

    def header_lines(self) -> Lines:
        """The header section, which h11 has accepted; names in lower case."""
        head = re.split(rb"\r?\n\r?\n", self._head or b"", maxsplit=1)[0]
        self._head = None
        unfolded = re.sub(rb"[ \t]*\r?\n[ \t]+", b" ", head).decode("latin-1")
        lines = (line.partition(":") for line in re.split("\r?\n", unfolded)[1:])
        return tuple((name.lower(), value.strip(" \t")) for name, _, value in lines)
