"""Leases that are lost in an outage count no attempt; those that a worker loses do."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import LiteralString, cast

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.ops.server.programs import Programs
from pairmill.workers.errors import LeaseLost, Unreachable
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.queue import Claim
from pairmill.workers.steward.calls import StewardQueue
from support.database import Database, make_schema
from support.line import Wire, wait_until

LOST = "select bool_and(expires_at <= clock_timestamp()) from mill.lease where ended_at is null"
AT = "(pg_postmaster_start_time() + interval '1 hour')"
TASKS = "select state, attempts, excused, count(*) from mill.task group by 1, 2, 3 order by 1, 2, 3"


def hold(db: Database, **counts: int) -> dict[str, list[Claim]]:
    """So many leases of each login of this name."""
    for n in range(sum(counts.values())):
        db.add_wat(f"{n}.wat")
    held: dict[str, list[Claim]] = {}
    for name, count in counts.items():
        claims = [db.claim("extract", name) for _ in range(count)]
        held[name] = [claim for claim in claims if claim]
        assert len(held[name]) == count
    return held


def seen(db: Database, name: str, seconds_ago: float, *, at: str = AT) -> None:
    """As if a worker had been heard of so long before ``at``, last, and had claimed long ago."""
    db.admin.execute(
        cast(
            LiteralString,
            f"update mill.lease l set claimed_at = {at} - interval '1000 s', deadline = {at} + interval '1 day',"
            f" expires_at = {at} + make_interval(secs => lease_seconds - %s)"
            "  from mill.instance i join mill.worker w using (worker_id) cross join mill.setting"
            " where i.instance_id = l.instance_id and w.name = %s and l.ended_at is null",
        ),
        (seconds_ago, name),
    )


def end(db: Database, name: str, how: str, seconds_ago: float) -> None:
    db.admin.execute(
        cast(
            LiteralString,
            f"update mill.lease l set ended_as = %s, ended_at = {AT} - make_interval(secs => %s)"
            "  from mill.instance i join mill.worker w using (worker_id)"
            " where i.instance_id = l.instance_id and w.name = %s and l.ended_at is null",
        ),
        (how, seconds_ago, name),
    )


def cut_off(db: Database) -> set[str]:
    """Who is excused at the moment AT: an hour ahead, since the server has just been started."""
    query = f"select name from mill.worker where worker_id = any (mill.cut_off({AT}))"
    return {name for (name,) in db.rows(query)}


def expire(db: Database) -> int:
    return db.queue("steward")[0].maintain("expire_leases")


# ---- who is excused -----------------------------------------------------------------------------


def test_most_silent_at_once_is_an_outage(db: Database) -> None:
    """They come late one after another, since each had its last heartbeat at another time."""
    hold(db, ada=2, bob=1, eve=1)
    for first, second, third, late in (
        (121, 110, 95, {"ada"}), (131, 121, 105, {"bob"}), (146, 135, 120, {"eve"}),
        (300, 290, 275, {"ada", "bob", "eve"}),  # found late
    ):  # fmt: skip
        for name, ago in (("ada", first), ("bob", second), ("eve", third)):
            seen(db, name, ago)
        if late == {"bob"}:
            end(db, "ada", "expired", 10)
        elif late == {"eve"}:
            end(db, "bob", "expired", 14)
        elif len(late) == 3:
            db.admin.execute("update mill.lease set ended_at = null, ended_as = null")
            seen(db, "ada", first)
            seen(db, "bob", second)
        assert cut_off(db) == late


def test_who_is_back_before_the_steward_looks_was_cut_off_too(db: Database) -> None:
    hold(db, ada=2, bob=1, eve=1)
    for name in ("ada", "bob", "eve"):
        seen(db, name, 300)
    old = db.value("select max(lease_id) from mill.lease")
    for n in range(2):
        db.add_wat(f"new-{n}.wat")
    assert db.claim("extract", "ada")
    assert db.claim("extract", "bob")
    db.admin.execute(
        f"update mill.lease set claimed_at = {AT} - interval '60 s', expires_at = {AT} + interval '60 s' where lease_id > %s",
        (old,),
    )
    assert cut_off(db) == {"ada", "bob", "eve"}


@pytest.mark.parametrize(
    ("case", "heard"),
    [
        ("a crash among workers that are heard", {"bob": 5, "eve": 20, "kim": 29}),
        ("half of the others are heard", {"bob": 5, "eve": 119, "kim": 20, "joe": 119}),
        ("one other only", {"bob": 119}),
        ("others died long before", {"bob": 190, "eve": 190}),
        ("most others died long before, and one is heard", {"bob": 190, "eve": 190, "kim": 5}),
    ],
)
def test_a_crash_is_no_outage(db: Database, case: str, heard: dict[str, float]) -> None:
    hold(db, ada=5, **dict.fromkeys(heard, 1))
    seen(db, "ada", 121)
    for name, ago in heard.items():
        seen(db, name, ago)
    assert "ada" not in cut_off(db)


def test_a_login_with_many_leases_is_one_login(db: Database) -> None:
    """Even if all its processes die at once; and alone it proves nothing about others."""
    hold(db, ada=20, bob=1)
    for name in ("ada", "bob"):
        seen(db, name, 121)
    assert cut_off(db) == set()


def test_who_fails_or_gives_back_is_heard(db: Database) -> None:
    hold(db, ada=1, bob=1, eve=1)
    for how, cut in (("failed", set()), ("released", set()), ("expired", {"ada"})):
        db.admin.execute("update mill.lease set ended_at = null, ended_as = null")
        for name, ago in (("ada", 121), ("bob", 110), ("eve", 110)):
            seen(db, name, ago)
        for name in ("bob", "eve"):
            end(db, name, how, 30)
        assert cut_off(db) == cut


def test_the_deadline_is_no_outage(db: Database) -> None:
    hold(db, ada=1, bob=1, eve=1)
    for name in ("ada", "bob", "eve"):
        seen(db, name, 121)
    assert cut_off(db) == {"ada", "bob", "eve"}
    db.admin.execute("update mill.lease set deadline = expires_at")
    assert cut_off(db) == set()


def test_a_task_is_excused_max_attempts_times_and_then_counts(db: Database) -> None:
    """One that takes the machine of all workers down with it looks like an outage each time."""
    db.admin.execute("update mill.setting set max_attempts = 2, lease_seconds = 1")
    hold(db, ada=1, bob=1, eve=1)
    for expected in ((0, 1), (0, 2), (1, 2), (2, 2)):
        if expected != (0, 1):
            assert all(db.claim("extract", name) for name in ("ada", "bob", "eve"))
        for name in ("ada", "bob", "eve"):
            seen(db, name, 2, at="now()")
        assert expire(db) == 3
        assert set(db.rows("select attempts, excused from mill.task")) == {expected}
    assert db.value("select bool_and(state = 'discarded') from mill.task")
    db.admin.execute("select mill.retry_task(task_id) from mill.task")
    assert set(db.rows("select attempts, excused from mill.task")) == {(0, 0)}


# ---- real ones ----------------------------------------------------------------------------------


def beat_all(db: Database) -> None:
    """As if all had beaten just now: on a busy machine the claims themselves take seconds."""
    db.admin.execute(
        "update mill.lease set expires_at = now() + make_interval(secs => lease_seconds)"
        " from mill.setting where ended_at is null"
    )


@pytest.fixture
def wire(db: Database) -> Iterator[Wire]:
    with closing(Wire(int(str(conninfo_to_dict(db.dsn)["port"])))) as wire:
        yield wire


def through(db: Database, wire: Wire, name: str) -> ExtractQueue:
    """A worker's queue whose connection goes through the wire; ``db.claim`` finds it by the name."""
    dsn = make_conninfo(db.login("extract", name), host="127.0.0.1", port=wire.port)
    queue = ExtractQueue(dsn, patience=0.2)
    db._queues[name] = queue, queue.register().instance_id
    return queue


