"""The page of releases: seconds of a filter, a search or an order over HTTP, and its memory.

    python bench/pages_explore.py [--quick] [--json] [--rows 10000000] [--keep FOLDER]

A made-up release: texts of 2 to 17 words by Zipf's law out of 300,000, so that the commonest stands
in most rows; hosts by Zipf, a tenth as many as rows; similarity, tags and sizes at random. Its
working copy is made by `pairmill web explore --prepare`; the page is a process of its own, asked by
one client, one query after the other, each one once (a second time it would know the answer).
--quick: 10^6 rows. --keep: a folder for the data, which a later run takes.

first_page_s    the first answer of the process, with all the release's rows
p50_ms, p95_ms  of filters, words, orders and their second pages, as HTML
memory_mb       anonymous memory of the process at its end; resident_mb: with the pages of mapped
                files, which the system takes back where it needs them
prepare_s, prepare_mb, copy_bytes_row   of the working copy
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import note, show

from support.made_releases import made_parts

PAIRMILL = Path(sys.executable).with_name("pairmill")
VOCABULARY, SHARD = 300_000, 1_000_000
PORT = 8849
Drawn = npt.NDArray[np.int64]


def made_rows(rows: int) -> Iterator[pa.Table]:
    """Tables of SHARD rows."""
    rng = np.random.default_rng(1)
    syllables = np.array([a + b for a in "bcdfghjklmnprstvwz" for b in "aeiou"])
    parts = syllables[rng.integers(0, len(syllables), (VOCABULARY, 3))]
    lengths = rng.integers(1, 4, VOCABULARY)
    words = pa.array(["".join(p[:n]) for p, n in zip(parts, lengths, strict=True)])
    hosts = pa.array([f"img{i % 5}.site{i // 2}.{('com', 'de', 'org')[i % 3]}" for i in
                      range(max(1_000, rows // 10))])  # fmt: skip
    by_word, by_host = zipf(VOCABULARY, 1.05), zipf(len(hosts), 0.9)
    languages = pa.array(["en", "de", "fr", "es", "ru", "nolang", "zh", "pt"])
    for start in range(0, rows, SHARD):
        n = min(SHARD, rows - start)
        counts = rng.integers(2, 18, n)
        ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        drawn = words.take(pa.array(np.searchsorted(by_word, rng.random(ends[-1]))))
        ids = pa.array((np.arange(start, start + n) * 3 + rng.integers(0, 3, n)).astype(np.int64))
        names = hosts.take(pa.array(np.searchsorted(by_host, rng.random(n))))
        url = pc.binary_join_element_wise("https://", names, "/", ids.cast(pa.string()), ".jpg", "")
        yield pa.table({
            "SAMPLE_ID": ids, "URL": url,
            "TEXT": pc.binary_join(pa.ListArray.from_arrays(pa.array(ends), drawn), " "),
            "HEIGHT": rng.integers(200, 2000, n).astype(np.int32),
            "WIDTH": rng.integers(200, 2000, n).astype(np.int32),
            "LANGUAGE": languages.take(pa.array(np.minimum(rng.geometric(0.5, n) - 1, 7))),
            "similarity": np.round(0.26 + rng.exponential(0.03, n), 6),
            "md5": pa.array([f"{value:032x}" for value in rng.integers(0, 2**62, n).tolist()]),
            "punsafe": rng.beta(1, 12, n).astype(np.float32),
            "pwatermark": rng.beta(1, 4, n).astype(np.float32),
            "aesthetic": rng.normal(5, 0.8, n).astype(np.float32),
        })  # fmt: skip


def zipf(count: int, power: float) -> npt.NDArray[np.float64]:
    shares = 1 / np.arange(1, count + 1) ** power
    return np.cumsum(shares / shares.sum() * (1 - 1e-12))


def queries(words: list[str], hosts: list[str], seed: int = 2) -> list[str]:
    """Query strings, each once: words from the commonest to rare ones, filters, orders."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(60):
        word, other = (words[int(len(words) * rng.random() ** 3)] for _ in range(2))
        low = f"{0.26 + 0.1 * rng.random():.4f}"
        found += [
            f"text={word}", f"text={word}+{other}", f"text={word}&min_similarity={low}",
            f"language=de&max_punsafe={rng.random():.3f}", f"host={hosts[n]}&min_similarity={low}",
            f"min_similarity={low}&min_aesthetic={4 + rng.random():.3f}&min_width={500 + n}",
            f"max_pwatermark={0.2 + n / 100}&sort=-aesthetic",
            f"text={word}&max_punsafe=0.{n + 100}&sort=-similarity",
        ]  # fmt: skip
    return found


