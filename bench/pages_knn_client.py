"""A client of both services for bench/pages_knn.py: bodies made beforehand, over sockets, so that
it costs little of the machine that it shares with them.

    python bench/pages_knn_client.py PORT BODIES CONCURRENCY SECONDS

BODIES: a file of JSON, one a line. Each of CONCURRENCY connections sends the next body when its
answer has come, and connects again where the service has closed. Prints one JSON object: seconds,
statuses with their number, milliseconds of each answer by status.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
) -> tuple[int, bool]:
    """Its status, and whether the connection goes on. Raises OSError or EOFError."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in rest if line)
    await reader.readexactly(int(fields["content-length"]))
    kept = first.startswith("HTTP/1.1") and fields.get("connection") != "close"
    return int(first.split()[1]), kept


async def client(port: int, requests: list[bytes], number: int, end: float, found: Any) -> None:
    connection = None
    at = number * 7919
    while time.perf_counter() < end:
        request = requests[at % len(requests)]
        at += 1
        started = time.perf_counter()
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", port)
            status, kept = await ask(*connection, request)
        except (OSError, EOFError):
            status, kept = 0, False  # no answer at all
        found.setdefault(status, []).append(round((time.perf_counter() - started) * 1000, 2))
        if not kept and connection:
            connection[1].close()
            connection = None
        if status == 503:
            await asyncio.sleep(
                0.05
            )  # not the seconds of its Retry-After, which a rude client ignores


def requests_of(bodies: Path) -> list[bytes]:
    head = "POST /knn-service HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n"
    return [head.format(len(body)).encode() + body for body in bodies.read_bytes().splitlines()]


async def main(port: int, requests: list[bytes], concurrency: int, seconds: float) -> None:
    found: dict[int, list[float]] = {}
    started = time.perf_counter()
    end = started + seconds
    await asyncio.gather(*(client(port, requests, i, end, found) for i in range(concurrency)))
    print(json.dumps({"seconds": time.perf_counter() - started, "milliseconds": found}))


if __name__ == "__main__":
    asyncio.run(
        main(int(sys.argv[1]), requests_of(Path(sys.argv[2])), int(sys.argv[3]), float(sys.argv[4]))
    )
