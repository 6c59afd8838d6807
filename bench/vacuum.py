"""What fillfactor and autovacuum's settings do for the tables of the queue, by counts.

    python bench/vacuum.py [--quick] [--json] [--cycles 400] [--history 20000]

A server of its own (embedded; its settings are printed), a new database for each candidate. A cycle
is a file's whole way through the real functions, one call after another: an extraction of 20 links
(claim, three heartbeats, COPY, submit, accept), its batch (close, claim, urls, three heartbeats,
submit, complete, accept), its scoring, and a claim that is released. --history: done tasks, with a
lease and a submission each, from before: a share of a table is only large where the table is.
autovacuum_naptime is 1 s instead of a minute, for a cycle takes milliseconds and not minutes.

queue: of each table what was updated and how much of that HOT; dead rows at the end and how often
autovacuum came; kB of heap and of indexes that it grew by; blocks of mill.task and its indexes that
a claim with its release touched at the end (of 200). Counts of updates do not depend on the clock,
those of autovacuum do. Milliseconds of a claim: p50/p99.

held: live leases, each beaten ten times, at several fillfactors. rows: a partition of mill.download
that is filled and vacuumed three times, with or without a checkpoint before each vacuum, and then as
anti-wraparound vacuum does it: WAL bytes a row of each, and what share of its pages was frozen before.
ring: a slot of thumbnails of 8 KB, filled in five steps, each left to autovacuum for 4 s.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, LiteralString, cast

import psycopg
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from own_server import machine, note, own_server, percentiles, restart, show

from support.database import Database, new_database, outcomes, pair_rows, score_rows

TABLES = (
    "mill.task", "mill.lease", "mill.submission", "mill.batch", "mill.worker", "mill.instance",
    "mill.thumbnail_slot", "mill.crawl_count", "mill.submission_download",
    "mill.submission_extract", "inbox.pair", "inbox.score",
)  # fmt: skip
LINKS = 20
AUTOVACUUM_SECONDS = 4.0
NO_INSERT_VACUUM = (
    "autovacuum_vacuum_insert_threshold = -1, toast.autovacuum_vacuum_insert_threshold = -1"
)
PLAIN = ("mill.task", "mill.lease", "mill.submission", "mill.batch", "mill.crawl_count")
SMALL = ("mill.worker", "mill.thumbnail_slot", "mill.crawl_count")


def settings(tables: tuple[str, ...], **given: object) -> list[str]:
    values = ", ".join(f"{name} = {value}" for name, value in given.items())
    return [f"alter table {table} set ({values})" for table in tables]


OFTEN: dict[str, object] = {
    "autovacuum_vacuum_scale_factor": 0.02,
    "autovacuum_vacuum_threshold": 500,
}
CANDIDATES: dict[str, list[str]] = {
    "plain": [f"alter table {t} reset (fillfactor, autovacuum_vacuum_scale_factor,"
              " autovacuum_vacuum_threshold)" for t in PLAIN],
    "as it is": [],
    "fillfactor 50": settings((*PLAIN, *SMALL), fillfactor=50),
    "vacuum at 2 %": settings(PLAIN[:3], **OFTEN),
    "vacuum at 2 %, no pause": settings(PLAIN[:3], autovacuum_vacuum_cost_delay=0, **OFTEN),
}  # fmt: skip


def fill(db: Database, history: int) -> None:
    """Work that was done before."""
    for kind in ("extract", "download", "score", "steward"):
        db.queue(kind)
    db.add_model()
    db.admin.execute(
        "update mill.setting set batch_size = %s, open_batches_max = 1, unfinished_per_hour = 1000000",
        (LINKS,),
    )
    db.admin.execute(
        "insert into mill.wat_file (location) select 'before-' || n from generate_series(1, %s) n",
        (history,),
    )
    db.admin.execute("insert into mill.task (kind, state, wat_id) select 'extract', 'done', wat_id from mill.wat_file order by 3")  # fmt: skip
    db.admin.execute(
        "insert into mill.lease (lease_id, task_id, instance_id, expires_at, deadline, ended_at, ended_as)"
        " select nextval('mill.lease_number') + (1::bigint << 40), task_id, 1, now(), now(), now(), 'completed' from mill.task"
    )
    db.admin.execute(
        "insert into mill.submission (task_id, lease_id, part, worker_id, state, row_count, decided_at)"
        " select task_id, lease_id, 0, 1, 'accepted', 1, now() from mill.lease"
    )


def cycle(db: Database, number: int, seconds: list[float]) -> None:
    """A file's way through all that there is."""

    def claim(kind: str, digest: str | None = None) -> tuple[Any, int]:
        begun = time.perf_counter()
        found = db.claim(kind, digest=digest)
        seconds.append(time.perf_counter() - begun)
        assert found
        queue, _ = db.queue(kind)
        for _ in range(3):
            queue.heartbeat(found.lease_id)
        return queue, found.lease_id

    db.add_wat(f"{number}.wat")
    queue, lease = claim("extract")
    urls = [f"http://h.example/{number}/{n}.jpg" for n in range(LINKS)]
    queue.copy_pairs(pair_rows(lease, urls))
    queue.submit_extract(lease, LINKS, [("image", "links", "", LINKS), ("", "records", "", 1)])
    db.accept_all()
    db.close_batches()
    queue, lease = claim("download")
    queue.release(lease)
    queue, lease = claim("download")
    queue.submit_download(lease, 0, outcomes([n for n, _ in queue.urls(lease)]))
    queue.complete(lease)
    db.accept_all()
    queue, lease = claim("score", "d1")
    queue.copy_scores(score_rows(lease, 0, [n for n, *_ in queue.thumbnails(lease, 0, LINKS)]))
    queue.submit_score(lease, 0, LINKS)
    queue.complete(lease)
    db.accept_all()
    if number % 16 == 0:
        db.queue("steward")[0].maintain("empty_slots")


