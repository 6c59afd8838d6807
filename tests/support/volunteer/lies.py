"""False results, and work that is held back."""

import hashlib

import psycopg
import pytest

from pairmill.schema.outcomes import Outcome, ScoreOutcome
from support.database import outcomes, outcomes_of
from support.hostile_login import (
    BOUNDED,
    OPEN,
    Cases,
    OnSession,
    Stage,
    state_of,
    value,
)

CASES = Cases()
case = CASES.case


@case(
    "false outcomes",
    BOUNDED,
    "replicas of samples, by others: a worker that is found wrong is stopped",
)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 0 where name = 'eve-volunteer'")
    queue, lease = s.lease()
    lies = [hashlib.sha256(bytes([n])).digest() for n in range(8)]
    queue.submit_download(lease, 0, outcomes_of(range(8), lies))
    queue.complete(lease)
    assert len(s.db.accept_all()) == 1
    bob, check = OnSession(s.bob), s.claim(s.bob, s.bob_instance)
    bob.submit_download(check, 0, outcomes([n for n, _ in bob.urls(check)]))
    bob.complete(check)
    assert len(s.db.accept_all()) == 1
    s.db.queue("steward")[0].maintain("judge_replications")
    assert state_of(s.eve, f"select * from api.claim_v1({s.eve_instance})") == "PM002"
    assert s.db.value("select count(*) from mill.current_download") == 0


@case(
    "holding replicas, failing them, or reporting only time-outs, so that others stay unchecked",
    BOUNDED,
    "one replica at a time, for half an hour at the most, and none for an hour after one that came to nothing",
)
def _(s: Stage) -> None:
    s.batches(3)
    for _ in range(3):
        s.db.download()
    s.admin.execute("update mill.worker set streak = 0 where name like '%volunteer'")
    s.admin.execute(
        "update mill.task set is_replica = true, state = 'ready', positions = '{0,1,2,3,4}', attempt = 2, avoid_workers = '{}'"
        " where kind = 'download'"
    )
    held = s.claim(s.eve, s.eve_instance)
    claim = f"select count(*) from api.claim_v1({s.eve_instance})"
    assert value(s.eve, claim) == 0
    assert s.db.value(
        "select max(deadline - claimed_at) < interval '31 minutes' from mill.lease where ended_at is null"
    )
    s.eve.execute("select api.fail_v1(%s, 'x', false)", (held,))
    assert value(s.eve, claim) == 0
    assert s.db.value("select count(*) from mill.task where is_replica and state = 'ready'") == 3
    assert s.claim(s.bob, s.bob_instance)


@case(
    "rolling back the end of a task until no replication of it is drawn",
    BOUNDED,
    "the draw: it comes out the same every time",
)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 11 where name = 'eve-volunteer'")
    queue, lease = s.lease()
    queue.submit_download(lease, 0, outcomes(range(8)))
    s.db.accept_all()
    drawn = set()
    inserted = "select n_tup_ins from pg_stat_xact_all_tables where relname = 'replication'"
    for _ in range(100):
        s.eve.execute("begin")
        before = value(s.eve, inserted)  # of transactions before, which are summed up once a second
        queue.complete(lease)
        drawn.add(value(s.eve, inserted) - before)
        s.eve.execute("rollback")
    assert len(drawn) == 1


@case(
    "an open transaction over its own tasks, while a replication of them is judged",
    BOUNDED,
    "its own replication: the steward goes on after a second, and its session is ended",
)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 0 where name = 'eve-volunteer'")
    s.batches(1)
    queue, lease = s.lease()
    queue.submit_download(
        lease, 0, outcomes_of(range(8), [hashlib.sha256(bytes([n])).digest() for n in range(8)])
    )
    queue.complete(lease)
    s.db.accept_all()
    other = s.claim(s.eve, s.eve_instance)
    s.db.download()
    s.eve.execute("begin")
    s.eve.execute("select api.release_v1(%s)", (other,))
    steward = s.db.queue("steward")[0]
    assert steward.maintain("judge_replications") == 0
    assert steward.maintain("judge_replications") == 1
    assert s.db.value("select stopped_because from mill.worker where name = 'eve-volunteer'")


@case("telling gold questions from URLs by rolling back a submission of each", OPEN)
def _(s: Stage) -> None:
    s.admin.execute("update mill.worker set streak = 0 where name = 'eve-volunteer'")
    s.admin.execute("update mill.setting set batch_size = 20, gold_questions_per_lease = 1")
    s.admin.execute(
        "insert into mill.gold_question (url, by_admin) values ('http://c.example/', true)"
    )
    s.db.extract([f"http://d.example/{n}.jpg" for n in range(20)], "gold.wat")
    s.db.close_batches()
    lease = s.claim(s.eve, s.eve_instance)
    queue = OnSession(s.eve)
    found = []
    for n, url in queue.urls(lease):
        s.eve.execute("begin")
        queue.submit_download(lease, n, outcomes([n], Outcome.TIMEOUT))
        if value(s.eve, "select rows_waiting from api.me_v1()") == 0:
            found.append(url)
        s.eve.execute("rollback")
    assert found == ["http://c.example/"]


