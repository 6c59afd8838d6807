"""How fast a list of URLs becomes thumbnails, beside img2dataset, on loopback servers.

    python bench/download.py [--urls 2000] [--rounds 3] [--quick] [--json] [--clients]

Both sides get the same list, of http and then of https, in turn, in processes of their own that are
pinned to one core; the servers (bench/web.py) have another. img2dataset comes by pip into an
environment of its own, .venv-img2dataset, and runs as its users run it. What either side does, and
what was done to be fair, is printed first.

Images a second are of the batch, without a process's start: fetch_all with its decoder's start on
our side, what img2dataset writes in its own statistics on the other. CPU seconds are of the whole
process tree, less those of a run over eight URLs. Memory is PSS, summed over the tree.

The floor is what no downloader of this kind goes below: our client alone, with nothing decided and
nothing decoded, and our decoder alone, with nothing fetched.
"""

import importlib
import inspect
import json
import os
import platform
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import trio
import typer
import web
from cpu import cpu_name
from images import images

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.client import Client
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.decode import decode
from pairmill.workers.download.fetcher import Fetcher, FetchFailed, Limits
from pairmill.workers.download.hosts import Hosts
from pairmill.workers.download.network import Network
from pairmill.workers.download.permission import Permission
from pairmill.workers.download.pool import ENVIRONMENT, decoder_pool
from pairmill.workers.download.resolver import CachedResolver
from pairmill.workers.download.url import parse
from pairmill.workers.download.worker import Options

HERE = Path(__file__).parent
THEIRS = HERE.parent / ".venv-img2dataset"
VERSION = "1.47.0"
HOSTS = 200
TIMEOUT = 2  # seconds, of both sides: to connect, and to read
CONCURRENCY = 64
STARTED = 8  # URLs of a run that is all start
SAMPLE_SECONDS = 0.1
SCHEMES = ("http", "https")
BUNDLE = "https_bundle"
THEIR_NAMES = """
import socket
_ask = socket.getaddrinfo
def _answer(host, port, *rest, **more):
    if isinstance(host, str) and host.endswith(".bench.test"):
        host = address_of(host)
        if host is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return _ask(host, port, *rest, **more)
socket.getaddrinfo = _answer
"""


# ---- in a process of its own --------------------------------------------------------------------


async def names(host: str, port: int) -> list[str]:
    """Our resolver's resolver."""
    if (address := web.address_of(host)) is None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [address]


def client() -> Client:
    network = Network((ip_network("127.0.0.0/8"),), None, CachedResolver(names))
    return Client(network, contact="bench", limits=Limits(connect=TIMEOUT, read=TIMEOUT))


async def ours(urls: Sequence[str]) -> dict[str, Any]:
    """All that a worker does to a batch, but for its database."""
    options, outcomes = Options(concurrency=CONCURRENCY), Counter[str]()
    budget = options.budget

    async def take(result: Result) -> None:
        outcomes[result.outcome.name] += 1

    async with client() as backend:
        permission = Permission(backend, budget=budget)
        begun, loop = time.perf_counter(), time.process_time()
        async with decoder_pool(options.decoders, options.thumbnail) as pool:
            await fetch_all(
                list(enumerate(urls)),
                Fetcher(backend, Limits(connect=TIMEOUT, read=TIMEOUT), permission),
                pool,
                concurrency=options.concurrency,
                pace=options.pace,
                hosts=Hosts(),
                budget=budget,
                on_result=take,
            )
            seconds = time.perf_counter() - begun
        parts = {"loop": time.process_time() - loop, "decoder": children_seconds()}
    return {
        "seconds": seconds,
        "images": outcomes["SUCCESS"],
        "outcomes": dict(outcomes),
        "parts": parts,
    }


