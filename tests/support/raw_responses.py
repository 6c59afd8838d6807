"""Raw responses by name, and what must come of each: those of public bug reports, of llhttp's and
web-platform-tests' cases, and of curl's leniency. docs/http.md has the reasons."""

import gzip
import zlib

from pairmill.schema.outcomes import Outcome

BODY = b"\xff\xd8\xff\xe0 an image of 25 \r\n..."
assert len(BODY) == 25
SIZE = b"%x" % len(BODY)
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
LAST = b"\r\n0\r\n\r\n"
WHOLE = SIZE + b"\r\n" + BODY + LAST  # in chunks
PACKED, ZLIB = gzip.compress(BODY, mtime=0), zlib.compress(BODY)
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n\xff\xd8\xffPOISON!"


def plain(headers: bytes = b"", first: bytes = OK) -> bytes:
    return first + headers + LENGTH + b"\r\n" + BODY


def closed(headers: bytes = b"", body: bytes = BODY, first: bytes = OK) -> bytes:
    """With no length of its own, until the server closes."""
    return first + headers + b"\r\n" + body


def chunks(*pieces: bytes, headers: bytes = b"") -> bytes:
    return OK + CHUNKED + headers + b"\r\n" + b"".join(pieces)


def coded(coding: bytes, body: bytes = BODY) -> bytes:
    return closed(b"Content-Encoding: %b\r\nContent-Length: %d\r\n" % (coding, len(body)), body)


def small_window(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 9)
    return packer.compress(data) + packer.flush()


