"""Reading one HTTP/1.1 response, with caps: httptools parses, this collects."""

import zlib

import httptools

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.fetcher import Answer, FetchFailed

MAX_HEAD_BYTES = 64 * 1024
# of a body that is not wanted, a 404's, so much is read for the sake of the connection
MAX_UNWANTED_BYTES = 32 * 1024
MAX_CODINGS = 2
READ_SIZE = 65_536


class Response:
    """The protocol object of httptools' parser, which calls the ``on_`` methods.

    max_bytes: of the body, on the wire and again decoded. cut: a longer one ends there and is no
    failure. The methods only collect: an exception raised in one would come out wrapped.
    """

    def __init__(self, max_bytes: int, *, cut: bool = False) -> None:
        self._max_bytes = max_bytes
        self._cut = cut
        self._parser = httptools.HttpResponseParser(self)
        self._beside = 0  # bytes that were not of the body
        # grown in place: thousands of pieces of it would leave the heap in pieces, too
        self._body = bytearray()
        self._ended = False
        self.head = False  # whether the final response's header section is there
        self.status: int | None = None
        self.lines: list[tuple[str, str]] = []
        self.size = 0
        self.complete = False  # nothing more is to be read
        self.reusable = False  # and the connection may take another request

    @property
    def wanted(self) -> bool:
        """Whether it is a 2xx: the body of another is not kept."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def announced(self) -> int | None:
        """Content-Length, where there is one."""
        length = self._header("content-length")
        # 18 digits are beyond any cap, and int() refuses 5,000 of them
        return int(length.lstrip("0")[:18] or 0) if self.head and length.isdecimal() else None

    @property
    def encoded(self) -> bool:
        """Whether the body will be another length once decoded."""
        return bool(self._codings())

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Raises FetchFailed when they are no response, or too many."""
        before = self.size
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._ended:  # bytes after the end are not judged
                raise FetchFailed(Outcome.BAD_RESPONSE, self.status) from None
            self.reusable = False
        # the header section, trailers, and the framing of chunks: up to 5 bytes for one of the body
        self._beside += len(data) - (self.size - before)
        if self._beside > MAX_HEAD_BYTES + 8 * self.size and not self._ended:
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status)
        if self._ended:
            self.complete = True
        elif self.head:
            self._check_size()

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
        6.3); else the rest is missing. Raises FetchFailed."""
        framed = self._header("content-length") or self._header("transfer-encoding")
        if not self.head or (framed and self.wanted):
            raise FetchFailed(Outcome.CONNECTION_LOST, self.status)
        self.complete = True

    def drop(self) -> None:
        """Let go of everything: the parser and this object hold each other, and would hold a body
        of megabytes until the next full collection."""
        self._body = bytearray()
        del self._parser

    def answer(self) -> Answer:
        """The response once it is complete, its content decoded. We ask for identity; some
        servers compress all the same. Raises FetchFailed."""
        assert self.status is not None
        data = bytes(self._body)
        self._body.clear()
        if not self.wanted:
            return Answer(self.status, tuple(self.lines))
        codings = self._codings()
        if len(codings) > MAX_CODINGS:
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status)
        for coding in reversed(codings):
            data = self._decoded(data, coding)
        if len(data) > self._max_bytes and not self._cut:
            raise FetchFailed(Outcome.TOO_LARGE, self.status)
        return Answer(self.status, tuple(self.lines), data[: self._max_bytes])

    def _decoded(self, data: bytes, coding: str) -> bytes:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status)
        # 32: gzip or zlib, whichever its first bytes say; some servers send deflate bare
        bare = coding == "deflate" and data[:1] != b"\x78"
        inflate = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        try:
            plain = inflate.decompress(data, self._max_bytes + 1)
        except zlib.error:
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status) from None
        if not inflate.eof and len(plain) <= self._max_bytes and not self._cut:
            raise FetchFailed(Outcome.CONNECTION_LOST, self.status)
        return plain

    def _codings(self) -> list[str]:
        values = ",".join(v for name, v in self.lines if name == "content-encoding")
        codings = (coding.strip() for coding in values.lower().split(","))
        return [coding for coding in codings if coding not in ("", "identity")]

    def _header(self, name: str) -> str:
        return next((value for key, value in self.lines if key == name), "")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head:
            return  # a trailer does not describe the response before it
        self.lines.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim response, 100 or 103; the real one follows
            self.lines.clear()
            return
        self.status = status
        self.head = True

    def on_body(self, data: bytes) -> None:
        self.size += len(data)
        if self.wanted and self.size <= self._max_bytes + len(data):
            self._body += data

    def on_message_complete(self) -> None:
        if self.head:
            self._ended = True
            self.reusable = self._parser.should_keep_alive()
