"""Transactions of a volunteer's that stay open."""

from typing import LiteralString, cast

import psycopg
import pytest

from pairmill.schema.outcomes import Outcome
from support.database import outcomes
from support.hostile_login import (
    BLOCKED,
    BOUNDED,
    BUSY,
    IDLE,
    Cases,
    OnSession,
    Stage,
    state_of,
    value,
)

CASES = Cases()
case = CASES.case


@case("an open transaction after claim_v1", BOUNDED, "one slot of the ring: others get another")
def _(s: Stage) -> None:
    s.batches(2)
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin")
    s.claim(s.eve, s.eve_instance)
    assert s.claim(s.impatient(s.bob_dsn), s.bob_instance) > 0
    s.eve.execute("rollback")


@case(
    "an open transaction that holds its own rows, against `pairmill worker disable`",
    BOUNDED,
    "its sessions are ended first",
)
def _(s: Stage) -> None:
    s.batches()
    admin = s.impatient(s.db.dsn)
    password = s.session(s.eve_dsn)
    password.execute("begin")
    password.execute(cast(LiteralString, f"alter role {s.names['me']} password 'x'"))
    assert state_of(admin, f"alter role {s.names['me']} nologin") == BLOCKED
    s.eve.execute("begin")
    s.claim(s.eve, s.eve_instance)
    assert value(admin, "select mill.disable_worker('eve-volunteer')") is True


@case(
    "an open transaction after heartbeat_v1, once the lease is late",
    BOUNDED,
    "its own lease: the steward passes over it",
)
def _(s: Stage) -> None:
    _, lease = s.lease()
    beat, soon = "", 0.02
    while beat != "00000":  # on a machine that is busy, a little later
        s.admin.execute(
            "update mill.lease set expires_at = clock_timestamp() + make_interval(secs => %s) where lease_id = %s",
            (soon, lease),
        )
        s.eve.execute("begin")
        beat = state_of(s.eve, f"select api.heartbeat_v1({lease})")  # locks the lease, not the task
        if beat != "00000":
            s.eve.execute("rollback")
        soon *= 2
    # others see what was committed, which is late when those 20 ms are over: some statements' time
    while not s.db.value(
        "select expires_at < clock_timestamp() from mill.lease where lease_id = %s", lease
    ):
        pass
    steward = s.impatient(s.db.login("steward", "impatient"))
    assert value(steward, "select api.expire_leases_v1()") == 0
    s.eve.execute("rollback")
    assert value(steward, "select api.expire_leases_v1()") == 1


@case(
    "an open transaction after urls_v1: a migration waits",
    BOUNDED,
    IDLE,
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    s.eve.execute("begin")
    queue.urls(lease)
    admin = s.impatient(s.db.dsn)
    for table in ("task", "pair", "download"):
        admin.execute("begin")
        assert state_of(admin, f"lock table mill.{table} in access exclusive mode") == BLOCKED
        admin.execute("rollback")
    s.watchdog()
    admin.execute("begin")
    assert state_of(admin, "lock table mill.task in access exclusive mode") == "00000"
    admin.execute("rollback")


@case(
    "an open transaction over a task with a submission",
    BOUNDED,
    "its own task: others' submissions are accepted",
)
def _(s: Stage) -> None:
    s.batches(2)
    eves, lease = OnSession(s.eve), s.claim(s.eve, s.eve_instance)
    bobs, theirs = OnSession(s.bob), s.claim(s.bob, s.bob_instance)
    eves.submit_download(lease, 0, outcomes([0], Outcome.TIMEOUT))
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin")
    eves.urls(lease)  # locks the task
    bobs.submit_download(theirs, 0, outcomes(range(8), Outcome.TIMEOUT))
    bobs.complete(theirs)
    steward = s.impatient(s.db.login("steward", "impatient"))
    assert steward.execute("select row_count from api.accept_next_v1()").fetchall() == [(8,)]
    assert steward.execute("select * from api.accept_next_v1()").fetchall() == []
    s.eve.execute("rollback")
    assert len(s.db.accept_all()) == 1


@case(
    "an open transaction over a task: its lease does not end",
    BOUNDED,
    IDLE,
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    s.eve.execute("begin")
    queue.urls(lease)
    # as if two minutes had passed: its lease's row is not locked, its task's is
    s.admin.execute(
        "update mill.lease set expires_at = now() - interval '1 second' where lease_id = %s",
        (lease,),
    )
    steward = s.db.queue("steward")[0]
    assert steward.maintain("expire_leases") == 0
    s.watchdog()
    assert steward.maintain("expire_leases") == 1


@case(
    "an open transaction: no row that died since can be vacuumed away",
    BOUNDED,
    IDLE,
)
def _(s: Stage) -> None:
    s.eve.execute("set idle_in_transaction_session_timeout = 0")
    s.eve.execute("begin isolation level repeatable read")
    s.eve.execute("select 1")
    s.admin.execute("update mill.setting set retry_seconds = 31")
    horizon = "select age(backend_xmin) from pg_stat_activity where pid = %s"
    before = s.db.value(horizon, s.eve.info.backend_pid)
    s.admin.execute("update mill.setting set retry_seconds = 30")
    assert s.db.value(horizon, s.eve.info.backend_pid) > before
    s.watchdog()
    assert s.db.value(horizon, s.eve.info.backend_pid) is None


@case("an open transaction that is never idle for long", BOUNDED, BUSY)
def _(s: Stage) -> None:
    s.eve.execute("begin isolation level repeatable read")
    s.eve.execute("select 1")
    s.watchdog(600, 0)


@case("a COPY of its own result that it does not read", BOUNDED, BUSY)
def _(s: Stage) -> None:
    # more than the sockets hold: the server waits for the reader, and says that it is active
    rows = "copy (select repeat('x', 10000) from generate_series(1, 10000)) to stdout"
    with pytest.raises(psycopg.OperationalError), s.eve.cursor() as c, c.copy(rows) as copy:
        s.watchdog(600, 0)
        for _ in copy:
            pass
