"""A web on loopback for bench/download.py: many hosts, http or https, live URLs and dead ones.

    python bench/web.py FOLDER http|https HOSTS

Serves the files of a folder on an address of 127.0.0.0/8 for each host, and prints its port. Ends
with its standard input. For https each host has a certificate of its own (trustme: ECDSA P-256,
signed by a CA that lies in FOLDER/../ca.pem), chosen by SNI. ``/count`` says what was asked for.

Answers are made once and written in one piece, so that a server takes a small part of a core.
"""

import asyncio
import json
import random
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
# of the URLs: not found; nobody listens; the connection is reset; no such name; no answer
DEAD = {"404": 0.10, "refused": 0.04, "reset": 0.02, "no name": 0.03, "silent": 0.01}


def address_of(name: str) -> str | None:
    """The address of a name under bench.test; None where there is no such name. Nobody listens at
    those of dead hosts."""
    label = name.removesuffix(".bench.test")
    kind, number = label.rstrip("0123456789"), label.lstrip("adegimno")
    if kind not in ("img", "dead"):
        return None
    return f"127.{1 if kind == 'img' else 2}.{int(number) // 250}.{int(number) % 250 + 1}"


def url_list(count: int, scheme: str, port: int, hosts: int, files: list[str]) -> list[str]:
    """URLs in an order that follows from a seed. Silent ones stand in the first third: the last
    of a list would be waited for with nothing else to do."""
    rng = random.Random(f"urls {count}")
    kinds = [kind for kind, share in DEAD.items() for _ in range(round(share * count))]
    kinds += ["live"] * (count - len(kinds))
    rng.shuffle(kinds)
    silent = [i for i, kind in enumerate(kinds) if kind == "silent"]
    for i, j in zip(silent, rng.sample(range(count // 3), len(silent)), strict=True):
        kinds[i], kinds[j] = kinds[j], kinds[i]
    return [_url(rng, n, kind, scheme, port, hosts, files) for n, kind in enumerate(kinds)]


def _url(
    rng: random.Random, n: int, kind: str, scheme: str, port: int, hosts: int, files: list[str]
) -> str:
    host = f"img{rng.randrange(hosts)}"
    if kind in ("refused", "no name"):
        host = f"{'dead' if kind == 'refused' else 'gone'}{rng.randrange(hosts // 5)}"
    path = kind if kind in ("reset", "silent") else f"{n}/{rng.choice(files)}"
    if kind in ("404", "refused", "no name"):
        path = f"missing/{n}.jpg"
    return f"{scheme}://{host}.bench.test:{port}/{path}"


def answers(folder: Path) -> dict[bytes, bytes]:
    """Whole responses by the last part of a path."""
    made = {}
    for file in sorted(folder.iterdir()):
        body = file.read_bytes()
        made[file.name.encode()] = _response("200 OK", TYPES[file.suffix], body)
    return made


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Server: bench\r\nCache-Control: max-age=3600\r\n\r\n".encode() + body


NOT_FOUND = _response("404 Not Found", "text/html", b"<h1>Not found</h1>" + b" " * 500)


class Web(asyncio.Protocol):
    """One connection: keeps it unless the client says close."""

    def __init__(self, files: Mapping[bytes, bytes], counts: Counter[str]) -> None:
        self._files = files
        self._counts = counts
        self._read = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._counts["connections"] += 1

    def data_received(self, data: bytes) -> None:
        self._read += data
        while b"\r\n\r\n" in self._read and not self._transport.is_closing():
            head, _, self._read = self._read.partition(b"\r\n\r\n")
            self._answer(head.split(b" ", 2)[1])
            if b"\r\nconnection: close" in head.lower() and not self._silent(head):
                self._transport.close()

    @staticmethod
    def _silent(head: bytes) -> bool:
        return head.startswith(b"GET /silent ")

    def _answer(self, path: bytes) -> None:
        name = path.rpartition(b"/")[2]
        if path == b"/count":
            body = json.dumps(self._counts).encode()
            self._counts.clear()
            self._transport.write(_response("200 OK", "application/json", body))
        elif found := self._files.get(name):
            self._counts["images"] += 1
            self._transport.write(found)
        elif path == b"/reset":
            self._reset()
        elif path != b"/silent":
            kind = "404" if path.startswith(b"/missing/") else "opt-out files"
            self._counts[kind] += 1
            self._transport.write(NOT_FOUND)

    def _reset(self) -> None:
        """RST, and not an orderly end."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


def tls(hosts: int, ca_file: Path) -> ssl.SSLContext:
    """A context that hands over to the host's own."""
    import trustme  # the downloaders' side has no use for it

    ca = trustme.CA()
    ca.cert_pem.write_to_path(ca_file)
    contexts = {}
    for n in range(hosts):
        contexts[f"img{n}.bench.test"] = context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(f"img{n}.bench.test").configure_cert(context)
    first = contexts["img0.bench.test"]

    def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = contexts.get(name or "", first)

    first.sni_callback = choose  # type: ignore[assignment]
    return first


async def serve(folder: Path, scheme: str, hosts: int) -> None:
    """Until standard input ends."""
    files, counts = answers(folder), Counter[str]()
    make: Callable[[], Web] = lambda: Web(files, counts)  # noqa: E731
    context = tls(hosts, folder.parent / "ca.pem") if scheme == "https" else None
    addresses = [str(address_of(f"img{n}.bench.test")) for n in range(hosts)]
    loop = asyncio.get_running_loop()
    first = await loop.create_server(make, addresses[0], 0, ssl=context, backlog=1024)
    port = first.sockets[0].getsockname()[1]
    await loop.create_server(make, addresses[1:], port, ssl=context, backlog=1024)
    print(port, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
