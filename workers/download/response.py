"""Reading one response, with caps: ``message`` knows the syntax, this collects."""

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.coding import INFLATED, BadCoding, applied, decoded
from pairmill.workers.download.fetcher import Answer, FetchFailed
from pairmill.workers.download.message import (
    HEAD_END,
    BadMessage,
    Chunks,
    ResponseHead,
    begins,
    read_head,
    status_of,
)

MAX_HEAD_BYTES = 64 * 1024
# of a body that is not wanted, a 404's, so much is read for the sake of the connection
MAX_UNWANTED_BYTES = 32 * 1024
READ_SIZE = 65_536


class Response:
    """A response as its bytes come.

    max_bytes: of the body, on the wire and again decoded. cut: a longer one ends there and is no
    failure, as of a file of text. A message ends where its framing says: what comes behind it is
    ``surplus``, and no part of anything (RFC 9112, 9.2).
    """

    def __init__(self, max_bytes: int, *, cut: bool = False) -> None:
        self._max_bytes = max_bytes
        self._cut = cut
        self._begun = b""  # of the header section
        self._chunks = Chunks()
        self._beside = 0  # bytes that were not of the body
        # grown in place: thousands of pieces of it would leave the heap in pieces, too
        self._body = bytearray()
        self.head: ResponseHead | None = None  # of the final response, once it is there
        self.wanted = False  # whether it is a 2xx: the body of another is not kept
        self._codings: tuple[str, ...] = ()
        self.size = 0
        self.complete = False  # nothing more is to be read
        self.ended = False  # since the message is at its end
        self._closed = False  # which the server marked by closing
        self.surplus = False

    @property
    def status(self) -> int | None:
        return self.head.status if self.head else None

    @property
    def announced(self) -> int | None:
        """Content-Length, where it counts."""
        return self.head.length if self.head else None

    @property
    def encoded(self) -> bool:
        """Whether the body may be another length once decoded."""
        return not INFLATED.isdisjoint(self._codings)

    @property
    def clear(self) -> bool:
        """Whether it is at its end beyond doubt. One that lasts until the server closes, or whose
        trailers do, has taken in whatever response came behind it."""
        ended = self.ended and not self.surplus and not self._closed and not self._chunks.trailers
        return ended and self.head is not None and self.head.clear

    @property
    def reusable(self) -> bool:
        """Whether the connection may take another request."""
        return self.clear and self.head is not None and self.head.keep

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Raises FetchFailed when they are no response, or too many."""
        before = self.size
        try:
            rest = self._read_head(data) if self.head is None else data
            if self.head is not None and not self.ended:
                rest = self._read_body(self.head, rest)
        except BadMessage:
            raise self._bad() from None
        if self.ended:
            self.complete = True
            self.surplus = self.surplus or bool(rest)
            return
        # the header section, trailers, and the framing of chunks: up to 5 bytes for one of the body
        self._beside += len(data) - (self.size - before)
        if self._beside > MAX_HEAD_BYTES + 8 * self.size:
            raise self._bad()
        if self.head is not None:
            self._check_size()

    def _bad(self) -> FetchFailed:
        """With the status, also of a header section that cannot be read: the host answered."""
        return FetchFailed(Outcome.BAD_RESPONSE, self.status or status_of(self._begun))

    def _read_head(self, data: bytes) -> bytes:
        """The bytes behind it, once it is there. Interim responses before it, 100 or 103, say
        nothing; 101 is a protocol that nobody asked for."""
        looked_at = max(0, len(self._begun) - 2)
        begun = self._begun + data
        while True:
            if not looked_at:
                begun = begun.lstrip(b"\r\n")  # RFC 9112, 2.2, of requests; Chromium, of both
            self._begun = begun
            end = HEAD_END.search(begun, looked_at)
            if end is None:
                if not begins(begun):
                    raise BadMessage("another protocol")
                return b""
            head, begun, looked_at = read_head(begun[: end.start()]), begun[end.end() :], 0
            if head.status == 101:
                raise BadMessage("another protocol")
            if head.status >= 200:
                self._begun = b""
                self.start(head)
                return begun

    def start(self, head: ResponseHead) -> None:
        """The header section is there."""
        self.head = head
        self.wanted = 200 <= head.status < 300
        self._codings = applied(head.codings)
        self.ended = self.complete = head.length == 0 and not head.chunked

    def _read_body(self, head: ResponseHead, data: bytes) -> bytes:
        """The bytes behind the message, once it has ended."""
        if head.chunked:
            size, rest = self._chunks.feed(data, self._body if self._kept() else None)
            self.size += size
            self.ended = rest is not None
            return rest or b""
        if head.length is not None:
            left = head.length - self.size
            data, rest = data[:left], data[left:]
            self.ended = len(data) == left
        else:
            rest = b""
        self.add(data)
        return rest

    def add(self, data: bytes) -> None:
        """Bytes of the body."""
        if self._kept():
            self._body += data
        self.size += len(data)

    def _kept(self) -> bool:
        return self.wanted and self.size <= self._max_bytes

    def _check_size(self) -> None:
        size = max(self.size, self.announced or 0)
        if not self.wanted:
            self.complete = size > MAX_UNWANTED_BYTES
        elif self._cut:
            self.complete = self.size > self._max_bytes
        elif size > self._max_bytes:
            raise FetchFailed(Outcome.TOO_LARGE, self.status)

    def end(self) -> None:
        """The server closed. Without a length or chunks that is the end of the body (RFC 9112,
        6.3), and of chunks the last was enough; else the rest is missing. Raises FetchFailed."""
        head = self.head
        framed = head is not None and (head.chunked or head.length is not None)
        whole = head is not None and (not framed or self._chunks.last)
        if head is None or (self.wanted and not whole):
            raise FetchFailed(Outcome.CONNECTION_LOST, self.status)
        self.complete = self._closed = True
        self.ended = whole

    def drop(self) -> None:
        """Let go of the body."""
        self._body = bytearray()

    def answer(self) -> Answer:
        """The response once it is complete, its content decoded. Raises FetchFailed."""
        head = self.head
        assert head is not None
        if not self.wanted:
            return Answer(head.status, head.lines)
        data = bytes(self._body)
        self._body.clear()
        most = self._max_bytes
        whole = not self._cut or self.size <= most
        try:
            data = decoded(data, self._codings, most, text=self._cut, whole=whole)
        except BadCoding as bad:
            outcome = Outcome.CONNECTION_LOST if bad.cut else Outcome.BAD_RESPONSE
            raise FetchFailed(outcome, head.status) from None
        if len(data) > most and not self._cut:
            raise FetchFailed(Outcome.TOO_LARGE, head.status)
        return Answer(head.status, head.lines, data[:most])
