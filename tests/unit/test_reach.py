"""What is an outage of the database, and what is said of it."""

import psycopg
import pytest

from pairmill.workers import heartbeat, progress, reach
from pairmill.workers.metrics import Metrics
from pairmill.workers.outage_lines import OutageLines
from pairmill.workers.progress import Progress
from pairmill.workers.queue import Claim
from pairmill.workers.reach import PROBE, WORK, Outage, Reach
from pairmill.workers.steward import watchdog
from pairmill.workers.steward.summary import Summary
from pairmill.workers.tally import Tally, counted, lasting


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def failed(known: Reach, error: Exception, who: str = WORK, *, served: bool = True) -> None:
    with pytest.raises(type(error)), known.asking(who, served=served):
        raise error


@pytest.mark.parametrize(
    ("error", "served", "reason"),
    [
        (psycopg.OperationalError("connection failed: Connection refused\n\tIs it there?"), True, "Connection refused"),
        (psycopg.errors.ProtocolViolation("server login has been failing"), True, "server login has been failing"),
        (psycopg.OperationalError("FATAL:  the database system is starting up"), True, "starting up"),
        (psycopg.OperationalError("FATAL:  sorry, too many clients already"), True, "too many clients"),
        (psycopg.errors.AdminShutdown("terminating connection"), True, "terminating connection"),
        (psycopg.errors.DiskFull("could not extend file"), True, "could not extend file"),
        # in the middle of a restore; of one that never served the worker it is an answer
        (psycopg.errors.InvalidSchemaName('schema "api" does not exist'), True, "no schema api now"),
        (psycopg.errors.InvalidSchemaName('schema "api" does not exist'), False, None),
        (psycopg.errors.InsufficientPrivilege("permission denied for schema api"), True, "no rights now"),
        (psycopg.OperationalError('FATAL:  database "x" does not exist'), True, "does not exist"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE"), True, "read-only now"),
        # a server that works
        (psycopg.errors.DeadlockDetected("deadlock detected"), True, None),
        (psycopg.errors.QueryCanceled("statement timeout"), True, None),
        (psycopg.errors.CheckViolation("a row that an inbox does not take"), True, None),
    ],
)  # fmt: skip
def test_errors_that_are_an_outage_and_answers_that_are_none(
    error: psycopg.Error, served: bool, reason: str | None
) -> None:
    clock = Clock()
    known = Reach(clock)
    failed(known, error, served=served)
    assert known.outage() is None  # one broken connection is none
    clock.now += 3
    found = known.outage()
    if reason is None:
        assert found is None
        return
    assert found
    assert reason in found.sentence
    assert "the database does not answer since" in found.sentence
    assert found.seconds == 3
    with known.asking():
        pass
    assert known.outage() is None


def test_a_call_that_waits_is_no_outage_and_a_probe_that_waits_is() -> None:
    """A merge holds the work's own connection for minutes; a server that was stopped answers
    nobody."""
    clock = Clock()
    known = Reach(clock)
    with known.asking(WORK):
        clock.now += 600
        assert known.outage() is None
        with known.asking(PROBE):
            clock.now += reach.PROBE_SECONDS - 0.1
            assert known.outage() is None
            clock.now += 0.2
            assert (found := known.outage())
            assert found.seconds == pytest.approx(reach.PROBE_SECONDS + 0.1)
            with known.asking("another"):  # anything that is answered ends it
                pass
            assert known.outage() is None


def test_a_probe_that_is_answered_does_not_speak_for_the_work() -> None:
    """A server that takes no work answers `select 1`."""
    clock = Clock()
    known = Reach(clock)
    failed(known, psycopg.errors.InvalidSchemaName("x"), WORK)
    failed(known, psycopg.OperationalError("x"), PROBE)
    with known.asking(PROBE):
        pass
    clock.now += 3
    assert known.outage()
    failed(known, psycopg.OperationalError("x"), PROBE)
    with known.asking(WORK):
        pass
    clock.now += 3
    assert known.outage() is None


def test_an_outage_is_said_within_ten_seconds_whoever_looks() -> None:
    """The sum of the times that pass at most until its line: silence, the probe's turn, its
    answer, the look of the progress line."""
    rest = reach.PROBE_SECONDS + progress.LOOK_SECONDS
    assert heartbeat.SILENT_SECONDS + heartbeat.LOOK_SECONDS + rest < 10
    assert watchdog.EVERY_SECONDS + rest < 10
    assert heartbeat.ANSWER_SECONDS >= reach.PROBE_SECONDS  # else it breaks before it is known


class Away:
    """What is watched by the lines."""

    name = "database"
    back = "the database answers again"
    advice = "wait"

    def __init__(self) -> None:
        self.found: Outage | None = None

    def outage(self) -> Outage | None:
        return self.found


def test_an_outage_has_a_line_at_its_begin_one_a_minute_and_one_at_its_end() -> None:
    clock, away, said = Clock(), Away(), list[str]()
    lines = OutageLines(away, said.append, clock)
    for second in range(165):
        away.found = Outage(0.0, second, "it is away since 12:00:00")
        clock.now += 1
        lines.look()
    away.found = None
    lines.look()
    lines.look()
    assert said == [
        "it is away since 12:00:00; wait",
        "it is away since 12:00:00; for 60 s now",
        "it is away since 12:00:00; for 120 s now",
        "the database answers again, after 164 s",
    ]


def test_the_live_line_has_the_rate_of_the_last_seconds_and_none_in_an_outage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """158/s stood there for 164 s of which nothing was done."""
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    shown = Progress("download bob", Metrics("download"))
    shown.begin(Claim(1, 5, {"batch_id": 7}))
    for second in range(1, 61):
        clock.now += 0.5
        shown.update(min(second, 30) * 100, 10_000, "URLs")
        shown._done.append((clock.now, shown._now))
        if second == 30:
            assert shown.line == "task 5: batch 7: 3,000 of 10,000 URLs, 200/s"
    assert shown.line == "task 5: batch 7: 3,000 of 10,000 URLs, 0/s"
    shown._outages = ["the database does not answer since 12:00:00: refused"]
    assert shown.line == (
        "task 5: batch 7: 3,000 of 10,000 URLs; the database does not answer since 12:00:00: refused"
    )


def test_a_steward_sums_up_once_a_minute_and_at_its_end() -> None:
    clock, said = Clock(), list[str]()
    summary = Summary(said.append, clock=clock)
    for second in range(130):
        clock.now += 1
        summary.accepted((second, "download", 150, None))
        summary.changed("sweep_inbox", 5)
        summary.look()
    summary.accepted((200, "score", 10, "a NaN"))
    summary.changed("expire_leases", 1)
    summary.changed("close_batches", 2)
    summary.changed("empty_slots", -1)
    summary.end()
    assert said == [
        "in 60 s: accepted download 9,000 rows in 60 submissions",
        "in 60 s: accepted download 9,000 rows in 60 submissions",
        "submission 200 (score) rejected: a NaN",
        "in 10 s: accepted download 1,500 rows in 10 submissions; rejected 1 score; 1 lease expired;"
        " 2 batches closed",
        "ends after 130 s: accepted download 19,500 rows in 130 submissions; rejected 1 score;"
        " 1 lease expired; 2 batches closed",
    ]
    quiet = list[str]()
    Summary(quiet.append, clock=clock).end()
    assert quiet == []


def test_a_verbose_steward_says_each() -> None:
    said = list[str]()
    summary = Summary(said.append, verbose=True)
    summary.accepted((1, "extract", 1_500, None))
    summary.changed("empty_slots", 2)
    summary.end()
    assert said[:2] == ["submission 1 accepted: extract, 1,500 rows", "2 slots emptied"]
    assert len(said) == 3


def test_numbers_as_words() -> None:
    assert counted({"http_error": 1, "success": 3_000}) == "3,000 success, 1 http error"
    assert counted({str(i): 10 - i for i in range(10)}, first=2) == "10 0, 9 1, 36 others"
    assert [lasting(s) for s in (0.25, 164, 700, 11_100)] == [
        "0.2 s",
        "164 s",
        "12 min",
        "3 h 5 min",
    ]
    tally = Tally()
    assert tally.sentence() == ""
    tally.tasks.update(done=2, failed=1)
    tally.rows.update(success=5)
    assert tally.sentence() == "2 tasks done, 1 task failed; 5 success"
