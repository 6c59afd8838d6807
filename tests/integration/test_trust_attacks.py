"""What somebody who knows all of this attempts, and what happens to two at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pairmill.ops.admin import migrate
from pairmill.schema.outcomes import Outcome
from pairmill.workers.queue import Claim
from support.crowd import Crowd, batches, honest, lazy, liar, new_crowd, reply
from support.database import Database, outcomes
from support.line import wait_until

WAITING = "select count(*) > 0 from pg_locks where not granted"
WAITING_FOR_LONG = "select count(*) > 0 from pg_locks where not granted and waitstart < clock_timestamp() - interval '5 s'"
RETRY = "select urls from mill.retry_outcomes(null, 0, 1000, true)"


@pytest.fixture
def crowd(db: Database) -> Crowd:
    """Ada, bob, eve and mia; one task of 40 URLs."""
    return new_crowd(db, "ada", "bob", "eve", "mia")


def session(crowd: Crowd, kind: str, name: str | None = None) -> psycopg.Connection[Any]:
    """A worker's own connection, with nothing committed until it says so."""
    return psycopg.connect(crowd.db.queue(kind, name)[0]._dsn)


@contextmanager
def meanwhile(crowd: Crowd, work: Callable[[], Any], waits: bool) -> Iterator[Future[Any]]:
    """Something begun beside what the block does, once it waits or is done."""
    pool = ThreadPoolExecutor()
    future = pool.submit(work)
    wait_until(lambda: future.done() or crowd.db.value(WAITING), "it to wait or to end")
    if not waits:
        # longer than the second that lock_timeout grants
        wait_until(lambda: future.done() or crowd.db.value(WAITING_FOR_LONG), "it to end")
        assert future.done(), "it waits for what an open transaction holds"
    yield future
    pool.shutdown()


def claimed(crowd: Crowd, name: str) -> Claim:
    claim = crowd.db.claim("download", name)
    assert claim is not None
    return claim


def left_of(crowd: Crowd, name: str) -> int:
    """Rows of a worker's that count."""
    return int(
        crowd.db.value(
            "select count(*) from mill.current_download join mill.submission using (submission_id)"
            " join mill.worker using (worker_id) where name = %s",
            name,
        )
    )


def part(crowd: Crowd, name: str, claim: Claim, count: int, manner: Any) -> None:
    """So many of a claim's URLs are handed over, and the claim is given back."""
    queue, _ = crowd.db.queue("download", name)
    queue.submit_download(claim.lease_id, 0, reply(queue.urls(claim.lease_id)[:count], manner))
    queue.release(claim.lease_id)
    crowd.db.accept_all()
    crowd.db.admin.execute("update mill.task set ready_at = now()")


# ---- what a failed check takes back ----------------------------------------------------------------


def test_a_failed_check_takes_its_task_back_though_a_later_one_agreed(crowd: Crowd) -> None:
    batches(crowd.db, 1)
    crowd.work("ada", liar("!"))
    crowd.work("ada")
    check = claimed(crowd, "bob")
    assert crowd.work("eve") is not None
    assert crowd.judge() == ["open", "agreed"]
    crowd.finish("bob", check, honest)
    crowd.judge()
    crowd.work("eve")
    assert crowd.judge() == ["failed", "agreed"]
    assert crowd.of("ada", "disabled_at") is not None
    assert left_of(crowd, "ada") == 0


def test_a_check_of_who_was_disabled_meanwhile_takes_back_all_the_same(crowd: Crowd) -> None:
    crowd.work("ada", liar("!"))
    crowd.db.admin.execute("update mill.worker set disabled_at = now() where name = 'ada'")
    for name in ("bob", "eve"):
        crowd.work(name)
        states = crowd.judge()
    assert states == ["failed"]
    assert left_of(crowd, "ada") == 0
    assert crowd.of("ada", "stopped_because") is None  # an admin did it


