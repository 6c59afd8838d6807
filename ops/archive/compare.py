"""Comparison of an archived partition with the database: digests of files, and of all rows."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa

from pairmill.ops.archive import digests, stored
from pairmill.ops.archive.columns import ARCHIVED, OF_A_MODEL
from pairmill.ops.archive.facts import Facts
from pairmill.ops.archive.reading import source_schema
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

File = tuple[str, int | None]


class Different(UserError):
    """A batch of which the files have other rows than the database."""


def files_of(connection: psycopg.Connection[Any]) -> list[File]:
    """Every file that a partition may have: its table, and the model."""
    models = rows(connection, "select model_id, kind from mill.model order by model_id")
    found: list[File] = []
    for table in ARCHIVED:
        if table not in OF_A_MODEL:
            found.append((table, None))
        else:
            found += [
                (table, m["model_id"]) for m in models if (m["kind"] == "clip") == (table != "tag")
            ]
    return found


def require_same(
    connection: psycopg.Connection[Any],
    facts: Facts,
    suffix: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Compare all rows of the files with the database's, batch by batch, in the caller's snapshot.

    suffix: of the tables to compare with, which are no partitions yet. progress is called with
    (batches done, batches to do), a batch counted once a file. Raises Different for the first
    batch that differs.
    """
    known = [
        row["batch_id"]
        for row in rows(
            connection,
            "select batch_id from mill.batch where batch_id between %s and %s order by batch_id",
            facts.first,
            facts.last,
        )
    ]
    files = files_of(connection)
    for number, (table, model_id) in enumerate(files):
        query = re.sub(rf"(from mill\.{table})\b", rf"\g<1>{suffix}", query_text("archive", table))
        for done, (batch_id, made) in enumerate(_aligned(facts, table, model_id, known)):
            progress(number * len(known) + done, len(files) * len(known))
            schema = source_schema(table)
            values = {"batch_id": batch_id, "model_id": model_id, "positions": None}
            if digests.of_query(connection, query, schema, values) != digests.of_table(made):
                raise Different(
                    f"{facts.path(table, model_id)} has other rows of batch {batch_id} than the"
                    " database"
                )


def _aligned(
    facts: Facts, table: str, model_id: int | None, known: list[int]
) -> Iterator[tuple[int, pa.Table]]:
    """Each batch with its rows in the file, if it has any."""
    schema = source_schema(table)
    at = 0
    for batch_id, made in stored.batches(facts, table, model_id):
        while at < len(known) and known[at] < batch_id:
            yield known[at], schema.empty_table()
            at += 1
        if at == len(known) or known[at] != batch_id:
            raise Different(f"{facts.path(table, model_id)} has batch {batch_id}, which is none")
        yield batch_id, made
        at += 1
    for batch_id in known[at:]:
        yield batch_id, schema.empty_table()
