"""How fast a WAT file becomes rows, beside gunzip, warcio + json, and cc2dataset's loop.

    python bench/extract.py [--pages 10000] [--rows-pages 17000] [--quick] [--json]

The file is made from a seed; its shape, and what of it is measured and what assumed, is said in
bench/wat.py. Each side reads it in one run, --rounds times in turn, and the median counts.
Seconds are CPU seconds, of one process, and of the server's too where it says rows; scaled to a
file of 300 MB by its bytes.

rows: from the bytes of a file of 100 MB (--rows-pages) to accepted pairs, by the worker's functions
and the steward's, in a database of its own each time. What a file of one page takes (claims, plans,
a first COPY) is not scaled. Of its URLs 0, 50, 75 and 90 % are known before, chosen at random,
beside --known others; the worker probes as it would (probe_asked: the share of pairs that it asked
about). At 90 % it is run without a probe, too, and probe_ratio_90 is that over the time with it.
The server is new, as it comes, and on the same machine.

cc2dataset's loop is written here from its published algorithm: FastWARC, simdjson, urljoin, md5; it
keeps links whose alt is not empty, checks nothing else and detects no language. What all sides
need comes with the extra ``dev``.
"""

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
from uuid import UUID

import fastwarc
import simdjson
import typer
from isal import isal_zlib
from warcio.archiveiterator import ArchiveIterator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cpu import cpu_name, server_seconds
from ingest import know, ours
from wat import IMAGES, LANGUAGES, wat

from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.workers.extract.extract import Counts, extract
from pairmill.workers.extract.gzip_members import PIECE
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.probe import UrlProbe
from pairmill.workers.extract.rows import rows_in_parts
from pairmill.workers.extract.worker import count_rows, new_pairs
from support.database import Database, new_database
from support.peak import extraction_peak

REAL_BYTES = 300_000_000
INGEST_ROWS = 50_000  # of a file; see bench/ingest.py, which has more of this
INGEST_KNOWN = 100_000
SHARES = (0.0, 0.5, 0.75, 0.9)  # of the file's URLs that are known


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
    return sum(1 for _ in extract(io.BytesIO(data), Counts()))


def parse_with_language(data: bytes) -> int:
    detect = LanguageDetector().detect
    return sum(1 for pair in extract(io.BytesIO(data), Counts()) if detect(pair.text))


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


def to_rows(data: bytes, db: Database, probe: UrlProbe | None) -> int:
    """What the worker and the steward do, from the file's bytes to accepted pairs: how many."""
    db.add_wat(f"{len(data)}.wat")
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    counts = Counts()
    rows = 0
    new = new_pairs(queue, claim.lease_id, probe, counts) if probe else list
    pairs = extract(io.BytesIO(data), counts)
    for part in rows_in_parts(pairs, claim.lease_id, LanguageDetector().detect, new):
        if part.pairs:
            queue.copy_pages(part.pages)
            queue.copy_pairs(part.pairs)
        rows += len(part.pairs)
    queue.submit_extract(claim.lease_id, rows, list(count_rows(counts)))
    db.accept_all()
    return int(db.value("select count(*) from mill.pair"))


class RowsBench:
    """The way to accepted rows, each time in a new database of one server. keys: of the file's
    URLs, in random order."""

    def __init__(self, server: EmbeddedServer, home: Path, data: bytes, others: int) -> None:
        self._server, self._others, self._data = server, others, data
        self._postmaster = int((home / "postgres/postmaster.pid").read_text().split()[0])
        self._page = wat(1, seed=2)
        keys = {pair.url_key for pair in extract(io.BytesIO(data), Counts())}
        self.keys = random.Random(1).sample(sorted(keys), len(keys))

    def seconds(self, known: float, probe: UrlProbe | None) -> float:
        """CPU seconds for 300 MB where this share of the URLs is known."""
        with new_database(self._server.url()) as db:
            of_file = self.keys[: round(known * len(self.keys))]
            with db.admin.cursor().copy("copy mill.seen_url from stdin (format binary)") as copy:
                copy.set_types(("uuid", "int8", "int4"))
                for key in sorted(of_file):
                    copy.write_row((UUID(bytes=key), 0, 0))
            know(db, len(of_file) + self._others)
            fixed, _ = self._spent(lambda: to_rows(self._page, db, probe and UrlProbe()))
            spent, pairs = self._spent(lambda: to_rows(self._data, db, probe))
            new = len(self.keys) - len(of_file)
            assert new <= pairs <= new + IMAGES, f"{pairs} pairs and not {new}"
        return fixed + (spent - fixed) * REAL_BYTES / len(self._data)

    def _spent(self, work: Callable[[], int]) -> tuple[float, int]:
        before, begun = server_seconds(self._postmaster), time.process_time()
        pairs = work()
        client = time.process_time() - begun
        return client + server_seconds(self._postmaster) - before, pairs


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


