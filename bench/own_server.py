"""A server for a bench of its own, what it runs on, and percentiles."""

import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from pairmill.ops.server.embedded import EmbeddedServer
from support.database import make_schema

SETTINGS = (
    "fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "full_page_writes",
    "wal_compression", "data_checksums", "autovacuum", "autovacuum_naptime",
)  # fmt: skip


@contextmanager
def own_server(below: Path | None = None) -> Iterator[tuple[EmbeddedServer, Path]]:
    """An embedded server in a temporary folder, which goes with it."""
    # so that a bench that is stopped stops its server
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    with tempfile.TemporaryDirectory(dir=below) as name:
        folder = Path(name)
        folder.chmod(0o755)  # where root starts it, the server is another user
        server = EmbeddedServer(folder)
        server.start()
        try:
            yield server, folder
        finally:
            server.stop()


def database(server: EmbeddedServer, name: str) -> str:
    """The URL of a new database that has the schema. It goes with the server."""
    return database_at(server.url(), name)


def database_at(url: str, name: str) -> str:
    """The same on the server of this URL."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"create database {name}")
    made = make_conninfo(url, dbname=name)
    make_schema(made)
    return made


def restart(server: EmbeddedServer, **settings: str) -> None:
    """With these settings from now on."""
    with psycopg.connect(server.url(), autocommit=True) as admin:
        for name, value in settings.items():
            admin.execute(f"alter system set {name} = '{value}'")
        admin.execute("checkpoint")  # stopping is quick then
    server.stop()
    server.start()


def machine(url: str) -> dict[str, Any]:
    """What it ran on."""
    model = "?"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(": ")[1] for x in lines if x.startswith("model name")), model)
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    with psycopg.connect(url) as admin:
        shown = {name: admin.execute(f"show {name}").fetchone() for name in SETTINGS}
        version = admin.execute("show server_version").fetchone()
    return {
        "machine": f"{platform.machine()}, {model}, {cores} cores, {memory:.0f} GiB,"
        " for server and clients",
        "load_before": round(os.getloadavg()[0], 1),
        "postgresql": version[0] if version else "?",
        "settings": ", ".join(f"{k}={v[0]}" for k, v in shown.items() if v),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds, with how many there were."""
    ordered = sorted(seconds)
    at = {p: ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))] for p in (50, 99)}
    return {f"p{p}": round(1000 * s, 2) for p, s in at.items()} | {"n": len(ordered)}


STARTED = time.monotonic()


def note(words: str) -> None:
    """Say how far it is."""
    print(f"{time.monotonic() - STARTED:6.0f} s  {words}", file=sys.stderr, flush=True)


def show(result: dict[str, Any], *, as_json: bool) -> None:
    """Print all of it: one JSON object, or a line for each value and for each row of a list."""
    if as_json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if isinstance(value, list):
            print(f"\n{name}")
            for row in value:
                print("  " + "  ".join(f"{k} {_shown(v)}" for k, v in row.items()))
        else:
            print(f"{name:24} {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        if "p50" in value:
            return f"{value['p50']}/{value['p99']}"
        return ", ".join(f"{k} {_shown(v)}" for k, v in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
