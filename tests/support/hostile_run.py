"""The downloader on the hostile web, in a process of its own so that its memory can be seen.

    python tests/support/hostile_run.py COUNT < what tests/support/hostile_web.py printed

Prints one JSON object: wrong (kind, URL, outcome: those that are not what must come of it, at most
20), results (count by URL's number of results), outcomes, rss (MB at the quarters), peak (MB).
"""

import json
import os
import random
import ssl
import sys
from collections import Counter
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import trio

from pairmill.workers.download.client import Client
from pairmill.workers.download.crawl import Result, fetch_all
from pairmill.workers.download.fetcher import Fetcher, Limits
from pairmill.workers.download.hosts import Hosts
from pairmill.workers.download.network import Network
from pairmill.workers.download.permission import Permission
from pairmill.workers.download.pool import decoder_pool
from pairmill.workers.download.resolver import CachedResolver
from pairmill.workers.download.worker import Options

PER_HOST = 4  # one fewer than makes a host be given up
SLOW_HOSTS = 5
Kinds = dict[str, Any]  # as tests/support/hostile_web.py prints them
LIMITS = Limits(connect=4.0, read=2.0, total=12.0)  # floods of 10 MB take 5 s on busy cores


def urls_of(kinds: Kinds, count: int) -> list[str]:
    """So many URLs, of every kind as many, but for the slow ones; in a fixed random order."""
    urls: list[str] = []
    for number in range(count):
        for name, kind in kinds.items():
            if kind["slow"] and number >= SLOW_HOSTS:
                continue
            place = f"{kind['scheme']}://{name}-{number}.web.test:{kind['port']}"
            urls += [f"{place}/x{i}.jpg" for i in range(1 if kind["slow"] else PER_HOST)]
        if len(urls) >= count:
            break
    random.Random(1).shuffle(urls)
    return urls[:count]


def kind_of(host: str) -> str:
    """The kind in kind-number.web.test."""
    return host.partition(".web.test")[0].rpartition("-")[0]


def resolver() -> CachedResolver:
    asked: Counter[str] = Counter()

    async def ask(host: str, port: int) -> list[str]:
        kind = kind_of(host)
        asked[host] += 1
        if kind == "no-such-name":
            raise OSError("no such name")
        if kind == "two-addresses":
            return ["127.0.0.1", "127.0.0.2"]
        if kind == "rebinding" and asked[host] > 1:
            return ["127.0.0.2"]
        return [host] if host[0].isdigit() or ":" in host else ["127.0.0.1"]

    return CachedResolver(ask)


def memory(key: str) -> list[int]:
    """MB of this process and of its decoders, by /proc: VmRSS or VmHWM."""
    mine = os.getpid()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            text = (entry / "status").read_text()
            parent = int(text.partition("PPid:")[2].split()[0])
            if mine in (int(entry.name), parent):
                found.append(int(text.partition(f"{key}:")[2].split()[0]) // 1024)
        except (OSError, IndexError):
            continue
    return found


async def run(urls: list[str], kinds: Kinds, tls: ssl.SSLContext) -> dict[str, object]:
    options = Options()
    results: Counter[int] = Counter()
    outcomes: Counter[str] = Counter()
    wrong: list[tuple[str, str, str]] = []
    rss: list[list[int]] = []

    async def take(result: Result) -> None:
        results[result.n] += 1
        outcomes[result.outcome.name] += 1
        url = urls[result.n]
        kind = kind_of(url.split("/")[2])
        if result.outcome.name not in kinds[kind]["outcomes"]:
            wrong.append((kind, url, result.outcome.name))
        if results.total() % (len(urls) // 4) == 0:
            rss.append(memory("VmRSS"))

    network = Network((ip_network("127.0.0.1/32"),), resolver=resolver())
    budget = options.budget
    async with (
        Client(network, contact="test", limits=LIMITS, tls=tls) as client,
        decoder_pool(1, options.thumbnail) as pool,
    ):
        fetcher = Fetcher(client, LIMITS, Permission(client, budget=budget))
        await fetch_all(
            list(enumerate(urls)), fetcher, pool, concurrency=options.concurrency,
            pace=options.pace, hosts=Hosts(), budget=budget, on_result=take,
        )  # fmt: skip
        peak = memory("VmHWM")
    return {
        "wrong": wrong[:20],
        "results": dict(Counter(results.values())),
        "outcomes": dict(outcomes),
        "rss": rss,
        "peak": peak,
        "budget": budget._size - budget._free,
    }


def main() -> None:
    web = json.loads(sys.stdin.readline())
    tls = ssl.create_default_context(cadata=web["ca"])
    urls = urls_of(web["kinds"], int(sys.argv[1]))
    print(json.dumps(trio.run(run, urls, web["kinds"], tls)))


if __name__ == "__main__":
    main()