# a success with BODY, each
TAKEN = {
    "plain": plain(),
    "an unasked response behind it": plain() + POISON,
    "junk behind it": plain() + b"junk",
    "an empty line behind it": plain() + b"\r\n",
    "100 before it": b"HTTP/1.1 100 C\r\n\r\n" + plain(),
    "102 before it": b"HTTP/1.1 102 C\r\n\r\n" + plain(),
    "103 before it": b"HTTP/1.1 103 E\r\nLink: </x>; rel=preload\r\n\r\n" + plain(),
    "100 with a length before it": b"HTTP/1.1 100 C\r\nContent-Length: 5\r\n\r\n" + plain(),
    "100 and an empty line before it": b"HTTP/1.1 100 C\r\n\r\n\r\n" + plain(),
    "many 103 before it": b"HTTP/1.1 103 E\r\n\r\n" * 20 + plain(),
    # ---- the status line
    **{
        f"status line {line!r}": plain(first=line + b"\r\n")
        for line in (
            b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/0.9 200 OK",
            b"HTTP/1.2 200 OK", b"HTTP/1.10 200 OK", b"HTTP/2.0 200 OK", b"HTTP/2 200 OK",
            b"HTTP/3 200 OK", b"HTTP/5.6 200 OK", b"HTTP/11.1 200 OK", b"HTTP/01.1 200 OK",
            b"HTTP/1.01 200 OK", b"HTTP/1 200 OK", b"HTTP/ 200 OK", b"HTTP 200 OK", b"ICY 200 OK",
            b"http/1.1 200 ok", b"HTTP/1.1\t200 OK", b"HTTP/1.1  200  OK", b"HTTP/1.1 200OK",
            b"HTTP/1.1 200-OK", b"HTTP/1.1 200: OK", b"HTTP/1.1 200 Ori\xebnt",
            b"HTTP/1.1 200 OK\rX: y", b"\r\nHTTP/1.1 200 OK", b"\n\nHTTP/1.1 200 OK",
            b" HTTP/1.1 200 OK", b"\xef\xbb\xbfHTTP/1.1 200 OK", b"junkHTTP/1.1 200 OK",
        )
    },
    # ---- fields
    "LF only": plain().replace(b"\r\n\r\n", b"\n\n", 1).replace(b"\r\n", b"\n", 1),
    "LF here and there": OK + b"X: y\n" + LENGTH + b"\n" + BODY,
    "CR CR LF": plain(b"X: y\r\r\n"),
    "a CR in a value": plain(b"X: a\rb\r\n"),
    "a CR before a field": plain(b"X: a\rContent-Length: 3\r\n"),
    "a CR in a name": plain(b"X\r: a\r\n"),
    "control characters": plain(b"X: a\x01\x0b\x7fb\r\n"),
    "a folded field": plain(b"X: a\r\n b\r\n\tc\r\n"),
    "a folded length": OK + b"Content-Length:\r\n %d\r\n\r\n" % len(BODY) + BODY,
    "a folded coding": OK + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n" + WHOLE,
    "a fold before any field": plain(b" X: y\r\n"),
    "a line of a space": plain(b"X: y\r\n \r\n"),
    "a space before the colon": closed(b"Content-Length : %d\r\nX : y\r\n" % len(BODY)),
    "a tab before the colon": closed(b"Transfer-Encoding\t: chunked\r\n", WHOLE),
    "no colon": plain(b"nonsense\r\n"),
    "a second status line": OK + plain(),
    "a second status line, another": plain(b"HTTP/1.1 404 Not Found\r\n"),
    "no name": plain(b": value\r\n:\r\n"),
    "a space in a name": plain(b"en-US Content-Type: x\r\n"),
    "odd names": plain(b'X(a){b}@"c"\\[]: y\r\nX-\xe9: y\r\nX-$Y_z.w: v\r\n'),
    "other than ASCII in a value": plain(b"X: caf\xe9 \xe4\xbd\xa0\r\n"),
    "no space after the colon": closed(b"Content-Length:%d\r\n" % len(BODY)),
    "names in lower case": closed(b"content-length: %d\r\n" % len(BODY)),
    "names in upper case": closed(b"CONTENT-LENGTH: %d\r\n" % len(BODY)),
    "many fields": plain(b"".join(b"X-%d: y\r\n" % n for n in range(300))),
    "a field of 60 KB": plain(b"X: " + b"y" * 60_000 + b"\r\n"),
    "a field that is nearly Content-Length": plain(b"Content-Length-X: 0\r\n"),
    "Upgrade, and no switching": plain(b"Connection: upgrade\r\nUpgrade: h2c\r\n"),
    # ---- the length
    "no length": closed(),
    "no length, and keep-alive": closed(b"Connection: keep-alive\r\n"),
    "no length, HTTP/1.0 and keep-alive": closed(
        b"Connection: keep-alive\r\n", first=b"HTTP/1.0 200 OK\r\n"
    ),
    "the length twice": plain(LENGTH),
    **{
        f"length {value!r}": closed(b"Content-Length: %b\r\n" % value)
        for value in (
            b"25, 25", b"25,25", b"25,", b",25", b"0025", b"0025\r\nContent-Length: 25", b"\t25\t",
            b"0" * 5000 + b"25",
            # no number, so until the server closes
            b"", b"+25", b"0x19", b"unknown", b"25 bytes", b"25.0", b"2 5", b'"25"', b"25;",
            b"aaa, aaa", b"\xd9\xa5",
        )
    },
    # ---- the transfer coding
    "chunked": chunks(WHOLE),
    **{
        f"transfer coding {value!r}": closed(b"Transfer-Encoding: %b\r\n" % value, WHOLE)
        for value in (
            b"CHUNKED", b"identity, chunked", b"chunked, identity", b"chunked, chunked",
            b"chunked\r\nTransfer-Encoding: chunked", b"chunked;q=1", b",chunked",
        )
    },
    **{
        f"transfer coding {value!r}, which is none": plain(b"Transfer-Encoding: %b\r\n" % value)
        for value in (b"identity", b"", b"foo", b"binary")
    },
    "transfer coding identity, no length": closed(b"Transfer-Encoding: identity\r\n"),
    "transfer coding 8bit, no length": closed(b"Transfer-Encoding: 8bit\r\n"),
    **{
        f"{lengths!r} with chunks, which win": chunks(WHOLE, headers=lengths)
        for lengths in (
            b"Content-Length: 3\r\n", b"Content-Length: 999\r\n", b"Content-Length: abc\r\n",
            b"Content-Length: 1\r\nContent-Length: 2\r\n", b"Content-Length: -1\r\n",
        )
    },
    "the length before the chunks, which win": closed(b"Content-Length: 3\r\n" + CHUNKED, WHOLE),
    "chunks in HTTP/1.0": closed(CHUNKED, WHOLE, b"HTTP/1.0 200 OK\r\n"),
    "gzip as a transfer coding": closed(b"Transfer-Encoding: gzip\r\n", PACKED),
    "gzip and chunks as transfer codings": closed(
        b"Transfer-Encoding: gzip, chunked\r\n", b"%x\r\n" % len(PACKED) + PACKED + LAST
    ),
    "chunks and gzip as transfer codings": closed(
        b"Transfer-Encoding: chunked, gzip\r\n", b"%x\r\n" % len(PACKED) + PACKED + LAST
    ),
    # ---- chunks
    **{
        f"a chunk of size {size!r}": chunks(size, b"\r\n", BODY, LAST)
        for size in (
            SIZE + b"  ", SIZE + b"\t", b" " + SIZE, b"00000" + SIZE, b"0" * 30 + SIZE, SIZE.upper(),
            SIZE + b";a=b", SIZE + b'; a = "b;c" d', SIZE + b";", SIZE + b" ;a", SIZE + b";\xe9",
            SIZE + b";" + b"a" * 20_000, SIZE + b" x", SIZE + b"x",
        )
    },
    "chunks with LF only": chunks(SIZE, b"\n", BODY, b"\n0\n\n"),
    "chunks of a byte": chunks(*(b"1\r\n%c\r\n" % byte for byte in BODY), b"0\r\n\r\n"),
    "a last chunk with spaces": chunks(SIZE, b"\r\n", BODY, b"\r\n0  \r\n\r\n"),
    "a last chunk of many zeros": chunks(SIZE, b"\r\n", BODY, b"\r\n0000;x\r\n\r\n"),
    "chunks without the last CRLF": chunks(SIZE, b"\r\n", BODY, b"\r\n0\r\n"),
    "chunks without the last LF": chunks(SIZE, b"\r\n", BODY, b"\r\n0\r\n\r"),
    "a trailer": chunks(SIZE, b"\r\n", BODY, b"\r\n0\r\nContent-Length: 3\r\n\r\n"),
    "an odd trailer": chunks(SIZE, b"\r\n", BODY, b"\r\n0\r\nnonsense\r\n\xe9\x01\r\n\r\n"),
    "a trailer without its end": chunks(SIZE, b"\r\n", BODY, b"\r\n0\r\nX: y\r\n"),
    "an unasked response behind chunks": chunks(WHOLE) + POISON,
    # ---- content codings
    **{
        f"coding {name!r} of what is plain": coded(name)
        for name in (
            b"none", b"utf-8", b"", b"identity", b"binary", b"image/jpeg", b"base64", b"br", b"zstd",
            b"gzip", b"deflate", b"compress", b"gzip, gzip, gzip", b"gzip, none",
        )
    },
    **{f"coding {name!r}": coded(name, PACKED) for name in (
        b"gzip", b"x-gzip", b"GZIP", b"gzip, none", b"none, gzip", b"gzip\r\nContent-Encoding: gzip",
        b"deflate",
    )},
    "gzip twice": coded(b"gzip, gzip", gzip.compress(PACKED)),
    "gzip in chunks": chunks(
        b"%x\r\n" % len(PACKED), PACKED, LAST, headers=b"Content-Encoding: gzip\r\n"
    ),
    "gzip of two members": coded(b"gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:])),
    "gzip and garbage": coded(b"gzip", PACKED + b"garbage"),
    "gzip and zeros": coded(b"gzip", PACKED + bytes(100)),
    "gzip and what begins like a member": coded(b"gzip", PACKED + b"\x1f\x8bno"),
    "gzip without its checksum": coded(b"gzip", PACKED[:-8]),
    "gzip with half of its checksum": coded(b"gzip", PACKED[:-5]),
    "gzip that is zlib": coded(b"gzip", ZLIB),
    "deflate": coded(b"deflate", ZLIB),
    "deflate without its checksum": coded(b"deflate", ZLIB[:-4]),
    "deflate, bare": coded(b"deflate", ZLIB[2:-4]),
    "deflate with a small window": coded(b"deflate", small_window(BODY)),
}  # fmt: skip

# what else comes of it: the outcome, and the status where there is one
OTHERWISE = {
    "404, then an unasked 200": (
        b"HTTP/1.1 404 N\r\nContent-Length: 2\r\n\r\nno" + POISON, Outcome.HTTP_ERROR, 404),
    "404 that is longer than its length": (
        b"HTTP/1.1 404 N\r\nContent-Length: 2\r\n\r\nno such page", Outcome.HTTP_ERROR, 404),
    "304, then an unasked 200": (
        b"HTTP/1.1 304 N\r\nContent-Length: 10\r\n\r\n" + POISON, Outcome.HTTP_ERROR, 304),
    "302 that leads nowhere, then an unasked 200": (
        b"HTTP/1.1 302 F\r\nLocation: ftp://x/\r\nContent-Length: 0\r\n\r\n" + POISON,
        Outcome.REDIRECT_REFUSED, 302),
    "204, then an unasked 200": (b"HTTP/1.1 204 N\r\n\r\n" + POISON, Outcome.EMPTY, 204),
    "length 0, then an unasked 200": (
        OK + b"Content-Length: 0\r\n\r\n" + POISON, Outcome.EMPTY, 200),
    "no chunk": (chunks(b"0\r\n\r\n"), Outcome.EMPTY, 200),
    "no chunk, then an unasked 200": (chunks(b"0\r\n\r\n") + POISON, Outcome.EMPTY, 200),
    "gzip of nothing at all": (coded(b"gzip", b""), Outcome.EMPTY, 200),
    "status 600": (plain(first=b"HTTP/1.1 600 X\r\n"), Outcome.HTTP_ERROR, 600),
    # ---- no response
    "101": (b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n" + plain(), Outcome.BAD_RESPONSE, None),
    **{
        f"status line {line!r}": (plain(first=line + b"\r\n"), Outcome.BAD_RESPONSE, None)
        for line in (
            b"HTTP/1.1200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK",
            b"HTTP/1.1 000 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 OK",
            b"HTTPER/1.1 200 OK", b"RTSP/1.1 200 OK", b"junk\r\nHTTP/1.1 200 OK", b"HTP/1.1 200 OK",
        )
    },
    "a body alone": (BODY, Outcome.BAD_RESPONSE, None),
    "HTTP/2": (b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04", Outcome.BAD_RESPONSE, None),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", Outcome.BAD_RESPONSE, None),
    "CR only": (plain().replace(b"\n", b""), Outcome.CONNECTION_LOST, None),
    # what is refused of a header section has its status: the host answered
    "a NUL in the reason": (plain(first=b"HTTP/1.1 200 O\0K\r\n"), Outcome.BAD_RESPONSE, 200),
    "a NUL in a value": (plain(b"X: a\0b\r\n"), Outcome.BAD_RESPONSE, 200),
    "a NUL in a name": (plain(b"X\0: a\r\n"), Outcome.BAD_RESPONSE, 200),
    "a field of 200 KB": (plain(b"X: " + b"y" * 200_000 + b"\r\n"), Outcome.BAD_RESPONSE, 200),
    "a header section without an end": (OK + LENGTH, Outcome.CONNECTION_LOST, None),
    # ---- a body whose end cannot be known, or is missing
    **{
        f"length {value!r}": (closed(b"Content-Length: %b\r\n" % value), Outcome.BAD_RESPONSE, 200)
        for value in (b"5\r\nContent-Length: 25", b"25\r\nContent-Length: 5", b"25, 5", b"-25",
                      b"aaa, bbb", b"25\r\nContent-Length: aaa")
    },
    "a length beyond any": (
        closed(b"Content-Length: 18446744073709551641\r\n"), Outcome.TOO_LARGE, 200),
    "a body that is cut": (closed(b"Content-Length: 50\r\n"), Outcome.CONNECTION_LOST, 200),
    "chunks that are none": (closed(CHUNKED), Outcome.BAD_RESPONSE, 200),
    **{
        f"a chunk of size {size!r}": (
            chunks(size, b"\r\n", BODY, LAST), Outcome.BAD_RESPONSE, 200)
        for size in (b"0x19", b"+19", b"-19", b"zz", b"", b"\r\n19", b"f" * 17, b"5")
    },
    "a chunk that is followed by nothing": (
        chunks(b"9\r\n", BODY[:9], b"10\r\n", BODY[9:], b"0\r\n\r\n"), Outcome.BAD_RESPONSE, 200),
    "a chunk that is followed by two lines": (
        chunks(SIZE, b"\r\n", BODY, b"\r\n\r\n0\r\n\r\n"), Outcome.BAD_RESPONSE, 200),
    **{
        f"chunks that end with {end!r}": (chunks(SIZE, b"\r\n", end), Outcome.CONNECTION_LOST, 200)
        for end in (BODY[:9], BODY, BODY + b"\r\n", BODY + b"\r\n0")
    },
    # ---- a coding that cannot be undone
    "br that is br": (coded(b"br", b"\x8b\x0b\x80an\x03"), Outcome.BAD_RESPONSE, 200),
    "gzip that is text": (coded(b"gzip", b"<html>no</html>"), Outcome.BAD_RESPONSE, 200),
    "gzip that is bare": (coded(b"gzip", ZLIB[2:-4]), Outcome.BAD_RESPONSE, 200),
    "gzip that is cut": (coded(b"gzip", PACKED[:-12]), Outcome.CONNECTION_LOST, 200),
    "gzip whose second member is cut": (
        coded(b"gzip", PACKED + PACKED[:-12]), Outcome.CONNECTION_LOST, 200),
    "gzip with another checksum": (
        coded(b"gzip", PACKED[:-8] + b"\1\2\3\4" + PACKED[-4:]), Outcome.BAD_RESPONSE, 200),
    "gzip with another size": (
        coded(b"gzip", PACKED[:-4] + b"\1\2\3\4"), Outcome.BAD_RESPONSE, 200),
    "deflate with another checksum": (
        coded(b"deflate", ZLIB[:-4] + b"\1\2\3\4"), Outcome.BAD_RESPONSE, 200),
}  # fmt: skip
