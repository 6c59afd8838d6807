"""A hostile web on loopback: what each kind of URL does to its visitor, and what must come of it.

    python tests/support/hostile_web.py    # serves until its input ends; prints what hostile_run.py needs to know

A host's name says its kind, kind-number.web.test. Its robots.txt is not there unless the kind says so.
"""

import asyncio
import datetime
import gzip
import io
import json
import os
import socket
import ssl
import struct
import sys
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trustme
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.schema.outcomes import Outcome

OK = b"HTTP/1.1 200 OK\r\n"
NOT_FOUND = b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nnot found"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close sends RST


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


PHOTO = photo_like(1, (320, 240))
JPEG = encoded(PHOTO, "JPEG")
PNG = encoded(PHOTO.resize((80, 60)), "PNG")
BLACK = zlib.compress(b"\0" * 10_000_000, 9)
BOMBS = {
    "png": png_chunks(png_header(60_000, 60_000), (b"IDAT", BLACK), (b"IEND", b"")),
    "png-large": encoded(Image.new("L", (9000, 9000)), "PNG"),
    "jpeg": JPEG.replace(struct.pack(">HH", 240, 320), struct.pack(">HH", 65_500, 65_500), 1),
    "gif": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + encoded(PHOTO, "GIF")[10:],
    "webp": encoded(Image.new("L", (16_000, 4000)), "WEBP", quality=1, method=0),
    "avif": encoded(Image.new("L", (4000, 3000)), "AVIF", quality=1, speed=10),
}
TEXT_BOMB = png_chunks(
    png_header(1, 1),
    (b"zTXt", b"x\0\0" + BLACK),
    (b"IDAT", zlib.compress(b"\0" * 4)),
    (b"IEND", b""),
)


def whole(body: bytes, *headers: bytes) -> bytes:
    head = b"".join(h + b"\r\n" for h in headers)
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def moved(location: bytes) -> bytes:
    return b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"


def status(code: int, *headers: bytes) -> bytes:
    head = b"".join(h + b"\r\n" for h in headers)
    return b"HTTP/1.1 %d X\r\n%sContent-Length: 0\r\n\r\n" % (code, head)


Behaviour = Callable[[asyncio.StreamWriter, str], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """answer: what is sent for an image; or behave: what is done instead. robots: of its
    robots.txt, 404 if none. outcomes: what may come of it. scheme, port: of its URLs; the port by
    the server's names for them."""

    outcomes: frozenset[Outcome]
    answer: bytes = b""
    behave: Behaviour | None = None
    robots: bytes | Behaviour = NOT_FOUND
    scheme: str = "http"
    port: str = "http"
    slow: bool = False  # takes seconds: there are fewer of it
    close: bool = False  # the connection, after the answer


async def silent(writer: asyncio.StreamWriter, path: str) -> None:
    await asyncio.sleep(60)


async def reset_now(writer: asyncio.StreamWriter, path: str) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def reset_after(data: bytes) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(data)
        await writer.drain()
        await reset_now(writer, path)

    return behave


def dripping(first: bytes, drop: bytes) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(first)
        for _ in range(600):
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.1)

    return behave