@case(
    "a false thumbnail with a true hash",
    BOUNDED,
    "its scoring",
)
def _(s: Stage) -> None:
    queue, lease = s.lease()
    queue.submit_download(lease, 0, outcomes(range(8), Outcome.SUCCESS, b"another image"))
    queue.complete(lease)
    s.db.accept_all()
    assert s.db.value("select count(*) from mill.current_download where outcome = 0") == 8
    # what a scorer says then; tests/integration/models/test_score_pipeline.py has that it does
    s.db.add_model()
    s.db.admin.execute("select mill.queue_scoring(0, 1::smallint, 1)")
    claim = s.db.claim("score", digest="d1")
    assert claim
    scorer, _ = s.db.queue("score")
    wrong = int(ScoreOutcome.WRONG_THUMBNAIL)
    scorer.copy_scores([(claim.lease_id, 0, n, wrong, None, None, None, 5) for n in range(8)])
    scorer.submit_score(claim.lease_id, 0, 8)
    s.db.accept_all()
    assert s.db.rows("select worker, thumbnails, wrong from report.wrong_thumbnail") == [
        ("eve-volunteer", 8, 8)
    ]
    # what an admin does then
    s.admin.execute("select mill.quarantine_worker('eve-volunteer', null, 'it lied')")
    assert s.db.value("select count(*) from mill.current_download") == 0
    assert (
        s.db.value("select count(*) from mill.task where kind = 'download' and state = 'ready'")
        == 1
    )


@case(
    "discarding every download task, one after another",
    BOUNDED,
    "unfinished_per_hour (200): then it claims nothing for an hour",
)
def _(s: Stage) -> None:
    assert s.db.value("select unfinished_per_hour from mill.setting") == 200
    s.admin.execute("update mill.setting set unfinished_per_hour = 6, leases_per_worker = 6")
    s.batches(10)
    fail = "select api.fail_v1(%s, 'x', false)"
    for _ in range(3):
        s.eve.execute(fail, (s.claim(s.eve, s.eve_instance),))
    # nor does it help to lose a lease, to give one back, or to have claimed before
    s.claim(s.eve, s.eve_instance)
    s.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    assert s.db.queue("steward")[0].maintain("expire_leases") == 1
    held = [s.claim(s.eve, s.eve_instance) for _ in range(2)]
    s.eve.execute("select api.release_v1(%s)", (s.claim(s.eve, s.eve_instance),))
    s.eve.execute(fail, (held[0],))
    for instance in (s.eve_instance, s.register(s.session(s.eve_dsn))):
        with pytest.raises(
            psycopg.Error, match="6 leases of this login were failed, lost or"
        ) as refused:
            s.claim(s.eve, instance)
        assert refused.value.sqlstate == "PM003"
    s.eve.execute(fail, (held[1],))  # what it holds it may still hand back
    assert s.db.rows(
        "select state, count(*) from mill.task where kind = 'download' group by 1 order by 1"
    ) == [("discarded", 5), ("ready", 5)]
    assert s.claim(s.bob, s.bob_instance)
    s.admin.execute("update mill.lease set ended_at = ended_at - interval '1 hour'")
    assert s.claim(s.eve, s.eve_instance)


@case(
    "filling the ring of thumbnails with discarded tasks, so that nobody can claim",
    BOUNDED,
    "the steward's next round",
)
def _(s: Stage) -> None:
    s.db.add_model()
    # 8 slots: 8 tasks here, 512 with 64 a slot
    s.admin.execute("update mill.setting set batches_per_slot = 1")
    steward = s.db.queue("steward")[0]
    ready = "select count(*) from mill.task where kind = 'download' and state = 'ready'"
    s.batches(18)
    for submits in (False, True):
        for _ in range(8):
            lease = s.claim(s.eve, s.eve_instance)
            if submits:
                OnSession(s.eve).submit_download(lease, 0, outcomes([0]))
            s.eve.execute("select api.fail_v1(%s, 'x', false)", (lease,))
        s.db.accept_all()
        assert s.db.value(ready) == (2 if submits else 10)
        assert s.bob.execute("select * from api.claim_v1(%s)", (s.bob_instance,)).fetchall() == []
        steward.maintain("empty_slots")
        lease = s.claim(s.bob, s.bob_instance)
        s.bob.execute("select api.release_v1(%s)", (lease,))
        s.admin.execute("update mill.task set slot = null where state = 'ready'")
        s.admin.execute("update mill.thumbnail_slot set state = 'empty', batches = 0")
