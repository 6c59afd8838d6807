"""What the counters of the funnel cost an acceptance, beside none and a count of the batch anew.

    python bench/counters.py [--batches 24] [--quick] [--json]

A server of its own (embedded; fsync on), batches of 10,000 pairs in 100 languages (half English, a
fifth none, the rest by Zipf's law), 70 % successes. Each batch is downloaded in 10 parts of 1,000
and scored in parts of 500, as workers send them, under one of three: `none` (no counters, as
before), `kept` (Pairmill's), `anew` (the whole batch counted from its rows at each acceptance).
They take turns, batch by batch, so that what else the machine does meets all. p50 and p99 of the
steward's call in ms; cpu_ms, the median of the time that its server process had a core, which other
work hardly changes; and the bytes of WAL (the median, so without a checkpoint's full pages).
withdraw: of one submission of 1,000 downloads. counters_wrong: counters of batches that differ from
the rows at the end.
"""

import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import database, machine, own_server, percentiles, show

from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes_of, score_rows

BATCH, PART, SCORES = 10_000, 1_000, 500
SIDES = {"none": "", "kept": None, "anew": "perform mill.recount(t.batch_id, t.batch_id);"}
COUNTED = """
create or replace function mill.count_accepted(s mill.submission, t mill.task) returns void
language plpgsql as $$ begin {} end $$
"""
PROCESS = """
select a.pid from pg_stat_activity a join mill.worker w on w.login = a.usename
 where w.kind = 'steward' and a.datname = current_database()
"""
OURS = "select pg_get_functiondef('mill.count_accepted'::regproc)"
FAILURES = (Outcome.HTTP_ERROR, Outcome.HTTP_ERROR, Outcome.CONNECT_FAILED, Outcome.TIMEOUT)


def add_batches(db: Database, count: int) -> None:
    """Closed batches, ready to be downloaded, in many languages."""
    db.admin.execute(
        "insert into mill.batch (batch_id, bucket, pair_count, closed_at)"
        " select b, 0, %s, now() from generate_series(0, %s - 1) b",
        (BATCH, count),
    )
    db.admin.execute(
        "insert into mill.task (kind, batch_id)"
        " select 'download', batch_id from mill.batch order by 2"
    )
    db.admin.execute("select mill.ensure_partitions((select max(batch_id) from mill.batch))")
    db.admin.execute(
        "insert into mill.pair (batch_id, n, wat_id, submission_id, url_key, url, text, language,"
        "                       language_probability)"
        " select b, n, 0, 0, md5(b || '/' || n)::uuid,"
        "        format('https://host%%s.example/images/%%s/picture.jpg', n %% 997, b << 14 | n),"
        "        'a picture of a thing', case when dice < 0.5 then 'en' when dice < 0.8"
        "        then 'l' || floor(100 ^ random())::integer end, 0.9"
        "   from generate_series(0, %s - 1) b,"
        "        lateral (select n, random() as dice from generate_series(0 * b, %s - 1) n) x",
        (count, BATCH),
    )
    db.admin.execute("analyze")


class Side:
    """The acceptances of one way to count."""

    def __init__(self, name: str, function: str) -> None:
        self.name, self.function = name, function
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[int]] = defaultdict(list)
        self.wal: dict[str, list[int]] = defaultdict(list)

    def accept(self, db: Database, what: str) -> None:
        steward, _ = db.queue("steward")
        process = Path(f"/proc/{db.value(PROCESS)}/schedstat")
        ran = int(process.read_text().split()[0])
        before = db.value("select pg_current_wal_insert_lsn() - '0/0'")
        begun = time.perf_counter()
        answer = steward.accept_next()
        self.seconds[what].append(time.perf_counter() - begun)
        self.cpu[what].append(int(process.read_text().split()[0]) - ran)
        self.wal[what].append(int(db.value("select pg_current_wal_insert_lsn() - '0/0'") - before))
        assert answer[3] is None, answer

    def batch(self, db: Database, chance: random.Random) -> None:
        """One batch, downloaded and scored."""
        db.admin.execute(self.function)
        claim = db.claim("download")
        assert claim
        queue, _ = db.queue("download")
        places = [n for n, _ in queue.urls(claim.lease_id)]
        chance.shuffle(places)
        for part in range(BATCH // PART):
            mine = places[part * PART : (part + 1) * PART]
            found = [
                chance.randbytes(32) if chance.random() < 0.7 else chance.choice(FAILURES)
                for _ in mine
            ]
            queue.submit_download(claim.lease_id, part, outcomes_of(mine, found))
        queue.complete(claim.lease_id)
        for _ in range(BATCH // PART):
            self.accept(db, "downloads")
        claim = db.claim("score", digest="d1")
        assert claim
        queue, _ = db.queue("score")
        good = [row[0] for row in queue.thumbnails(claim.lease_id, 0, BATCH)]
        parts = [good[i : i + SCORES] for i in range(0, len(good), SCORES)]
        for part, mine in enumerate(parts):
            queue.copy_scores(score_rows(claim.lease_id, part, mine))
            queue.submit_score(claim.lease_id, part, len(mine), 0)
        queue.complete(claim.lease_id)
        for _ in parts:
            self.accept(db, "scores")

    def point(self) -> dict[str, Any]:
        return {"side": self.name} | {
            what: {f"{k}_ms": v for k, v in percentiles(s).items()}
            | {
                "cpu_ms": round(median(self.cpu[what]) / 1e6, 2),
                "wal": int(median(self.wal[what])),
            }
            for what, s in self.seconds.items()
        }


def main(
    batches: Annotated[int, typer.Option(help="Batches, a third for each way.")] = 24,
    below: Annotated[Path | None, typer.Option(help="Where.")] = None,
    quick: Annotated[bool, typer.Option(help="Six batches.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print time and WAL of an acceptance, by way of counting."""
    batches = 6 if quick else batches
    chance = random.Random(1)
    with own_server(below) as (server, _):
        db = Database(database(server, "counters"))
        db.add_model("d1")
        add_batches(db, batches)
        db.admin.execute("select mill.recount(0, %s)", (batches,))
        ours = db.value(OURS)
        sides = [
            Side(name, ours if body is None else COUNTED.format(body))
            for name, body in SIDES.items()
        ]
        for number in range(batches):
            sides[number % 3].batch(db, chance)
        counted = "select count(*) from mill.miscount where mod(batch_id, 3) > 0"
        wrong = db.value(counted)
        taken = [
            db.value("select min(submission_id) from mill.submission join mill.task using (task_id)"
                     " where kind = 'download' and batch_id = %s", number)
            for number in range(1, batches, 3)
        ]  # fmt: skip
        seconds = []
        for submission in taken:
            begun = time.perf_counter()
            db.admin.execute("select mill.withdraw(%s, '')", (submission,))
            seconds.append(time.perf_counter() - begun)
        wrong += db.value(counted)
        size = db.value(
            "select pg_total_relation_size('mill.batch_count') / count(distinct batch_id)"
            " from mill.batch_count"
        )
        result = machine(server.url()) | {
            "points": [side.point() for side in sides],
            "withdraw": {f"{k}_ms": v for k, v in percentiles(seconds).items()},
            "bytes_a_batch": int(size),
            "counters_wrong": wrong,
        }
        db.close()
    show(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
