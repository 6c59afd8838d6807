"""A web on loopback for bench/line.py: every host there is, over TLS, with images at every path.

    python bench/line_web.py FOLDER SHARE

Listens on a free port of 127.0.0.1, and prints it; ends with its standard input. A path's CRC
chooses one of the folder's images, or, for SHARE of all paths, 404. A host's files for robots are
404. The one certificate is no host's, so the downloader runs with --no-verify-tls; the handshake is
a real one (ECDSA P-256).
"""

import asyncio
import ssl
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import trustme
from web import NOT_FOUND, Web, answers

ASKED_OF_A_HOST = (b"/robots.txt", b"/ai.txt", b"/.well-known/tdmrep.json")


class AnyHost(Web):
    """One connection. images: whole responses. dead: the share of paths that are 404."""

    def __init__(self, images: Sequence[bytes], dead: float) -> None:
        super().__init__({}, Counter())
        self._images = images
        self._dead = round(dead * 1000)

    def _answer(self, path: bytes) -> None:
        number = zlib.crc32(path)
        if path in ASKED_OF_A_HOST or number % 1000 < self._dead:
            self._transport.write(NOT_FOUND)
        else:
            self._transport.write(self._images[number // 1000 % len(self._images)])


async def serve(folder: Path, dead: float) -> None:
    """Until standard input ends."""
    images = list(answers(folder).values())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("line.bench.test").configure_cert(context)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(
        lambda: AnyHost(images, dead), "127.0.0.1", 0, ssl=context, backlog=1024
    )
    print(listening.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), float(sys.argv[2])))
