"""Claims and leases: one holder at a time, and only the database's clock decides."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.schema.create import create
from pairmill.schema.outcomes import Outcome
from pairmill.workers import daemon
from pairmill.workers.errors import LeaseLost, Malformed, Refused
from pairmill.workers.queue import PROTOCOL, Queue
from support.database import Database, outcomes
from support.line import wait_until


def late(db: Database) -> None:
    db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")


def test_claims_come_in_order_and_once(db: Database) -> None:
    for name in "abc":
        db.add_wat(name)
    locations = [claim.payload["location"] for _ in range(3) if (claim := db.claim("extract"))]
    assert locations == ["a", "b", "c"]
    assert db.claim("extract") is None


def test_concurrent_claimers_share_the_tasks_out(db: Database) -> None:
    for i in range(60):
        db.add_wat(f"{i:02}")
    workers = [db.queue("extract", f"w{i}") for i in range(6)]
    claimed: list[int] = []
    start = threading.Barrier(6)

    def claim(queue: Queue, instance: int) -> None:
        start.wait()
        while found := queue.claim(instance):
            claimed.append(found.task_id)

    threads = [threading.Thread(target=claim, args=worker) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [
        row[0] for row in db.rows("select task_id from mill.task order by 1")
    ]


@pytest.mark.parametrize(
    "plan", ["enable_indexscan", "enable_seqscan", "enable_hashjoin", "enable_nestloop"]
)
def test_a_claim_takes_one_task_under_every_plan(db: Database, plan: str) -> None:
    """IN (subselect) took 1,000 where one was asked for, under some plans."""
    db.admin.execute(
        "select mill.add_wat(null, array(select 'f' || i from generate_series(1, 500) i))"
    )
    db.admin.execute(f"set {plan} = off")
    db.admin.execute("select mill.pick_task('extract', null, 0)")
    assert db.value("select count(*) from mill.task where state = 'leased'") == 1


def test_back_off_is_kept(db: Database) -> None:
    db.add_wat()
    db.admin.execute("update mill.task set ready_at = now() + interval '1 hour'")
    assert db.claim("extract") is None


def test_lease_numbers_rise_and_carry_the_epoch(db: Database) -> None:
    for name in "abc":
        db.add_wat(name)
    first, second = db.claim("extract"), db.claim("extract")
    db.admin.execute("update mill.setting set epoch = epoch + 1")
    db.admin.execute("alter sequence mill.lease_number restart")  # as a restore would
    third = db.claim("extract")
    assert first and second and third
    assert first.lease_id < second.lease_id < third.lease_id
    assert third.lease_id >> 40 == 2


def test_heartbeat_extends_but_not_beyond_the_deadline(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    db.admin.execute("update mill.lease set expires_at = now() + interval '5 s'")
    assert 100 < queue.heartbeat(claim.lease_id) <= 120
    db.admin.execute("update mill.lease set deadline = now() + interval '9 s'")
    assert queue.heartbeat(claim.lease_id) <= 9


def test_late_lease_is_refused_before_anybody_expired_it(db: Database) -> None:
    db.extract(["http://a.example/1.jpg"])
    db.close_batches()
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    late(db)
    for call in (
        lambda: queue.heartbeat(claim.lease_id),
        lambda: queue.urls(claim.lease_id),
        lambda: queue.submit_download(claim.lease_id, 0, outcomes([0], Outcome.TIMEOUT)),
        lambda: queue.complete(claim.lease_id),
        lambda: queue.release(claim.lease_id),
        lambda: queue.fail(claim.lease_id, "x", retry=True),
    ):
        with pytest.raises(LeaseLost):
            call()
    assert db.value("select count(*) from mill.submission where state = 'received'") == 0


def test_late_lease_returns_to_the_queue_and_is_discarded_after_max_attempts(db: Database) -> None:
    db.add_wat()
    steward, _ = db.queue("steward")
    for attempts in range(1, 6):
        assert db.claim("extract")
        assert steward.maintain("expire_leases") == 0
        late(db)
        assert steward.maintain("expire_leases") == 1
        state = "ready" if attempts < 5 else "discarded"
        assert db.rows("select state, attempts from mill.task") == [(state, attempts)]
    assert db.claim("extract") is None
    assert "no heartbeat in time" in db.value("select reason from mill.task")


def test_release_counts_no_try_and_fail_does(db: Database) -> None:
    db.add_wat()
    queue, _ = db.queue("extract")
    claim = db.claim("extract")
    assert claim
    queue.release(claim.lease_id)
    assert db.rows("select state, attempts from mill.task") == [("ready", 0)]
    claim = db.claim("extract")
    assert claim
    queue.fail(claim.lease_id, "the server said 503", retry=True)
    assert db.rows("select state, attempts, reason from mill.task") == [
        ("ready", 1, "the server said 503")
    ]
    assert db.value("select ready_at > now() + interval '20 s' from mill.task")
    db.admin.execute("update mill.task set ready_at = now()")
    claim = db.claim("extract")
    assert claim
    queue.fail(claim.lease_id, "404", retry=False)
    assert db.value("select state from mill.task") == "discarded"


def test_another_workers_lease_is_refused(db: Database) -> None:
    db.extract(["http://a.example/1.jpg"])
    db.close_batches()
    claim = db.claim("download", "ada")
    assert claim
    eve, _ = db.queue("download", "eve")
    for number in (claim.lease_id, claim.lease_id + 1, 0, -1):
        with pytest.raises(LeaseLost):
            eve.heartbeat(number)
        with pytest.raises(LeaseLost):
            eve.submit_download(number, 0, outcomes([0], Outcome.TIMEOUT))
        with pytest.raises(LeaseLost):
            eve.release(number)
    ada, _ = db.queue("download", "ada")
    ada.heartbeat(claim.lease_id)


def test_another_workers_instance_is_refused(db: Database) -> None:
    db.add_wat()
    _, instance = db.queue("extract", "ada")
    eve, _ = db.queue("extract", "eve")
    with pytest.raises(Malformed, match="not this worker's"):
        eve.claim(instance)


def test_a_login_holds_so_many_leases_and_no_more(db: Database) -> None:
    db.admin.execute("update mill.setting set leases_per_worker = 2")
    for name in "abc":
        db.add_wat(name)
    assert db.claim("extract")
    assert db.claim("extract")
    with pytest.raises(Malformed, match="the most that it may"):
        db.claim("extract")


def test_disabled_and_strange_and_old_workers_are_told_so(db: Database) -> None:
    queue, instance = db.queue("extract", "ada")
    # without ending the session, to see that the function refuses too
    db.admin.execute("update mill.worker set disabled_at = now()")
    with pytest.raises(Refused, match="worker ada was disabled by an admin"):
        queue.claim(instance)
    stranger = Queue(db.dsn)
    with pytest.raises(Refused, match="not a worker"):
        stranger.register()
    stranger.close()
    db.admin.execute("update mill.setting set min_protocol = %s", (PROTOCOL + 1,))
    with pytest.raises(Refused, match="upgrade pairmill"):
        db.queue("extract", "old")


def test_disabling_ends_sessions_and_login(db: Database) -> None:
    queue, _ = db.queue("extract", "ada")
    assert db.value("select mill.disable_worker('ada')")
    with pytest.raises(
        Refused, match=r"worker ada was disabled by an admin on .* UTC; ask the admin"
    ):
        queue.register()
    assert not db.value("select mill.disable_worker('nobody')")


def test_parking_ends_the_lease(db: Database) -> None:
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    assert db.value("select mill.discard_task(%s, 'why not')", claim.task_id)
    with pytest.raises(LeaseLost):
        db.queue("extract")[0].heartbeat(claim.lease_id)
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "extract"
    assert db.claim("extract")


def test_drained_means_here_and_upstream(db: Database) -> None:
    queues = {kind: db.queue(kind)[0] for kind in ("extract", "download", "score", "steward")}
    db.add_model()

    def drained() -> list[str]:
        return [kind for kind, queue in queues.items() if queue.drained("d1")]

    assert drained() == ["extract", "download", "score", "steward"]
    db.add_wat()
    assert drained() == []
    db.admin.execute("update mill.task set state = 'discarded'")
    assert drained() == ["extract", "download", "score", "steward"]
    db.extract(["http://a.example/1.jpg"], location="b")
    assert drained() == ["extract"]
    db.close_batches()
    assert drained() == ["extract"]
    db.download()
    assert drained() == ["extract", "download"]
    db.score()
    assert drained() == ["extract", "download", "score"]
    queues["steward"].maintain("empty_slots")
    assert drained() == ["extract", "download", "score", "steward"]


# ---- an outage ----------------------------------------------------------------------------------


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def test_a_restart_that_outlasts_a_lease_counts_no_try(own_server: EmbeddedServer) -> None:
    def connect() -> psycopg.Connection:
        return psycopg.connect(own_server.url())

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    with engine.begin() as connection:
        create(connection)
    db = Database(own_server.url())
    try:
        # so two in a row are excused
        db.admin.execute("update mill.setting set max_attempts = 2, lease_seconds = 1")
        db.add_wat()
        steward, _ = db.queue("steward")
        over = "select bool_and(expires_at <= clock_timestamp()) from mill.lease where ended_at is null"

        def restart() -> None:
            own_server.stop()
            own_server.start()
            db.admin = psycopg.connect(own_server.url(), autocommit=True)

        for _ in range(2):
            claim = db.claim("extract")
            assert claim
            restart()
            wait_until(lambda: db.value(over), "the lease's end")
            with pytest.raises(LeaseLost):
                db.queue("extract")[0].heartbeat(claim.lease_id)
            assert steward.maintain("expire_leases") == 1
            ((state, attempts, reason),) = db.rows("select state, attempts, reason from mill.task")
            assert (state, attempts) == ("ready", 0)
            assert reason == f"lease {claim.lease_id} was lost while the server was away"
        db.admin.execute("update mill.task set excused = 0")
        # whose holder was heard of since is lost as ever
        claim = db.claim("extract")
        assert claim
        db.admin.execute("update mill.lease set expires_at = now() + interval '1 hour'")
        restart()
        db.queue("extract")[0].heartbeat(claim.lease_id)
        wait_until(lambda: db.value(over), "the lease's end")
        assert steward.maintain("expire_leases") == 1
        assert db.rows("select state, attempts, excused from mill.task") == [("ready", 1, 0)]
    finally:
        db.close()


# ---- what a login may fail ----------------------------------------------------------------------


class FullDisk(daemon.WorkerKind[Queue]):
    """A kind of worker, all of whose tasks fail."""

    name = "extract"
    queue_type = Queue

    def digests(self, queue: Queue) -> tuple[None]:
        return (None,)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def work(self, job: daemon.Job[Queue]) -> None:
        raise OSError(28, "No space left on device")


def test_a_worker_that_only_fails_ends_with_a_sentence_and_parks_nothing(
    db: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    db.admin.execute("update mill.setting set unfinished_per_hour = 5")
    for i in range(8):
        db.add_wat(f"{i}.wat")
    with pytest.raises(Malformed, match="5 leases of this login were failed, lost or given back"):
        daemon.run(partial(daemon.serve, FullDisk(), db.login("extract", "full"), drain=True))
    assert "No space left on device" in capsys.readouterr().err
    assert db.rows("select state, attempts, count(*) from mill.task group by 1, 2 order by 2") == [
        ("ready", 0, 3), ("ready", 1, 5),
    ]  # fmt: skip
    assert db.value("select count(*) from mill.lease where ended_at is null") == 0
    assert db.claim("extract", "ada")  # others go on


def test_work_that_is_done_is_no_failure(db: Database) -> None:
    db.admin.execute("update mill.setting set unfinished_per_hour = 1")
    for i in range(3):
        db.extract([f"http://a.example/{i}.jpg"], f"{i}.wat")
    assert db.value("select count(*) from mill.lease where ended_as = 'completed'") == 3


def test_a_process_that_claimed_nothing_gives_its_number_to_the_next(db: Database) -> None:
    db.add_wat("a")
    db.add_wat("b")
    queue, first = db.queue("extract", "ada")
    assert queue.register().instance_id == first
    assert queue.claim(first)
    second = queue.register().instance_id
    assert second != first
    assert queue.register().instance_id == second
    _, stranger = db.queue("extract", "bob")
    assert stranger not in (first, second)
    assert queue.claim(second)