def blocks_of_a_claim(db: Database) -> float:
    """Of mill.task and its indexes, with the release."""
    counted = "select heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read from pg_statio_user_tables where relid = 'mill.task'::regclass"
    db.add_wat("last.wat")
    queue, instance = db.queue("extract")
    flush(db)
    before = db.value(counted)
    for _ in range(200):
        claim = queue.claim(instance)
        assert claim
        queue.release(claim.lease_id)
    flush(db)
    return round((db.value(counted) - before) / 200, 1)


def flush(db: Database) -> None:
    """Let what the backends counted be seen: they report once they are idle for long enough."""
    for queue, _ in db._queues.values():
        queue._rows("select pg_stat_force_next_flush()", ())
        queue._rows("select 1", ())
    db.admin.execute("select pg_stat_force_next_flush()")


def sizes(db: Database, table: str) -> tuple[int, int]:
    """kB of the heap with its TOAST table, and of the indexes."""
    row = db.rows("select pg_table_size(%s::regclass) / 1024, pg_indexes_size(%s::regclass) / 1024", table, table)  # fmt: skip
    return int(row[0][0]), int(row[0][1])


def run(server: str, name: str, cycles: int, history: int) -> list[dict[str, Any]]:
    with new_database(server) as db:
        for statement in CANDIDATES[name]:
            db.admin.execute(cast(LiteralString, statement))
        fill(db, history)
        db.admin.execute("vacuum (analyze)")
        before = {table: sizes(db, table) for table in TABLES}
        seconds: list[float] = []
        begun = time.perf_counter()
        for number in range(cycles):
            cycle(db, number, seconds)
        took = time.perf_counter() - begun
        flush(db)
        found = []
        for table in TABLES:
            ((updated, hot, dead, visits),) = db.rows(
                "select n_tup_upd, n_tup_hot_upd, n_dead_tup, autovacuum_count"
                "  from pg_stat_user_tables where relid = %s::regclass",
                table,
            )
            heap, indexes = (
                now - then for now, then in zip(sizes(db, table), before[table], strict=True)
            )
            found.append({
                "settings": name, "table": table, "updated": updated,
                "hot": f"{100 * hot / updated:.0f} %" if updated else "-", "dead": dead,
                "autovacuum": visits, "heap_kb": heap, "index_kb": indexes,
            })  # fmt: skip
        claim = {"claim_ms": percentiles(seconds), "cycles_per_s": round(cycles / took, 1)}
        found[0] |= claim | {"blocks_a_claim": blocks_of_a_claim(db)}
        return found


def wal_of(admin: psycopg.Connection[Any], work: Callable[[], object]) -> int:
    def at() -> Any:
        row = admin.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row
        return row[0]

    begun = at()
    work()
    return int(at() - begun)


def partition(server: str, rows: int, options: str, *, checkpoints: bool) -> dict[str, Any]:
    """A partition that is filled in three steps, with a vacuum after each; and the last vacuum."""
    with new_database(server) as db:
        name = "mill.download_b000000"
        db.admin.execute(
            cast(LiteralString, f"alter table {name} reset (autovacuum_freeze_min_age)")
        )
        if options:
            db.admin.execute(cast(LiteralString, f"alter table {name} set ({options})"))
        freeze_at = db.value("select coalesce((select option_value from pg_options_to_table((select reloptions from pg_class where oid = %s::regclass)) where option_name = 'autovacuum_freeze_min_age'), current_setting('vacuum_freeze_min_age'))", name)  # fmt: skip

        def vacuum() -> None:
            # by hand, since autovacuum's own options are not VACUUM's
            db.admin.execute(cast(LiteralString, f"set vacuum_freeze_min_age = {freeze_at}"))
            db.admin.execute(cast(LiteralString, f"vacuum {name}"))

        inserted = vacuumed = 0
        for step in range(3):
            statement = (
                f"insert into {name} select b, n, 1, 45, 200, 6000, 640, 480, md5('b' || n)::uuid,"
                f" sha256(n::text::bytea), n, 1 from generate_series({step}, {step}) b, generate_series(1, {rows // 3}) n"
            )
            inserted += wal_of(
                db.admin, lambda s=statement: db.admin.execute(cast(LiteralString, s))
            )  # type: ignore[misc]
            if checkpoints:  # as with minutes between: pages are logged whole again
                db.admin.execute("checkpoint")
            vacuumed += wal_of(db.admin, vacuum)
        frozen = db.value("select relallfrozen::float / relpages from pg_class where oid = %s::regclass", name)  # fmt: skip
        db.admin.execute("checkpoint")
        later = wal_of(
            db.admin, lambda: db.admin.execute(cast(LiteralString, f"vacuum (freeze) {name}"))
        )
        return {
            "partition": options or "PostgreSQL's defaults", "checkpoints": "yes" if checkpoints else "no", "insert_wal": round(inserted / rows, 1), "vacuum_wal": round(vacuumed / rows, 1),
            "frozen_before": f"{100 * frozen:.0f} %", "freeze_wal": round(later / rows, 1),
        }  # fmt: skip


