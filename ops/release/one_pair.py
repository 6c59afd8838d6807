"""What a recipe decides of one pair today, by the conditions and annotators of a build."""

import tempfile
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq

from pairmill.ops.archive import catalogue
from pairmill.ops.archive.export import export
from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError
from pairmill.ops.release.annotating import annotate
from pairmill.ops.release.annotators import of_recipe
from pairmill.ops.release.candidates import Candidates, decide
from pairmill.ops.release.engine import DuckDb, Part
from pairmill.ops.release.filters import reasons
from pairmill.ops.release.row_pass import PASSES, over_facts
from pairmill.ops.release.selection import Selection


def decide_one(
    connection: psycopg.Connection[Any], selection: Selection, sample_id: int
) -> tuple[str | None, dict[str, Any]]:
    """The first reason for which the recipe leaves out a pair, None where it does not, and the
    pair's row of ``candidate``. In the caller's transaction. What only a build can tell, a
    duplicate or a fraction of the pool, is no reason here."""
    with tempfile.TemporaryDirectory(prefix="pairmill-why-") as folder:
        work = Path(folder)
        duck = DuckDb(work / "spill")
        try:
            return _decide(_facts(connection, work, sample_id), duck, selection, work, sample_id)
        finally:
            duck.close()


def _facts(connection: psycopg.Connection[Any], work: Path, sample_id: int) -> Facts:
    batch_id = sample_id >> 14
    for partition in catalogue.detached(connection, batch_id, batch_id):
        return partition.facts()
    tables = ("pair", "download", "score", "tag", "embedding")
    return export(connection, work / "facts", batch_id, batch_id, tables=tables,
                  samples=[sample_id])  # fmt: skip


def _decide(
    facts: Facts, duck: DuckDb, selection: Selection, work: Path, sample_id: int
) -> tuple[str | None, dict[str, Any]]:
    candidates, part = Candidates(selection, facts), Part(facts, facts.first, facts.last)
    row = work / "row.parquet"
    one = f"select * from ({candidates.query()}) c where sample_id = {sample_id:d}"
    duck.copy(*over_facts(candidates, part, one), row)
    found = pq.read_table(row).to_pylist()
    if not found:
        raise UserError(f"SAMPLE_ID {sample_id} is no candidate of {selection.recipe.name}")
    annotators = of_recipe(selection.recipe, selection)
    annotated = work / "annotated.parquet"
    annotate([str(row)], annotators, candidates, annotated)
    columns = "".join(f", a.{each.column}" for each in annotators)
    joined = f"select s.*{columns} from survivors s join annotated a using (sample_id)"
    tried = reasons(selection.recipe, selection)
    query = decide(joined, [(PASSES + 1 + i, condition) for i, (_, condition) in enumerate(tried)])
    relations = {"survivors": [str(row)], "annotated": [str(annotated)]}
    ((_, code),) = duck.rows(query, relations)
    return (None if code == PASSES else tried[code - PASSES - 1][0]), found[0]
