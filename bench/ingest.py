"""How fast new pairs enter: our merge beside the obvious staging table with ON CONFLICT.

    python bench/ingest.py [--rows 50000] [--files 4] [--curve 1e5,1e6,1e7,3e7] [--json]

Both sides in one run, on one embedded server, alternating: files of ``rows`` links, a third
of which the file before had. Ours is COPY into the inbox, the merge by the steward's function
(dedupe, dealing, counts, pairs, seen URLs); the other is COPY into an unlogged table and one
INSERT … ON CONFLICT DO NOTHING of the same columns. Seconds are of the server's statement.

--curve repeats our side with so many URLs known before (random keys, put straight into
mill.seen_url): as it is, with the steward's Bloom filter, and with one that is trusted. It says
how many blocks a staged row read from outside the server's own cache, and how large the index is.
"""

import functools
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from pairmill.ops.server.embedded import embedded
from pairmill.schema.tables.inbox import inbox_pair
from pairmill.workers.extract.calls import PAIR_TYPES
from pairmill.workers.steward.url_filter import UrlFilter
from support.database import Database, new_database, page_row, pair_rows

PAGE = 6  # links of one page, as of a generated WAT file


def urls(number: int, rows: int) -> list[str]:
    first = number * rows * 2 // 3
    return [
        f"https://host{i % 997}.example/images/{i:012}/picture.jpg"
        for i in range(first, first + rows)
    ]


def ours(
    db: Database, number: int, rows: int, accept: Callable[[Database], Any] = Database.accept_all
) -> float:
    db.add_wat(f"{number}.wat")
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    numbers = [i // PAGE for i in range(rows)]
    queue.copy_pages(
        [page_row(claim.lease_id, n, f"https://host.example/{n}.html") for n in set(numbers)]
    )
    queue.copy_pairs(pair_rows(claim.lease_id, urls(number, rows), pages=numbers))
    queue.submit_extract(claim.lease_id, rows, [("image", "links", "", rows)])
    begun = time.perf_counter()
    accept(db)
    return time.perf_counter() - begun


def obvious(connection: psycopg.Connection[Any], number: int, rows: int) -> float:
    connection.execute("truncate staging")
    with (
        connection.cursor() as cursor,
        cursor.copy("copy staging from stdin (format binary)") as copy,
    ):
        copy.set_types(PAIR_TYPES)
        for row in pair_rows(number, urls(number, rows)):
            copy.write_row(row)
    begun = time.perf_counter()
    connection.execute("insert into obvious select * from staging on conflict (url_key) do nothing")
    return time.perf_counter() - begun


def know(db: Database, total: int) -> None:
    """Have at least so many URLs known."""
    missing = total - db.value("select count(*) from mill.seen_url")
    step = 2_000_000  # sorted, a step at a time: an index that grows in order of its keys is dense
    for first in range(0, missing, step):
        db.admin.execute(
            "insert into mill.seen_url select k, 0, 0 from"
            " (select md5(random()::text || g)::uuid as k from generate_series(1, %s) g) s"
            " order by k",
            (min(step, missing - first),),
        )
    db.admin.execute("vacuum analyze mill.seen_url")
    db.admin.execute("checkpoint")


def curve(db: Database, steps: list[int], rows: int) -> list[dict[str, Any]]:
    """Rows a second without a filter, with one, and with one that is trusted, in turn."""
    read = "select blks_read from pg_stat_database where datname = current_database()"
    size = (
        "select sum(pg_relation_size(i.indexrelid)) from pg_index i"
        " join pg_inherits h on h.inhrelid = i.indrelid"
        " where h.inhparent = 'mill.seen_url'::regclass"
    )
    points = []
    number = itertools.count(1_000)
    for known in steps:
        know(db, known)
        point: dict[str, Any] = {"known_urls": known, "index_mb": round(db.value(size) / 2**20)}
        for name, trusted in (("none", None), ("filter", False), ("trusted", True)):
            accept = Database.accept_all
            if trusted is not None:
                url_filter = UrlFilter(Path("unsaved"), trusted=trusted)
                url_filter.build(db.queue("steward")[0])
                accept = functools.partial(accept_filtered, url_filter)
            before = db.value(read)
            seconds = [ours(db, next(number), rows, accept) for _ in range(3)]
            point[name] = {
                "rows_per_s": round(rows / statistics.median(seconds)),
                "blocks_read_a_row": round((db.value(read) - before) / (3 * rows), 3),
            }
        points.append(point)
    return points


def accept_filtered(url_filter: UrlFilter, db: Database) -> None:
    filtered = url_filter.accept_next(db.queue("steward")[0])
    assert filtered
    assert filtered.used


def main(
    rows: int = typer.Option(50_000, help="Links in a file."),
    files: int = typer.Option(4, help="Files for each side."),
    curve_at: str = typer.Option("", "--curve", help="Known URLs to measure at, with commas."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Print rows per second of both, and the ratio."""
    with (
        tempfile.TemporaryDirectory() as home,
        embedded(Path(home)) as url,
        new_database(url) as db,
    ):
        columns = ", ".join(c.name for c in inbox_pair.columns if c.name != "worker")
        db.admin.execute(
            f"create unlogged table staging as select {columns} from inbox.pair limit 0"
        )
        db.admin.execute("create table obvious (like staging, primary key (url_key))")
        seconds: dict[str, list[float]] = {"ours": [], "obvious": []}
        for number in range(files):
            seconds["ours"].append(ours(db, number, rows))
            seconds["obvious"].append(obvious(db.admin, number, rows))
        rate = {side: rows / statistics.median(times) for side, times in seconds.items()}
        result = {
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores",
            "postgresql": db.value("show server_version"),
            "rows_a_file": rows,
            "duplicates": round(1 - db.value("select count(*) from mill.pair") / (rows * files), 3),
            "ingest_rows_per_s": round(rate["ours"]),
            "obvious_rows_per_s": round(rate["obvious"]),
            "ratio": round(rate["ours"] / rate["obvious"], 2),
        }
        if curve_at:
            steps = [int(float(known)) for known in curve_at.split(",")]
            result["curve"] = curve(db, steps, rows)
    if as_json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:20} {value}")


if __name__ == "__main__":
    typer.run(main)