def test_a_network_that_is_cut(db: Database, wire: Wire) -> None:
    """The steward is beside the server; the workers are not."""
    db.admin.execute("update mill.setting set max_attempts = 1, lease_seconds = 2")
    queues = {name: through(db, wire, name) for name in ("ada", "bob", "eve", "kim")}
    held = hold(db, ada=3, bob=1, eve=1, kim=1)
    beat_all(db)
    wire.cut()
    with pytest.raises(Unreachable):
        queues["ada"].heartbeat(held["ada"][0].lease_id)
    expired: list[int] = []
    wait_until(lambda: expired.append(expire(db)) or sum(expired) == 6, "the leases' end")  # type: ignore[func-returns-value]
    assert db.rows(TASKS) == [("ready", 0, 1, 6)]
    wire.mend()
    with pytest.raises(LeaseLost):
        queues["ada"].heartbeat(held["ada"][0].lease_id)
    again = db.claim("extract", "ada")
    assert again
    assert queues["ada"].heartbeat(again.lease_id) > 0


def test_one_workers_network_that_is_cut(db: Database, wire: Wire) -> None:
    db.admin.execute("update mill.setting set max_attempts = 1, lease_seconds = 6")
    through(db, wire, "ada")
    held = hold(db, ada=3, bob=1, eve=1, kim=1)
    wire.cut()
    others = [(db.queue("extract", n)[0], held[n][0].lease_id) for n in ("bob", "eve", "kim")]
    expired: list[int] = []

    def look() -> bool:
        for queue, lease in others:
            queue.heartbeat(lease)
        expired.append(expire(db))
        return sum(expired) == 3

    wait_until(look, "the leases' end")
    assert db.rows(TASKS) == [("discarded", 1, 0, 3), ("leased", 0, 0, 3)]


