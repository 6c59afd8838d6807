"""How fast the queue is: claim, submit and accept, beside what others do, on one server.

    python bench/queue.py [--quick] [--json] [--rounds 3] [--history 1e4,1e6] [--old-snapshot]

A server of its own (embedded; its settings are printed), a new database for each run, clients in
a process a core and a thread a connection (bench/queue_sides.py), what they send made before the
clock starts. It stops when the last URL is handed back and, with ours, accepted. --rounds times in
turn; the median counts. Batches are of 10,000 URLs, results are full rows: status, bytes, width,
height, md5, sha256, dHash; none compresses.

ours          claim_v1, urls_v1, submit_download_v1, complete_v1, and one steward's accept_next_v1
              meanwhile, until mill.download has the rows. One submission a batch, no thumbnails:
              every row has all its columns and the outcome too_thin.
ours_parts    The same in submissions of 1,000 rows, as the download worker sends them.
ours_gold     As ours_parts, of workers who are not vouched for: 20 gold questions among the URLs of
              each batch, which they answer rightly (there is no image). Without samples that others
              repeat, 50 URLs of 10,000.
ours_images   Every row a success with 8,192 random bytes of thumbnail, 250 rows a submission
              (2 MB, as the worker sends them).
tablesample   LAION's way (their dbdl.py): one table with a status column; UPDATE … WHERE sampleid
              IN (SELECT … TABLESAMPLE SYSTEM WHERE status = 0 LIMIT 10000 FOR UPDATE SKIP LOCKED),
              a SELECT of the rows, then a string of 10,000 UPDATEs of a row each, in one
              transaction, and an UPDATE of those left over. The table holds twice what is taken,
              so the sample (half of the blocks) never starves; theirs was 0.05 % of 500 million.
per_row       A row a URL, taken by SKIP LOCKED from a partial index in order, 10,000 a statement;
              all results of a batch in one UPDATE from arrays.
procrastinate, pgqueuer (from pip, in .venv-queue): a job a URL, which does nothing and keeps no
              result; their own workers, a process a core, at the settings that were best here.

take: until the URLs are at the client (ours: claim + urls; claim is claim_v1 alone). submit: a call
of ours; all results of a batch of theirs. p50/p99 in ms. dead: n_dead_tup afterwards; rewritten:
rows updated or deleted, whether or not autovacuum has been there since. WAL from a checkpoint on,
so with full-page images. urls_per_core_s: over CPU seconds of the server and the clients, which
says more than seconds where others use the same cores.

--history: our claim (and release) and 10 batches with so many accepted rows in mill.pair and
mill.download. --old-snapshot: the same again while a reader holds a snapshot from before.

This file has the name of a module of the standard library, and stands first in the path of every
script of this folder: imported under that name, it gives that module (see the end).
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import sysconfig
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

HERE = Path(__file__).parent
if __name__ != "queue":
    sys.path.insert(0, str(HERE.parent / "tests"))
    import psycopg
    import typer
    from cpu import server_seconds
    from own_server import machine, own_server, percentiles, show
    from queue_sides import RESULTS

    from support.database import Database, empty_database, new_database


BATCH = 10_000
THUMBNAIL = 8_192
GOLD_QUESTIONS = 20  # of a batch: mill.setting.gold_questions_per_lease
PER_LOGIN = 8  # connections: add_worker's limit
OTHERS = ("tablesample", "per_row")
LIBRARIES = ("procrastinate", "pgqueuer")
JOBS = {"procrastinate": 3_000, "pgqueuer": 60_000}
BEST = {"procrastinate": {"concurrency": 10}, "pgqueuer": {"batch": 1_000}}
THEIRS = HERE.parent / ".venv-queue"
THEIRS_NEED = ("procrastinate", "pgqueuer", "asyncpg", "uvloop", "psycopg[binary,pool]")


def cores() -> int:
    return len(os.sched_getaffinity(0))


# ---- our side ------------------------------------------------------------------------------------


def add_batches(db: Database, count: int) -> None:
    """Closed batches of 10,000 pairs, ready to be downloaded."""
    db.admin.execute(
        "with b as (insert into mill.batch (bucket, pair_count, closed_at)"
        " select 0, %(batch)s, now() from generate_series(1, %(count)s) returning batch_id)"
        " insert into mill.task (kind, batch_id) select 'download', batch_id from b order by 2",
        {"batch": BATCH, "count": count},
    )
    db.admin.execute("select mill.ensure_partitions((select max(batch_id) from mill.batch))")
    db.admin.execute(
        "insert into mill.pair select t.batch_id, n, null, 0, 0, md5(t.batch_id || '/' || n)::uuid,"
        " format('https://host%%s.example/images/%%s/picture.jpg', n %% 997, t.batch_id << 14 | n),"
        " 'a picture of a thing', 'en', 0.9, null"
        " from mill.task t, generate_series(0, %s - 1) n where t.state = 'ready'",
        (BATCH,),
    )


def add_gold_questions(db: Database) -> None:
    """URLs that are known to have no image: what these workers answer is right."""
    db.admin.execute(
        "insert into mill.gold_question (url, by_admin)"
        " select 'https://c' || n || '.example/x.jpg', true from generate_series(1, 1000) n"
    )


def know_history(db: Database, rows: int) -> None:
    """So many rows accepted before, with their tasks, leases and submissions."""
    count = max(1, rows // BATCH)
    add_batches(db, count)
    _, instance = db.queue("download")
    db.admin.execute(
        "insert into mill.lease"
        " (lease_id, task_id, instance_id, expires_at, deadline, ended_at, ended_as)"
        " select (1::bigint << 40) + nextval('mill.lease_number'), task_id, %s,"
        " now(), now(), now(), 'completed' from mill.task where state = 'ready'",
        (instance,),
    )
    db.admin.execute(
        "insert into mill.submission"
        " (task_id, lease_id, part, worker_id, state, row_count, decided_at)"
        " select l.task_id, l.lease_id, 0, i.worker_id, 'accepted', %s, now() from mill.lease l"
        " join mill.instance i using (instance_id) join mill.task t using (task_id)"
        " where t.state = 'ready'",
        (BATCH,),
    )
    db.admin.execute(
        "insert into mill.download select t.batch_id, n, 1, 45, 200, 6000, 640, 480,"
        " md5('b' || n)::uuid, substr(sha256(n::text::bytea), 1, 20), sha256(n::text::bytea), n,"
        " sha256(('p' || n)::bytea), s.submission_id"
        " from mill.task t join mill.submission s using (task_id), generate_series(0, %s - 1) n"
        " where t.state = 'ready'",
        (BATCH,),
    )
    db.admin.execute("update mill.task set state = 'done' where state = 'ready'")


@contextmanager
def steward(db: Database) -> Iterator[tuple[list[float], Callable[[], None]]]:
    """A thread that accepts. Gives its calls' seconds, and a function that waits for the last."""
    queue, _ = db.queue("steward")
    seconds: list[float] = []
    all_sent = threading.Event()

    def accept() -> None:
        while True:
            last = all_sent.is_set()
            begun = time.perf_counter()
            if queue.accept_next():
                seconds.append(time.perf_counter() - begun)
            elif last:
                return
            else:
                time.sleep(0.01)

    thread = threading.Thread(target=accept)

    def wait() -> None:
        all_sent.set()
        thread.join()

    thread.start()
    try:
        yield seconds, wait
    finally:
        wait()