def rows_result(bench: RowsBench) -> dict[str, Any]:
    """With the probe at each share, and without it at the last."""
    result: dict[str, Any] = {"rows": len(bench.keys)}
    for share in SHARES:
        probe = UrlProbe()
        seconds = bench.seconds(share, probe)
        name = f"_known_{share:.0%}".rstrip("%") if share else ""
        result[f"rows_core_s_per_300mb{name}"] = round(seconds, 2)
        result[f"probe_asked_{share:.0%}".rstrip("%")] = round(probe.asked / len(bench.keys), 2)
    without = bench.seconds(SHARES[-1], None)
    result["rows_core_s_per_300mb_known_90_without_probe"] = round(without, 2)
    result["probe_ratio_90"] = round(without / seconds, 2)
    return result


def parse_result(data: bytes, rounds: int) -> dict[str, Any]:
    sides: tuple[Callable[[bytes], int], ...] = (
        gunzip, gunzip_zlib, parse, parse_with_language, warcio_and_json, cc2dataset,
    )  # fmt: skip
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for side in sides:
            taken[side.__name__].append(cpu(lambda run=side: run(data)))
    scale = REAL_BYTES / len(data)
    seconds = {name: statistics.median(many) * scale for name, many in taken.items()}
    return {
        **{f"{name}_s_per_300mb": round(s, 2) for name, s in seconds.items()},
        "parse_over_gunzip": round(seconds["parse"] / seconds["gunzip"], 2),
        "speedup_over_warcio_json": round(seconds["warcio_and_json"] / seconds["parse"], 2),
        "speedup_over_cc2dataset": round(seconds["cc2dataset"] / seconds["parse"], 2),
    }


def ingest_result(url: str) -> dict[str, Any]:
    with new_database(url) as db:
        know(db, INGEST_KNOWN)
        merges = [INGEST_ROWS / ours(db, number, INGEST_ROWS) for number in range(5)]
        new = db.value("select count(*) from mill.pair")
    return {
        "ingest_rows_per_s": round(statistics.median(merges)),
        "ingest_known_urls": INGEST_KNOWN,
        "ingest_duplicates": round(1 - new / (len(merges) * INGEST_ROWS), 3),
    }


def main(
    pages: int = typer.Option(10_000, help="Pages of the file; a real one has about 45,000."),
    rows_pages: int = typer.Option(17_000, help="Pages of that which becomes rows: 100 MB."),
    known: int = typer.Option(1_000_000, help="URLs that are known beside the file's."),
    rounds: int = typer.Option(3, help="How often each side reads it."),
    quick: bool = typer.Option(False, help="1,500 and 4,000 pages, two rounds: 90 seconds."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print CPU seconds for a 300 MB WAT file, and ratios."""
    if quick:
        pages, rows_pages, known, rounds = 1_500, 4_000, 100_000, 2
    data = wat(pages)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {cpu_name()}, {len(os.sched_getaffinity(0))} cores",
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
        "file_mb": round(len(data) / 1e6, 1),
        "pages": pages,
        "img_links": IMAGES * pages,
        **parse_result(data, rounds),
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        file = home / "a.wat.gz"
        file.write_bytes(data)
        _, peak = extraction_peak(file)
        server = EmbeddedServer(home)
        server.start()
        data = wat(rows_pages)
        result |= {"rows_file_mb": round(len(data) / 1e6, 1), "rows_known_beside": known}
        result |= rows_result(RowsBench(server, home, data, known))
        result |= ingest_result(server.url())
        server.stop()
    result["peak_mb"] = round(peak / 1e6)
    result |= {name: round(share, 3) for name, share in language_accuracy().items()}
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:46} {value}")


if __name__ == "__main__":
    typer.run(main)
