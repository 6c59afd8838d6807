"""Reading one HTTP/1.1 response, with caps: httptools parses, this collects."""

import zlib

import httptools

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.fetch import FetchFailed

MAX_HEAD_BYTES = 64 * 1024


class Response:
    """The protocol object of httptools' parser, which calls the ``on_`` methods.

    They only collect: an exception raised in one would come out wrapped.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._head_done = False
        self._chunks: list[bytes] = []
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.size = 0
        self.complete = False

    @property
    def head(self) -> bool:
        """Whether the final response's header section is there."""
        return self._head_done

    @property
    def wanted(self) -> bool:
        """Whether it is a 2xx: the body of another is not read."""
        return self.status is not None and 200 <= self.status < 300

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Raises FetchFailed when they are no response, or too many."""
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:  # what comes after the end is not ours to judge
                raise FetchFailed(Outcome.BAD_RESPONSE, self.status) from None
        if not self._head_done and self._head_bytes > MAX_HEAD_BYTES:
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status)
        if self.wanted and max(self.size, self._announced()) > self._max_bytes:
            raise FetchFailed(Outcome.TOO_LARGE, self.status)

    def end(self) -> None:
        """The server closed. Without a length or chunks that is the end of the body (RFC 9112,
        6.3); else the rest is missing. Raises FetchFailed."""
        if self.complete:
            return
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self._head_done or framed:
            raise FetchFailed(Outcome.CONNECTION_LOST, self.status)
        self.complete = True

    def body(self) -> bytes:
        """The content, decoded. We ask for identity; some servers compress all the same."""
        data = b"".join(self._chunks)
        self._chunks.clear()
        for coding in reversed(self.headers.get("content-encoding", "").lower().split(",")):
            data = self._decoded(data, coding.strip())
        return data

    def _announced(self) -> int:
        length = self.headers.get("content-length", "")
        return int(length) if self._head_done and length.isdecimal() else 0

    def _decoded(self, data: bytes, coding: str) -> bytes:
        if coding in ("", "identity"):
            return data
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status)
        # 32: gzip or zlib, whichever its first bytes say; some servers send deflate bare
        bare = coding == "deflate" and data[:1] != b"\x78"
        inflate = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        try:
            plain = inflate.decompress(data, self._max_bytes + 1)
        except zlib.error:
            raise FetchFailed(Outcome.BAD_RESPONSE, self.status) from None
        if len(plain) > self._max_bytes:
            raise FetchFailed(Outcome.TOO_LARGE, self.status)
        if not inflate.eof:
            raise FetchFailed(Outcome.CONNECTION_LOST, self.status)
        return plain

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # an interim response, 100 or 103; the real one follows
            self.headers.clear()
            return
        self.status = status
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= self._max_bytes:
            self._chunks.append(data)

    def on_message_complete(self) -> None:
        if self._head_done:
            self.complete = True