# ---- the other sides -----------------------------------------------------------------------------


def others_table(admin: psycopg.Connection[Any], side: str, urls: int) -> None:
    """Their table of URLs, full and analyzed."""
    results = ", ".join(f"{name} {kind}" for name, kind in RESULTS)
    if side == "tablesample":
        urls *= 2
        admin.execute(
            "create table dataset (sampleid bigint primary key, url text, text text, license text,"
            f" language text, status smallint not null default 0, {results})"
        )
        into = "dataset (sampleid, url, text, language)"
    else:
        admin.execute(
            "create table per_row (id bigint primary key, url text, text text, language text,"
            f" status smallint not null default 0, taken_at timestamptz, {results})"
        )
        admin.execute("create index on per_row (id) where status = 0")
        into = "per_row (id, url, text, language)"
    admin.execute(
        f"insert into {into} select n, format('https://host%%s.example/images/%%s/picture.jpg',"
        " n %% 997, n), 'a picture of a thing', 'en' from generate_series(1, %s) n",
        (urls,),
    )


def environment_for_others() -> str:
    """Make .venv-queue if it is not there. Returns why it could not be made, or ""."""
    ready = THEIRS / ".ready"
    if ready.exists():
        return ""
    print(f"== installing {', '.join(THEIRS_NEED)} in .venv-queue", file=sys.stderr)
    pip = [THEIRS / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(THEIRS)], [*pip, *THEIRS_NEED]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"pip could not install it: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    ready.touch()
    return ""


# ---- a run ---------------------------------------------------------------------------------------


