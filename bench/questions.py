"""Seconds of researchers' questions, with statistics that are fresh, stale or missing.

    python bench/questions.py [--pairs 93000,1500000] [--only WORD] [--limit 300] [--json]
    PAIRMILL_POSTGRES_BIN=/usr/lib/postgresql/15/bin python bench/questions.py

A server of its own (embedded, or that of PAIRMILL_POSTGRES_BIN; its settings are printed), without
autovacuum. A database for each size: bench/questions.sql makes 40 or 150 batches with retries,
replicas, withdrawals, opt-outs, removals, two models, two taggers and a release. One after another:

stale: the tables were analyzed when a tenth of the rows was there. fresh: ANALYZE of all now, the
partitioned tables as well. leaves: of their partitions alone, as autovacuum does it. none: never
analyzed.

Asked by a researcher's login, the questions of docs/researcher.md, the joins of
tests/integration/test_questions.py and some more, once each, on files that are in the machine's
memory. --limit ends a statement ("> 300").
"""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg.conninfo import make_conninfo

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from integration.test_questions import JOINS, questions
from own_server import database, machine, note, own_server, restart, show

FILL = Path(__file__).with_suffix(".sql")
SMALL = 500_000  # below: 40 batches, as a few crawls' first files fill; else batches of 10,000
OURS = "relnamespace = 'mill'::regnamespace"
FORGET = (
    f"delete from pg_statistic where starelid in (select oid from pg_class where {OURS})",
    f"update pg_class set reltuples = -1, relpages = 0 where {OURS} and relkind in ('r', 'p', 'i')",
)
LEAVES = f"select oid::regclass::text from pg_class where {OURS} and relkind = 'r'"
VIEWS = {
    "one sample": "select * from report.find(16385)",
    "one pair by its number": "select * from report.pair where batch_id = 1 and n = 1",
    "a batch, every column": "select * from report.sample where batch_id = 3",
    "first rows": "select * from report.sample limit 10",
    "all of report.tag": "select model, label, count(*), avg(value) from report.tag group by 1, 2",
    "releases": "select releases ->> 'laion-400m', count(*) from report.sample group by 1",
    "pages of ten batches": "select count(page_url) from report.sample where batch_id < 10",
}


def fill(url: str, pairs: int) -> None:
    batches = 40 if pairs < SMALL else pairs // 10_000
    with psycopg.connect(url) as connection:
        connection.execute(f"set many.pairs = {pairs // batches}; set work_mem = '64MB'")
        for first, last in ((0, batches // 10), (batches // 10, batches)):
            connection.execute(f"set many.first = {first}; set many.last = {last}")
            connection.execute(FILL.read_bytes())
            if first == 0:
                for (table,) in connection.execute(LEAVES).fetchall():
                    connection.execute(f"analyze {table}")
                connection.commit()


def statistics(admin: psycopg.Connection[Any], kind: str) -> None:
    if kind in ("none", "leaves"):
        for statement in FORGET:
            admin.execute(statement)
    if kind == "fresh":
        admin.execute("analyze")
    elif kind == "leaves":
        for (table,) in admin.execute(LEAVES).fetchall():
            admin.execute(f"analyze {table}")


def ask(reader: psycopg.Connection[Any], query: str, limit: int) -> str:
    begun = time.perf_counter()
    try:
        reader.execute(query).fetchall()
    except psycopg.errors.QueryCanceled:
        return f"> {limit}"
    return f"{time.perf_counter() - begun:.1f}"


def measure(admin_url: str, only: str, limit: int) -> list[dict[str, str]]:
    asked = {name: q for name, q in {**questions(), **JOINS, **VIEWS}.items() if only in name}
    for old, new in (
        ("model-d1", "ViT-B-32"),
        ("tagger-t1", "aesthetic"),
        ("example.org", "host3.example"),
    ):
        asked = {name: query.replace(old, new) for name, query in asked.items()}
    taken: dict[str, dict[str, str]] = {name: {"question": name} for name in asked}
    with psycopg.connect(admin_url, autocommit=True) as admin:
        login = f"reader_{admin.info.dbname}"
        admin.execute("select mill.add_researcher(%s, 'reader', 'secret')", (login,))
        for kind in ("stale", "fresh", "leaves", "none"):
            statistics(admin, kind)
            reading = make_conninfo(admin_url, user=login, password="secret")  # noqa: S106
            with psycopg.connect(reading, autocommit=True) as reader:
                reader.execute(f"set statement_timeout = '{limit}s'")
                for name, query in asked.items():
                    taken[name][kind] = ask(reader, query, limit)
                    note(f"{kind}: {name} {taken[name][kind]}")
    return list(taken.values())


def main(
    pairs: Annotated[str, typer.Option(help="Sizes, with commas.")] = "93000,1500000",
    only: Annotated[str, typer.Option(help="Questions with this word alone.")] = "",
    limit: Annotated[int, typer.Option(help="Seconds for a statement.")] = 300,
    below: Annotated[Path | None, typer.Option(help="Where: 1.5 million pairs are 2 GB.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print the seconds of every question, by size and statistics."""
    with own_server(below) as (server, _):
        restart(server, autovacuum="off", max_wal_size="8GB")
        result = {
            **machine(server.url()),
            "postgresql_bin": os.environ.get("PAIRMILL_POSTGRES_BIN", "embedded"),
        }
        for size in map(int, pairs.split(",")):
            note(f"{size} pairs")
            url = database(server, f"pairs_{size}")
            fill(url, size)
            result[f"{size} pairs, seconds"] = measure(url, only, limit)
    show(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
