"""The public page: requests a second of one core, and memory, from a snapshot that is renewed.

    python bench/pages_live.py [--quick] [--json]

`pairmill web live` as a process of its own on one core (its affinity), beside a server of its own
with --workers workers, of which half are named, counters of 100 languages, and a week of minutes.
Clients are wrk where it is installed, else 32 connections of a process of this program: client says
which.

live_rps        responses a second, of / as gzip, over the seconds: less where others have the core
rps_of_a_core   the same, a second of the page process's own CPU: of a core that is its alone
json_rps, not_modified_rps   of /live.json, whole and by If-None-Match
refresh_ms      what a snapshot took, queries and pages, at the end
rss_mb          resident memory before the first request and after the last
"""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import database, machine, own_server, show

from pairmill.ops.admin import logins

PAIRMILL = str(Path(sys.executable).with_name("pairmill"))
CONNECTIONS = 32


def crowd(admin: psycopg.Connection[Any], workers: int) -> None:
    """Workers with credit, half of them named, and a week of what was noted."""
    admin.execute("select set_config('bench.workers', %s, false)", (str(workers),))
    admin.execute((Path(__file__).parent / "sql" / "pages_live_crowd.sql").read_text("utf-8"))


@contextmanager
def page(dsn: str, folder: Path) -> Iterator[tuple[str, int]]:
    """(URL, process number) of the command, on one core."""
    core = max(os.sched_getaffinity(0))
    metrics = _free_port()
    process = subprocess.Popen(
        [PAIRMILL, "web", "live", "--bind", "127.0.0.1:0", "--metrics", f"127.0.0.1:{metrics}"],
        env=os.environ | {"PAIRMILL_WEB_DSN": dsn}, stdout=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    try:
        os.sched_setaffinity(process.pid, {core})
        assert process.stdout
        url = process.stdout.readline().split(": ", 1)[1].strip()
        give_up = time.monotonic() + 60
        while _status(url) == 503 and time.monotonic() < give_up:
            time.sleep(0.1)
        os.environ["PAGE_METRICS"] = f"http://127.0.0.1:{metrics}/metrics"
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


# ---- the client ----------------------------------------------------------------------------------


class Asking(asyncio.Protocol):
    """A connection that asks again once it was answered. All answers are as long as the first."""

    def __init__(self, request: bytes, length: int) -> None:
        self.request, self.length, self.got, self.answers = request, length, 0, 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got >= self.length:
            self.got -= self.length
            self.answers += 1
            self.transport.write(self.request)


def ask(host: str, port: int, request: bytes, seconds: float, answers: Any) -> None:
    """Ask for so many seconds, and put the number of answers."""

    async def run() -> int:
        length = await _length(host, port, request)
        loop = asyncio.get_running_loop()
        made = [
            (await loop.create_connection(lambda: Asking(request, length), host, port))[1]
            for _ in range(CONNECTIONS)
        ]
        await asyncio.sleep(seconds)
        return sum(each.answers for each in made)

    answers.put(asyncio.run(run()))


async def _length(host: str, port: int, request: bytes) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    writer.close()
    return len(head) + int(lines.get(b"content-length", b"0"))


def rate(url: str, path: str, header: str, seconds: float) -> float:
    """Responses a second."""
    host, port = url.split("//")[1].strip("/").split(":")
    if wrk := shutil.which("wrk"):
        said = subprocess.run(
            [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{int(seconds)}s", "-H", header, url + path[1:]],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        return float(said.split("Requests/sec:")[1].split()[0])
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n".encode()
    spawn = get_context("spawn")
    answers = spawn.Queue()
    client = spawn.Process(target=ask, args=(host, int(port), request, seconds, answers))
    client.start()
    count = int(answers.get())
    client.join()
    return count / seconds


# ---- what the process costs ----------------------------------------------------------------------


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss(pid: int) -> float:
    """Resident MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def _refresh_ms() -> float | None:
    with urllib.request.urlopen(os.environ["PAGE_METRICS"]) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("pairmill_live_refresh_seconds "):
                return 1000 * float(line.split()[1])
    return None


def measure(quick: bool, workers: int = 10_000) -> dict[str, Any]:
    """The numbers of this page's head."""
    seconds = 3.0 if quick else 15.0
    workers = min(workers, 1_000) if quick else workers
    with own_server() as (server, _), tempfile.TemporaryDirectory() as folder:
        dsn = database(server, "live")
        with psycopg.connect(dsn, autocommit=True) as admin:
            crowd(admin, workers)
            login = logins.add_page(admin, "live")
        with page(login, Path(folder)) as (url, pid):
            before, used = rss(pid), cpu(pid)
            with urllib.request.urlopen(url + "live.json") as answer:
                known = f"If-None-Match: {answer.headers['ETag']}"
            live = rate(url, "/", "Accept-Encoding: gzip", seconds)
            used = cpu(pid) - used
            found = {
                "live_rps": round(live),
                "rps_of_a_core": round(live * seconds / used),
                "json_rps": round(rate(url, "/live.json", "Accept-Encoding: gzip", seconds)),
                "not_modified_rps": round(rate(url, "/live.json", known, seconds)),
                "refresh_ms": _refresh_ms(),
                "rss_mb": {"before": round(before), "after": round(rss(pid))},
                "client": "wrk" if shutil.which("wrk") else "own",
                "workers": workers,
            }  # fmt: skip
        return found | machine(dsn)


def main(
    quick: Annotated[bool, typer.Option(help="Seconds in place of a minute.")] = False,
    workers: Annotated[int, typer.Option(help="Workers; half are named.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
) -> None:
    """The public page under load."""
    show(measure(quick, workers), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