@dataclass
class Plan:
    """One run of one side."""

    side: str
    connections: int
    batches: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def program(self) -> str:
        return "ours" if self.side.startswith("ours") else self.side

    def shares(self, dsns: list[str]) -> list[dict[str, Any]]:
        """What each process is told: a process a core, each its share of connections and URLs."""
        processes = min(len(dsns), cores())
        shares = []
        for p in range(processes):
            batches = self.batches // processes + (p < self.batches % processes)
            share = {"dsns": dsns[p::processes], "urls": batches * BATCH, "batch": BATCH}
            shares.append(share | self.options)
        return shares


class Clients:
    """The client processes: ready when made, started together, waited for."""

    def __init__(self, python: Path | str, program: str, shares: list[dict[str, Any]]) -> None:
        command = [str(python), str(HERE / "queue_sides.py"), program]
        self._all = [
            subprocess.Popen(
                [*command, json.dumps(share)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for share in shares
        ]  # fmt: skip
        for client in self._all:
            assert client.stdout
            if client.stdout.readline() != "ready\n":
                raise RuntimeError(f"a client of {program} did not start")

    def run(self, timeout: float) -> list[dict[str, Any]]:
        for client in self._all:
            assert client.stdin
            client.stdin.write("go\n")
            client.stdin.flush()
        try:
            return [json.loads(client.communicate(timeout=timeout)[0]) for client in self._all]
        finally:
            for client in self._all:
                with suppress(ProcessLookupError):
                    client.kill()


class Meter:
    """The server's counters around a run."""

    def __init__(self, admin: psycopg.Connection[Any], postmaster: int) -> None:
        self._admin, self._postmaster = admin, postmaster
        admin.execute("vacuum analyze")
        admin.execute("select pg_stat_reset()")
        admin.execute("checkpoint")
        self._lsn = self._value("select pg_current_wal_lsn()")
        self._cpu = server_seconds(postmaster)
        self._begun = time.perf_counter()

    def _value(self, query: str, *arguments: Any) -> Any:
        row = self._admin.execute(query, arguments).fetchone()
        assert row
        return row[0]

    def read(self, urls: int) -> dict[str, Any]:
        """Since it was made."""
        seconds = time.perf_counter() - self._begun
        cpu = server_seconds(self._postmaster) - self._cpu
        wal = int(self._value("select pg_current_wal_lsn() - %s::pg_lsn", self._lsn))
        time.sleep(0.2)  # backends that end write their statistics
        self._admin.execute("select pg_stat_force_next_flush()")
        tables = "from pg_stat_all_tables where schemaname <> 'pg_catalog'"
        rewritten = f"select coalesce(sum(n_tup_upd + n_tup_del), 0) {tables}"
        return {
            "urls_per_s": round(urls / seconds),
            "seconds": round(seconds, 2),
            "wal_bytes_per_url": round(wal / urls, 1),
            "dead": int(self._value(f"select coalesce(sum(n_dead_tup), 0) {tables}")),
            "rewritten_per_url": round(float(self._value(rewritten)) / urls, 3),
            "server_us_per_url": round(1e6 * cpu / urls, 2),
        }


def add_clients(figures: dict[str, Any], answers: list[dict[str, Any]], urls: int) -> None:
    """The clients' CPU, and what one core does a second."""
    client = 1e6 * sum(answer["cpu_s"] for answer in answers) / urls
    figures["client_us_per_url"] = round(client, 2)
    figures["urls_per_core_s"] = round(1e6 / (client + figures["server_us_per_url"]))


def summary(figures: dict[str, Any], answers: list[dict[str, Any]], urls: int) -> dict[str, Any]:
    """With what the clients measured."""
    calls: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        for call, seconds in answer["s"].items():
            calls[call] += seconds
    assert sum(answer["urls"] for answer in answers) >= urls
    add_clients(figures, answers, urls)
    return figures | {f"{call}_ms": percentiles(seconds) for call, seconds in calls.items()}


def run_ours(
    server: str, postmaster: int, plan: Plan, *, history: int = 0, snapshot: bool = False
) -> dict[str, Any]:
    with new_database(server) as db:
        db.admin.execute(
            "update mill.setting set lease_seconds = 3600, batches_per_slot = 1000,"
            " replicated_urls = 0, unfinished_per_hour = 1000000, gold_questions_per_lease = %s",
            (GOLD_QUESTIONS,),
        )
        if history:
            know_history(db, history)
        add_batches(db, plan.batches)
        checked = "gold_questions" in plan.options
        if checked:
            add_gold_questions(db)
        count = -(-plan.connections // PER_LOGIN)
        logins = [db.login("download", checked=checked) for _ in range(count)]
        dsns = list(itertools.islice(itertools.cycle(logins), plan.connections))
        db.queue("steward")
        clients = Clients(sys.executable, plan.program, plan.shares(dsns))
        meter = Meter(db.admin, postmaster)
        with held_snapshot(db.dsn, snapshot):
            claims = claims_alone(db, 500 if history else 0)
            with steward(db) as (accepted, wait):
                answers = clients.run(1800)
                wait()
            urls = plan.batches * BATCH
            figures = summary(meter.read(urls), answers, urls)
        assert (
            db.value("select count(*) from mill.download")
            == urls + max(0, history) // BATCH * BATCH
        )
        figures["accept_ms"] = percentiles(accepted)
        if claims:
            figures |= {
                "claims_alone_ms": percentiles(claims),
                "last_50_claims_ms": percentiles(claims[-50:]),
            }
    return figures


@contextmanager
def held_snapshot(dsn: str, wanted: bool) -> Iterator[None]:
    """A reader in a transaction whose snapshot is from before."""
    if not wanted:
        yield
        return
    with psycopg.connect(dsn) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select count(*) from mill.task")
        yield


def claims_alone(db: Database, count: int) -> list[float]:
    """Seconds of a claim, each of which is released again."""
    seconds = []
    queue, instance = db.queue("download")
    for _ in range(count):
        begun = time.perf_counter()
        claim = queue.claim(instance)
        seconds.append(time.perf_counter() - begun)
        assert claim
        queue.release(claim.lease_id)
    return seconds


def run_other(server: str, postmaster: int, plan: Plan) -> dict[str, Any]:
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        urls = plan.batches * BATCH
        others_table(admin, plan.side, urls)
        plan.options["percent"] = 50  # of the blocks, for TABLESAMPLE
        clients = Clients(sys.executable, plan.side, plan.shares([dsn] * plan.connections))
        meter = Meter(admin, postmaster)
        answers = clients.run(1800)
        done = sum(answer["urls"] for answer in answers)
        return summary(meter.read(done), answers, done)


def run_library(server: str, postmaster: int, side: str) -> dict[str, Any]:
    """A job library's workers, a process a core; it ends when its queue is empty."""
    if reason := environment_for_others():
        return {"not_measured": reason}
    python, jobs = THEIRS / "bin/python", JOBS[side]
    with empty_database(server) as dsn, psycopg.connect(dsn, autocommit=True) as admin:
        work = {"dsns": [dsn] * 10, "urls": jobs, "batch": BATCH} | BEST[side]
        try:
            subprocess.run(
                [python, HERE / "queue_sides.py", f"{side}:fill", json.dumps(work)],
                check=True, capture_output=True, timeout=300,
            )  # fmt: skip
            clients = Clients(python, side, [work] * cores())
            meter = Meter(admin, postmaster)
            answers = clients.run(300)
        except (subprocess.SubprocessError, RuntimeError, ValueError) as error:
            words = (getattr(error, "stderr", None) or b"").decode().strip().splitlines()
            return {"not_measured": words[-1] if words else str(error)}
        figures = meter.read(jobs)
        add_clients(figures, answers, jobs)
    return figures | {"jobs": jobs, "connections": f"{cores()} processes", **BEST[side]}


# ---- all runs ------------------------------------------------------------------------------------


def plans(connections: int, *, quick: bool) -> list[Plan]:
    """The runs of a round at so many connections: every connection has at least a batch."""
    batches = max(4 if quick else 24, connections)
    images = min(4, connections) if quick else max(4, connections)
    gold_questions = {"part": 1002, "gold_questions": GOLD_QUESTIONS}
    parts = [
        Plan("ours_parts", connections, batches, {"part": 1000}),
        Plan("ours_gold_questions", connections, batches, gold_questions),
    ]
    return [
        Plan("ours", connections, batches),
        Plan("tablesample", connections, batches),
        Plan("per_row", connections, batches),
        *([] if quick else parts),
        Plan("ours_images", connections, images, {"part": 250, "thumbnail": THUMBNAIL}),
    ]


def note(name: str, figures: dict[str, Any]) -> None:
    """Say that a run is over."""
    print(f"== {name}: {figures['urls_per_s']:,} URLs/s", file=sys.stderr, flush=True)


def middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several runs of the same, the one with the median rate."""
    return sorted(runs, key=lambda run: run["urls_per_s"])[(len(runs) - 1) // 2]


def measure(
    server: str, postmaster: int, counts: list[int], rounds: int, *, quick: bool
) -> dict[tuple[str, int], dict[str, Any]]:
    """Every side at each number of connections, in turn."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for connections, _ in itertools.product(counts, range(rounds)):
        for plan in plans(connections, quick=quick):
            run = run_ours if plan.program == "ours" else run_other
            figures = {"batches": plan.batches} | run(server, postmaster, plan)
            runs[plan.side, connections].append(figures)
            note(f"{plan.side}, {connections} connections", figures)
    chosen = {key: middle(many) for key, many in runs.items()}
    for (side, _), figures in chosen.items():
        if side == "ours_images":
            figures["mb_per_s"] = round(figures["urls_per_s"] * THUMBNAIL / 1e6, 1)
    return chosen


def with_history(
    server: str, postmaster: int, rows: list[int], *, snapshot: bool
) -> dict[str, dict[str, Any]]:
    """One connection, 10 batches and 500 claims that are released, at each size."""
    points = {}
    for many, old in itertools.product(rows, (False, True) if snapshot else (False,)):
        name = f"{many:,} rows" + (", old snapshot" if old else "")
        plan = Plan("ours", 1, 10)
        points[name] = run_ours(server, postmaster, plan, history=many, snapshot=old)
        note(f"history: {name}", points[name])
    return points


def main(
    rounds: Annotated[int, typer.Option(help="How often each side runs.")] = 3,
    connections: Annotated[str, typer.Option(help="How many, with commas.")] = "1,4,16,64",
    history: Annotated[str, typer.Option(help="Rows accepted before, with commas.")] = "1e4,1e6",
    old_snapshot: Annotated[bool, typer.Option("--old-snapshot", help="History, twice.")] = False,
    libraries: Annotated[bool, typer.Option(help="procrastinate and pgqueuer too.")] = True,
    quick: Annotated[bool, typer.Option(help="Within a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print URLs per second of all sides, and ratios."""
    if quick:
        rounds, connections, libraries = 1, "1,16", False
        history = "" if history == "1e4,1e6" else history
    counts = [int(count) for count in connections.split(",") if count]
    with own_server() as (server, home):
        postmaster = int((home / "postgres/postmaster.pid").read_text().split()[0])
        url = server.url()
        ran_on = machine(url)
        runs = measure(url, postmaster, counts, rounds, quick=quick)
        theirs = {s: run_library(url, postmaster, s) for s in LIBRARIES if libraries}
        rows = [int(float(many)) for many in history.split(",") if many]
        points = with_history(url, postmaster, rows, snapshot=old_snapshot)
    result = ran_on | headline(runs, 16 if 16 in counts else counts[-1]) if counts else ran_on
    result["runs"] = [{"side": s, "connections": c} | run for (s, c), run in runs.items()]
    result["libraries"] = [{"side": side} | run for side, run in theirs.items()]
    result["history"] = [{"history": name} | run for name, run in points.items()]
    show(result, as_json=as_json)


def ratio(mine: dict[str, Any], theirs: dict[str, Any], what: str) -> float:
    return round(float(mine[what] / theirs[what]), 2)


def headline(runs: dict[tuple[str, int], dict[str, Any]], at: int) -> dict[str, Any]:
    """The figures at one number of connections."""
    mine, images = runs["ours", at], runs["ours_images", at]
    return {
        "connections": at,
        "urls_per_s": mine["urls_per_s"],
        "urls_per_core_s": mine["urls_per_core_s"],
        **{f"ratio_over_{side}": ratio(mine, runs[side, at], "urls_per_s") for side in OTHERS},
        **{
            f"core_ratio_over_{side}": ratio(mine, runs[side, at], "urls_per_core_s")
            for side in OTHERS
        },
        "wal_bytes_per_url": mine["wal_bytes_per_url"],
        "claim_ms_p50": mine["claim_ms"]["p50"],
        "claim_ms_p99": mine["claim_ms"]["p99"],
        "submit_ms_p50": mine["submit_ms"]["p50"],
        "submit_ms_p99": mine["submit_ms"]["p99"],
        "thumbnail_urls_per_s": images["urls_per_s"],
        "mb_per_s": images["mb_per_s"],
    }


def standard_library_queue() -> None:
    """What a library of some script of this folder wanted when it said ``import queue``."""
    path = Path(sysconfig.get_path("stdlib")) / "queue.py"
    spec = importlib.util.spec_from_file_location("queue", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["queue"] = module
    spec.loader.exec_module(module)


if __name__ == "queue":
    standard_library_queue()
elif __name__ == "__main__":
    typer.run(main)
