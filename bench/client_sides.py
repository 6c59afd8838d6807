"""One HTTP client, or the server, in a process of its own: what bench/clients.py starts.

    python bench/client_sides.py serve '{"body": 33000, "close": true, "tls": "server.pem"}'
    python bench/client_sides.py ours '{"url": …, "close": true, "ca": …, "requests": 1000, …}'

It runs in environments that have neither pairmill nor typer, so each side imports what it needs.
The server prints its port. A client prints one JSON object: requests, CPU seconds, seconds,
versions; it fails where one response is not what the server sends.
"""

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

BACKLOG = 4096
THREADS = 64
PACKAGES = ("trio", "h11", "ada-url", "aiohttp", "uvloop", "httpx", "asks", "anyio", "pycurl")


# ---- the server --------------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """Sends the same bytes for every request, and looks at nothing but where each ends."""

    def __init__(self, response: bytes, *, close: bool) -> None:
        self._response = response
        self._close = close
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        *requests, self._unread = (self._unread + data).split(b"\r\n\r\n")
        for _ in requests:
            self._transport.write(self._response)
            if self._close:
                self._transport.close()
                return


async def serve(body: int, close: bool, tls: str | None) -> None:
    """Until its standard input ends, so that it does not outlive who started it."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {body}\r\n"
    head += "Connection: close\r\n\r\n" if close else "\r\n"
    response = head.encode() + b"\xff\xd8" + os.urandom(body - 2)
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Answering(response, close=close),
        "127.0.0.1",
        0,
        backlog=BACKLOG,
        ssl=context,
        # without: 30 s for a client that does not say goodbye
        ssl_shutdown_timeout=1.0 if tls else None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


# ---- the clients -------------------------------------------------------------------------------


@dataclass
class Job:
    """What a client is to do. close: the server closes after each response. ca: a file with
    who signed the server's certificate, or "". seconds: after so long no request is begun."""

    url: str
    close: bool
    ca: str
    body: int
    requests: int
    concurrency: int
    seconds: float

    def __post_init__(self) -> None:
        self.tls = ssl.create_default_context(cafile=self.ca) if self.ca else None
        self.address = "127.0.0.1", urlsplit(self.url).port
        self.made = 0
        self.request = (
            f"GET /x.jpg HTTP/1.1\r\nHost: 127.0.0.1:{self.address[1]}\r\nUser-Agent: bench\r\n"
            "Accept: */*\r\nConnection: {}\r\n\r\n"
        ).format("close" if self.close else "keep-alive")

    def turns(self) -> Iterator[None]:
        """Shared by all workers: one turn for each request."""
        begun = time.perf_counter()
        while self.made < self.requests and time.perf_counter() - begun < self.seconds:
            self.made += 1
            yield

    def check(self, size: int) -> None:
        if size != self.body:
            raise RuntimeError(f"a body of {size} bytes, not {self.body}")


Work = Callable[[], None]


def with_trio(job: Job, worker: Callable[[Iterator[None]], Awaitable[None]]) -> None:
    import trio

    async def main() -> None:
        turns = job.turns()
        async with trio.open_nursery() as nursery:
            for _ in range(job.concurrency):
                nursery.start_soon(worker, turns)

    trio.run(main)


def backend(job: Job, make: Any) -> Work:
    from ipaddress import ip_network

    from pairmill.workers.download.budget import MemoryBudget
    from pairmill.workers.download.network import Network
    from pairmill.workers.download.url import parse

    network = Network((ip_network("127.0.0.0/8"),))
    client = make(network, contact="bench", limits=patient(), tls=job.tls)
    budget = MemoryBudget()
    target = parse(job.url)

    async def worker(turns: Iterator[None]) -> None:
        for _ in turns:
            with budget.room() as room:
                job.check(len((await client.get(target, room)).body))

    return lambda: with_trio(job, worker)


def patient() -> Any:
    """256 handshakes that begin at once, on one core, need longer than the default deadlines."""
    from pairmill.workers.download.fetcher import Limits

    return Limits(connect=60.0, read=60.0)


def ours(job: Job) -> Work:
    from pairmill.workers.download.client import Client

    return backend(job, Client)


def asks_backend(job: Job) -> Work:
    from pairmill.workers.download.asks_backend import AsksBackend

    return backend(job, AsksBackend)


def asks(job: Job) -> Work:
    """asks as it comes, with its own pool and connecting."""
    import asks as library

    async def worker(turns: Iterator[None]) -> None:
        for _ in turns:
            response = await session.get(job.url, headers=headers)
            job.check(len(response.content))

    session = library.Session(connections=job.concurrency, ssl_context=job.tls)
    headers = {"Connection": "close" if job.close else "keep-alive"}
    return lambda: with_trio(job, worker)


