"""Counters against the rows that they stand for: what `pairmill status` reads, counted anew."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from pairmill.ops.queries import rows

CHUNK = 10  # batches of a transaction: at most a second in which their acceptances wait
SHOWN = 10
SAMPLE = 3  # batches that the doctor counts: 60 ms each


@dataclass
class Recount:
    """What was found. wrong: batches whose counters were not their rows, the first of them by
    number; sums, tasks, workers: sums over all batches, counts of done tasks, and workers' credit,
    that were not either."""

    batches: int = 0
    wrong: int = 0
    first_wrong: list[int] = field(default_factory=list)
    sums: int = 0
    tasks: int = 0
    workers: int = 0

    @property
    def differs(self) -> bool:
        return bool(self.wrong or self.sums or self.tasks or self.workers)


def recount(
    connection: psycopg.Connection,
    first: int,
    last: int,
    *,
    check: bool,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Recount:
    """Count a range of batches from their rows, then the sums over all, and mend what differs; with
    ``check`` nothing is changed. Each step is committed, so that one which is cut off has done what
    it came to. Batches whose rows are in the archive alone keep their counters: they have no rows.
    progress is called with (batches done, batches)."""
    (known,) = rows(connection, "select coalesce(max(batch_id), -1) as last from mill.batch")
    last = min(last, known["last"])
    found = Recount()
    for start in range(first, last + 1, CHUNK):
        progress(start - first, last + 1 - first)
        _chunk(connection, start, min(start + CHUNK - 1, last), check, found)
    if check:
        (sums,) = rows(connection, "select count(*) as n from mill.missum")
        (tasks,) = rows(connection, "select count(*) as n from mill.misdone")
        (workers,) = rows(connection, "select count(*) as n from mill.miscredit")
        found.sums, found.tasks, found.workers = sums["n"], tasks["n"], workers["n"]
    else:
        (mended,) = rows(connection, "select * from mill.resum()")
        found.sums, found.tasks, found.workers = mended["sums"], mended["tasks"], mended["workers"]
    return found


def _chunk(
    connection: psycopg.Connection, start: int, end: int, check: bool, found: Recount
) -> None:
    query = (
        "select distinct batch_id from mill.miscount where batch_id between %s and %s order by 1"
    )
    wrong = [row["batch_id"] for row in rows(connection, query, start, end)]
    if wrong and not check:
        connection.execute("select mill.recount(%s, %s)", (start, end))
    (counted,) = rows(
        connection,
        "select count(*) as n from mill.batch where batch_id between %s and %s",
        start,
        end,
    )
    found.batches += counted["n"]
    found.wrong += len(wrong)
    found.first_wrong = (found.first_wrong + wrong)[:SHOWN]


def sample(connection: psycopg.Connection) -> Recount:
    """Check some batches, by chance, and nothing else."""
    (known,) = rows(connection, "select coalesce(max(batch_id), -1) as last from mill.batch")
    found = Recount()
    many = range(known["last"] + 1)
    for number in sorted(random.sample(many, min(SAMPLE, len(many)))):
        _chunk(connection, number, number, True, found)
    return found
