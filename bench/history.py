"""What a claim and a submission cost with a history of 10^4, 10^6 and 10^9 URLs.

    python bench/history.py [--quick] [--json] [--history 1e4,1e6,1e9] [--real 1e8]
                            [--batches 100] [--claims 2000] [--snapshot 180] [--below FOLDER]

A server of its own (embedded; its settings are printed), a database for each size, one call at a
time, the sizes in turn, batch by batch: this is latency, and bench/queue.py has throughput.

What is real. Of the small tables everything: mill.batch, task (an extraction for each 29,000
URLs, a download and a score for each 10,000), lease (one a task), submission (10 a download, as the
worker sends them; 20 a score), and the earlier processes of the 25 workers. Of mill.pair and
mill.download --real rows at most, in ONE partition, which the measured batches are put into too:
so with 10^8 it is ten times production's. And the partitions: one for each 10^7 URLs, of all five
tables. What of 10^9 is not there are the rows of the other partitions. That no call reads one is
printed (heap_blocks_elsewhere, of the server's counters), and is what the extrapolation rests on.
index_blocks_elsewhere: the planner opens the index of every partition once a session.

How it is made. Two COPYs joined by a FIFO, SELECT … generate_series into a table that is made in
the same transaction, FREEZE, wal_level minimal: no WAL, and nothing left for a vacuum. Rows have
the right size; hashes are the same in all. Then everything is analyzed, and the server starts again
with wal_level replica, with none of its files in the machine's memory. Pairs of the measured
batches come from the disk, then, as in production, where a download is weeks after its extraction.

Calls. claim, urls, submit (1,000 full rows without thumbnails, 10 a batch), complete, accept (of
1,000 rows), --batches times; claims that are released again, --claims times; heartbeat, and what
else looks at the whole: expire, drained, me, counts (report.queue), status (all that `pairmill
status` reads).

--snapshot: the same claims for so many seconds while a reader keeps a snapshot from before; then
after it has gone, and 70 s later where it was kept for more than a minute. snapshots_of: who else
keeps one then. p50 and p99 in ms; a ratio is to the smallest history in this run.
"""

import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import database, machine, note, own_server, percentiles, restart, show
from queue_sides import TOO_THIN, columns

from pairmill.ops.admin.status import gather
from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.workers.download.calls import DownloadQueue, Outcomes
from support.database import DIMS, Database

BATCH = 10_000
PART = 1_000
WIDTH = 1_000  # batches of a partition: schema/sql/partitions.sql
PER_WAT = 29_000  # mill.setting.pairs_per_wat
DOWNLOADS, SCORES = 10, 20  # submissions of a task, as the workers send them
LOGINS = 25
COLUMNS = {
    "pair": "b, n, null::integer, b / 3, b, 'd41d8cd98f00b204e9800998ecf8427e'::uuid,"
    " 'https://host' || n % 997 || '.example/images/' || (b << 14 | n) || '/picture.jpg',"
    " 'a picture of a thing', 'en', 0.9::real, null::text",
    "download": "b, n, 1::smallint, 0::smallint, 200::smallint, 60000 + n, 640, 480,"
    " 'd41d8cd98f00b204e9800998ecf8427e'::uuid, '\\x{sha1}'::bytea, '\\x{sha}'::bytea,"
    " (b << 40) + n, '\\x{sha}'::bytea, b".format(sha1="5f" * 20, sha="5f" * 32),
}
CALLS = ("claim", "urls", "submit", "complete", "accept")


