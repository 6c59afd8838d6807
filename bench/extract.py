"""How fast a WAT file becomes rows, beside gunzip, warcio + json, and cc2dataset's loop.

    python bench/extract.py [--pages 10000] [--quick] [--json]

Makes a WAT file of a realistic shape from a seed: 16 images a page, 55 % with alt, and about
7 KB of gzip a page, as CC-MAIN-2022-40 had; texts in 9 languages of 5 scripts, a fifth of them
repeated. Each side reads it in one run. Seconds are CPU seconds, of one process, and of the
server's too where it says rows; scaled to a file of 300 MB by its bytes.

cc2dataset's loop is written here from its published algorithm: FastWARC, simdjson, urljoin, md5; it
keeps links whose alt is not empty, checks nothing else and detects no language. Its side needs
fastwarc and pysimdjson installed.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import typer
from warcio.archiveiterator import ArchiveIterator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from database import Database, new_database

from pairmill.schema.embedded import Embedded
from pairmill.workers.extract import extract as extraction
from pairmill.workers.extract.extract import Counts, extract
from pairmill.workers.extract.worker import _rows, count_rows

REAL_BYTES = 300_000_000
TEXTS = (
    "a red chair in the kitchen of an old house", "the river behind our garden in summer",
    "ein kleines Haus am Rande der Stadt", "une vieille photo de la place du village",
    "la playa de la ciudad en invierno", "красивый вид на море и горы", "美しい庭と古い家の写真",
    "صورة قديمة من المدينة", "uma foto da cozinha da casa", "zdjęcie starego domu w górach",
)  # fmt: skip


def page(rng: random.Random, number: int) -> bytes:
    """One page as a WARC record."""
    host = f"www.site{rng.randrange(number // 7 + 10)}.example"
    links: list[dict[str, str]] = []
    for _ in range(16):
        kind = rng.random()
        if kind < 0.4:
            url = f"/wp-content/uploads/{rng.randrange(10**6)}/picture-{rng.randrange(99)}.jpg"
        elif kind < 0.9:
            url = f"https://cdn{rng.randrange(500)}.example/images/{rng.randrange(10**9)}.png"
        else:
            url = f"../img/{rng.randrange(10**6)}.webp"
        link = {"path": "IMG@/src", "url": url}
        if rng.random() < 0.55:
            words = rng.choice(TEXTS)
            link["alt"] = words if rng.random() < 0.2 else f"{words} {rng.randrange(10**6)}"
        links.append(link)
    for _ in range(300):
        words = rng.choice(TEXTS).split()
        url = f"/category/{rng.choice(words)}/{rng.randrange(16**8):08x}-{rng.choice(words)}.html"
        links.append(
            {"path": "A@/href", "url": url, "text": f"{rng.choice(words)} {rng.randrange(10**4)}"}
        )
    rng.shuffle(links)
    uri = f"https://{host}/posts/{number}.html"
    html = {"Head": {"Title": rng.choice(TEXTS)}, "Links": links}
    payload = {"HTTP-Response-Metadata": {"Headers": {"Server": "nginx"}, "HTML-Metadata": html}}
    header = {"WARC-Type": "response", "WARC-Target-URI": uri}
    body = json.dumps(
        {"Envelope": {"WARC-Header-Metadata": header, "Payload-Metadata": payload}}
    ).encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Target-URI: {uri}\r\n"
        f"WARC-Record-ID: <urn:uuid:{number:032x}>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + body + b"\r\n\r\n", 6, mtime=0)


def gunzip(data: bytes) -> int:
    """Inflate every member and look at nothing."""
    total = at = 0
    view = memoryview(data)
    while at < len(view):
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not member.eof:
            piece = view[at : at + 16_384]
            total += len(member.decompress(piece))
            at += len(piece)
        at -= len(member.unused_data)
    return total


def parse(data: bytes) -> int:
    class Silent:
        def detect(self, text: str) -> tuple[None, float]:
            return None, 0.0

    detector, extraction.LanguageDetector = extraction.LanguageDetector, Silent  # type: ignore[misc, assignment]
    try:
        return parse_with_language(data)
    finally:
        extraction.LanguageDetector = detector  # type: ignore[misc]


def parse_with_language(data: bytes) -> int:
    return sum(1 for _ in extract(io.BytesIO(data), Counts()))


def warcio_and_json(data: bytes) -> int:
    kept = 0
    for record in ArchiveIterator(io.BytesIO(data)):
        envelope = json.load(record.content_stream())["Envelope"]
        uri = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
        for link in envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"][
            "Links"
        ]:
            if link["path"] == "IMG@/src" and link.get("alt"):
                hashlib.md5(urljoin(uri, link["url"]).encode(), usedforsecurity=False).digest()
                kept += 1
    return kept


def cc2dataset(data: bytes) -> int:
    import fastwarc
    import simdjson

    kept = 0
    for record in fastwarc.ArchiveIterator(
        io.BytesIO(data), record_types=fastwarc.WarcRecordType.metadata
    ):
        envelope = simdjson.loads(record.reader.read())["Envelope"]
        uri = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
        for link in envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"][
            "Links"
        ]:
            if link["path"] == "IMG@/src" and link.get("alt"):
                hashlib.md5(urljoin(uri, link["url"]).encode(), usedforsecurity=False).hexdigest()
                kept += 1
    return kept


def to_rows(data: bytes, db: Database) -> int:
    """What the worker and the steward do, from the file's bytes to accepted pairs."""
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    counts = Counts()
    rows = list(_rows(extract(io.BytesIO(data), counts), claim.lease_id, 0))
    queue.copy_pairs(rows)
    queue.submit_extract(claim.lease_id, len(rows), list(count_rows(counts)))
    begun = time.perf_counter()
    db.accept_all()
    db.merge_seconds = time.perf_counter() - begun  # type: ignore[attr-defined]
    return len(rows)