def standby_of(server: EmbeddedServer, home: Path) -> EmbeddedServer:
    """A hot standby that streams from it, in a folder of its own."""
    home.mkdir()
    known = json.loads((server._home / "server.json").read_text())
    (home / "server.json").write_text(json.dumps(known))
    data = home / "postgres"
    data.mkdir(mode=0o700)
    programs = Programs(home)
    if programs.user:  # root's server is another user's
        for path in (home, data):
            os.chown(path, programs.user.pw_uid, programs.user.pw_gid)
    subprocess.run(
        programs.command(
            "pg_basebackup", "--pgdata", str(data), "--checkpoint", "fast",
            "--write-recovery-conf", "--dbname", server.url(),
        ),
        check=True,
    )  # fmt: skip
    standby = EmbeddedServer(home)
    standby.start()  # its port is taken: on another
    return standby


def test_a_failover_to_a_standby(tmp_path: Path) -> None:
    """The new server has been up for longer than any lease: its start says nothing."""
    primary = EmbeddedServer(tmp_path / "primary")
    primary.start()
    standby: EmbeddedServer | None = None
    try:
        make_schema(primary.url())
        standby = standby_of(primary, tmp_path / "standby")
        db = Database(primary.url())
        db.admin.execute("update mill.setting set max_attempts = 1, lease_seconds = 2")
        hold(db, ada=3, bob=1, eve=1)
        beat_all(db)
        sent = db.value("select pg_current_wal_lsn()")
        with psycopg.connect(standby.url(), autocommit=True) as other:
            db.queue("steward")
            replayed = "select pg_last_wal_replay_lsn() >= %s"
            wait_until(
                lambda: other.execute(replayed, (sent,)).fetchone() == (True,), "the standby"
            )
            db.admin.close()
            primary.stop()
            wait_until(lambda: other.execute(LOST).fetchone() == (True,), "the leases' end")
            other.execute("select pg_promote()")
        db.admin = psycopg.connect(standby.url(), autocommit=True)
        assert db.value(
            "select bool_and(pg_postmaster_start_time() < claimed_at) from mill.lease where ended_at is null"
        )
        moved = make_conninfo(
            db.queue("steward")[0]._dsn, port=conninfo_to_dict(standby.url())["port"]
        )
        steward = StewardQueue(moved)
        assert steward.maintain("expire_leases") == 5
        steward.close()
        assert db.rows(TASKS) == [("ready", 0, 1, 5)]
        db.close()
    finally:
        for server in (standby, primary):
            if server:
                server.stop()