@dataclass(frozen=True)
class Size:
    """How much there was before, and how much of it is there."""

    urls: int
    real_urls: int
    measured: int  # batches that are there to be downloaded

    @property
    def batches(self) -> int:
        return self.urls // BATCH

    @property
    def real(self) -> int:
        """Batches whose rows are there."""
        return min(self.urls, self.real_urls) // BATCH

    @property
    def wide(self) -> int:
        """Where the partition of the real and the measured batches ends."""
        return -(-(self.real + self.measured) // WIDTH) * WIDTH

    @property
    def last(self) -> int:
        return max(self.batches + self.measured, self.wide) - 1


# ---- making the history -------------------------------------------------------------------------


def fill(db: Database, fifo: Path, table: str, batches: int, size: Size) -> None:
    """The first partition of a table, anew: wide enough, and with these batches."""
    child = f"mill.{table}_b000000"
    query = (
        f"select {COLUMNS[table]} from generate_series(0::bigint, {batches} - 1) b,"
        f" lateral generate_series(0 * b::integer, {BATCH} - 1) n"
    )
    begun = time.perf_counter()

    def read() -> None:
        with psycopg.connect(db.dsn) as reader:
            reader.execute(f"copy ({query}) to '{fifo}' (format binary)")

    source = threading.Thread(target=read)
    with psycopg.connect(db.dsn) as writer:
        writer.execute("set maintenance_work_mem = '1GB'")
        writer.execute(f"drop table {child}")
        writer.execute(f"create table {child} (like mill.{table} including all excluding indexes)")
        writer.execute(f"alter table {child} add constraint w check (batch_id < {size.wide})")
        writer.execute(f"alter table {child} add constraint z check (batch_id >= 0)")
        with progress(db, table, batches * BATCH):
            source.start()
            writer.execute(f"copy {child} from '{fifo}' (format binary, freeze)")
            source.join()
        key = "batch_id, n, attempt" if table == "download" else "batch_id, n"
        writer.execute(f"alter table {child} add primary key ({key})")
        writer.execute(
            f"alter table mill.{table} attach partition {child}"
            f" for values from (0) to ({size.wide})"
        )
        writer.execute(f"alter table {child} drop constraint w, drop constraint z")
    seconds = time.perf_counter() - begun
    note(f"{batches * BATCH:,} rows of mill.{table} in {seconds:.0f} s")


@contextmanager
def progress(db: Database, table: str, rows: int) -> Iterator[None]:
    """Say every half minute how far a COPY is."""
    over = threading.Event()

    def watch() -> None:
        with psycopg.connect(db.dsn, autocommit=True) as looker:
            while not over.wait(30):
                done = looker.execute(
                    "select max(tuples_processed) from pg_stat_progress_copy where command ~ 'FROM'"
                ).fetchone()
                note(f"mill.{table}: {(done and done[0]) or 0:,} of {rows:,} rows")

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def know(db: Database, size: Size, fifo: Path) -> list[str]:
    """A database with this history. Gives the logins of its download workers."""
    for table, batches in (("pair", size.real + size.measured), ("download", size.real)):
        fill(db, fifo, table, batches, size)
    # each call makes the one before too
    for low in range(size.wide + WIDTH, size.wide + size.batches - WIDTH, WIDTH):
        db.admin.execute("select mill.ensure_partitions(%s::bigint)", (low,))
    return know_small(db, size)


def know_small(db: Database, size: Size) -> list[str]:
    """The small tables of this history. Gives the logins of its download workers."""
    logins = [db.login("download") for _ in range(LOGINS)]
    run = db.admin.execute
    run("update mill.setting set unfinished_per_hour = 1000000")
    processes = max(1, size.batches // 1_000)  # of a worker, until now
    run(
        "insert into mill.instance (worker_id, version, protocol)"
        " select worker_id, '', 1 from mill.worker, generate_series(1, %s)",
        (processes,),
    )
    files = max(1, size.urls // PER_WAT)
    run(
        "insert into mill.wat_file (location) select 'f' || f from generate_series(1, %s) f",
        (files,),
    )
    run(
        "insert into mill.model (name, pretrained, digest, dims) values ('m', '', 'd', %s)", (DIMS,)
    )
    run(
        "insert into mill.batch (batch_id, bucket, pair_count, closed_at)"
        " select b, 0, %s, now() from generate_series(0, %s) b",
        (BATCH, size.last),
    )
    run("select setval(pg_get_serial_sequence('mill.batch', 'batch_id'), %s)", (size.last,))
    run(
        "insert into mill.task (kind, state, wat_id)"
        " select 'extract', 'done', wat_id from mill.wat_file"
    )
    first, after = size.real, size.real + size.measured  # the measured ones are between
    for kind, model in (
        ("download", "null::integer"),
        ("score", "(select model_id from mill.model)"),
    ):
        run(
            "insert into mill.task (kind, state, batch_id, model_id)"
            f" select %s, 'done', b, {model} from generate_series(0, %s::bigint) b"
            " where b < %s or b >= %s",
            (kind, size.batches + size.measured - 1, first, after),
        )
    run(
        "insert into mill.lease"
        " (lease_id, task_id, instance_id, expires_at, deadline, ended_at, ended_as)"
        " select (1::bigint << 40) + nextval('mill.lease_number'), task_id,"
        " 1 + task_id % (select count(*) from mill.instance), now(), now(), now(), 'completed'"
        " from mill.task order by task_id"
    )
    run(
        "insert into mill.submission"
        " (task_id, lease_id, part, worker_id, state, row_count, decided_at)"
        " select task_id, lease_id, part, instance.worker_id, 'accepted', %(batch)s / parts, now()"
        " from mill.lease join mill.instance using (instance_id) join mill.task using (task_id),"
        " lateral (select case kind when 'extract' then 1 when 'download' then %(d)s else %(s)s end"
        "          as parts) p, generate_series(1, parts) part order by lease_id, part",
        {"batch": BATCH, "d": DOWNLOADS, "s": SCORES},
    )
    run(
        "insert into mill.task (kind, batch_id)"
        " select 'download', b from generate_series(%s::bigint, %s) b",
        (first, after - 1),
    )
    know_counts(db, size)
    run("vacuum analyze")
    return logins


def know_counts(db: Database, size: Size) -> None:
    """The counters of this history, as of pairs in a hundred languages: what status reads, and what
    an acceptance changes, is as large as theirs."""
    languages = "select array_agg('l' || l) from generate_series(1, {}) l"
    for model, attempt, outcome, many in ((0, 0, -1, 100), (0, 1, 0, 300), (1, 1, 0, 100)):
        db.admin.execute(
            "insert into mill.batch_count (batch_id, model_id, attempt, pairs, successes, language,"
            "                              outcome, count)"
            " select b, %(model)s, %(attempt)s, %(batch)s, %(good)s, l, array_fill(%(outcome)s::"
            "smallint, array[%(many)s]), array_fill(%(batch)s / %(many)s, array[%(many)s])"
            f" from ({languages.format(many)}) x (l), generate_series(0, %(last)s) b",
            {
                "model": model, "attempt": attempt, "outcome": outcome, "many": many,
                "batch": BATCH, "good": BATCH if outcome == 0 else 0, "last": size.batches - 1,
            },
        )  # fmt: skip
    db.admin.execute(
        "insert into mill.funnel_count (link_kind, model_id, language, outcome, count)"
        " select 'image', m, 'l' || l, o, 1000000 from generate_series(1, 100) l,"
        " (select 0 as m, -1 as o union all select 0, code from mill.outcome"
        "  union all select 1, code from mill.score_outcome) x"
    )
    db.admin.execute("select mill.fold_counts()")


def forget_files(server: EmbeddedServer, folder: Path) -> None:
    """Start again, with nothing of the database in this machine's memory."""
    restart(server, wal_level="replica", max_wal_senders="10")
    os.sync()
    for path in (folder / "postgres").rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


# ---- measuring ----------------------------------------------------------------------------------


@dataclass
class Line:
    """Workers of one database, whose calls are timed one after another."""

    db: Database
    logins: list[str]
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.workers: list[tuple[DownloadQueue, int]] = []
        for login in self.logins:
            queue = DownloadQueue(login)
            self.workers.append((queue, self.timed("connect_register", queue.register).instance_id))
        self.steward, _ = self.db.queue("steward")
        full = columns(BATCH, TOO_THIN)
        self.parts = [
            Outcomes(list(range(at, at + PART)), *[c[at : at + PART] for c in full], [], [])  # type: ignore[arg-type]
            for at in range(0, BATCH, PART)
        ]

    def timed(self, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        begun = time.perf_counter()
        answer = call(*arguments)
        self.seconds[name].append(time.perf_counter() - begun)
        return answer

    def batch(self, number: int) -> None:
        """One batch, from its claim until its rows are in mill.download."""
        queue, instance = self.workers[number % len(self.workers)]
        claim = self.timed("claim", queue.claim, instance)
        urls = self.timed("urls", queue.urls, claim.lease_id)
        assert len(urls) == BATCH
        for place, part in enumerate(self.parts):
            self.timed("submit", queue.submit_download, claim.lease_id, place, part)
            self.timed("heartbeat", queue.heartbeat, claim.lease_id)
        self.timed("complete", queue.complete, claim.lease_id)
        for _ in self.parts:
            accepted = self.timed("accept", self.steward.accept_next)
            assert accepted
            assert accepted[3] is None

    def claim_and_release(self, number: int) -> float:
        queue, instance = self.workers[number % len(self.workers)]
        claim = self.timed("claim_only", queue.claim, instance)
        self.timed("release", queue.release, claim.lease_id)
        return self.seconds["claim_only"][-1]

    def looks(self) -> None:
        """What reads more than a task."""
        queue, _ = self.workers[0]
        self.timed("expire", self.steward.maintain, "expire_leases")
        self.timed("empty_slots", self.steward.maintain, "empty_slots")
        self.timed("drained", self.steward.drained)
        self.timed("me", queue.me)
        self.timed("counts", self.steward.counts)
        self.timed("status", gather, self.db.admin)

    def close(self) -> None:
        for queue, _ in self.workers:
            queue.close()
        self.db.close()


ELSEWHERE = """
select coalesce(sum(heap_blks_read + heap_blks_hit), 0)::bigint as heap,
       coalesce(sum(idx_blks_read + idx_blks_hit), 0)::bigint as index
  from pg_statio_user_tables
 where relname ~ '^(pair|download|score|embedding|opt_out)_b' and relname !~ '_b000000$'
"""


def measure(
    many: list[Size], claims: int, snapshot: float, below: Path | None
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """What it ran on, a point for each size, and what the snapshot did to the last of them."""
    with own_server(below) as (server, folder):
        restart(server, wal_level="minimal", max_wal_senders="0")
        fifo = folder / "rows"
        os.mkfifo(fifo)
        fifo.chmod(0o666)
        known = []
        for size in many:
            with closing(Database(database(server, f"history_{size.urls}"))) as db:
                known.append((know(db, size, fifo), sizes(db, size)))
        forget_files(server, folder)
        ran_on = machine(server.url())
        lines = [
            Line(Database(server.url(f"history_{size.urls}")), logins)
            for size, (logins, _) in zip(many, known, strict=True)
        ]
        for line in lines:
            line.db.admin.execute("select pg_stat_reset()")
        # in turn, so that what else the machine does meets all of them
        for number in range(many[0].measured - 1):  # the last one is for the claims alone
            for line in lines:
                line.batch(number)
        note("batches are done")
        for number in range(claims):
            for line in lines:
                line.claim_and_release(number)
        for _ in range(20):
            for line in lines:
                line.looks()
        time.sleep(11)  # a backend that idles writes its statistics after 10 s
        points = []
        for size, line, (_, there) in zip(many, lines, known, strict=True):
            figures = {f"{name}_ms": percentiles(s) for name, s in line.seconds.items()}
            heap, index = line.db.rows(ELSEWHERE)[0]
            name = f"{size.urls:.0e}".replace("e+0", "e")
            elsewhere = {"heap_blocks_elsewhere": heap, "index_blocks_elsewhere": index}
            points.append({"history": name} | there | elsewhere | figures)
        kept = with_snapshot(lines[-1].db, lines[-1], snapshot) if snapshot else []
        for line in lines:
            line.close()
    return ran_on, points, kept


def sizes(db: Database, size: Size) -> dict[str, Any]:
    """What is there."""
    small = ("batch", "task", "lease", "submission", "instance")
    inherits = "from pg_inherits where inhparent = 'mill.download'::regclass"
    return {
        "rows_there": {"pair": (size.real + size.measured) * BATCH, "download": size.real * BATCH}
        | {t: db.value(f"select count(*) from mill.{t}") for t in small},
        "gb": round(db.value("select pg_database_size(current_database())") / 1e9, 1),
        "partitions_of_each": db.value(f"select count(*) {inherits}"),
        "extrapolated_urls": size.urls - size.real * BATCH,
    }


DEAD = "select n_dead_tup from pg_stat_user_tables where relid = 'mill.task'::regclass"
HOLDERS = """
select coalesce(string_agg(distinct backend_type, ', '), 'none') from pg_stat_activity
 where backend_xmin is not null and pid <> pg_backend_pid() and datname = current_database()
"""


def with_snapshot(db: Database, line: Line, seconds: float) -> list[dict[str, Any]]:
    """Claims while a reader keeps its snapshot: their p50 by how many there were since."""
    rows: list[dict[str, Any]] = []
    number, stretch = 0, 50

    def claim_for(name: str, until: Callable[[float, int], bool]) -> None:
        nonlocal number
        since, taken = number, list[float]()
        begun = time.perf_counter()
        while not until(time.perf_counter() - begun, number - since):
            taken.append(line.claim_and_release(number))
            number += 1
        rows.append({"when": name, "claims": number} | {"claim_ms": percentiles(taken[-stretch:])})

    begun = time.perf_counter()
    claim_for("before", lambda _, n: n >= stretch)
    with psycopg.connect(db.dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select count(*) from mill.setting")
        number, begun = 0, time.perf_counter()
        for marks in (50, 600, 1_200, 2_400, 4_800, 9_600, 19_200, 38_400):
            left = seconds - (time.perf_counter() - begun)
            if left <= 0:
                break
            upto = marks - number
            claim_for(
                f"held {time.perf_counter() - begun:.0f} s",
                lambda s, n, upto=upto, left=left: n >= upto or s > left,
            )
            rows[-1]["when"] = f"held {time.perf_counter() - begun:.0f} s"
            note(f"{rows[-1]}")
    later = [("later", 70, stretch)] if seconds > 60 else []  # autovacuum comes once a minute
    for name, wait, many in (("first after", 0, 1), ("after", 0, stretch), *later):
        time.sleep(wait)
        claim_for(name, lambda _, n, many=many: n >= many)  # type: ignore[misc]
        rows[-1] |= {"snapshots_of": db.value(HOLDERS), "dead_tasks": db.value(DEAD)}
    return rows


def ratios(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The p50 of each call over that of the smallest history."""
    first = points[0]
    names = (*CALLS, "claim_only", "heartbeat")
    return {
        point["history"]: {
            n: round(point[f"{n}_ms"]["p50"] / first[f"{n}_ms"]["p50"], 2) for n in names
        }
        for point in points[1:]
    }


def main(
    history: Annotated[str, typer.Option(help="URLs known before, with commas.")] = "1e4,1e6,1e9",
    real: Annotated[str, typer.Option(help="Rows of pair and download at most.")] = "1e8",
    batches: Annotated[int, typer.Option(help="Batches that are measured.")] = 100,
    claims: Annotated[int, typer.Option(help="Claims alone.")] = 2_000,
    snapshot: Annotated[float, typer.Option(help="Seconds that a reader's is kept.")] = 180,
    below: Annotated[Path | None, typer.Option(help="Where: 10^8 rows are 36 GB.")] = None,
    quick: Annotated[bool, typer.Option(help="Within a minute: 10^4 and 10^6.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print the latency of every call, at each size."""
    if quick:
        history, batches, claims, snapshot = "1e4,1e6", 5, 200, min(snapshot, 5)
    many = [Size(int(float(n)), int(float(real)), batches + 1) for n in history.split(",")]
    ran_on, points, kept = measure(many, claims, snapshot, below)
    result = ran_on | {"ratio_of_p50": ratios(points), "points": points, "old_snapshot": kept}
    show(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