def children_seconds() -> float:
    """CPU seconds of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def fetch_alone(urls: Sequence[str]) -> dict[str, Any]:
    """Our client: no robots.txt, no politeness, bodies thrown away."""
    left, outcomes, budget = iter(urls), Counter[str](), Options().budget

    async def work() -> None:
        for url in left:
            with budget.room() as room:
                try:
                    answer = await backend.get(parse(url), room)
                    outcomes[f"status {answer.status}"] += 1
                except FetchFailed as failed:
                    outcomes[failed.outcome.name] += 1

    async with client() as backend:
        begun = time.process_time()
        async with trio.open_nursery() as nursery:
            for _ in range(CONCURRENCY):
                nursery.start_soon(work)
        cpu = time.process_time() - begun
    return {"cpu": cpu, "images": outcomes["status 200"], "outcomes": dict(outcomes)}


def decode_alone(urls: Sequence[str], folder: Path) -> dict[str, Any]:
    """Our decoder, on the bodies of the list's live URLs."""
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    bodies = [files[name] for url in urls if (name := url.rpartition("/")[2]) in files]
    decode(bodies[0])
    begun = time.process_time()
    right = sum(decode(body).outcome is Outcome.SUCCESS for body in bodies)
    return {"cpu": time.process_time() - begun, "images": right}


def run_side(side: str, listed: Path, folder: Path) -> None:
    urls = listed.read_text().split()
    if side == "decode":
        result = decode_alone(urls, folder)
    else:
        result = trio.run(ours if side == "ours" else fetch_alone, urls)
    print(json.dumps(result))


# ---- what runs and watches them -----------------------------------------------------------------


@dataclass
class Run:
    """One side's run over one list. cpu: seconds of the tree. peak_mb: PSS of the tree. asked:
    what the server was asked for. server: the share of its core that the server took. parts: of our
    CPU seconds, by process."""

    images: int
    seconds: float
    cpu: float
    peak_mb: float
    outcomes: dict[str, int]
    asked: dict[str, int]
    server: float
    parts: dict[str, float]


@dataclass
class Server:
    scheme: str
    port: int
    pid: int

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def asked(self) -> dict[str, int]:
        """Since it was last asked this."""
        address = f"{self.scheme}://{web.address_of('img0')}:{self.port}/count"
        unverified = ssl._create_unverified_context()
        with urllib.request.urlopen(address, context=unverified) as answer:
            found: dict[str, int] = json.load(answer)
        found["connections"] -= 1
        return found


class Bench:
    """The folder of a run, its servers, and who has which core."""

    def __init__(self, home: Path, urls: int) -> None:
        self.home = home
        self.urls = urls
        self.images = home / "images"
        cores = sorted(os.sched_getaffinity(0))
        self.core, self.other = cores[0], cores[-1]
        self.servers: dict[str, Server] = {}
        self.number = 0

    def listed(self, scheme: str, count: int | None = None) -> Path:
        """The list's file; of the first ``count`` live URLs, or of all."""
        file = self.home / f"{scheme}-{count or 'all'}.txt"
        files = sorted(f.name for f in self.images.iterdir())
        port = self.servers[scheme].port
        urls = web.url_list(self.urls, scheme, port, HOSTS, files)
        if count:
            urls = [u for u in urls if u.rpartition("/")[2] in files][:count]
        file.write_text("\n".join(urls) + "\n")
        return file

    def run(self, side: str, kind: str, count: int | None = None) -> Run:
        """kind: http, https, or https_bundle."""
        scheme = kind.partition("_")[0]
        server, listed = self.servers[scheme], self.listed(scheme, count)
        command = self.theirs(listed) if side == "img2dataset" else self.ours(side, listed)
        server.asked()
        before, begun = server.cpu(), time.perf_counter()
        tree = watched(["taskset", "-c", str(self.core), *command], self.environment(side, kind))
        busy = (server.cpu() - before) / (time.perf_counter() - begun)
        found = self.their_result() if side == "img2dataset" else tree.last_line()
        return Run(
            images=found["images"],
            seconds=found.get("seconds", 0.0),
            cpu=found.get("cpu", tree.cpu),
            peak_mb=tree.peak / 1e6,
            outcomes=found.get("outcomes", {}),
            asked=server.asked(),
            server=busy,
            parts=found.get("parts", {}),
        )

    def their_result(self) -> dict[str, Any]:
        """From the statistics of its only shard."""
        (file,) = (self.home / f"out{self.number}").glob("*_stats.json")
        found = json.loads(file.read_text())
        return {
            "images": found["successes"],
            "seconds": found["duration"],
            "outcomes": found["status_dict"],
        }

    def ours(self, side: str, listed: Path) -> list[str]:
        command = [sys.executable, __file__, "--side", side, "--list", str(listed)]
        return [*command, "--images", str(self.images)]

    def theirs(self, listed: Path) -> list[str]:
        self.number += 1
        options = {
            "url_list": listed, "output_folder": self.home / f"out{self.number}",
            "output_format": "dummy", "image_size": 256, "resize_mode": "keep_ratio",
            "resize_only_if_bigger": True, "encode_quality": 88, "extract_exif": False,
            "processes_count": 1, "thread_count": CONCURRENCY, "retries": 0, "timeout": TIMEOUT,
            "number_sample_per_shard": 10_000,
        }  # fmt: skip
        return [str(THEIRS / "bin/img2dataset"), *(f"--{k}={v}" for k, v in options.items())]

    def environment(self, side: str, kind: str) -> dict[str, str]:
        """Python imports a sitecustomize, for img2dataset's names, by itself."""
        certificates = "bundle.pem" if kind == BUNDLE else "ca.pem"
        more = {"SSL_CERT_FILE": str(self.home / certificates)}
        if side == "img2dataset":
            more |= {"PYTHONPATH": str(self.home / "site"), "NO_ALBUMENTATIONS_UPDATE": "1"}
        return os.environ | more | (ENVIRONMENT if side == "decode" else {})


