"""What a release costs: from facts by DuckDB, beside the statement of PostgreSQL before it.

    python bench/release.py [--quick] [--json] [--rows 1e7] [--sql-rows 3e5] [--recipe laion-400m]
                            [--memory 4GB] [--threads 0] [--rounds 3] [--below FOLDER]

Made-up facts (tests/support/made_facts.py): seven in ten pairs downloaded and scored, nearly half
English, one in six of those similar enough; 5 % planted duplicates. The recipe is laion-400m unless
another is named.

candidates_per_s    pairs of the facts over the seconds from the first read to the last file
                    written: every pass, the record's bytes, the files, with their sha256
seconds             of the passes: filters, removals, files
cpu_s               of this process, by which busy neighbours matter less; candidates_per_cpu_s
dedupe              the same recipe with dedupe by URL and bytes
peak_MB             of resident memory; --memory is DuckDB's limit
sql                 the old statement, its two passes, over --sql-rows of the same rows in an
                    embedded PostgreSQL, analyzed, in memory; rows fetched, nothing written
ratio_over_sql      candidates_per_s over the statement's

Medians of --rounds, sides in turn. --quick: 2·10^6 rows and 10^5 in PostgreSQL, one round.
"""

import resource
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import typer
from psycopg.types.json import Jsonb

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import database, machine, note, own_server, show

from pairmill.ops.archive.facts import Facts
from pairmill.ops.files import file_entries
from pairmill.ops.release import recipe as recipes
from pairmill.ops.release.build import Build
from pairmill.ops.release.decisions import OfBatch
from pairmill.ops.release.engine import DuckDb
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.selection import Selection
from pairmill.ops.release.state import Removed
from support.made_facts import made_facts

SQL = Path(__file__).parent / "sql"
PER_BATCH = 10_000
MODEL = {"model_id": 1, "name": "ViT-B-32", "pretrained": "openai", "digest": "d", "dims": 512}
NOTHING = Removed(np.empty(0, np.int64), [], [], [])


def selection(recipe: Recipe) -> Selection:
    taggers = [{"model_id": 2 + i, "labels": None} for i in range(len(recipe.tags))]
    return Selection(recipe, MODEL, None, taggers, {})


def from_facts(
    recipe: Recipe, facts: Facts, work: Path, memory: str, threads: int | None
) -> dict[str, Any]:
    """One build; every file of it is read and written."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "out").mkdir(parents=True)
    began, cpu = time.perf_counter(), time.process_time()
    duck = DuckDb(work / "spill", memory, threads)
    made = Build(selection(recipe), [facts], work, duck, duck)
    pool = made.pool()
    marks = [("filters", time.perf_counter())]
    if recipe.dedupe:
        pool.find_duplicates(recipe.dedupe, 1, lambda done, total: None)
        marks.append(("duplicates", time.perf_counter()))
    pool.settle(NOTHING)
    marks.append(("removals", time.perf_counter()))
    recorded: list[OfBatch] = []
    files = made.write(pool, work / "out", shard_rows=1_000_000, keep=recorded.append)
    file_entries(work / "out", files)
    marks.append(("files", time.perf_counter()))
    duck.close()
    ends = [began, *(at for _, at in marks)]
    return {
        "candidates": made.decisions.candidates,
        "kept": made.decisions.kept,
        "left_out": dict(made.decisions.excluded),
        "seconds": {name: round(at - ends[i], 2) for i, (name, at) in enumerate(marks)},
        "total_s": ends[-1] - began,
        "cpu_s": time.process_time() - cpu,
    }


def fill(db: psycopg.Connection[Any], facts: Facts, rows: int) -> None:
    """The first ``rows`` of the facts as rows of the tables."""
    last = facts.first + rows // PER_BATCH - 1
    values = {"first": facts.first, "last": last, "per_batch": PER_BATCH, "wats": 100}
    for statement in (SQL / "release_fill.sql").read_text("utf-8").split(";"):
        db.execute(statement, values)
    db.execute("select * from mill.add_model('ViT-B-32', 'openai', 'd', 4)")
    top = (last + 1) << 14
    for table, columns in COPIES.items():
        name = "score-1" if table == "score" else table
        read = pq.read_table(
            Path(facts.folder) / f"{name}.parquet", filters=[("sample_id", "<", top)]
        )
        ids = read["sample_id"].to_numpy()
        made = {"batch_id": ids >> 14, "n": ids & 16383, "model_id": np.ones(len(ids), np.int32)}
        arrays = {c: pa.array(made[c]) if c in made else _plain(read[c]) for c in columns}
        if table == "pair":
            arrays["url_key"] = pa.array([f"{i:032x}" for i in range(len(ids))])
        sink = pa.BufferOutputStream()
        options = csv.WriteOptions(include_header=False, quoting_style="needed")
        csv.write_csv(pa.table(arrays), sink, options)
        with db.cursor().copy(
            f"copy mill.{table} ({', '.join(arrays)}) from stdin (format csv)"
        ) as copy:
            copy.write(sink.getvalue().to_pybytes())
    db.execute("analyze")


COPIES = {
    "pair": ["batch_id", "n", "wat_id", "submission_id", "url", "text", "language",
             "language_probability", "license"],
    "download": ["batch_id", "n", "attempt", "outcome", "http_status", "bytes", "width", "height",
                 "md5", "sha256", "dhash", "submission_id"],
    "score": ["batch_id", "n", "attempt", "model_id", "outcome", "similarity", "submission_id"],
}  # fmt: skip


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """As PostgreSQL reads it: bytes in its hexadecimal form, or a UUID's."""
    if not pa.types.is_binary(column.type):
        return column
    values = column.to_pylist()
    return pa.array(
        [None if v is None else v.hex() if len(v) == 16 else f"\\x{v.hex()}" for v in values]
    )