def status(pid: int, name: str) -> float:
    """MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@contextmanager
def page(folder: Path) -> Iterator[tuple[str, int]]:
    command = [
        PAIRMILL,
        "web",
        "explore",
        "--releases",
        folder / "release",
        "--work",
        folder / "work",
        "--no-database",
        "--rate",
        "none",
        "--bind",
        f"127.0.0.1:{PORT}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1], process.pid
        finally:
            process.terminate()


def asked(url: str) -> float:
    """Milliseconds of an answer."""
    start = time.perf_counter()
    with urllib.request.urlopen(url, timeout=60) as answer:
        answer.read()
    return 1e3 * (time.perf_counter() - start)


def prepared(folder: Path) -> dict[str, float]:
    command = [PAIRMILL, "web", "explore", "--releases", folder / "release", "--work",
               folder / "work", "--no-database", "--prepare"]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, code, usage = os.wait4(process.pid, 0)
    assert code == 0
    taken = time.perf_counter() - start
    return {"prepare_s": round(taken, 1), "prepare_mb": round(usage.ru_maxrss / 1024)}


def measure(quick: bool, rows: int = 0, keep: Path | None = None) -> dict[str, Any]:
    """The numbers of the docstring; explore_p95_ms is p95_ms."""
    rows = rows or (1_000_000 if quick else 10_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = (keep or Path(name)).absolute()
        if not (folder / "release").exists():
            note(f"{rows:,} rows")
            folder.mkdir(parents=True, exist_ok=True)
            made_parts(folder / "release", made_rows(rows), "made up")
        found: dict[str, Any] = {"rows": rows}
        if not (folder / "work").exists():
            note("the working copy")
            found |= prepared(folder)
        size = sum(path.stat().st_size for path in (folder / "work").rglob("*") if path.is_file())
        found["copy_bytes_row"] = round(size / rows)
        with page(folder) as (url, pid):
            found["first_page_s"] = round(asked(f"{url}r/release") / 1e3, 2)
            known = urllib.request.urlopen(f"{url}r/release?format=json&limit=200").read().decode()
            listed = json.loads(known)
            words = [word for row in listed["rows"] for word in row["row"]["TEXT"].split()]
            words = sorted(set(words), key=lambda word: -words.count(word))
            parts = [urllib.parse.urlsplit(row["row"]["URL"]).hostname for row in listed["rows"]]
            note("queries")
            some = queries(words, [str(part) for part in parts])[: 240 if quick else 480]
            times = sorted(asked(f"{url}r/release?{query}") for query in some)
            for share in (50, 95, 100):
                at = min(len(times) - 1, int(len(times) * share / 100))
                found[f"p{share}_ms" if share < 100 else "max_ms"] = round(times[at], 1)
            found["memory_mb"] = round(status(pid, "RssAnon"))
            found["resident_mb"] = round(status(pid, "VmRSS"))
    return found | {"explore_p95_ms": found["p95_ms"], "load": round(os.getloadavg()[0], 1)}


def main(
    quick: bool = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    rows: int = 0,
    keep: Path | None = None,
) -> None:
    """The page of releases, over HTTP."""
    show(measure(quick, rows, keep), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
