"""The syntax of a response (RFC 9110, RFC 9112), read as leniently as curl and browsers read it.

docs/http.md has the table of what is taken and what is refused, each with its reason.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

HEAD_END = re.compile(rb"\n\r?\n")
# Up to four bytes before it (a byte order mark) are passed over, as Chromium does; any version is
# one of HTTP/1, since its header section is; ICY is SHOUTcast's name of HTTP/1.0.
STATUS_LINE = re.compile(
    r".{0,4}?(?:HTTP(?:/(?P<version>\d*(?:\.\d+)?))?|ICY)[ \t]+(?P<status>[1-9]\d\d)(?!\d)",
    re.IGNORECASE | re.DOTALL,
)
START = re.compile(rb".{0,4}?(?:HTTP|ICY)", re.IGNORECASE | re.DOTALL)
LONGEST_START = 8  # bytes; what has more and does not begin so is another protocol
CHUNK_SIZE = re.compile(rb"[ \t]*0*([0-9A-Fa-f]+)[ \t]*(.*)", re.DOTALL)
MAX_SIZE_DIGITS = 15  # of a chunk: 2^60 bytes are above any cap
MAX_LINE = 65_536  # bytes of a chunk's size with its extensions, and of a trailer's line
FRAMING = frozenset(("transfer-encoding", "content-length", "connection", "content-encoding"))
NO_BODY = (204, 304)  # whatever their fields say (RFC 9112, 6.3)
Lines = tuple[tuple[str, str], ...]


class BadMessage(ValueError):
    """Bytes that are no response, or one whose end cannot be known."""


@dataclass(frozen=True)
class ResponseHead:
    """A header section, and the framing of the body after it.

    lines: names in lower case. length: bytes of the body; None where it is chunked, or lasts until
    the server closes. codings: of the content and then of its transfer, beside chunked, as they are
    named. clear: whether the framing is beyond doubt: one length or chunks alone, no leniency.
    keep: whether the connection may take another request: the server does not mean to close, too.
    """

    status: int
    lines: Lines
    length: int | None = None
    chunked: bool = False
    codings: tuple[str, ...] = ()
    clear: bool = False
    keep: bool = False


def begins(data: bytes) -> bool:
    """Whether bytes may be the beginning of a response."""
    return len(data) < LONGEST_START or START.match(data) is not None


def status_of(section: bytes) -> int | None:
    """The final status that a header section begins with, or None, of one that cannot be read."""
    found = STATUS_LINE.match(section.partition(b"\n")[0].decode("latin-1"))
    return int(found["status"]) if found and found["status"] >= "200" else None


def read_head(section: bytes) -> ResponseHead:
    """The header section up to its empty line. Raises BadMessage."""
    first, *rest = section.decode("latin-1").split("\n")
    found = STATUS_LINE.match(first)
    if not found or b"\0" in section:  # NUL: RFC 9110, 5.5
        raise BadMessage("no status line, or a NUL in the header section")
    lines, strict = _fields(rest)
    version = found["version"]
    old = version is None or not version.strip(".") or version in ("1.0", "0.9")
    return framed(int(found["status"]), lines, old=old, strict=strict and found.start(1) == 5)


def _fields(rest: Iterable[str]) -> tuple[Lines, bool]:
    """Lines of fields, and whether all were strictly so. A folded line is unfolded (RFC 9112, 5.2),
    one without a name is passed over, and a CR alone is a space (RFC 9112, 2.2)."""
    lines: list[tuple[str, str]] = []
    strict = True
    for line in rest:
        bare = line.rstrip("\r")
        if not bare:
            continue
        if "\r" in bare:
            bare, strict = bare.replace("\r", " "), False
        name, colon, value = bare.partition(":")
        if bare[0] in " \t":
            strict = False
            if lines:
                folded, begun = lines[-1]
                lines[-1] = folded, " ".join((begun, bare.strip(" \t"))).strip()
        elif colon and (short := name.rstrip(" \t")):
            strict = strict and short == name
            lines.append((short.lower(), value.strip(" \t")))
        else:
            strict = False
    return tuple(lines), strict


def framed(status: int, lines: Lines, *, old: bool = False, strict: bool = True) -> ResponseHead:
    """A head with its body's framing (RFC 9112, 6.3). old: whether it is HTTP/1.0's. Raises
    BadMessage where two lengths differ, or one is negative."""
    few = tuple(line for line in lines if line[0] in FRAMING)  # most fields say nothing of it
    transfer = listed(few, "transfer-encoding")
    lengths = listed(few, "content-length")
    codings = tuple(c.partition(";")[0].rstrip() for c in transfer)
    chunked = "chunked" in codings  # also where it is not the last: browsers do not mind
    length: int | None = None
    clear = strict
    if status in NO_BODY:
        length, chunked = 0, False
    elif chunked:
        clear = clear and transfer == ["chunked"] and not lengths and not old
    else:
        length = _length(lengths)
        clear = clear and length is not None and len(lengths) == 1 and not transfer
    connection = listed(few, "connection")
    keep = clear and "close" not in connection and (not old or "keep-alive" in connection)
    codings = (*listed(few, "content-encoding"), *(c for c in codings if c != "chunked"))
    return ResponseHead(status, lines, length, chunked, codings, clear, keep)


def listed(lines: Lines, name: str) -> list[str]:
    """The members of a field that is a list, of all its lines, in lower case (RFC 9110, 5.6.1)."""
    return [
        member.strip(" \t").lower()
        for key, value in lines
        if key == name
        for member in value.split(",")
    ]


def _length(values: list[str]) -> int | None:
    """Of Content-Length: equal ones are one. One that is no number is none, as in browsers."""
    different = {v.lstrip("0") or "0" for v in values if v}
    if len(different) > 1:
        raise BadMessage("lengths that differ")
    for value in different:
        if value.startswith("-"):
            raise BadMessage("a negative length")
        if value.isascii() and value.isdecimal():
            return int(value[:18])  # beyond any cap; int() refuses 5,000 digits
    return None


class Chunks:
    """The chunked coding (RFC 9112, 7.1), of which bytes come as they come.

    last: whether the chunk of size 0 has been read: what is left are trailers, which say nothing.
    trailers: whether there were any.
    """

    def __init__(self) -> None:
        self.last = False
        self.trailers = False
        self._left = 0  # bytes of this chunk
        self._behind = False  # a chunk's data: an empty line follows
        self._line = b""

    def feed(self, data: bytes, body: bytearray | None) -> tuple[int, bytes | None]:
        """Adds to the body, if it is wanted, and gives the number of its bytes; and, once the
        message has ended, the bytes after it. Raises BadMessage."""
        at = size = 0
        view = memoryview(data)
        while at < len(data):
            if self._left:
                piece = view[at : at + self._left]
                if body is not None:
                    body += piece
                at, size, self._left = at + len(piece), size + len(piece), self._left - len(piece)
                continue
            end = data.find(b"\n", at)
            if end < 0 or end - at > MAX_LINE:
                self._line += data[at:]
                if len(self._line) > MAX_LINE:
                    raise BadMessage("a chunk without an end")
                break
            line, self._line, at = (self._line + data[at:end]).removesuffix(b"\r"), b"", end + 1
            if self.last and not line:
                return size, data[at:]
            if self.last:
                self.trailers = True
            else:
                self._between(line)
        return size, None

    def _between(self, line: bytes) -> None:
        """The line behind a chunk's data, or the size before it, whose extensions say nothing."""
        if self._behind:
            if line:
                raise BadMessage("a chunk that is longer than its size")
            self._behind = False
            return
        found = CHUNK_SIZE.fullmatch(line)
        if not found or len(found[1]) > MAX_SIZE_DIGITS:
            raise BadMessage("a chunk without a size")
        self._left = int(found[1], 16)
        self.last = not self._left
        self._behind = not self.last
        if self.last and found[2] and found[2][:1] != b";":
            raise BadMessage("a size that may be none")  # 0x15
