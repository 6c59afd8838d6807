"""The records of a WARC file (ISO 28500), read so that damage costs as little as possible.

FastWARC takes three quarters of the time for good files, but it ends without a word where
the gzip data is cut off, and a Content-Length that lies takes the rest of the file with it.
Here the next record is found again: Common Crawl writes one gzip member a record, and JSON
holds no line that begins with ``WARC/``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pairmill.workers.extract.gzip_members import Damaged, GzipMembers, Readable, Truncated

MAX_HEADER = 64 * 1024  # bytes of one record's WARC header
_USUAL_HEADER = 4 * 1024
# bytes of one record's body; the parsed form of the worst 16 MiB is about 200 MB
MAX_BODY = 16 * 1024 * 1024

# Lines may end in LF alone, and WARC may be in lower case, as in old files of others' (ClueWeb09)
_VERSION = re.compile(rb"[Ww][Aa][Rr][Cc]/\d\.\d+[ \t]*\r?\n")
_LONGEST_VERSION = 16  # bytes that show it, with some white space
_NEXT = re.compile(rb"\n[Ww][Aa][Rr][Cc]/")
_NEXT_SIZE = 6
_LINE_ENDS = re.compile(rb"[\r\n]*")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_END = b"\r\n\r\n"  # of a record
# an empty line that ends the header before, a line that is folded, another record's first
_ODD_HEADER = re.compile(rb"\n(?:\n|[ \t]|warc/)")
# headers are in lower case: re.I would take ten times as long
_CONTENT_LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*(\d{1,18})[ \t]*\r?\n")


@dataclass(slots=True)
class Record:
    """A WARC record, or the known part of a broken one.

    header: the bytes up to and including the empty line, in lower case, folded lines made one
    (ISO 28500, 4); they end in CRLF, or LF alone. body: the record's block.
    bad: None, or why there is no body: ``header`` (no whole WARC header below 64 KiB),
    ``content_length`` (missing, no number, or not where the record ends), ``too_large``
    (above 16 MiB), ``gzip`` (damaged; the next whole member is found again).
    """

    header: bytes
    body: bytes | bytearray
    bad: str | None = None


def _only_record(member: bytearray) -> Record | None:
    """The record that is all of a member, as nearly every member is; None of any other.

    The record's body is the member itself, cut at both ends, which copies nothing.
    """
    end = member.find(b"\n\r\n", 0, MAX_HEADER) + 3
    header = bytes(member[:end]).lower()
    if not _VERSION.match(header) or _ODD_HEADER.search(header):
        return None
    length = _CONTENT_LENGTH.search(header)
    if (
        length is None
        or end + int(length[1]) + len(_END) != len(member)
        or not member.endswith(_END)
    ):
        return None
    del member[:end]
    del member[-len(_END) :]
    return Record(header, member)


class WarcRecords:
    """Iterate over a WARC file's records, gzipped (member by member or whole) or plain.

    A broken record is given as one with ``bad`` set, and costs nothing else: reading goes on
    at the next line that begins with ``WARC/`` (JSON holds none: it escapes its line ends),
    or the next gzip member, which after damaged data is searched for. A file that is
    truncated, and damage that no whole member follows, end the reading early. Memory: about
    twice ``MAX_BODY``.

    Errors of the stream itself pass through.
    """

    def __init__(self, stream: Readable) -> None:
        self._members = GzipMembers(stream)
        self._buffer = bytearray()
        self._cut_off = False  # did the member end inside the last record?
        self.beginning = self._members.beginning
        """The first (at most 40) bytes of the file as it is stored."""
        self.ended_early: str | None = None
        """Once iterated: None, or why the rest of the file was not read, in one sentence."""

    def __iter__(self) -> Iterator[Record]:
        while True:
            try:
                while (member := self._members.whole()) is not None or self._members.next():
                    if member is not None:
                        if (record := _only_record(member)) is not None:
                            yield record
                            continue
                        self._buffer += member
                    while self._at_record():
                        yield self._record()
                return
            except (Truncated, Damaged) as error:
                self._buffer.clear()
                resumed = not self._members.plain and self._members.resume()
                if resumed or isinstance(error, Damaged):
                    yield Record(b"", b"", "gzip")
                if not resumed:
                    self.ended_early = str(error)
                    return

    def _fill(self, size: int) -> bool:
        """Have ``size`` bytes in the buffer; False where the member ends before."""
        while len(self._buffer) < size:
            more = self._members.read()
            if not more:
                return False
            self._buffer += more
        return True

    def _take(self, size: int) -> bytes:
        with memoryview(self._buffer) as view:
            taken = bytes(view[:size])
        del self._buffer[:size]
        return taken

    def _at_record(self) -> bool:
        """Skip the empty lines between records; False at the end of the member."""
        while self._buffer or self._fill(1):
            if self._buffer[0] not in b"\r\n":
                return True
            del self._buffer[: _LINE_ENDS.match(self._buffer).end()]  # type: ignore[union-attr]
        if self._cut_off and self._members.plain:
            raise Truncated("truncated: the file ends inside a record")
        return False

    def _record(self) -> Record:
        header = self._header()
        if header is None:
            del self._buffer[:1]
            self._skip()
            return Record(b"", b"", "header")
        length = _CONTENT_LENGTH.search(header)
        size = int(length[1]) if length else -1
        if 0 <= size <= MAX_BODY and self._ends_after(size):
            body = self._take(size)
            if self._buffer[:4] == b"\r\n\r\n":  # as nearly all end: one step for four
                del self._buffer[:4]
            return Record(header, body)
        skipped = self._skip()
        # a body above the cap is not kept, but it is known whether it was as long as it said
        large = size > MAX_BODY and 0 <= skipped - size <= 4
        return Record(header, b"", "too_large" if large else "content_length")

    def _header(self) -> bytes | None:
        """Take a WARC header off the buffer; None, and all stays there, if none is whole."""
        self._cut_off = not self._fill(_LONGEST_VERSION)
        if not _VERSION.match(self._buffer):
            return None
        end = self._header_end(_USUAL_HEADER)
        # where another record begins first, no more is searched: 230,000 such lines took 34 s
        if end < 0 and self._next() < 0:
            end = self._header_end()
            while end < 0 and len(self._buffer) < MAX_HEADER and self._fill(len(self._buffer) + 1):
                end = self._header_end()
        self._cut_off = end < 0 and len(self._buffer) < MAX_HEADER
        header = bytes(self._buffer[: max(end, 0)]).lower()
        if not header or b"\nwarc/" in header:
            return None
        del self._buffer[:end]
        if b"\n " in header or b"\n\t" in header:
            header = _FOLD.sub(b" ", header)
        return header

    def _header_end(self, most: int = MAX_HEADER) -> int:
        """Bytes of the header that the buffer begins with, its empty line included; or -1."""
        end = self._buffer.find(b"\n\r\n", 0, most)
        bare = self._buffer.find(b"\n\n", 0, most if end < 0 else end)
        if bare >= 0:
            return bare + 2
        return end + 3 if end >= 0 else -1

    def _ends_after(self, size: int) -> bool:
        """Is the record's end where its Content-Length says?"""
        self._cut_off = not self._fill(size + 9) and len(self._buffer) < size
        if self._cut_off:
            return False
        follows = bytes(self._buffer[size : size + 9])
        if follows.startswith((b"\r\n\r\n", b"\n\n")):
            return True
        return follows.lstrip(b"\r\n")[:5].upper() in (b"", b"WARC/")

    def _skip(self) -> int:
        """Skip to where the next record may begin, or the member's end; bytes skipped."""
        skipped = 0
        if self._buffer[: _NEXT_SIZE - 1].upper() == b"WARC/":
            return skipped
        while (at := self._next()) < 0:
            more = self._members.read()
            if not more:
                skipped += len(self._buffer)
                self._buffer.clear()
                return skipped
            gone = max(0, len(self._buffer) - _NEXT_SIZE)
            skipped += gone
            del self._buffer[:gone]
            self._buffer += more
        del self._buffer[:at]
        return skipped + at

    def _next(self) -> int:
        """Where in the buffer the next line begins that is a record's first; or -1."""
        found = _NEXT.search(self._buffer)
        return found.start() + 1 if found else -1