def test_an_admins_quarantine_has_others_check_what_it_found_right(crowd: Crowd) -> None:
    crowd.work("ada", liar("!"))
    crowd.work("bob", liar("!"))
    assert crowd.judge() == ["agreed"]
    for _ in range(2):  # once, however often it is asked for
        crowd.db.admin.execute("select mill.quarantine_worker('bob', null, 'it lied')")
    assert crowd.judge() == ["agreed", "open"]
    crowd.work("eve")
    crowd.judge()
    crowd.work("mia")
    assert crowd.judge() == ["agreed", "failed"]


def test_no_url_is_lost_when_an_attempt_and_a_part_of_the_next_are_taken_back(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("update mill.setting set replicated_urls = 0")
    crowd.work("ada", lazy)
    assert db.value(RETRY) == 40
    part(crowd, "bob", claimed(crowd, "bob"), 20, lazy)
    # twice: bob's part while ada's row counts, and then ada's
    for name in ("bob", "ada"):
        db.admin.execute("select mill.quarantine_worker(%s, null, 'it lied')", (name,))
        db.admin.execute("update mill.worker set disabled_at = now() where name = %s", (name,))
    while crowd.work("eve"):
        pass
    assert left_of(crowd, "eve") == 40


# ---- whose word it is ------------------------------------------------------------------------------


def test_a_liars_part_of_a_repeat_is_not_the_word_of_who_finished_it(crowd: Crowd) -> None:
    crowd.db.admin.execute("select mill.prove_worker('bob', true)")
    crowd.work("ada")
    part(crowd, "eve", claimed(crowd, "eve"), 19, liar("!"))
    crowd.work("bob")
    assert crowd.judge() == ["agreed"]
    assert crowd.of("ada", "agreement") == 1


def test_nobody_is_blamed_for_anothers_part_of_a_repeat(crowd: Crowd) -> None:
    crowd.work("ada")
    part(crowd, "eve", claimed(crowd, "eve"), 19, liar("!"))
    crowd.work("bob")
    while "disputed" in crowd.judge():
        assert crowd.work("mia")
    assert crowd.of("bob", "streak") == 0
    assert crowd.of("bob", "agreement") == 1
    assert crowd.of("bob", "disabled_at") is None


def test_most_of_a_repeat_is_counted_in_rows_and_not_in_parts(crowd: Crowd) -> None:
    crowd.work("ada")
    part(crowd, "eve", claimed(crowd, "eve"), 15, honest)
    queue, _ = crowd.db.queue("download", "bob")
    claim = claimed(crowd, "bob")
    given = queue.urls(claim.lease_id)
    for number in range(3):
        queue.submit_download(
            claim.lease_id, number, reply(given[number * 10 : number * 10 + 10], honest)
        )
    crowd.finish("bob", claim, honest) if len(given) > 30 else queue.complete(claim.lease_id)
    crowd.db.accept_all()
    repeat = "select mill.replicated_by(task_id) from mill.task where is_replica"
    assert crowd.db.value(repeat) == crowd.of("bob", "worker_id")


def test_nothing_is_not_repeated(crowd: Crowd) -> None:
    """Who answered gold questions only has nothing that could be checked."""
    db = crowd.db
    claim = claimed(crowd, "bob")
    db.admin.execute(
        "insert into mill.submission (task_id, lease_id, part, worker_id, row_count)"
        " values (%s, %s, 7, %s, 0)",
        (claim.task_id, claim.lease_id, crowd.of("bob", "worker_id")),
    )
    db.admin.execute(
        "insert into mill.submission_download select submission_id, '{}', '{}', '{}', '{}', '{}',"
        " '{}', '{}', '{}', '{}', '{}', '{}' from mill.submission"
    )
    db.accept_all()
    db.queue("download", "bob")[0].release(claim.lease_id)
    crowd.work("ada")
    assert db.rows("select cardinality(positions) from mill.task where is_replica") == [(40,)]


# ---- nobody chooses whether it is checked ------------------------------------------------------------


def inserted(worker: psycopg.Connection[Any]) -> int:
    query = "select n_tup_ins from pg_stat_xact_all_tables where relname = 'replication'"
    row = worker.execute(query).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize("streak", [11, 0])  # drawn once in eleven tasks, and always
def test_a_worker_cannot_draw_again_by_rolling_back(crowd: Crowd, streak: int) -> None:
    """What a transaction has inserted, its session sees in pg_stat_xact_all_tables."""
    queue, _ = crowd.db.queue("download", "ada")
    crowd.db.admin.execute("update mill.worker set streak = %s where name = 'ada'", (streak,))
    claim = claimed(crowd, "ada")
    queue.submit_download(claim.lease_id, 0, reply(queue.urls(claim.lease_id), honest))
    crowd.db.accept_all()
    drawn = set()
    with session(crowd, "download", "ada") as ada:
        for _ in range(150):
            # what was rolled back is counted too, until the session tells the server, once a second
            before = inserted(ada)
            ada.execute("select api.complete_v1(%s)", (claim.lease_id,))
            drawn.add(inserted(ada) - before)
            ada.rollback()
    assert len(drawn) == 1


def test_the_draw_is_as_likely_as_it_should_be(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("update mill.worker set streak = 20 where name = 'ada'")
    crowd.work("ada")
    drawn = "select count(*) filter (where mill.is_drawn(20, now() + i * interval '1.234567 s', 7, i)) from generate_series(1, 20000) i"
    assert 850 < db.value(drawn) < 1150


# ---- two at once, and open transactions ----------------------------------------------------------------


def test_an_open_claim_holds_no_judgement_up(crowd: Crowd) -> None:
    crowd.work("ada")
    crowd.work("bob")
    batches(crowd.db, 1)
    with session(crowd, "download", "ada") as ada:
        ada.execute(
            "select api.claim_v1(%s)", (crowd.db.queue("download", "ada")[1],)
        )  # and is never committed
        with meanwhile(crowd, crowd.judge, waits=False) as judged:
            assert judged.result() == ["agreed"]
        ada.rollback()


def test_what_the_stopped_one_holds_locked_waits_for_the_next_round(crowd: Crowd) -> None:
    assert migrate.secure(crowd.db.admin)
    batches(crowd.db, 2)
    crowd.work("ada", liar("!"))
    crowd.db.admin.execute("select mill.prove_worker('bob', true)")
    held = claimed(crowd, "ada")
    crowd.work("bob")
    with session(crowd, "download", "ada") as ada:
        ada.execute("select api.release_v1(%s)", (held.lease_id,))
        with meanwhile(crowd, crowd.judge, waits=False) as judged:
            assert judged.result() == ["open"]
        with pytest.raises(psycopg.OperationalError):  # its sessions are ended, as by the watchdog
            ada.execute("select 1")
        ada.close()
    assert crowd.judge() == ["failed"]
    assert crowd.of("ada", "stopped_because") is not None
    assert crowd.db.value("select count(*) from mill.lease where ended_at is null") == 0


def test_one_steward_judges_at_a_time(crowd: Crowd) -> None:
    crowd.work("ada", liar("!"))
    crowd.db.admin.execute("select mill.prove_worker('bob', true)")
    crowd.work("bob")
    crowd.db.queue("steward", "other")
    with session(crowd, "steward", "other") as other:
        assert other.execute("select api.judge_replications_v1()").fetchone() == (1,)
        with meanwhile(crowd, crowd.judge, waits=False) as judged:
            assert judged.result() == ["open"]
        other.commit()
    assert crowd.db.rows("select state from mill.replication") == [("failed",)]
    assert left_of(crowd, "ada") == 0


def test_a_judgement_and_a_retry_take_no_number_twice(crowd: Crowd) -> None:
    crowd.work("ada", lambda url: lazy(url) if url.endswith("0.jpg?1") else honest(url))
    crowd.work("bob", liar("?"))
    assert crowd.db.value("select count(*) from mill.task where is_replica") == 1
    crowd.db.admin.execute("update mill.download set outcome = 24 where n = 0 and attempt = 1")
    with psycopg.connect(crowd.db.dsn) as admin:
        assert admin.execute(RETRY).fetchone() == (1,)
        with meanwhile(crowd, crowd.judge, waits=True) as judged:
            admin.commit()
        judged.result()
    while "disputed" not in crowd.judge():
        pass
    assert crowd.db.rows("select attempt from mill.task where kind = 'download' order by 1") == [
        (1,), (2,), (3,), (4,),
    ]  # fmt: skip


def test_gold_questions_in_an_open_transaction_hold_nobody_up(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute(
        "insert into mill.gold_question (url, by_admin, answers) values ('http://c.example/1', false, 3)"
    )
    batches(db, 1)
    ada, bob = db.queue("download", "ada")[0], db.queue("download", "bob")[0]
    first, second = claimed(crowd, "ada"), claimed(crowd, "bob")
    given = {
        q: [n for n, url in q.urls(c.lease_id) if "//c." in url]
        for q, c in ((ada, first), (bob, second))
    }
    assert [len(n) for n in given.values()] == [1, 1]
    with session(crowd, "download", "ada") as held:
        held.execute(
            "select api.submit_download_v1(%s, 0, %s, '{24}', '{null}', '{null}', '{null}', '{null}',"
            " '{null}', '{null}', '{null}', '{null}', '{null}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
            (first.lease_id, given[ada]),
        )

        def others() -> int:
            bob.submit_download(second.lease_id, 0, outcomes(given[bob], Outcome.TIMEOUT))
            return db.queue("steward")[0].maintain("sweep_gold_questions")

        with meanwhile(crowd, others, waits=False) as done:
            assert done.result() == 0
        held.commit()
    assert db.queue("steward")[0].maintain("sweep_gold_questions") == 1


# ---- checks are no attempts at a URL --------------------------------------------------------------------


def test_checks_put_no_retry_off(crowd: Crowd) -> None:
    db = crowd.db
    db.admin.execute("update mill.setting set replicated_urls = 0")
    crowd.work("ada", lazy)
    db.admin.execute(
        "insert into mill.task (kind, batch_id, attempt, positions, is_replica, state, changed_at)"
        " select 'download', batch_id, i, '{0}', true, 'done', now() + interval '1 day'"
        " from mill.batch, generate_series(2, 60) i where pair_count > 0"
    )
    db.admin.execute(RETRY.replace("true", "false"))
    assert db.value(
        "select bool_and(ready_at <= now() + interval '6 hours') from mill.task where state = 'ready'"
    )


def test_what_checks_tried_and_what_was_taken_back_was_not_tried(crowd: Crowd) -> None:
    db = crowd.db
    for name in ("ada", "bob", "eve"):
        crowd.work(name, lazy)
        crowd.judge()
    assert db.value("select max(x.n) from (select count(*) as n from mill.download group by batch_id, download.n) x") > 1  # fmt: skip
    db.admin.execute("update mill.setting set url_attempts = 2")
    assert db.value(RETRY) == 40


# ---- who keeps others unchecked -----------------------------------------------------------------------


def more_checks(crowd: Crowd, count: int) -> None:
    """So many tasks of ada's that are to be repeated."""
    batches(crowd.db, count - 1)
    for _ in range(count):
        assert crowd.work("ada")
    assert crowd.db.value("select count(*) from mill.task where is_replica") == count


def check_of(crowd: Crowd, name: str) -> Claim | None:
    claim = crowd.db.claim("download", name)
    if claim:
        is_replica = "select is_replica from mill.task where task_id = %s"
        assert crowd.db.value(is_replica, claim.task_id)
    return claim


def test_a_login_has_one_check_at_a_time(crowd: Crowd) -> None:
    more_checks(crowd, 3)
    first = check_of(crowd, "bob")
    assert first
    assert check_of(crowd, "bob") is None
    assert check_of(crowd, "eve")
    crowd.finish("bob", first, honest)
    assert check_of(crowd, "bob")


def test_an_open_transaction_has_one_check_too(crowd: Crowd) -> None:
    more_checks(crowd, 3)
    with session(crowd, "download", "bob") as bob:
        claim = "select count(*) from api.claim_v1(%s)"
        instance = crowd.db.queue("download", "bob")[1]
        assert [bob.execute(claim, (instance,)).fetchone() for _ in range(2)] == [(1,), (0,)]
        assert check_of(crowd, "eve")
        bob.rollback()


def test_a_check_is_not_held_for_six_hours(crowd: Crowd) -> None:
    more_checks(crowd, 2)
    check_of(crowd, "bob")
    assert crowd.db.rows(
        "select deadline - claimed_at < interval '31 minutes' from mill.lease where ended_at is null"
    ) == [(True,)]


@pytest.mark.parametrize("how", ["released", "failed", "lost"])
def test_who_gives_a_check_back_gets_none_for_an_hour(crowd: Crowd, how: str) -> None:
    db = crowd.db
    more_checks(crowd, 2)
    queue, _ = db.queue("download", "bob")
    claim = check_of(crowd, "bob")
    assert claim
    if how == "released":
        queue.release(claim.lease_id)
    elif how == "failed":
        queue.fail(claim.lease_id, "no", retry=False)
    else:
        db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
        db.queue("steward")[0].maintain("expire_leases")
    db.admin.execute("update mill.task set ready_at = now()")
    assert db.value("select state from mill.task where task_id = %s", claim.task_id) == "ready"
    assert check_of(crowd, "bob") is None
    other = check_of(crowd, "eve")
    assert other
    assert other.task_id == claim.task_id
    batches(db, 1)
    assert db.claim("download", "bob")  # but of all else there is
    db.admin.execute("update mill.lease set ended_at = ended_at - interval '61 minutes'")
    assert check_of(crowd, "bob")


def test_an_admins_own_worker_may_give_checks_back(crowd: Crowd) -> None:
    more_checks(crowd, 2)
    crowd.db.admin.execute("select mill.prove_worker('bob', true)")
    for _ in range(2):
        claim = check_of(crowd, "bob")
        assert claim
        crowd.db.queue("download", "bob")[0].release(claim.lease_id)


def test_a_friend_whose_fetches_time_out_ends_no_check(crowd: Crowd) -> None:
    """Ada lies, and bob says of each of her checks that it was his own line."""
    crowd.work("ada", liar("!"))
    crowd.work("bob", lazy)
    assert crowd.judge() == ["void", "open"]
    assert check_of(crowd, "bob") is None
    for name in ("eve", "mia"):
        assert crowd.work(name)
        states = crowd.judge()
    assert states == ["void", "failed"]
    assert left_of(crowd, "ada") == 0


def test_a_friend_in_a_dispute_ends_it_neither(crowd: Crowd) -> None:
    crowd.work("ada", liar("!"))
    crowd.work("eve")
    assert crowd.judge() == ["disputed"]
    crowd.work("bob", lazy)
    assert crowd.judge() == ["void", "open"]
    crowd.work("mia")
    while crowd.judge()[-1] == "disputed":
        assert crowd.work("eve") or crowd.work("bob")
    assert left_of(crowd, "ada") == 0


def test_a_check_is_tried_three_times(crowd: Crowd) -> None:
    crowd.work("ada")
    for name in ("bob", "eve", "mia"):
        crowd.work(name, lazy)
        states = crowd.judge()
    assert states == ["void"] * 3


def test_what_is_dead_for_two_is_not_asked_again(crowd: Crowd) -> None:
    for name in ("ada", "bob"):
        crowd.work(name, lambda url: (Outcome.HTTP_ERROR, ""))
    assert crowd.judge() == ["void"]
