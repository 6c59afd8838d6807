"""The members of a gzip file (RFC 1952), one after another, and what is whole after damage.

A member that is at hand whole, as nearly all are, is inflated at once by libdeflate, in three
quarters of ISA-L's time; the others are inflated piece by piece by ISA-L, in half of zlib's.
"""

import struct
from typing import Any, Protocol

import deflate
from isal import isal_zlib
from stringzilla import find

GzipError: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub is wrong
CHUNK = 64 * 1024  # bytes read at once
# bytes inflated at once: the part that belongs to the next member is copied, and members are small
PIECE = 8 * 1024
INFLATE = 1024 * 1024  # most bytes inflated at once: a bomb is met in pieces
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


class Truncated(Exception):
    """The file ends within a record or member, which the text names."""


class Damaged(Exception):
    """The gzip data cannot be inflated here; the text says why."""


class GzipMembers:
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
            raise Damaged("what follows a gzip member is not gzip")
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
                raise Truncated("truncated: the file ends inside a gzip member")
            if self._inflate is None:
                self._inflate = isal_zlib.decompressobj(wbits=31)
            piece = self._raw[self._at : self._at + PIECE]
            try:
                out: bytes = self._inflate.decompress(piece, INFLATE)
                deflate.crc32(_CLEARS)
            except GzipError as error:
                raise Damaged(f"damaged gzip data ({error})") from None
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
