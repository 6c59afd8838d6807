"""Scoring from a database to a database, and its reading and writing alone."""

import statistics
import time
from contextlib import closing
from typing import Any

import numpy as np
import trio
from score_busy import Busy
from score_sides import Options, Side, cpu_seconds, synchronise
from score_stages import similarities

from pairmill.workers.daemon import Job
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.score.calls import ScoreQueue
from pairmill.workers.score.worker import POSITIONS_PER_PART, Score
from support.database import Database
from support.scoring import to_score

PLAIN = 32  # pairs that are scored by a plain loop too
STAGE_ROWS = 2_000  # of reading and writing


def database_alone(db: Database, s: Side, count: int = STAGE_ROWS) -> tuple[float, float]:
    """Rows a second that are read, and that are written, of one task. count: of its rows, a
    multiple of a part's."""
    to_score(db, *s.pairs(count))
    queue, _ = db.queue("score")
    claim = db.claim("score", digest=s.model.digest)
    assert claim is not None
    starts = range(0, count, POSITIONS_PER_PART)
    begun, read = time.perf_counter(), []
    for start in starts:
        read += queue.thumbnails(claim.lease_id, start, start + POSITIONS_PER_PART)
    reading = len(read) / (time.perf_counter() - begun)
    dims = s.model.dims
    unit = (np.ones(dims) / dims**0.5).astype(np.float16).tobytes()
    begun = time.perf_counter()
    for start in starts:
        rows = [
            (claim.lease_id, start, n, 0, 0.3, unit, unit, 9) for n in range(start, start + 500)
        ]
        queue.copy_scores(rows)
        queue.submit_score(claim.lease_id, start, len(rows))
    writing = count / (time.perf_counter() - begun)
    queue.complete(claim.lease_id)
    db.accept_all()
    return reading, writing


def end_to_end(
    db: Database, s: Side, o: Options, count: int, alone: float | None = None
) -> dict[str, Any]:
    """All tasks that wait, by the worker's own code. alone: pairs a second of the towers alone."""
    before = db.value("select max(batch_id) from mill.batch")
    # at least two tasks, for what there is between them, and no heartbeat is needed
    db.admin.execute(
        "update mill.setting set batch_size = %s, lease_seconds = 86400",
        (min(10_000, -(-count // 2)),),
    )
    to_score(db, *s.pairs(count))
    busy = Busy(s.model)
    score = Score(s.model, threads=o.threads)

    async def main() -> list[int]:
        """How many parts had been computed after each task."""
        tasks = []
        with closing(ScoreQueue(db.login("score"))) as queue:
            instance = queue.register().instance_id
            line = Progress("bench", Metrics("score"))
            async with score.running():
                while (claim := queue.claim(instance, s.model.digest)) is not None:
                    await score.work(Job(claim, queue, line))
                    tasks.append(len(busy.spans))
        return tasks

    begun, cpu = time.perf_counter(), cpu_seconds()
    try:
        tasks = trio.run(main)
        synchronise(o.device)
        ended, cpu = time.perf_counter(), cpu_seconds() - cpu
    finally:
        busy.close()
    db.accept_all()
    scored = db.value("select count(*) from mill.score where batch_id > %s", before)
    assert scored == count, f"{scored} of {count} pairs were scored"
    return {
        "pairs": count,
        "tasks": len(tasks),
        "between_tasks_ms": 1000 * statistics.median(busy.between(tasks)),
        "after": before,
        "seconds": ended - begun,
        "cpu": cpu,
    } | busy.found(begun, ended, tasks, count, alone)


def difference(db: Database, s: Side, after: int) -> dict[str, float]:
    """Of similarities in the batches after this one, from a plain float32 loop."""
    rows = db.rows(
        "select p.url, x.similarity from mill.score x join mill.pair p using (batch_id, n)"
        " where x.similarity is not null and p.url ~ '/[0-9]{1,2}.jpg$'"
        " and batch_id > %s",
        after,
    )
    found = {int(url.rpartition("/")[2][:-4]): value for url, value in rows}
    rows_of = [row for row in sorted(found) if row < PLAIN]
    plain = similarities(s, PLAIN)
    changes = [abs(plain[row] - found[row]) for row in rows_of]
    return {"mean": statistics.mean(changes), "max": max(changes), "pairs": len(changes)}
