"""Whatever honest workers, a liar and an idler do, and are found to do: each URL counts once, and no lie of any size.

PAIRMILL_STATES_EXAMPLES=1000 runs the state machine for long, and at random.
"""

import os
import sys
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pairmill.workers.download.calls import DownloadQueue
from pairmill.workers.errors import LeaseLost, Malformed, Refused
from support.crowd import Crowd, Manner, honest, lazy, liar, reply, sha256
from support.database import Database
from support.states import BROKEN, Arrow, arrows_of_the_page, walked
from support.template import Template

# as BROKEN
UNTRUE = """
select 'a row of a check counts', d.batch_id
  from mill.current_download d join mill.task t on t.kind = 'download' and t.batch_id = d.batch_id and t.attempt = d.attempt
 where t.is_replica
union all
select 'a check has a thumbnail, a slot or a score task', t.task_id
  from mill.task t
 where t.is_replica
   and (t.slot is not null
        or exists (select from mill.thumbnail h where h.batch_id = t.batch_id and h.attempt = t.attempt)
        or exists (select from mill.task s where s.kind = 'score' and s.batch_id = t.batch_id and s.attempt = t.attempt))
union all
select 'a lease of who is stopped is live', l.lease_id
  from mill.lease l join mill.instance i using (instance_id) join mill.worker w on w.worker_id = i.worker_id
 where l.ended_at is null and w.stopped_because is not null
union all
select 'an assignment outlives its lease', a.lease_id
  from mill.assignment a join mill.lease l using (lease_id) where l.ended_at is not null
union all
select 'a gold question is a pair', p.batch_id from mill.pair p join mill.gold_question c using (url) where c.by_admin
union all
select 'a row has no pair', d.batch_id
  from mill.download d where not exists (select from mill.pair p where p.batch_id = d.batch_id and p.n = d.n)
union all
select 'a login does two checks at a time', i.worker_id
  from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id) join mill.worker w on w.worker_id = i.worker_id
 where l.ended_at is null and t.is_replica and w.streak is not null
 group by i.worker_id having count(*) > 1
union all
select 'a check was done by whom it is of', s.submission_id
  from mill.submission s join mill.task t using (task_id) where t.is_replica and s.worker_id = any (t.avoid_workers)
union all
select 'what a check found wrong counts', r.replication_id
  from mill.replication r
  join mill.task t using (task_id)
  join mill.submission s on s.task_id = r.task_id and s.worker_id = r.worker_id and s.received_at < r.decided_at
 where r.state = 'failed' and not t.is_replica and s.state <> 'rejected'
   and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id)
union all
select 'a check is decided or is not', replication_id
  from mill.replication where (state in ('open', 'disputed')) <> (decided_at is null) or (state = 'disputed' and second_replica_task_id is null)
union all
select 'a streak is longer than what agreed', w.worker_id
  from mill.worker w
 where w.streak > (select count(*) from mill.replication r where r.worker_id = w.worker_id and r.state = 'agreed' and r.replica_task_id is not null)
union all
select 'more checks of one worker wait than may', worker_id
  from mill.replication where state in ('open', 'disputed') group by worker_id having count(*) > 45
"""
SIZE, CANARIES, SAMPLE = 100, 6, 12
WORKERS = (
    "ada",
    "bob",
    "eve",
    "mia",
    "own",
)  # eve lies, mia's checks all time out, own is the admin's
SOME = st.integers(0, 2**16)


