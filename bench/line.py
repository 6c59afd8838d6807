"""The whole line on one machine: what each stage costs, and what a crawl of N links would need.

    python bench/line.py [--links 100000] [--quick] [--json] [--table 1e7,1e9,5e10]
                         [--gpu-rate PAIRS_PER_S] [--assume NAME=VALUE ...] [--from RESULT.json]

extract, the same file again under another name (every URL known: what a later crawl looks like),
download, score, release: each a worker of its own as a process, beside a steward, on an embedded
server of its own. The WAT file is bench/wat.py's, whose shape is said there. --links counts those
with alt. Images come from bench/line_web.py: any host, over TLS, from memory; names are not
resolved, certificates are not verified. A host has 1.7 URLs, so the downloader's pace (4 at once
and 0.1 s between two, of each host) does not bind, and most URLs cost a handshake and a file of the
host's that is not there. The model is the demo's, on the CPU, with a two-hundredth of ViT-B-32's
arithmetic. The release keeps the most similar tenth.

Then a file of a fifth as many links into a database of --old known URLs, after a checkpoint: the
WAL of an index whose pages are each written again. `seen_url_wal` has it beside the formula.

Core-seconds: workers without their start; server with the steward. --json's file is what --from
computes a table of again, with other assumptions. --table prints Markdown.
"""

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from images import images
from ingest import know
from line_needs import SOURCES, Measured, Stage, assumed, crawls, needs, page_images
from line_print import markdown, stages, tables
from line_stages import Line, growth, loaded, web
from own_server import machine, note, own_server, show
from wat import wat

from pairmill.ops.demo import model as demo_model
from support.database import Database

LINKS_A_PAGE = 16 * 0.55  # with alt, of bench/wat.py
DEAD = 0.2  # of the URLs, as in bench/web.py
KEPT = 0.1  # of the scored pairs
QUICK, QUICK_OLD = 5_000, 200_000
MODEL = ("--model", str(demo_model.PATH))
UNVERIFIED = "--no-verify-tls"
ALL_PAIRS = "select count(*) from mill.pair"
WITH_ALT = (
    "select (sum(count) filter (where stage = 'links') - sum(count) filter (where stage = 'dropped'"
    " and name = 'no_text'))::bigint from mill.wat_count"
)
THRESHOLD = (
    "select s.similarity from mill.score s join mill.pair p using (batch_id, n)"
    " where p.language = 'en' order by 1 desc nulls last offset %s limit 1"
)
NOT_LINEAR = (
    "the merge is one at a time, and slower once the index of known URLs has outgrown memory",
    "the index's page images in WAL grow with the known URLs: computed, not measured at that size",
    "the ring of thumbnails has a fixed size; what hosts' files say is kept for a day",
    "a release is one pass in one session; views of all pairs take minutes from 10^9 on",
    "on the web: names to resolve, servers that are slow, bodies of other sizes than here",
    "scoring's core-seconds have the demo's small model in them, and no card",
)


@contextmanager
def made_line(folder: Path, dsn: str, postmaster: int) -> Iterator[Line]:
    """A migrated database, its images and their web."""
    pictures = folder / "images"
    pictures.mkdir()
    for name, body in images(24, 3, 3).items():
        (pictures / name).write_bytes(body)
    with web(pictures, DEAD) as address, psycopg.connect(dsn, autocommit=True) as connection:
        environment = os.environ | {
            "DATABASE_URL": dsn,
            "PAIRMILL_HOME": str(folder / "home"),
            "PAIRMILL_CONNECT_TO": address,
            "PAIRMILL_ALLOW_NETWORKS": "127.0.0.0/8",
        }
        for name in ("PAIRMILL_WORKER_DSN", "PAIRMILL_METRICS", "PAIRMILL_BACKEND"):
            environment.pop(name, None)
        line = Line(connection, folder, postmaster, environment)
        line.pairmill("migrate")
        yield line


def add_file(line: Line, name: str, data: bytes) -> None:
    file = line.folder / name
    file.write_bytes(data)
    line.folder.chmod(0o755)
    line.pairmill("wat", "add", str(file))


def measure(line: Line, data: bytes) -> dict[str, Any]:
    """The stages one after the other."""
    line.started("extract")
    line.started("download", UNVERIFIED)
    line.started("score", *MODEL)
    line.start["release"] = line.pairmill(
        "release", "build", "demo", "--out", str(line.folder / "empty")
    )
    before = line.tables()
    add_file(line, "young.wat.gz", data)
    young = line.stage("extract, no URL known", "extract", WITH_ALT)
    pairs, links = line.value(ALL_PAIRS), young.units
    add_file(line, "known.wat.gz", data)
    known = line.stage("extract, every URL known", "extract", links)
    if line.value(ALL_PAIRS) != pairs:
        raise SystemExit("the file that was known gave new pairs")
    download = line.stage("download", "download", "select count(*) from mill.download", UNVERIFIED)
    thumbnails = line.value("select count(*) from mill.thumbnail")
    sizes = (
        line.value("select avg(bytes)::float from mill.download where outcome = 0"),
        line.value("select avg(octet_length(image))::float from mill.thumbnail"),
    )
    score = line.stage("score", "score", thumbnails, *MODEL)
    scored = line.value("select count(*) from mill.score where outcome = 0")
    release, kept = released(line, scored, pairs)
    result = {
        "links": links, "wat_bytes": len(data), "pairs": pairs, "images": thumbnails,
        "scored": scored, "kept": kept, "image": sizes[0], "thumbnail": sizes[1],
        "dims": line.value("select dims from mill.model where kind = 'clip'"),
        "disk": growth(before, line.tables()),
    }  # fmt: skip
    stages = {
        "young": young, "known": known, "download": download, "score": score, "release": release
    }  # fmt: skip
    return result | {name: dataclasses.asdict(stage) for name, stage in stages.items()}


