"""What a release reads of the database: its state, the rows that must go, and the facts of what is
not in the archive."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
from pyarrow import csv

from pairmill.ops.archive import catalogue
from pairmill.ops.archive.export import export
from pairmill.ops.archive.facts import Facts
from pairmill.ops.queries import query_text, rows

AT_ONCE = 1000  # batches a folder of live facts: as many as a partition has
DONE = "exported"  # in a folder of live facts that is whole: the state that it is of, its files
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Removed:
    """samples: int64, in order, of pairs that no release may hold. md5s, sha256s: those that
    removals name. withdrawn: submissions."""

    samples: npt.NDArray[np.int64]
    md5s: list[bytes]
    sha256s: list[bytes]
    withdrawn: list[int]

    def since(self, before: "Removed") -> "Removed":
        """The same, with those submissions alone that were not withdrawn ``before``."""
        later = sorted(set(self.withdrawn) - set(before.withdrawn))
        return Removed(self.samples, self.md5s, self.sha256s, later)


def removed(connection: psycopg.Connection[Any]) -> Removed:
    return Removed(
        _integers(connection, query_text("release", "removed")),
        [row[0].bytes for row in connection.execute(
            "select distinct md5 from mill.removal where md5 is not null order by 1")],
        [row[0] for row in connection.execute(
            "select distinct sha256 from mill.removal where sha256 is not null order by 1")],
        _integers(connection, "select submission_id from mill.withdrawn").tolist(),
    )  # fmt: skip


def _integers(connection: psycopg.Connection[Any], query: str) -> npt.NDArray[np.int64]:
    """A query of one column of integers, in order; by COPY, since there may be 10^8."""
    body = io.BytesIO()
    with connection.cursor().copy(f"copy ({query}) to stdout") as copy:
        for block in copy:
            body.write(block)
    if not body.tell():
        return np.empty(0, np.int64)
    body.seek(0)
    read = csv.read_csv(
        body,
        read_options=csv.ReadOptions(column_names=["value"]),
        convert_options=csv.ConvertOptions(column_types={"value": pa.int64()}),
    )
    return np.sort(read["value"].to_numpy())


def digest(connection: psycopg.Connection[Any]) -> str:
    """Another one whenever the rows may be others."""
    (state,) = rows(connection, query_text("release", "state"))
    (server,) = connection.execute("select system_identifier from pg_control_system()").fetchall()
    known = [connection.info.dbname, server[0], state]
    return hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()


def all_facts(
    connection: psycopg.Connection[Any],
    folder: Path,
    *,
    model_ids: list[int],
    embeddings: bool,
    progress: Progress,
) -> list[Facts]:
    """The facts of all batches, in order: the archive's where it is up to date, the others exported
    into ``folder``, unless they are there already, of the same state."""
    archived = catalogue.current(connection)
    state = digest(connection) + json.dumps([sorted(model_ids), embeddings])
    tables = ["pair", "download", "score", "tag", *(["embedding"] if embeddings else [])]
    gaps = _gaps(connection, archived)
    done, total = 0, sum(last - first + 1 for first, last in gaps)
    live = []
    for first, last in gaps:
        into = folder / f"{first:010}-{last:010}"
        marker = into / DONE
        known = (marker.read_text() if marker.is_file() else "").split("\n")
        if known[0] == state:
            facts = Facts(str(into), first, last, frozenset(known[1:]), state)
        else:
            shutil.rmtree(into, ignore_errors=True)
            made = export(
                connection, into, first, last, tables=tables, model_ids=model_ids,
                progress=lambda at, of, before=done: progress(before + at, total),  # type: ignore[misc]
            )  # fmt: skip
            facts = replace(made, version=state)
            half = marker.with_suffix(".half")
            half.write_text("\n".join([state, *sorted(facts.files or ())]))
            half.rename(marker)
        live.append(facts)
        done += last - first + 1
        progress(done, total)
    return sorted([*archived, *live], key=lambda facts: facts.first)


def _gaps(connection: psycopg.Connection[Any], archived: list[Facts]) -> list[tuple[int, int]]:
    """Ranges of batches that are in no archive, each within a partition."""
    covered = [range(facts.first, facts.last + 1) for facts in archived]
    found: list[tuple[int, int]] = []
    for (batch_id,) in connection.execute("select batch_id from mill.batch order by 1"):
        if any(batch_id in each for each in covered):
            continue
        if (
            found
            and found[-1][0] // AT_ONCE == batch_id // AT_ONCE
            and not any(each.start in range(found[-1][1], batch_id) for each in covered)
        ):
            found[-1] = found[-1][0], batch_id
        else:
            found.append((batch_id, batch_id))
    return found