def by_sql(db: psycopg.Connection[Any], recipe: Recipe) -> dict[str, Any]:
    """The two passes of the statement that releases were built by."""
    text = (SQL / "release.sql").read_text("utf-8")
    query = text.format(tag_columns="", tag_reasons="", tag_joins="")
    values = {
        "model_id": 1, "multilingual_id": 1, "model_languages": recipe.model_languages,
        "languages": recipe.languages, "language_detectors": recipe.language_detectors,
        "min_text_length": recipe.min_text_length, "text_by_script": False,
        "min_bytes": recipe.min_bytes, "min_similarity": recipe.min_similarity,
        "min_similarity_by_language": Jsonb(recipe.min_similarity_by_language),
    }  # fmt: skip
    began = time.perf_counter()
    with db.transaction():
        db.execute("set local enable_nestloop = off")
        db.execute("set local enable_partitionwise_join = on")
        db.execute("set local jit = off")
        decide = (SQL / "decisions.sql").read_text("utf-8").format(query=query)
        candidates = sum(row[3] for row in db.execute(decide, values).fetchall())
        with db.cursor("release") as cursor:
            cursor.itersize = 10_000
            cursor.execute(
                f"select * from ({query}) pair where excluded is null order by sample_id", values
            )
            kept = sum(1 for _ in cursor)
    return {"candidates": candidates, "kept": kept, "total_s": time.perf_counter() - began}


def per_second(sides: list[dict[str, Any]], key: str = "total_s") -> int:
    return round(statistics.median(side["candidates"] / side[key] for side in sides))


def main(
    quick: Annotated[bool, typer.Option(help="Within two minutes.")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    rows: float = 1e7,
    sql_rows: float = 3e5,
    recipe: str = "laion-400m",
    memory: str = "4GB",
    threads: int = 0,
    rounds: int = 3,
    below: Path | None = None,
) -> None:
    if quick:
        rows, sql_rows, rounds = 2e6, 1e5, 1
    chosen = recipes.load(recipe)
    deduped = recipes.load(recipe, {"dedupe": {"exact": ["url", "bytes"]}})
    with (
        own_server(below) as (server, folder),
        psycopg.connect(database(server, "release"), autocommit=True) as db,
    ):
        note("making facts")
        taggers = [2 + i for i in range(len(chosen.tags))]
        facts = made_facts(
            folder / "facts", int(rows), taggers=taggers, hashes=("md5", "sha256", "dhash")
        )
        note("filling PostgreSQL")
        fill(db, facts, int(sql_rows))
        ours, theirs, also = [], [], []
        for number in range(rounds):
            note(f"round {number + 1}")
            work = folder / "work"
            ours.append(from_facts(chosen, facts, work, memory, threads or None))
            also.append(from_facts(deduped, facts, work, memory, threads or None))
            if not chosen.tags:
                theirs.append(by_sql(db, chosen))
        result: dict[str, Any] = machine(server.url()) | {
            "rows": int(rows), "sql_rows": int(sql_rows), "rounds": rounds, "recipe": recipe,
            "memory": memory,
            "candidates_per_s": per_second(ours),
            "candidates_per_cpu_s": per_second(ours, "cpu_s"),
            "dedupe_candidates_per_s": per_second(also),
            "sql_candidates_per_s": per_second(theirs) if theirs else None,
            "peak_MB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "from_facts": ours[-1], "deduped": also[-1], "sql": theirs[-1] if theirs else None,
        }  # fmt: skip
        if theirs:
            result["ratio_over_sql"] = round(per_second(ours) / per_second(theirs), 1)
        show(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
