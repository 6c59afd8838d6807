"""The records of a WARC file (ISO 28500), read so that damage costs as little as possible.

FastWARC takes three quarters of the time for good files, but it ends without a word where
the gzip data is cut off, and a Content-Length that lies takes the rest of the file with it.
Here the next record is found again: Common Crawl writes one gzip member a record, and JSON
holds no line that begins with ``WARC/``. A member that is at hand whole, as nearly all are, is
inflated at once by libdeflate, in three quarters of ISA-L's time; the others are inflated piece by
piece by ISA-L, in half of zlib's.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import deflate
from isal import isal_zlib
from stringzilla import find

GzipError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub is wrong
CHUNK = 64 * 1024  # bytes read at once
# bytes inflated at once: the part that belongs to the next member is copied, and members are small
PIECE = 8 * 1024
INFLATE = 1024 * 1024  # most bytes inflated at once: a bomb is met in pieces
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
_MEMBER = b"\x1f\x8b\x08"  # how a gzip member begins: RFC 1952, 2.3.1
_SHORTEST_MEMBER = 18  # bytes: header and trailer
_SIZE = struct.Struct("<I")  # of what a member inflates to, at its end: RFC 1952, 2.3.1
MAX_WHOLE = 2 * 1024 * 1024  # bytes that a member inflates to, if it is inflated at once
# ISA-L leaves the upper halves of the AVX registers set. Then SSE code, CLD3's above all, runs at
# half its speed (on a Xeon with AVX-512 41 µs a text and not 22; on a Zen 3 there is no difference)
# until something clears them: libdeflate's CRC-32 of 64 bytes does, in 0.1 µs.
_CLEARS = bytes(64)
_TRIAL = 4096  # bytes that show whether a record begins where a member seems to
_KEPT = 1024 * 1024  # bytes of a member that are searched again once it is found damaged


class Readable(Protocol):
    """A binary stream that is read from its start to its end."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, fewer where fewer are at hand; ``b""`` only at the end."""


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


class _Truncated(Exception):
    """The file ends within a record or member, which the text names."""


class _Damaged(Exception):
    """The gzip data cannot be inflated here; the text says why."""


class _Members:
    """The bytes of one gzip member after another; a plain file counts as one member."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._raw = b""
        self._at = 0  # bytes of _raw already used
        self._used = bytearray()  # of the member that is being inflated
        self._inside = False  # of a member that has not ended
        self._inflate: Any = None  # that which inflates it piece by piece
        self._need(2)
        self.plain = self._raw[:2] != _MEMBER[:2]
        self._begun = False
        self.beginning = self._raw[:40]

    def _need(self, size: int) -> bool:
        """Have ``size`` bytes of the file at hand; False where it ends before."""
        while len(self._raw) - self._at < size:
            more = self._stream.read(CHUNK)
            if not more:
                return False
            self._raw = self._raw[self._at :] + more
            self._at = 0
        return True

    def next(self) -> bool:
        """Begin the next member; False at the end of the file."""
        if self.plain:
            begins, self._begun = not self._begun, True
            return begins and self._need(1)
        while self._begun and self._need(1) and self._raw[self._at] == 0:
            self._at += 1  # padding, which gzip allows after a member
        if not self._need(1):
            return False
        self._used.clear()
        if self._need(2) and not self._raw.startswith(_MEMBER[:2], self._at):
            raise _Damaged("what follows a gzip member is not gzip")
        self._inside = self._begun = True
        return True

    def whole(self) -> bytearray | None:
        """All bytes of the next member, if its end is at hand; else None, and nothing has begun.

        Its end is where another member seems to begin. Nothing is read to find one. libdeflate
        checks a member's CRC-32 and size, and does not mind bytes behind it. So the size must stand
        directly before that end, and nowhere before. Of padding it would be 0.
        """
        if not self._raw.startswith(_MEMBER, self._at):
            return None
        end = find(self._raw, _MEMBER, self._at + _SHORTEST_MEMBER)
        if end < 0:
            return None
        packed = self._raw[self._at : end]
        (size,) = _SIZE.unpack_from(packed, len(packed) - _SIZE.size)
        if not 0 < size <= MAX_WHOLE:
            return None
        if find(packed, packed[-_SIZE.size :]) < len(packed) - _SIZE.size:
            return None
        try:
            member: bytearray = deflate.gzip_decompress(packed, size)
        except deflate.DeflateError:
            return None
        if len(member) != size:
            return None
        self._at, self._begun = end, True
        return member

    def read(self) -> bytes:
        """More bytes of this member; ``b""`` at its end."""
        if self.plain:
            plain, self._raw = self._raw or self._stream.read(CHUNK), b""
            return plain
        while self._inside:
            if not self._need(1):
                raise _Truncated("truncated: the file ends inside a gzip member")
            if self._inflate is None:
                self._inflate = isal_zlib.decompressobj(wbits=31)
            piece = self._raw[self._at : self._at + PIECE]
            try:
                out: bytes = self._inflate.decompress(piece, INFLATE)
                deflate.crc32(_CLEARS)
            except GzipError as error:
                raise _Damaged(f"damaged gzip data ({error})") from None
            if self._inflate.eof:
                unused, self._inside = len(self._inflate.unused_data), False
                self._inflate = None
            else:
                unused = len(self._inflate.unconsumed_tail)
            self._at += len(piece) - unused
            if self._inside and len(self._used) < _KEPT:
                self._used += piece
            if out:
                return out
        return b""

    def resume(self) -> bool:
        """After damage, go to the next member that begins with a record; False without one."""
        self._inside, self._inflate = False, None
        # the members after a cut one were read as its own until that showed
        self._raw, self._at = bytes(self._used) + self._raw[self._at :], 0
        self._used.clear()
        start = 1
        while True:
            at = self._raw.find(_MEMBER, start)
            if at < 0:
                self._at = max(start, len(self._raw) - len(_MEMBER) + 1)
                if not self._need(len(_MEMBER)):
                    return False
                start = 0
            else:
                self._at = at
                self._need(_TRIAL)
                if _begins_record(self._raw[self._at : self._at + _TRIAL]):
                    return True
                start = self._at + 1


def _begins_record(raw: bytes) -> bool:
    try:
        return bool(isal_zlib.decompressobj(wbits=31).decompress(raw, 5).upper() == b"WARC/")
    except GzipError:
        return False


def _only_record(member: bytearray) -> Record | None:
    """The record that is all of a member, as nearly every member is; None of any other.

    The record's body is the member itself, cut at both ends, which copies nothing.
    """
    end = member.find(b"\n\r\n", 0, MAX_HEADER) + 3
    header = bytes(member[:end]).lower()
    if not _VERSION.match(header) or _ODD_HEADER.search(header):
        return None
    length = _CONTENT_LENGTH.search(header)
    if length is None or end + int(length[1]) + 4 != len(member) or not member.endswith(_END):
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
        self._members = _Members(stream)
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
            except (_Truncated, _Damaged) as error:
                self._buffer.clear()
                resumed = not self._members.plain and self._members.resume()
                if resumed or isinstance(error, _Damaged):
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
            raise _Truncated("truncated: the file ends inside a record")
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