def flooding(first: bytes) -> Behaviour:
    async def behave(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(first)
        for _ in range(20_000):  # 1.3 GB, were anybody to take it
            writer.write(b"x" * 65_536)
            await writer.drain()

    return behave


def stairs(last: int) -> Behaviour:
    """Redirects that count down, then an image."""

    async def behave(writer: asyncio.StreamWriter, path: str) -> None:
        step = int(path.rpartition("-")[2]) if "-" in path else 0
        writer.write(moved(b"/x-%d" % (step + 1)) if step < last else whole(JPEG))
        await writer.drain()

    return behave


def kinds(ports: dict[str, int]) -> dict[str, Kind]:
    """Every kind of host there is. ports: trap is one that nobody may ever connect to."""
    o = Outcome

    def of(*outcomes: Outcome, **rest: object) -> Kind:
        return Kind(frozenset(outcomes), **rest)  # type: ignore[arg-type]

    def cut(data: bytes) -> Kind:
        return of(o.CONNECTION_LOST, answer=data, close=True)

    trap = b"http://127.0.0.2:%d/" % ports["trap"]
    chunked = OK + b"Transfer-Encoding: chunked\r\n\r\n"
    forbidden = whole(b"User-agent: *\nDisallow: /\n")
    return {
        "jpeg": of(o.SUCCESS, answer=whole(JPEG)),
        "png": of(o.SUCCESS, answer=whole(PNG, b"Content-Type: text/html")),
        "webp": of(o.SUCCESS, answer=whole(encoded(PHOTO, "WEBP"))),
        "gif": of(o.SUCCESS, answer=whole(encoded(PHOTO, "GIF"))),
        "avif": of(o.SUCCESS, answer=whole(encoded(PHOTO, "AVIF"))),
        "chunked": of(o.SUCCESS, answer=chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(JPEG), JPEG)),
        "gzip": of(o.SUCCESS, answer=whole(gzip.compress(JPEG), b"Content-Encoding: gzip")),
        "until-closed": of(o.SUCCESS, answer=OK + b"\r\n" + JPEG, close=True),
        "stairs-5": of(o.SUCCESS, behave=stairs(5)),
        "stairs-6": of(o.TOO_MANY_REDIRECTS, behave=stairs(6)),
        "loop": of(o.TOO_MANY_REDIRECTS, answer=moved(b"/x")),
        "to-private": of(o.ADDRESS_REFUSED, answer=moved(trap)),
        "to-mapped": of(o.ADDRESS_REFUSED, answer=moved(b"http://[::ffff:127.0.0.2]/")),
        "to-file": of(o.REDIRECT_REFUSED, answer=moved(b"file:///etc/passwd")),
        "to-nowhere": of(o.REDIRECT_REFUSED, answer=moved(b"http://[")),
        "gone": of(o.HTTP_ERROR, answer=NOT_FOUND),
        "broken": of(o.SERVER_ERROR, answer=status(500)),
        "busy": of(o.RETRY_LATER, answer=status(503, b"Retry-After: 3600")),
        "too-many": of(o.RETRY_LATER, answer=status(429, b"Retry-After: 3600")),
        "empty": of(o.EMPTY, answer=whole(b"")),
        "short": cut(OK + b"Content-Length: 9999\r\n\r\n" + JPEG[:500]),
        "chunk-cut": cut(chunked + b"fff\r\nabc"),
        "head-cut": cut(OK + b"Content-Le"),
        "nothing": cut(b""),
        "two-lengths": of(o.BAD_RESPONSE, answer=OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        "bad-chunk": of(o.BAD_RESPONSE, answer=chunked + b"zz\r\nabc"),
        "not-http": of(o.BAD_RESPONSE, answer=b"220 mail.test ESMTP\r\n\r\n"),
        "large-head": of(o.BAD_RESPONSE, answer=OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"),
        "endless-head": of(o.BAD_RESPONSE, behave=flooding(OK + b"X: ")),
        "endless": of(o.TOO_LARGE, behave=flooding(OK + b"\r\n")),
        "large": of(o.TOO_LARGE, answer=OK + b"Content-Length: 999999999\r\n\r\n"),
        "gzip-bomb": of(o.TOO_LARGE, answer=whole(gzip.compress(b"\0" * 50_000_000), b"Content-Encoding: gzip")),
        "unasked": of(o.SUCCESS, answer=whole(JPEG) + whole(b"another")),
        "unasked-behind-404": of(o.HTTP_ERROR, answer=NOT_FOUND + whole(JPEG)),
        "no-gzip": of(o.SUCCESS, answer=whole(JPEG, b"Content-Encoding: gzip")),
        "brotli": of(o.BAD_RESPONSE, answer=whole(b"x" * 50, b"Content-Encoding: br")),
        "reset-head": of(o.CONNECTION_LOST, behave=reset_after(OK)),
        "reset-body": of(o.CONNECTION_LOST, behave=reset_after(OK + b"Content-Length: 9999\r\n\r\nabc")),
        "reset": of(o.CONNECTION_LOST, behave=reset_now),
        "silent": of(o.TIMEOUT, behave=silent, slow=True),
        "slow-head": of(o.TIMEOUT, behave=dripping(OK, b"X: y\r\n"), slow=True),
        "slow-body": of(o.TIMEOUT, behave=dripping(OK + b"\r\n", b"x"), slow=True),
        "page": of(o.NOT_AN_IMAGE, answer=whole(b"<!doctype html><p>hello", b"Content-Type: image/jpeg")),
        "svg": of(o.NOT_AN_IMAGE, answer=whole(b"<svg xmlns='http://www.w3.org/2000/svg'/>")),
        "truncated": of(o.TRUNCATED_IMAGE, answer=whole(JPEG[: len(JPEG) // 2])),
        "rubbish": of(o.BROKEN_IMAGE, answer=whole(b"\xff\xd8\xff" + b"rubbish" * 100)),
        "thin": of(o.TOO_THIN, answer=whole(encoded(Image.new("L", (3000, 10)), "PNG"))),
        "text-bomb": of(o.SUCCESS, answer=whole(TEXT_BOMB)),
        **{f"bomb-{name}": of(o.TOO_MANY_PIXELS, answer=whole(body)) for name, body in BOMBS.items()},
        "noai": of(o.OPTED_OUT, answer=whole(JPEG, b"X-Robots-Tag: noai")),
        "robots-no": of(o.OPTED_OUT, answer=whole(JPEG), robots=forbidden),
        "robots-moved": of(o.OPTED_OUT, answer=forbidden, robots=moved(b"/elsewhere")),
        "robots-huge": of(o.SUCCESS, answer=whole(JPEG), robots=whole(b"Disallow: /x\n" * 300_000)),
        "robots-page": of(o.SUCCESS, answer=whole(JPEG), robots=whole(b"<html>Disallow: /</html>")),
        "robots-broken": of(o.OPT_OUT_UNKNOWN, answer=whole(JPEG), robots=status(500)),
        "robots-silent": of(o.OPT_OUT_UNKNOWN, answer=whole(JPEG), robots=silent, slow=True),
        "robots-slow": of(o.OPT_OUT_UNKNOWN, o.TIMEOUT, answer=whole(JPEG), robots=dripping(OK + b"\r\n", b"#"), slow=True),
        "tls": of(o.SUCCESS, answer=whole(JPEG), scheme="https", port="tls"),
        "tls-expired": of(o.CERTIFICATE_REFUSED, scheme="https", port="expired"),
        "tls-other-host": of(o.CERTIFICATE_REFUSED, scheme="https", port="other-host"),
        "tls-self-signed": of(o.CERTIFICATE_REFUSED, scheme="https", port="self-signed"),
        "tls-none": of(o.TLS_FAILED, o.CONNECT_TIMEOUT, scheme="https", port="http", slow=True),
        "refused": of(o.CONNECT_FAILED, port="closed"),
        # the resolver's doing, in hostile_run.py
        "no-such-name": of(o.DNS_FAILED),
        "two-addresses": of(o.ADDRESS_REFUSED, port="trap"),
        "rebinding": of(o.SUCCESS, answer=whole(JPEG)),
    }  # fmt: skip


def kind_of(host: str) -> str:
    """The kind in kind-number.test."""
    return host.rpartition("-")[0]


async def serve_one(
    known: dict[str, Kind], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while request := await reader.readuntil(b"\r\n\r\n"):
            path = request.split(b" ", 2)[1].decode("latin-1")
            host = request.lower().partition(b"host: ")[2].split(b"\r\n")[0].decode("latin-1")
            kind = known[kind_of(host.partition(":")[0].removesuffix(".web.test"))]
            if path in ("/.well-known/tdmrep.json", "/ai.txt"):
                answer: bytes | Behaviour = NOT_FOUND
            elif path == "/robots.txt":
                answer = kind.robots
            else:
                answer = kind.behave or kind.answer
            if callable(answer):
                await answer(writer, path)
                if kind.behave is None or "stairs" not in host:
                    return
            else:
                writer.write(answer)
                await writer.drain()
                if kind.close and path != "/robots.txt":
                    return
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
        return
    finally:
        writer.close()


def contexts(authority: trustme.CA) -> dict[str, ssl.SSLContext]:
    now = datetime.datetime.now(datetime.UTC)
    other = trustme.CA()
    leaves = {
        "tls": authority.issue_cert("*.web.test"),
        "expired": authority.issue_cert("*.web.test", not_after=now - datetime.timedelta(days=1)),
        "other-host": authority.issue_cert("elsewhere.example"),
        "self-signed": other.issue_cert("*.web.test"),
    }
    found = {}
    for name, leaf in leaves.items():
        found[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(found[name])
    return found


async def main() -> None:
    authority = trustme.CA()
    ports: dict[str, int] = {}
    known: dict[str, Kind] = {}
    caught = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve_one(known, reader, writer)

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal caught
        caught += 1
        writer.close()

    tls = contexts(authority)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused
        ports["closed"] = closed.getsockname()[1]
        for name in ("http", "trap", *tls):
            call = trap if name == "trap" else answer
            host = "127.0.0.2" if name == "trap" else "127.0.0.1"
            listening = await asyncio.start_server(
                call, host, 0, ssl=tls.get(name), backlog=1024, limit=1 << 20
            )
            ports[name] = listening.sockets[0].getsockname()[1]
        known.update(kinds(ports))
        wanted = {
            name: {"outcomes": sorted(o.name for o in k.outcomes), "scheme": k.scheme,
                   "port": ports[k.port], "slow": k.slow}
            for name, k in known.items()
        }  # fmt: skip
        web = {"kinds": wanted, "ca": authority.cert_pem.bytes().decode()}
        print(json.dumps(web), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(json.dumps({"caught": caught}), flush=True)
        os._exit(0)  # not in order: many connections are held open on purpose


if __name__ == "__main__":
    asyncio.run(main())
