"""What a request costs: our HTTP client beside others, on one core.

    python bench/clients.py [--requests 3000] [--concurrency 256] [--quick] [--json]

Each client fetches a body of 33 KB, an image's usual size, from a server on loopback: on
connections that are kept (keep-alive), on a new one each (close), and on a new one each with TLS
and a verified certificate (tls). Each run is a process of its own, on one core, the server on
another; runs alternate, each round begins with another client, and the median counts. CPU
seconds are the client's, of user and system, without its imports. server_busy is the share of
its core that the server used: near 1 the requests a second are the server's and not the client's.

aiohttp, httpx and pycurl come from .venv-bench, which this makes with pip when it is not there;
asks from .venv-asks, which `make asks-env` makes. What is not there is said, and not measured.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import trustme
import typer

ROOT = Path(__file__).parents[1]
SIDES = Path(__file__).with_name("client_sides.py")
BODY = 33_000
MODES = ("keep-alive", "close", "tls")
OWN = Path(sys.executable)
ASKS = ROOT / ".venv-asks/bin/python"
OTHERS = ROOT / ".venv-bench/bin/python"
OTHERS_NEED = ("trio", "aiohttp", "uvloop", "httpx", "pycurl")
# side of client_sides.py: how it is called, which Python runs it
CLIENTS = {
    "ours": ("ours: trio", OWN),
    "trio_h11": ("trio + h11, by hand", OWN),
    "urllib": ("urllib, 64 threads (img2dataset's way)", OWN),
    "aiohttp": ("aiohttp + uvloop", OTHERS),
    "httpx": ("httpx + trio", OTHERS),
    "asks": ("asks + trio, as it comes", ASKS),
    "asks_backend": ("asks, our backend", ASKS),
    "pycurl": ("pycurl multi", OTHERS),
}


def environment_for_others() -> str:
    """Make .venv-bench if it is not there. Returns why it could not be made, or ""."""
    ready = ROOT / ".venv-bench/.ready"
    if ready.exists():
        return ""
    print(f"== installing {', '.join(OTHERS_NEED)} in .venv-bench", file=sys.stderr)
    for command in (
        [sys.executable, "-m", "venv", str(ready.parent)],
        [OTHERS, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *OTHERS_NEED],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"pip could not install it: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    ready.touch()
    return ""


def cores() -> tuple[int, int]:
    """Of the client, and of the server: the same where there is but one."""
    mine = sorted(os.sched_getaffinity(0))
    return mine[-1], mine[0]


def certificate(home: Path) -> tuple[str, str]:
    """Files: the server's key and certificate, and who signed it."""
    authority = trustme.CA()
    server, signer = home / "server.pem", home / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(server))
    authority.cert_pem.write_to_path(str(signer))
    return str(server), str(signer)