def released(line: Line, scored: int, pairs: int) -> tuple[Stage, int]:
    """A release of the most similar tenth, its English part; and its rows."""
    least = line.value(THRESHOLD, int(KEPT * scored))
    before = line.see()
    cpu = line.pairmill(
        "release", "build", "demo", "--out", str(line.folder / "release"), "--set",
        f"min_similarity={least or 0.0:.6f}",
    )  # fmt: skip
    done = line.stage_of("release", before, cpu - line.start["release"], pairs)
    return done, line.value("select kept from mill.release order by release_id desc limit 1")


def in_an_old_database(line: Line, dsn: str, old: int, pages: int, usual: float) -> dict[str, Any]:
    """Bytes of WAL a new key, of a merge into an index of so many, beside the formula. usual: bytes
    of a new pair where the index is small."""
    note(f"{old:,} known URLs")
    db = Database(dsn)
    try:
        know(db, old)
        keys = db.value("select count(*) from mill.seen_url")
    finally:
        db.close()
    add_file(line, "old.wat.gz", wat(pages, seed=2))
    pairs = line.value(ALL_PAIRS)
    line.connection.execute("checkpoint")
    stage = line.stage("extract, many URLs known", "extract", round(pages * LINKS_A_PAGE))
    new = line.value(ALL_PAIRS) - pairs
    return {
        "known_urls": keys,
        "new_keys": new,
        "wal_bytes_a_key": round(stage.wal / new),
        "more_than_usual": round(stage.wal / new - usual),
        "by_the_formula": round(page_images(new, keys) / new),
    }


def run(links: int, old: int) -> dict[str, Any]:
    pages = max(1, round(links / LINKS_A_PAGE))
    note(f"a WAT file of {pages:,} pages")
    data = wat(pages)
    with own_server() as (server, folder):
        with psycopg.connect(server.url(), autocommit=True) as admin:
            admin.execute("create database line")
        dsn = server.url("line")
        postmaster = int((folder / "postgres/postmaster.pid").read_text().split()[0])
        result = ran_on(dsn)
        with made_line(folder, dsn, postmaster) as line:
            line.pairmill("model", "add", *MODEL, "--name", "pairmill-demo")
            with line.stewarded():
                result["measured"] = measure(line, data)
                if old:
                    found = result["measured"]
                    usual = found["young"]["wal"] / found["pairs"]
                    result["seen_url_wal"] = in_an_old_database(
                        line, dsn, old, max(1, pages // 5), usual
                    )
    return result


def ran_on(dsn: str) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "psycopg", "trio")}
    return machine(dsn) | {"python": platform.python_version(), "versions": versions}


def main(
    links: int = typer.Option(100_000, min=100, help="With alt, of the WAT file."),
    quick: bool = typer.Option(False, help="5,000 links: within three minutes."),
    old: int = typer.Option(2_000_000, min=0, help="Known URLs of the last merge; 0: leave it."),
    table: str = typer.Option("1e7,1e9,5e10", help="Links of the crawls to compute, with commas."),
    gpu_rate: float = typer.Option(0.0, min=0.0, help="Pairs a second of a card; 0: not known."),
    assume: list[str] = typer.Option([], help="name=value, of the assumptions that are printed."),
    source: Path = typer.Option(None, "--from", help="An earlier run's --json: measure nothing."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print what each stage took, and what larger crawls would need."""
    try:
        counts, given = crawls(table), assumed(assume)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    if quick:
        links, old = QUICK, QUICK_OLD
    result = loaded(source) if source else run(links, old)
    m = Measured.of(result["measured"])
    result["needs"] = [needs(m, given, count, gpu_rate or None) for count in counts]
    result["assumed"] = dataclasses.asdict(given) | {"dead_share": DEAD, "gpu_rate": gpu_rate}
    if as_json:
        print(json.dumps(result))
        return
    shown = {k: v for k, v in result.items() if k not in ("measured", "needs", "assumed")}
    shown |= {
        "links_with_alt": m.links, "pairs": m.pairs, "images": m.images, "scored": m.scored,
        "release_rows": m.kept, "wat_mb": round(m.wat_bytes / 1e6, 1),
        "image_kb": round(m.image / 1000, 1), "thumbnail_kb": round(m.thumbnail / 1000, 1),
        "network_mb": {"images": round(m.image * m.images / 1e6),
                       "thumbnails, in and out": round(2 * m.thumbnail * m.images / 1e6)},
        "tables": tables(m),
    }  # fmt: skip
    show(shown, as_json=False)
    print("\n" + stages(m) + "\n\nassumed")
    for name, text in SOURCES.items():
        print(f"  {name:20} {getattr(given, name):<12.6g} {text}")
    print("\nextrapolated, all linear but for")
    for each in NOT_LINEAR:
        print(f"  {each}")
    print("\n" + markdown(result["needs"]))


if __name__ == "__main__":
    typer.run(main)