@dataclass
class Tree:
    """What a process and its descendants took. cpu: seconds. peak: bytes."""

    output: str
    cpu: float
    peak: int

    def last_line(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return found


def watched(command: list[str], environment: dict[str, str]) -> Tree:
    """Run to the end. CPU seconds as the kernel gives them for the process and all those that were
    waited for."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        peaks, ended = [0], threading.Event()
        sampler = threading.Thread(target=_sample, args=(process.pid, peaks, ended))
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        sampler.join()
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text}")
    return Tree(text, usage.ru_utime + usage.ru_stime, max(peaks))


def _sample(root: int, peaks: list[int], ended: threading.Event) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        peaks.append(sum(map(_pss, _tree(root))))


def _tree(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@contextmanager
def prepared(urls: int) -> Iterator[Bench]:
    """Images, names and servers."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        bench = Bench(Path(folder), urls)
        bench.images.mkdir()
        for name, data in images().items():
            (bench.images / name).write_bytes(data)
        site = bench.home / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(inspect.getsource(web.address_of) + THEIR_NAMES)
        for scheme in SCHEMES:
            bench.servers[scheme] = servers.enter_context(served(bench, scheme))
        if bundle := ssl.get_default_verify_paths().cafile:
            whole = Path(bundle).read_bytes() + (bench.home / "ca.pem").read_bytes()
            (bench.home / "bundle.pem").write_bytes(whole)
        os.sched_setaffinity(0, {bench.other})
        yield bench


@contextmanager
def served(bench: Bench, scheme: str) -> Iterator[Server]:
    arguments = [str(HERE / "web.py"), str(bench.images), scheme, str(HOSTS)]
    process = subprocess.Popen(
        ["taskset", "-c", str(bench.other), sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield Server(scheme, int(process.stdout.readline()), process.pid)
    finally:
        process.stdin.close()
        process.wait()


def install() -> None:
    """img2dataset, unless it is there."""
    if (THEIRS / "bin/img2dataset").exists():
        return
    shutil.rmtree(THEIRS, ignore_errors=True)
    print(f"making {THEIRS.name} …", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", THEIRS], check=True)
    pip = [THEIRS / "bin/pip", "install", "-q", f"img2dataset=={VERSION}"]
    subprocess.run(pip, check=True, stdout=sys.stderr)


# ---- numbers ------------------------------------------------------------------------------------


def compared(bench: Bench, rounds: int) -> dict[str, Any]:
    """Medians by scheme and side."""
    sides = ("ours", "img2dataset")
    start = {side: start_seconds(bench, side) for side in sides}
    found: dict[str, Any] = {}
    bundle = rounds > 1 and (bench.home / "bundle.pem").exists()
    for kind in (*SCHEMES, BUNDLE) if bundle else SCHEMES:
        runs: dict[str, list[Run]] = {side: [] for side in sides}
        for number in range(1 if kind == BUNDLE else rounds):
            for side in sides if number % 2 == 0 else sides[::-1]:
                runs[side].append(bench.run(side, kind))
        found[kind] = {s: medians(runs[s], bench.urls, start[s]) for s in sides}
    return found


def start_seconds(bench: Bench, side: str) -> float:
    """CPU seconds of a start, once the files of it are in memory."""
    bench.run(side, "http", STARTED)
    return statistics.median(bench.run(side, "http", STARTED).cpu for _ in range(2))


def medians(runs: list[Run], urls: int, start: float) -> dict[str, Any]:
    last, median = runs[-1], statistics.median
    cpu = [run.cpu - start for run in runs]
    return {
        "images_per_s": round(median(run.images / run.seconds for run in runs), 1),
        "each_images_per_s": [round(run.images / run.seconds, 1) for run in runs],
        "urls_per_s": round(median(urls / run.seconds for run in runs), 1),
        "cpu_s_per_1000": round(median(cpu) / urls * 1000, 2),
        "start_cpu_s": round(start, 2),
        "images_per_cpu_s": round(median(r.images / c for r, c in zip(runs, cpu, strict=True)), 1),
        **{
            f"{part}_cpu_s_per_1000": round(median(r.parts[part] for r in runs) / urls * 1000, 2)
            for part in last.parts
        },
        "share_of_core": round(median(c / r.seconds for r, c in zip(runs, cpu, strict=True)), 2),
        "peak_mb": round(median(run.peak_mb for run in runs)),
        "images": last.images,
        "outcomes": last.outcomes,
        "asked": last.asked,
        "server_share_of_core": round(max(run.server for run in runs), 2),
    }


def floor(bench: Bench, rounds: int) -> dict[str, float]:
    """CPU seconds per 1,000 URLs of the list; of decoding, too, per 1,000 images."""
    found = {}
    for scheme in SCHEMES:
        runs = [bench.run("fetch", scheme) for _ in range(rounds)]
        found[f"fetch_{scheme}"] = statistics.median(r.cpu for r in runs) / bench.urls * 1000
    runs = [bench.run("decode", "http") for _ in range(rounds)]
    cpu = statistics.median(r.cpu for r in runs)
    found["decode"] = cpu / bench.urls * 1000
    found["decode_per_1000_images"] = cpu / runs[0].images * 1000
    return {name: round(value, 2) for name, value in found.items()}


def context_ms() -> float:
    """Of a TLS context with the certificates that this machine has."""
    begun = time.process_time()
    for _ in range(5):
        ssl.create_default_context()
    return round((time.process_time() - begun) / 5 * 1000, 1)


def ran_on(bench: Bench, rounds: int) -> dict[str, Any]:
    sizes = [file.stat().st_size for file in bench.images.iterdir()]
    return {
        "machine": f"{platform.machine()}, {cpu_name()}, Python {platform.python_version()}",
        "cores": f"a side has core {bench.core}, servers and watcher core {bench.other}",
        "load_before": round(os.getloadavg()[0], 2),
        "urls": bench.urls,
        "rounds": rounds,
        "images": f"{len(sizes)} distinct, {statistics.mean(sizes) / 1000:.0f} KB on average",
        "dead": ", ".join(f"{kind} {share:.0%}" for kind, share in web.DEAD.items()),
        "context_ms": context_ms(),
    }


SAID = f"""\
names       imgN.bench.test, {HOSTS} hosts, each an address of 127/8. Ours: Network(resolver=…,
            allow 127/8); img2dataset: a sitecustomize that patches socket.getaddrinfo. Nobody asks
            a name server.
https       a certificate for each host, by SNI (ECDSA P-256, one CA without intermediates). Both
            sides verify it, by SSL_CERT_FILE with this one CA. img2dataset (urllib) reads that file
            for every request, which is cheap so; https_bundle is one run with this machine's own
            certificates in it, too, as where OpenSSL has them in a file (Fedora, conda, macOS)
            and not in a folder (Debian's default).
ours        fetch_all with Client, Permission and a decoder process: robots.txt and, from a host's
            second URL on, two more files are asked for, and all are 404 here; md5, sha256, dhash,
            a JPEG of quality 88 in memory. {CONCURRENCY} fetches at once, the worker's own pace of
            4 a host and 0.1 s between two, which {HOSTS} hosts do not feel.
img2dataset {VERSION}: one process, {CONCURRENCY} threads, keep_ratio 256, quality 88, sha256,
            no EXIF, no retries; --output_format dummy: nothing is written. It asks for no
            robots.txt.
dead        silent URLs end after {TIMEOUT} s on both sides, and stand in the first third.
"""


def show(result: dict[str, Any]) -> None:
    print(SAID)
    for name, value in result["ran_on"].items():
        print(f"{name:12}{value}")
    for scheme in (kind for kind in (*SCHEMES, BUNDLE) if kind in result):
        print(f"\n{scheme:24}{'ours':>14}{'img2dataset':>14}")
        mine, other = result[scheme]["ours"], result[scheme]["img2dataset"]
        for name, value in mine.items():
            if isinstance(value, int | float):
                print(f"{name:24}{value:>14}{other.get(name, ''):>14}")
        for side, found in result[scheme].items():
            for what in ("each_images_per_s", "outcomes", "asked"):
                print(f"{side} {what}: {found[what]}")
    print("\nfloor, CPU seconds per 1,000")
    for name, value in result["floor"].items():
        print(f"{name:46}{value}")
    print()
    for name, value in result.items():
        if isinstance(value, int | float):
            print(f"{name:46}{value}")


def summary(bench: Bench, rounds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"ran_on": ran_on(bench, rounds), **compared(bench, rounds)}
    result["floor"] = least = floor(bench, rounds)
    for scheme in (*SCHEMES, BUNDLE):
        if scheme not in result:
            continue
        mine, other = result[scheme]["ours"], result[scheme]["img2dataset"]
        end = "" if scheme == "http" else f"_{scheme}"
        for name, what in (("", "images_per_s"), ("_per_cpu_s", "images_per_cpu_s")):
            ratio = mine[what] / other[what]
            result[f"ratio_over_img2dataset{name}{end}"] = round(ratio, 2)
        result[f"cpu_s_per_1000{end}"] = mine["cpu_s_per_1000"]
        result[f"peak_mb{end}"] = mine["peak_mb"]
        bare = least[f"fetch_{scheme.partition('_')[0]}"] + least["decode"]
        result[f"share_of_floor{end}"] = round(bare / mine["cpu_s_per_1000"], 2)
    return result


def main(
    urls: int = typer.Option(2_000, help="URLs in each list."),
    rounds: int = typer.Option(3, help="How often each side has each list."),
    quick: bool = typer.Option(False, help="1,000 URLs, one round: within two minutes."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
    clients: bool = typer.Option(False, help="Also other HTTP clients: bench/clients.py."),
    side: str = typer.Option("", hidden=True),
    listed: Path = typer.Option(Path(), "--list", hidden=True),
    folder: Path = typer.Option(Path(), "--images", hidden=True),
) -> None:
    """Print images a second, CPU seconds, memory, ratios, and the floor."""
    if side:
        run_side(side, listed, folder)
        return
    if quick:
        urls, rounds = 1_000, 1
    install()
    with prepared(urls) as bench:
        result = summary(bench, rounds)
    if clients:
        result["clients"] = importlib.import_module("clients").measure(quick)
    if as_json:
        print(json.dumps(result))
        return
    show(result)
    if clients:
        importlib.import_module("clients").show(result["clients"])


if __name__ == "__main__":
    typer.run(main)