@contextmanager
def serving(mode: str, key: str) -> Iterator[tuple[int, int]]:
    """A server for this mode: its process and its port."""
    options = {
        "body": BODY,
        "close": mode != "keep-alive",
        "tls": key if mode == "tls" else None,
        "core": str(cores()[1]),
    }
    command = [sys.executable, str(SIDES), "serve", json.dumps(options)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield server.pid, int(server.stdout.readline())
        finally:
            server.stdin.close()


def cpu_of(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def run(python: Path, side: str, server: int, job: dict[str, Any]) -> dict[str, Any]:
    """One run of one client. Gives its numbers, or {"failed": why}."""
    command = [str(python), str(SIDES), side, json.dumps({**job, "core": str(cores()[0])})]
    before = cpu_of(server)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout)
    found["server_busy"] = (cpu_of(server) - before) / found["seconds"]
    return found


def measure(
    quick: bool = False, *, requests: int = 3_000, concurrency: int = 256, rounds: int = 3
) -> list[dict[str, Any]]:
    """A row for each client and mode, with cpu_s_per_1000, requests_per_s, ratio_to_ours (of CPU
    seconds) and server_busy; or with not_measured, and why. requests: of a run with TLS; the
    other modes make four times as many, since 3,000 on kept connections took 0.3 s."""
    seconds = 20.0  # then a run ends: httpx on kept connections made 48 to 290 requests a second
    if quick:
        requests, rounds, seconds = min(requests, 700), 2, 3.0
    missing = {ASKS: "" if ASKS.exists() else "make asks-env", OTHERS: environment_for_others()}
    taken: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home, ExitStack() as servers:
        key, signer = certificate(Path(home))
        at = {mode: servers.enter_context(serving(mode, key)) for mode in MODES}
        for number in range(rounds):
            turn = number * len(CLIENTS) // rounds
            order = [*CLIENTS][turn:] + [*CLIENTS][:turn]
            for mode, (server, port) in at.items():
                job = {
                    "url": f"http{'s' if mode == 'tls' else ''}://127.0.0.1:{port}/x.jpg",
                    "close": mode != "keep-alive",
                    "ca": signer if mode == "tls" else "",
                    "body": BODY,
                    "requests": requests if mode == "tls" else requests * 4,
                    "concurrency": concurrency,
                    "seconds": seconds,
                }
                for side in order:
                    python = CLIENTS[side][1]
                    if not missing.get(python):
                        taken[side, mode].append(run(python, side, server, job))
    return rows(taken, missing)


def rows(
    taken: dict[tuple[str, str], list[dict[str, Any]]], missing: dict[Path, str]
) -> list[dict[str, Any]]:
    found = []
    base: dict[str, float] = {}
    for side, (name, python) in CLIENTS.items():
        for mode in MODES:
            runs = taken[side, mode]
            row: dict[str, Any] = {"client": name, "mode": mode}
            why = missing.get(python) or next((r["failed"] for r in runs if "failed" in r), "")
            if why:
                found.append({**row, "not_measured": why})
                continue
            cpu = statistics.median(r["cpu"] / r["made"] * 1000 for r in runs)
            base.setdefault(mode, cpu)  # ours is the first
            row |= {
                "cpu_s_per_1000": round(cpu, 3),
                "requests_per_s": round(statistics.median(r["made"] / r["seconds"] for r in runs)),
                "ratio_to_ours": round(cpu / base[mode], 2),
                "server_busy": round(statistics.median(r["server_busy"] for r in runs), 2),
                "requests": sum(r["made"] for r in runs),
                "runs": len(runs),
                "versions": runs[0]["versions"],
            }
            found.append(row)
    return found


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    client, server = cores()
    shared = "client and server share one" if client == server else "one for the client"
    count = len(os.sched_getaffinity(0))
    return f"{model}, {count} cores ({shared}), Python {platform.python_version()}"


def show(rows: list[dict[str, Any]]) -> None:
    """Print a line for each client."""
    print(machine())
    versions: dict[str, str] = {}
    for row in rows:
        versions |= row.get("versions", {})
    print(", ".join(f"{name} {number}" for name, number in sorted(versions.items())))
    print("CPU seconds per 1,000 requests of 33 KB (requests/s, ratio of CPU to ours)\n")
    print(f"{'client':40}" + "".join(f"{mode:>24}" for mode in MODES))
    by_client: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in rows:
        by_client[row["client"]][row["mode"]] = row
    for client, modes in by_client.items():
        print(f"{client:40}" + "".join(f"{_cell(modes[mode]):>24}" for mode in MODES))
    _notes(rows)


def _cell(row: dict[str, Any]) -> str:
    if "not_measured" in row:
        return "not measured"
    rate = f"{row['requests_per_s']:,}/s"
    return f"{row['cpu_s_per_1000']:.2f} ({rate}, {row['ratio_to_ours']:.2f})"


def _notes(rows: list[dict[str, Any]]) -> None:
    print("\nurllib and our backend on asks open a connection each in every mode")
    for row in rows:
        if row.get("server_busy", 0) > 0.9:
            print(f"{row['client']}, {row['mode']}: the server was the limit of its requests/s")
    reasons = {(row["client"], row["not_measured"]): None for row in rows if "not_measured" in row}
    for client, why in reasons:
        print(f"{client} not measured: {why}")


def main(
    requests: int = typer.Option(3_000, help="Of a run with TLS; four times as many without."),
    concurrency: int = typer.Option(256, help="Requests at once."),
    rounds: int = typer.Option(3, help="Runs of each client in each mode."),
    quick: bool = typer.Option(False, help="700 requests, two rounds: within two minutes."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print CPU seconds per 1,000 requests, requests a second, and ratios to ours."""
    begun = time.perf_counter()
    found = measure(quick, requests=requests, concurrency=concurrency, rounds=rounds)
    if as_json:
        print(json.dumps({"machine": machine(), "rows": found}))
    else:
        show(found)
        print(f"took {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    typer.run(main)
