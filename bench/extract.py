"""How fast a WAT file becomes rows, beside gunzip, warcio + json, and cc2dataset's loop.

    python bench/extract.py [--pages 10000] [--quick] [--json]

The file is made from a seed; its shape, and what of it is measured and what assumed, is said in
bench/wat.py. Each side reads it in one run, --rounds times in turn, and the median counts.
Seconds are CPU seconds, of one process, and of the server's too where it says rows; scaled to a
file of 300 MB by its bytes.

cc2dataset's loop is written here from its published algorithm: FastWARC, simdjson, urljoin, md5; it
keeps links whose alt is not empty, checks nothing else and detects no language. What all sides
need comes with the extra ``dev``.
"""

import functools
import hashlib
import io
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import fastwarc
import simdjson
import typer
from isal import isal_zlib
from warcio.archiveiterator import ArchiveIterator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ingest import know, ours
from wat import IMAGES, LANGUAGES, wat

from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.workers.extract import extract as extraction
from pairmill.workers.extract.extract import Counts, extract
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.records import PIECE
from pairmill.workers.extract.rows import rows_in_parts
from pairmill.workers.extract.worker import count_rows
from support.database import Database, new_database
from support.peak import extraction_peak

REAL_BYTES = 300_000_000
INGEST_ROWS = 50_000  # of a file; see bench/ingest.py, which has more of this
INGEST_KNOWN = 100_000


def gunzip(data: bytes) -> int:
    """Inflate every member, with the library that extraction uses, and look at nothing."""
    return _inflated(data, lambda: isal_zlib.decompressobj(wbits=31))


def gunzip_zlib(data: bytes) -> int:
    """The same with the standard library."""
    return _inflated(data, lambda: zlib.decompressobj(wbits=31))


def _inflated(data: bytes, new: Callable[[], Any]) -> int:
    total = at = 0
    view = memoryview(data)
    while at < len(view):
        member = new()
        while not member.eof:
            piece = view[at : at + PIECE]
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
        response = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {})
        for link in response.get("HTML-Metadata", {}).get("Links", []):
            if link["path"] == "IMG@/src" and link.get("alt"):
                hashlib.md5(urljoin(uri, link["url"]).encode(), usedforsecurity=False).digest()
                kept += 1
    return kept


def cc2dataset(data: bytes) -> int:
    kept = 0
    for record in fastwarc.ArchiveIterator(
        io.BytesIO(data), record_types=fastwarc.WarcRecordType.metadata
    ):
        envelope = simdjson.loads(record.reader.read())["Envelope"]
        uri = envelope["WARC-Header-Metadata"]["WARC-Target-URI"]
        response = envelope["Payload-Metadata"].get("HTTP-Response-Metadata", {})
        for link in response.get("HTML-Metadata", {}).get("Links", []):
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
    rows = 0
    for part in rows_in_parts(extract(io.BytesIO(data), counts), claim.lease_id):
        queue.copy_pages(part.pages)
        queue.copy_pairs(part.pairs)
        rows += len(part.pairs)
    queue.submit_extract(claim.lease_id, rows, list(count_rows(counts)))
    db.accept_all()
    return rows


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


def language_accuracy(texts: int = 4_000) -> dict[str, float]:
    """CLD3 on words of a known language, as the file's alts are made: shares of all texts."""
    rng = random.Random(2)
    detect = LanguageDetector().detect
    right = reliable = 0
    for _ in range(texts):
        name, words = rng.choice(LANGUAGES)
        found = detect(" ".join(rng.choices(words, k=rng.randint(1, 8))))[0]
        reliable += found is not None
        right += found == name
    return {"language_right": right / texts, "language_reliable": reliable / texts}


def cpu(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main(
    pages: int = typer.Option(10_000, help="Pages of the file; a real one has about 45,000."),
    rounds: int = typer.Option(3, help="How often each side reads it."),
    quick: bool = typer.Option(False, help="1,500 pages, two rounds: within a minute."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print CPU seconds for a 300 MB WAT file, and ratios."""
    if quick:
        pages, rounds = 1_500, 2
    data = wat(pages)
    scale = REAL_BYTES / len(data)
    sides: dict[str, Callable[[], Any]] = {
        side.__name__: functools.partial(side, data)
        for side in (gunzip, gunzip_zlib, parse, parse_with_language, warcio_and_json, cc2dataset)
    }
    taken: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "a.wat.gz"
        file.write_bytes(data)
        _, peak = extraction_peak(file)
        server = EmbeddedServer(Path(home))
        server.start()
        postmaster = int((Path(home) / "postgres/postmaster.pid").read_text().split()[0])
        for _ in range(rounds):
            for name, side in sides.items():
                taken[name].append(cpu(side))
            with new_database(server.url()) as db:
                before, begun = server_seconds(postmaster), time.process_time()
                rows = to_rows(data, db)
                client = time.process_time() - begun
                taken["rows"].append(client + server_seconds(postmaster) - before)
        with new_database(server.url()) as db:
            know(db, INGEST_KNOWN)
            merges = [INGEST_ROWS / ours(db, number, INGEST_ROWS) for number in range(5)]
            new = db.value("select count(*) from mill.pair")
        server.stop()
    seconds = {name: statistics.median(many) * scale for name, many in taken.items()}
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "file_mb": round(len(data) / 1e6, 1),
        "pages": pages,
        "img_links": IMAGES * pages,
        "rows": rows,
        **{
            f"{name}_s_per_300mb": round(s, 2)
            for name, s in seconds.items()
            if name != "rows"
        },
        "rows_core_s_per_300mb": round(seconds["rows"], 2),
        "parse_over_gunzip": round(seconds["parse"] / seconds["gunzip"], 2),
        "speedup_over_warcio_json": round(seconds["warcio_and_json"] / seconds["parse"], 2),
        "speedup_over_cc2dataset": round(seconds["cc2dataset"] / seconds["parse"], 2),
        "ingest_rows_per_s": round(statistics.median(merges)),
        "ingest_known_urls": INGEST_KNOWN,
        "ingest_duplicates": round(1 - new / (len(merges) * INGEST_ROWS), 3),
        "peak_mb": round(peak / 1e6),
        **{name: round(share, 3) for name, share in language_accuracy().items()},
    }  # fmt: skip
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:34} {value}")


if __name__ == "__main__":
    typer.run(main)