class Suspects(RuleBasedStateMachine):
    """Downloads and their checks; what is done is drawn, what comes of it must fit UNTRUE."""

    recorder: ClassVar[Template]
    page: ClassVar[set[Arrow]]
    seen: ClassVar[set[tuple[Any, ...]]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.context = self.recorder.copy()
        self.db: Database = self.context.__enter__()
        self.crowd = Crowd(self.db)
        self.files = 0
        self.held: list[tuple[str, int, bool]] = []  # worker, lease, whether it is of a check
        self.part = 0
        self.knows = False  # eve, which URLs are gold questions
        self.db.admin.execute(
            "update mill.setting set replicated_urls = %s, gold_questions_per_lease = %s, max_attempts = 3, retry_seconds = 0,"
            " url_retry_seconds = 0, lease_seconds = 3600, lease_max_seconds = 36000, open_batches_max = 1",
            (SAMPLE, CANARIES),
        )
        for name in WORKERS:
            self.db.queue("download", name)
        self.db.admin.execute(
            "update mill.worker set streak = 0 where kind = 'download' and name <> 'own'"
        )
        for n in range(8):
            url = f"http://gold question{n}.example/"
            self.db.admin.execute(
                "insert into mill.gold_question (url, sha256, by_admin) values (%s, %s, true)",
                (url, sha256(url) if honest(url)[1] else None),
            )

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.note_checks()
                self.drive_to_the_end()
                self.note_checks()
                walked(self.db, self.page)
        finally:
            self.context.__exit__(None, None, None)

    def note_checks(self) -> None:
        query = "select distinct state, replica_task_id is null from mill.replication"
        Suspects.seen |= set(self.db.rows(query))

    # -- who, and how --

    def queue(self, name: str) -> DownloadQueue:
        return self.db.queue("download", name)[0]

    def manner(self, name: str, is_replica: bool) -> Manner:
        if name == "eve":
            lie, knows = liar("!"), self.knows
            return lambda url: honest(url) if knows and "//gold question" in url else lie(url)
        return lazy if name == "mia" and is_replica else honest

    def stopped(self, name: str) -> bool:
        return self.crowd.of(name, "disabled_at") is not None

    def use(self, which: int) -> tuple[str, int, bool] | None:
        return self.held[which % len(self.held)] if self.held else None

    def is_live(self, lease_id: int) -> bool:
        return bool(
            self.db.value(
                "select ended_at is null and expires_at > clock_timestamp() from mill.lease where lease_id = %s",
                lease_id,
            )
        )

    def call(self, name: str, lease_id: int, work: Any) -> Any:
        """What it answers; None where the lease has ended or the worker is stopped, as it must say."""
        error = Refused if self.stopped(name) else None if self.is_live(lease_id) else LeaseLost
        if error is None:
            return work()
        with pytest.raises(error):
            work()
        self.held = [h for h in self.held if h[1] != lease_id]
        return None

    # -- the work --

    @initialize(knows=st.booleans())
    def begin(self, knows: bool) -> None:
        self.knows = knows
        for name in ("ada", "eve"):
            self.add_batch()
            self.work(name, False)

    @precondition(lambda self: self.files < 4)
    @rule()
    def add_batch(self) -> None:
        self.accept(True)
        self.files += 1
        urls = [f"http://f{self.files}.example/{n}.jpg" for n in range(SIZE)]
        self.db.extract(urls, f"{self.files}.wat.gz")
        self.db.close_batches()

    @rule(name=st.sampled_from(WORKERS))
    def claim(self, name: str) -> None:
        if self.stopped(name):
            with pytest.raises(Refused):
                self.db.claim("download", name)
        elif claim := self.db.claim("download", name):
            is_replica = self.db.value(
                "select is_replica from mill.task where task_id = %s", claim.task_id
            )
            self.held.append((name, claim.lease_id, is_replica))

    @rule(name=st.sampled_from(WORKERS), judged=st.booleans())
    def work(self, name: str, judged: bool) -> None:
        """All of it at once; step by step, few ever come to an end."""
        before = len(self.held)
        self.claim(name)
        if len(self.held) > before:
            self.complete(before)
            self.accept(True)
            if judged:
                self.judge()

    @rule(which=SOME, start=st.integers(0, SIZE), count=st.integers(1, SIZE))
    def submit(self, which: int, start: int, count: int) -> None:
        if lease := self.use(which):
            self.hand_over(*lease, start, count)

    def hand_over(self, name: str, lease_id: int, is_replica: bool, start: int, count: int) -> None:
        queue = self.queue(name)
        given = self.call(name, lease_id, lambda: queue.urls(lease_id)) or []
        start = start % max(1, len(given))
        some = given[start : start + count]
        self.part += 1
        if some:
            queue.submit_download(lease_id, self.part, reply(some, self.manner(name, is_replica)))

    @rule(which=SOME)
    def complete(self, which: int) -> None:
        if lease := self.use(which):
            name, lease_id, is_replica = lease
            queue = self.queue(name)
            for _ in range(2):  # what was asked for again meanwhile comes at the second time
                given = self.call(name, lease_id, lambda: queue.urls(lease_id))
                if given is None:
                    return
                # gold questions that were answered are given again, and refused
                if given:
                    self.hand_over(name, lease_id, is_replica, 0, len(given))
            try:
                queue.complete(lease_id)
            except Malformed:  # a part was rejected after the order was drawn: another finishes
                queue.release(lease_id)
            self.held.remove(lease)

    @rule(which=SOME, how=st.sampled_from(["release", "fail", "give up", "lose"]))
    def give_back(self, which: int, how: str) -> None:
        if lease := self.use(which):
            name, lease_id, _ = lease
            queue = self.queue(name)
            if how == "release":
                self.call(name, lease_id, lambda: queue.release(lease_id))
            elif how == "lose":
                late = "update mill.lease set expires_at = now() where lease_id = %s"
                self.db.admin.execute(late, (lease_id,))
            else:
                self.call(name, lease_id, lambda: queue.fail(lease_id, "why", retry=how == "fail"))
            self.held = [h for h in self.held if h[1] != lease_id]

    # -- the steward, and the admin --

    @rule(everything=st.booleans())
    def accept(self, everything: bool) -> None:
        steward = self.db.queue("steward")[0]
        while (answer := steward.accept_next()) and everything:
            assert answer[3] is None

    @rule()
    def maintenance(self) -> None:
        for name in ("expire_leases", "judge_replications", "sweep_gold_questions", "empty_slots"):
            self.db.queue("steward")[0].maintain(name)

    @rule()
    def judge(self) -> None:
        self.db.queue("steward")[0].maintain("judge_replications")

    @rule(name=st.sampled_from(["bob", "eve"]))
    def quarantine(self, name: str) -> None:
        self.db.admin.execute("select mill.quarantine_worker(%s, null, 'lies')", (name,))

    @rule(which=SOME)
    def withdraw(self, which: int) -> None:
        accepted = self.db.rows(
            "select submission_id from mill.submission join mill.task using (task_id)"
            " where kind = 'download' and submission.state = 'accepted' order by 1"
        )
        if accepted:
            (submission_id,) = accepted[which % len(accepted)]
            self.db.admin.execute("select mill.withdraw(%s, 'why')", (submission_id,))

    @rule(which=SOME)
    def discard(self, which: int) -> None:
        tasks = self.db.rows("select task_id from mill.task where kind = 'download' order by 1")
        self.db.admin.execute("select mill.discard_task(%s, 'why')", tasks[which % len(tasks)])

    @rule()
    def restore(self) -> None:
        self.db.admin.execute("select mill.restored()")

    @rule()
    def retry(self) -> None:
        self.retry_discarded()
        self.db.admin.execute("select mill.retry_outcomes(null, 0, 1000, true)")

    @rule()
    def an_hour_later(self) -> None:
        self.db.admin.execute(
            "update mill.lease set ended_at = ended_at - interval '1 hour' where ended_at is not null"
        )
        self.db.admin.execute(
            "update mill.replication set decided_at = decided_at - interval '1 hour'"
        )

    def retry_discarded(self) -> None:
        self.db.admin.execute(
            "select mill.retry_task(task_id) from mill.task where state = 'discarded'"
        )

    # -- after each step, and in the end --

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.db.rows(f"{BROKEN} union all {UNTRUE}") == []

    @invariant()
    def the_honest_are_never_stopped(self) -> None:
        assert [self.stopped(name) for name in ("ada", "bob", "own")] == [False] * 3

    def drive_to_the_end(self) -> None:
        """The admin's own worker does all that is left, and decides all checks."""
        self.db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
        for _ in range(100):
            self.maintenance()
            self.accept(True)
            self.retry_discarded()
            self.db.admin.execute("update mill.task set ready_at = now()")
            self.claim("own")
            if self.held and self.held[-1][0] == "own":
                self.complete(len(self.held) - 1)
            elif not self.db.value(
                "select count(*) from mill.task where kind = 'download' and state <> 'done' and not is_replica"
            ) and not self.db.value(
                "select count(*) from mill.replication where state in ('open', 'disputed')"
            ):
                break
            self.nothing_is_broken()
        else:
            pytest.fail("there is no end of it")
        assert self.db.value("select count(*) from mill.current_download") == self.files * SIZE
        # parts that are too small to be checked may stay
        lies = self.db.rows(
            "select task_id, count(*) from mill.current_download join mill.submission using (submission_id)"
            " join mill.worker w using (worker_id) where w.name = 'eve' group by task_id having count(*) >= 5"
        )
        assert lies == []


def test_whatever_is_done_each_url_counts_once_and_no_lie(recorder: Template) -> None:
    Suspects.recorder, Suspects.page = recorder, arrows_of_the_page()
    examples = os.environ.get("PAIRMILL_STATES_EXAMPLES")
    # It did come to all of this, and not only to work that nobody checks. The database draws what is
    # checked, so that the same steps do not always come to the same.
    wanted = {
        ("open", False), ("agreed", False), ("failed", False), ("void", False), ("disputed", False),
        ("agreed", True),
    }  # fmt: skip
    for again in range(10):
        run_state_machine_as_test(
            Suspects,
            settings=settings(
                max_examples=int(examples or 5), stateful_step_count=30,
                derandomize=examples is None and not again,
                deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False,
            ),
        )  # fmt: skip
        if Suspects.seen >= wanted:
            break
    assert Suspects.seen >= wanted