def server_seconds(postmaster: int) -> float:
    """CPU seconds of a server: its live processes, and those that it has waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def cpu(work: Callable[[], int]) -> tuple[float, int]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def main(
    pages: int = typer.Option(10_000, help="Pages of the file; a real one has about 45,000."),
    quick: bool = typer.Option(False, help="2,000 pages: within a minute."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print CPU seconds for a 300 MB WAT file, and ratios."""
    rng = random.Random(1)
    count = 2_000 if quick else pages
    data = b"".join(page(rng, n) for n in range(count))
    scale = REAL_BYTES / len(data)
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: dict[str, float] = {}
    for side in (gunzip, parse, parse_with_language, warcio_and_json):
        seconds[side.__name__], _ = cpu(lambda side=side: side(data))  # type: ignore[misc]
    try:
        seconds["cc2dataset"], _ = cpu(lambda: cc2dataset(data))
    except ModuleNotFoundError as missing:
        print(f"without cc2dataset's loop: {missing.name} is not installed", file=sys.stderr)
    with tempfile.TemporaryDirectory() as home:
        server = Embedded(Path(home))
        server.start()
        postmaster = int((Path(home) / "postgres/postmaster.pid").read_text().split()[0])
        with new_database(server.url()) as db:
            before = server_seconds(postmaster)
            client, rows = cpu(lambda: to_rows(data, db))
            seconds["rows"] = client + server_seconds(postmaster) - before
            merge = db.merge_seconds  # type: ignore[attr-defined]
        server.stop()
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "file_mb": round(len(data) / 1e6, 1),
        "pages": count,
        "img_links": 16 * count,
        "rows": rows,
        **{
            f"{side}_s_per_300mb": round(s * scale, 2)
            for side, s in seconds.items()
            if side != "rows"
        },
        "rows_core_s_per_300mb": round(seconds["rows"] * scale, 2),
        "parse_over_gunzip": round(seconds["parse"] / seconds["gunzip"], 2),
        "speedup_over_warcio_json": round(seconds["warcio_and_json"] / seconds["parse"], 2),
        "ingest_rows_per_s": round(rows / merge),
        "peak_mb": round((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1024),
    }
    if "cc2dataset" in seconds:
        result["speedup_over_cc2dataset"] = round(seconds["cc2dataset"] / seconds["parse"], 2)
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    typer.run(main)
