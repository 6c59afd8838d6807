"""The clients of one side of bench/queue.py, in a process of their own: a thread a connection.

    python bench/queue_sides.py ours '{"dsns": [...], "urls": 100000, "batch": 10000, ...}'

It runs in environments that have neither pairmill nor typer, so each side imports what it needs.
It connects, prepares what it will send, prints "ready" and waits for a line. Then it takes and
hands back batches until it has done its ``urls``, and prints one JSON object: how many URLs,
CPU seconds of this process, and the seconds of each call by its name.
"""

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

# the results of a URL, as mill.download has them, in every side's order of columns
RESULTS = (
    ("outcome", "smallint"), ("http_status", "smallint"), ("bytes", "integer"),
    ("width", "integer"), ("height", "integer"), ("md5", "uuid"), ("sha1", "bytea"),
    ("sha256", "bytea"), ("dhash", "bigint"), ("pdq", "bytea"),
)  # fmt: skip
SUCCESS, TOO_THIN = 0, 45  # mill.outcome


@dataclass
class Work:
    """What a process is to do, and how long its calls took."""

    dsns: list[str]
    urls: int  # of this process; its threads take from it
    batch: int
    part: int = 10_000  # ours: rows a submission
    thumbnail: int = 0  # ours: bytes of each; 0: no row is a success
    gold_questions: int = 0  # ours: of each batch, beside its URLs
    percent: float = 100.0  # of the table, for TABLESAMPLE
    concurrency: int = 1  # of the job libraries: jobs at once in this process
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> int:
        """How many URLs to take next: a batch of this process's, or what is left."""
        with self._lock:
            wanted = min(self.batch, self.urls)
            self.urls -= wanted
            return wanted

    def give_back(self, rows: int) -> None:
        """So many were to be had no more, or not this time."""
        with self._lock:
            self.urls += rows

    @contextmanager
    def timed(self, call: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[call].append(time.perf_counter() - begun)


def columns(rows: int, outcome: int) -> list[list[Any]]:
    """Random results: full rows, of which nothing compresses. In the order of RESULTS."""
    rng = random.Random(rows)
    return [
        [outcome] * rows,
        [200] * rows,
        [rng.randrange(5_000, 500_000) for _ in range(rows)],
        [rng.randrange(200, 4_000) for _ in range(rows)],
        [rng.randrange(200, 4_000) for _ in range(rows)],
        [UUID(bytes=rng.randbytes(16)) for _ in range(rows)],
        [rng.randbytes(20) for _ in range(rows)],
        [rng.randbytes(32) for _ in range(rows)],
        [rng.randrange(-(2**63), 2**63) for _ in range(rows)],
        [rng.randbytes(32) for _ in range(rows)],
    ]


# ---- the sides: each prepares, and gives what a connection does once the clock runs -------------


def ours(work: Work) -> Iterator[Callable[[int], int]]:
    """claim, urls, submit (in parts), complete: what a download worker calls."""
    from pairmill.workers.download.calls import DownloadQueue, Outcomes

    rows = work.batch + work.gold_questions
    full = columns(rows, SUCCESS if work.thumbnail else TOO_THIN)
    parts = []
    for first in range(0, rows, work.part):
        positions = list(range(first, min(first + work.part, rows)))
        images = [os.urandom(work.thumbnail)] * len(positions) if work.thumbnail else []
        rest = [column[first : first + work.part] for column in full]
        parts.append(Outcomes(positions, *rest, positions if images else [], images))  # type: ignore[arg-type]
    for dsn in work.dsns:
        queue = DownloadQueue(dsn)
        yield one_of_ours(work, queue, queue.register().instance_id, parts)


def one_of_ours(work: Work, queue: Any, instance: int, parts: list[Any]) -> Callable[[int], int]:
    def batch(wanted: int) -> int:
        taken = time.perf_counter()
        with work.timed("claim"):
            claim = queue.claim(instance)
        assert claim, "there is no task left"
        with work.timed("urls"):
            urls = queue.urls(claim.lease_id)
        work.seconds["take"].append(time.perf_counter() - taken)
        assert len(urls) == wanted + work.gold_questions
        for number, part in enumerate(parts):
            with work.timed("submit"):
                queue.submit_download(claim.lease_id, number, part)
        with work.timed("complete"):
            queue.complete(claim.lease_id)
        return wanted

    return batch


def tablesample(work: Work) -> Iterator[Callable[[int], int]]:
    """LAION's way: a status column, a sample under LIMIT, an UPDATE a row, all in one string."""
    import psycopg

    pick = (
        "update dataset set status = 1 where sampleid in (select sampleid from dataset"
        f" tablesample system ({work.percent}) where status = 0 limit %s"
        " for update skip locked) and status = 0 returning sampleid"
    )
    names = [name for name, _ in RESULTS]
    updates = []
    for row in zip(*columns(work.batch, TOO_THIN), strict=True):
        values = (f"'\\x{v.hex()}'" if isinstance(v, bytes) else f"'{v}'" for v in row)
        sets = ", ".join(f"{n} = {v}" for n, v in zip(names, values, strict=True))
        updates.append(f"update dataset set status = 2, {sets} where sampleid = ")

    def on(connection: Any) -> Callable[[int], int]:
        def batch(wanted: int) -> int:
            with work.timed("take"):
                ids = [str(row[0]) for row in connection.execute(pick, (wanted,))]
                if not ids:
                    return 0
                rows = "select sampleid, url, text, license, language from dataset"
                connection.execute(f"{rows} where sampleid in ({','.join(ids)})").fetchall()
            with work.timed("submit"):
                # several statements in one string are one transaction
                connection.execute(";".join(u + i for u, i in zip(updates, ids, strict=False)))
                rest = "update dataset set status = 9 where status = 1"
                connection.execute(f"{rest} and sampleid in ({','.join(ids)})")
            return len(ids)

        return batch

    for dsn in work.dsns:
        yield on(psycopg.connect(dsn, autocommit=True, prepare_threshold=None))


def per_row(work: Work) -> Iterator[Callable[[int], int]]:
    """A row a URL, picked with SKIP LOCKED; the results in one UPDATE from arrays."""
    import psycopg

    pick = (
        "with picked as materialized (select id from per_row where status = 0 order by id"
        " limit %s for update skip locked) update per_row p set status = 1, taken_at = now()"
        " from picked where p.id = picked.id returning p.id, p.url"
    )
    names = [name for name, _ in RESULTS]
    sets = ", ".join(f"{n} = r.{n}" for n in names)
    arrays = ", ".join(f"%s::{kind}[]" for _, kind in RESULTS).replace("%s::bytea", "%b::bytea")
    # without the status in its WHERE, of which the planner may expect no row: a nested loop
    give = (
        f"update per_row p set status = 2, {sets} from unnest(%s::bigint[], {arrays})"
        f" as r (id, {', '.join(names)}) where p.id = r.id"
    )
    results = columns(work.batch, TOO_THIN)

    def on(connection: Any) -> Callable[[int], int]:
        def batch(wanted: int) -> int:
            with work.timed("take"):
                ids = [row[0] for row in connection.execute(pick, (wanted,))]
            with work.timed("submit"):
                connection.execute(give, (ids, *(column[: len(ids)] for column in results)))
            return len(ids)

        return batch

    for dsn in work.dsns:
        yield on(psycopg.connect(dsn, autocommit=True, prepare_threshold=None))


SIDES = {side.__name__: side for side in (ours, tablesample, per_row)}


# ---- job libraries: a job is a URL, and does nothing --------------------------------------------


def urls(count: int) -> list[str]:
    return [f"https://host{i % 997}.example/images/{i:012}/picture.jpg" for i in range(count)]


async def procrastinate(work: Work, *, fill: bool) -> None:
    """Its own worker, until its queue is empty."""
    import procrastinate as library

    logging.disable(logging.WARNING)
    connector = library.PsycopgConnector(
        conninfo=work.dsns[0], min_size=1, max_size=max(2, len(work.dsns))
    )
    app = library.App(connector=connector)

    @app.task(name="fetch")
    async def fetch(url: str) -> None:
        pass

    async with app.open_async():
        if fill:
            await app.schema_manager.apply_schema_async()
            some = urls(work.urls)
            for first in range(0, len(some), 1000):
                await fetch.batch_defer_async(*({"url": u} for u in some[first : first + 1000]))
            return
        go()
        await app.run_worker_async(
            wait=False, concurrency=work.concurrency, install_signal_handlers=False
        )


async def pgqueuer(work: Work, *, fill: bool) -> None:
    """Its own queue manager, in its mode that ends when the queue is empty."""
    import asyncpg
    from pgqueuer.db import AsyncpgPoolDriver
    from pgqueuer.qm import QueueManager
    from pgqueuer.queries import Queries
    from pgqueuer.types import QueueExecutionMode
    from psycopg.conninfo import conninfo_to_dict

    logging.disable(logging.WARNING)
    server = conninfo_to_dict(work.dsns[0])
    server["database"] = server.pop("dbname")
    async with asyncpg.create_pool(**server, min_size=1, max_size=len(work.dsns)) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        if fill:
            await queries.install()
            some = [url.encode() for url in urls(work.urls)]
            await queries.enqueue(["fetch"] * len(some), some, [0] * len(some))
            return
        manager = QueueManager(queries)

        @manager.entrypoint("fetch")
        async def fetch(job: Any) -> None:
            pass

        go()
        await manager.run(batch_size=work.batch, mode=QueueExecutionMode.drain)


LIBRARIES = {side.__name__: side for side in (procrastinate, pgqueuer)}


# ---- a process ----------------------------------------------------------------------------------


began: list[float] = []  # CPU seconds of this process when the clock started


def go() -> None:
    """All is prepared: wait for the word."""
    print("ready", flush=True)
    sys.stdin.readline()
    began.append(time.process_time())


def run_threads(side: str, work: Work) -> int:
    done: list[int] = []
    failed: list[BaseException] = []

    def client(batch: Callable[[int], int]) -> None:
        try:
            while wanted := work.take():
                done.append(rows := batch(wanted))
                work.give_back(wanted - rows)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=(batch,)) for batch in SIDES[side](work)]
    go()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return sum(done)


def run_library(side: str, work: Work, *, fill: bool) -> int:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(LIBRARIES[side](work, fill=fill))
    return work.urls


def main() -> None:
    side, _, mode = sys.argv[1].partition(":")
    work = Work(**json.loads(sys.argv[2]))
    if side in LIBRARIES:
        rows = run_library(side, work, fill=mode == "fill")
    else:
        rows = run_threads(side, work)
    cpu = time.process_time() - began[0] if began else 0.0
    print(json.dumps({"urls": rows, "cpu_s": cpu, "s": work.seconds}))


if __name__ == "__main__":
    main()