def trio_h11(job: Job) -> Work:
    """The least that one would write by hand: no check, no cap, no name for a failure."""
    import h11
    import trio

    async def connect() -> trio.abc.Stream:
        stream: trio.abc.Stream = await trio.open_tcp_stream(*job.address)
        if job.tls:
            stream = trio.SSLStream(
                stream, job.tls, server_hostname="127.0.0.1", https_compatible=True
            )
        return stream

    async def exchange(stream: trio.abc.Stream, parser: h11.Connection) -> int:
        request = h11.Request(method="GET", target="/x.jpg", headers=headers)
        await stream.send_all(parser.send(request) + parser.send(h11.EndOfMessage()))
        size = 0
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                parser.receive_data(await stream.receive_some(65_536))
            elif isinstance(event, h11.Data):
                size += len(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return size

    async def worker(turns: Iterator[None]) -> None:
        stream = None
        for _ in turns:
            if stream is None:
                stream, parser = await connect(), h11.Connection(h11.CLIENT)
            job.check(await exchange(stream, parser))
            if job.close:
                await trio.aclose_forcefully(stream)
                stream = None
            else:
                parser.start_next_cycle()

    headers = [line.split(": ") for line in job.request.strip().split("\r\n")[1:]]
    return lambda: with_trio(job, worker)


def urllib(job: Job) -> Work:
    """img2dataset's way: urllib in threads. It opens a connection for each request in any mode."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Lock
    from urllib.request import Request, urlopen

    lock = Lock()

    def worker() -> None:
        while True:
            with lock:
                if next(turns, "none") == "none":
                    return
            with urlopen(Request(job.url), timeout=60, context=job.tls) as response:
                job.check(len(response.read()))

    def main() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(worker) for _ in range(THREADS)]:
                done.result()

    turns = job.turns()
    return main


def aiohttp(job: Job) -> Work:
    import aiohttp as library
    import uvloop

    async def worker(session: Any, turns: Iterator[None]) -> None:
        for _ in turns:
            async with session.get(job.url) as response:
                job.check(len(await response.read()))

    async def main() -> None:
        turns = job.turns()
        connector = library.TCPConnector(
            limit=job.concurrency, force_close=job.close, ssl=job.tls or True
        )
        async with library.ClientSession(connector=connector) as session:
            await asyncio.gather(*(worker(session, turns) for _ in range(job.concurrency)))

    return lambda: uvloop.run(main())


def httpx(job: Job) -> Work:
    import httpx as library

    limits = library.Limits(
        max_connections=job.concurrency,
        max_keepalive_connections=0 if job.close else job.concurrency,
    )
    client = library.AsyncClient(
        limits=limits, verify=job.tls or False, timeout=60, trust_env=False
    )

    async def worker(turns: Iterator[None]) -> None:
        for _ in turns:
            job.check(len((await client.get(job.url)).content))

    return lambda: with_trio(job, worker)


def pycurl(job: Job) -> Work:
    """libcurl's multi interface: what C can do."""
    import pycurl as library

    def main() -> None:
        turns = job.turns()
        multi = library.CurlMulti()
        multi.setopt(library.M_MAXCONNECTS, job.concurrency)
        running = sum(begin(multi, new(), turns) for _ in range(job.concurrency))
        while running:
            multi.perform()
            _, done, failed = multi.info_read()
            for _, _, why in failed:
                raise RuntimeError(why)
            for handle in done:
                job.check(len(received[handle]))
                multi.remove_handle(handle)
                running -= not begin(multi, handle, turns)
            multi.select(0.1)

    def new() -> Any:
        handle = library.Curl()
        handle.setopt(library.URL, job.url)
        handle.setopt(library.FORBID_REUSE, job.close)
        handle.setopt(library.SSL_SESSIONID_CACHE, False)
        if job.ca:
            handle.setopt(library.CAINFO, job.ca)
        return handle

    def begin(multi: Any, handle: Any, turns: Iterator[None]) -> bool:
        if next(turns, "none") == "none":
            return False
        received[handle] = bytearray()
        handle.setopt(library.WRITEFUNCTION, received[handle].extend)
        multi.add_handle(handle)
        return True

    received: dict[Any, bytearray] = {}
    return main


SIDES: dict[str, Callable[[Job], Work]] = {
    side.__name__: side
    for side in (ours, trio_h11, urllib, aiohttp, httpx, asks, asks_backend, pycurl)
}


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    side, options = sys.argv[1], json.loads(sys.argv[2])
    if core := options.pop("core", None):
        os.sched_setaffinity(0, {int(core)})
    if side == "serve":
        asyncio.run(serve(**options))
        return
    job = Job(**options)
    work = SIDES[side](job)  # imports, contexts and sessions are not counted
    cpu, begun = time.process_time(), time.perf_counter()
    work()
    cpu, seconds = time.process_time() - cpu, time.perf_counter() - begun
    print(json.dumps({"made": job.made, "cpu": cpu, "seconds": seconds, "versions": versions()}))


if __name__ == "__main__":
    main()
