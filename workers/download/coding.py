"""Content codings of a body that has come (RFC 9110, 8.4). We ask for none; some servers apply one
all the same, and some name one that they do not apply."""

import re
import zlib
from collections.abc import Iterable

from pairmill.workers.download.signature import sniff

GZIP = b"\x1f\x8b"
INFLATED = frozenset(("gzip", "x-gzip", "deflate"))
# Registered ones that are not undone here. Whatever else is named (none, utf-8, binary …) is none.
FOREIGN = frozenset(("br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "aes128gcm"))
MAX_CODINGS = 2
MAX_MEMBERS = 4096  # of one gzip; bgzip's have 64 KB, so of 256 MB
PIECE = 65_536  # bytes that are inflated at a time, so that little is copied at a member's end
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
LOOKED_AT = 1024  # bytes; compressed ones have a control character in every nine


class BadCoding(Exception):
    """A body that cannot be decoded. cut: because its end is missing."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__("cut" if cut else "not as its coding says")
        self.cut = cut


def applied(named: Iterable[str]) -> tuple[str, ...]:
    """Of the codings that a response names, those that change its body."""
    return tuple(c for c in named if c in INFLATED or c in FOREIGN)


def decoded(
    data: bytes, codings: tuple[str, ...], most: int, *, text: bool = False, whole: bool = True
) -> bytes:
    """The content, at most a byte more than ``most``.

    codings: ``applied``, in the order in which they were. text: whether it is wanted as text, and
    not as an image; what is already as it is wanted is taken as it is. whole: whether all of the
    body is there; of one that is not, what can be had is. Raises BadCoding.
    """
    for coding in reversed(codings):
        if not data or (not text and sniff(data)):
            break
        plain = None
        if coding in INFLATED and len(codings) <= MAX_CODINGS:
            plain = _inflated(data, coding, most, whole=whole)
        if plain is None:
            as_it_is = CONTROL.search(data, 0, LOOKED_AT) is None if text else sniff(data) == ""
            if not as_it_is:
                raise BadCoding(cut=False)
            break
        data = plain
    return data


def _inflated(data: bytes, coding: str, most: int, *, whole: bool) -> bytes | None:
    """gzip or zlib, whichever its first bytes say; of gzip all members (RFC 1952, 2.2), and what
    is no member after one is passed over. Some servers send deflate bare (RFC 1951). None where it
    is not that; raises BadCoding where it is cut."""
    bare = coding == "deflate" and not _is_zlib(data) and data[:2] != GZIP
    plain = bytearray()
    at = members = 0
    while members < MAX_MEMBERS and len(plain) <= most and (at == 0 or data[at : at + 2] == GZIP):
        inflate = zlib.decompressobj(-zlib.MAX_WBITS if bare else zlib.MAX_WBITS | 32)
        begun = len(plain)
        try:
            while not inflate.eof and at < len(data) and len(plain) <= most:
                piece = data[at : at + PIECE]
                plain += inflate.decompress(piece, most + 1 - len(plain))
                at += len(piece) - len(inflate.unused_data)
        except zlib.error:
            if not members:
                return None
            del plain[begun:]  # what began like a member was none
            break
        if not inflate.eof and len(plain) <= most and whole and not _ends(inflate, plain[begun:]):
            raise BadCoding(cut=True)
        members += 1
        if not inflate.eof:
            break
    return bytes(plain)


def _is_zlib(data: bytes) -> bool:
    """Whether it begins as RFC 1950, 2.2, has it: method 8, and a check of the two bytes."""
    return data[0] & 15 == 8 and int.from_bytes(data[:2], "big") % 31 == 0


def _ends(inflate: "zlib._Decompress", plain: bytes | bytearray) -> bool:
    """Whether nothing but the checksum at the end is missing, or some bytes of it, which curl and
    browsers do not mind: the checksum that would be right is tried."""
    crc = zlib.crc32(plain).to_bytes(4, "little") + (len(plain) % 2**32).to_bytes(4, "little")
    for rest in (crc, zlib.adler32(plain).to_bytes(4, "big")):
        for missing in range(len(rest)):
            trial = inflate.copy()
            try:
                trial.decompress(rest[missing:])
            except zlib.error:
                continue
            if trial.eof:
                return True
    return False
