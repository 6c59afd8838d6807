"""The heartbeat thread and the queue's connection: what keeps a lease, and what loses it."""

import threading
import time

import pytest
from psycopg.conninfo import conninfo_to_dict

from pairmill.workers import heartbeat
from pairmill.workers.daemon import Job
from pairmill.workers.errors import Unreachable
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.heartbeat import Heartbeat
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.queue import Queue
from pairmill.workers.reach import Reach
from support.database import Database
from support.line import wait_until

BEAT = 0.05  # seconds


class Beating:
    """A claimed task with its heartbeat; ``lost`` is set when the heartbeat says so."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.dsn = dsn = db.login("extract")
        self.queue = ExtractQueue(dsn)
        db.add_wat()
        claim = self.queue.claim(self.queue.register().instance_id)
        assert claim
        self.lease = claim.lease_id
        self.job = Job(claim, self.queue, Progress("test", Metrics("download")))
        self.lost = threading.Event()
        self.reach = Reach()
        self.thread = Heartbeat(dsn, self.reach, BEAT)
        self.thread.hold(self.job, self.lost.set)

    def expires(self) -> float:
        return float(
            self.db.value(
                "select extract(epoch from expires_at) from mill.lease where lease_id = %s",
                self.lease,
            )
        )


def sessions(beating: Beating) -> int:
    """The heartbeat's, beside the queue's own."""
    login = conninfo_to_dict(beating.dsn)["user"]
    query = "select count(*) - 1 from pg_stat_activity where usename = %s"
    return int(beating.db.value(query, login))


@pytest.fixture
def beating(db: Database) -> Beating:
    return Beating(db)


def wait_for_beat(beating: Beating, after: float) -> float:
    pause = threading.Event()
    for _ in range(200):
        if (now := beating.expires()) > after:
            return now
        pause.wait(BEAT)
    raise AssertionError("no heartbeat came")


def test_it_beats_while_the_interpreter_is_busy(beating: Beating) -> None:
    before = beating.expires()
    beating.thread.start()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:  # pure Python that never waits, as a parser is
        sum(range(1000))
    assert beating.expires() > before
    beating.thread.stop()
    beating.thread.join()


def test_it_stops_when_the_work_makes_no_progress(
    beating: Beating, monkeypatch: pytest.MonkeyPatch
) -> None:
    beating.thread.start()
    wait_for_beat(beating, beating.expires())
    monkeypatch.setattr(heartbeat, "STALL_SECONDS", 0.0)
    wait_until(lambda: not sessions(beating), "the end of its connection")
    assert not beating.lost.is_set()  # the lease will run out by itself
    monkeypatch.setattr(heartbeat, "STALL_SECONDS", 300.0)
    beating.job.progress(1)
    wait_for_beat(beating, beating.expires())
    beating.thread.stop()


def test_it_says_when_the_lease_is_lost(beating: Beating) -> None:
    beating.db.admin.execute("update mill.lease set expires_at = now()")
    beating.thread.start()
    assert beating.lost.wait(10)
    wait_until(lambda: not sessions(beating), "the end of its connection")
    beating.thread.stop()


def test_it_survives_the_end_of_its_connection(beating: Beating) -> None:
    beating.thread.start()
    before = wait_for_beat(beating, beating.expires())
    end_sessions(beating.db)
    wait_for_beat(beating, before + 0.01)
    assert not beating.lost.is_set()
    beating.thread.stop()
    beating.thread.join()


def end_sessions(db: Database) -> None:
    db.admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )


def test_calls_survive_the_end_of_the_connection(db: Database) -> None:
    queue, instance = db.queue("extract")
    db.add_wat()
    end_sessions(db)
    claim = queue.claim(instance)
    assert claim
    end_sessions(db)
    assert queue.heartbeat(claim.lease_id) > 0
    queue.release(claim.lease_id)


def test_database_that_stays_away_is_unreachable_after_the_patience() -> None:
    queue = Queue("postgresql://x@127.0.0.1:1/x", patience=0.3)
    with pytest.raises(Unreachable, match="cannot reach the database"):
        queue.register()


def test_hurried_queue_gives_up_at_once() -> None:
    queue = Queue("postgresql://x@127.0.0.1:1/x", patience=3600)
    queue.hurry()
    with pytest.raises(Unreachable):
        queue.register()