def ring(server: str, thumbnails: int, options: str) -> dict[str, Any]:
    """A slot that is filled in five steps, each followed by a checkpoint and by autovacuum."""
    with new_database(server) as db:
        name = "mill.thumbnail_s0"
        db.admin.execute(
            cast(
                LiteralString,
                f"alter table {name} reset (autovacuum_vacuum_insert_threshold, toast.autovacuum_vacuum_insert_threshold)",
            )
        )
        if options:
            db.admin.execute(cast(LiteralString, f"alter table {name} set ({options})"))
        image = os.urandom(8192)
        inserted = afterwards = 0

        def fill_step(step: int) -> None:
            db.admin.execute(
                cast(
                    LiteralString,
                    f"insert into {name} select 0, %s, n, 1, 1, %s from generate_series(1, %s) n",
                ),
                (step, image, thumbnails // 5),
            )

        for step in range(5):
            inserted += wal_of(db.admin, lambda step=step: fill_step(step))  # type: ignore[misc]
            db.admin.execute("select pg_stat_force_next_flush()")
            db.admin.execute("checkpoint")
            afterwards += wal_of(db.admin, lambda: time.sleep(AUTOVACUUM_SECONDS))
        visits = db.value(
            "select sum(s.autovacuum_count) from pg_class c join pg_stat_all_tables s on s.relid in (c.oid, c.reltoastrelid)"
            " where c.oid = %s::regclass",
            name,
        )
        return {
            "ring": options or "PostgreSQL's defaults", "thumbnails": thumbnails, "autovacuum": int(visits),
            "insert_wal_mb": round(inserted / 1e6, 1), "autovacuum_wal_mb": round(afterwards / 1e6, 1),
        }  # fmt: skip


def held(server: str, leases: int, fillfactor: int) -> dict[str, Any]:
    """So many live leases, each beaten ten times: what of it was HOT."""
    with new_database(server) as db:
        db.admin.execute(
            cast(LiteralString, f"alter table mill.lease set (fillfactor = {fillfactor})")
        )
        db.admin.execute("update mill.setting set leases_per_worker = 100000")
        db.admin.execute(
            "select mill.add_wat(null, array(select 'f' || n from generate_series(1, %s) n))",
            (leases,),
        )
        queue, _ = db.queue("extract")
        claims = [claim for _ in range(leases) if (claim := db.claim("extract"))]
        assert len(claims) == leases
        db.admin.execute("vacuum analyze mill.lease")
        before = sizes(db, "mill.lease")
        for _ in range(10):
            for claim in claims:
                queue.heartbeat(claim.lease_id)
        flush(db)
        ((updated, hot),) = db.rows("select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relid = 'mill.lease'::regclass")  # fmt: skip
        heap, indexes = (
            now - then for now, then in zip(sizes(db, "mill.lease"), before, strict=True)
        )
        return {
            "fillfactor": fillfactor, "leases": leases, "beats": updated, "hot": f"{100 * hot / updated:.0f} %",
            "heap_kb": heap, "index_kb": indexes, "heap_kb_before": before[0],
        }  # fmt: skip


def main(
    cycles: Annotated[int, typer.Option(help="Files that go through.")] = 400,
    history: Annotated[int, typer.Option(help="Done tasks from before.")] = 20_000,
    quick: Annotated[bool, typer.Option("--quick", help="Within a minute.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print what each candidate did."""
    if quick:
        cycles, history = 60, 2_000
    with own_server() as (server, _):
        restart(server, autovacuum_naptime="1s")
        url = server.url()
        result = machine(url) | {"cycles": cycles, "history": history}
        result["queue"] = []
        for name in CANDIDATES:
            result["queue"] += run(url, name, cycles, history)
            note(name)
        rows = 9_000 if quick else 300_000
        result["held"] = [held(url, rows // 600, share) for share in (100, 95, 90, 70, 50)]
        note("held")
        result["rows"] = [
            partition(url, rows, options, checkpoints=checkpoints)
            for checkpoints in (True, False) for options in ("", "autovacuum_freeze_min_age = 0")
        ]  # fmt: skip
        note("rows")
        result["ring"] = [ring(url, rows // 30, options) for options in ("", NO_INSERT_VACUUM)]
    show(result, as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
