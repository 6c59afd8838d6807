"""Whatever is done, in whatever order, each URL is accepted exactly once.

PAIRMILL_STATES_EXAMPLES=1000 runs the state machine for long, and at random.
"""

import os
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import LeaseLost, Malformed, Refused, WorkerError
from support.database import outcomes, pair_rows
from support.line_model import (
    BATCH,
    MAX_FILES,
    MAX_LEASES,
    SELDOM,
    SOME,
    URLS,
    WORKERS,
    Lease,
    Model,
    Submission,
)
from support.states import BROKEN, arrows_of_the_page
from support.template import Template


class Line(Model):
    """Extraction and download with several workers, beside a model in Python that says what each
    call must answer and which state everything is in afterwards."""

    # -- files, batches, claims --

    @initialize()
    def begin(self) -> None:
        for first in (0, 4):
            self.add_file(first, 6)
            self.extract(0, False, 0, "right", claims=True)
            self.accept(0, False)
        self.close_batches(0)
        self.complete(0, False, 0, "timeout", claims=True)
        self.claim("download", 1)

    @precondition(lambda self: len(self.files) < MAX_FILES)
    @rule(first=st.integers(0, 20), count=st.integers(1, 6))
    def add_file(self, first: int, count: int) -> None:
        self.db.add_wat(f"{len(self.files)}.wat")
        (task,) = self.new_tasks()
        assert task.wat_id is not None
        self.files[task.wat_id] = URLS[first : first + count]

    @rule(which=SOME)
    def close_batches(self, which: int) -> None:
        before = self.db.value(
            "select count(*) from mill.batch where closed_at is null and pair_count > 0"
        )
        # one that failed before is not waited for
        idle = all(
            t.state in ("done", "discarded") or t.attempts
            for t in self.tasks.values()
            if t.kind == "extract"
        )
        closed = self.steward(which).maintain("close_batches")
        assert closed == (before if idle else 0)
        made = self.new_tasks()
        assert [t.kind for t in made] == ["download"] * closed
        assert all(t.attempt == 1 and t.positions is None for t in made)

    @rule(kind=st.sampled_from(["extract", "download", "download"]), which=SOME)
    def claim(self, kind: str, which: int) -> None:
        name = self.worker(kind, which)
        error: type[WorkerError] | None = None
        if name in self.disabled:
            error = Refused
        elif sum(x.worker == name and x.ended_as is None for x in self.leases) >= MAX_LEASES:
            error = Malformed
        claim = self.call(lambda: self.db.claim(kind, name), error)
        if error:
            return
        ready = [t for t in self.tasks.values() if t.kind == kind and t.state == "ready"]
        if not ready:
            assert claim is None
            return
        task = min(ready, key=lambda t: t.task_id)
        assert claim is not None
        assert claim.task_id == task.task_id
        assert all(claim.lease_id > x.lease_id for x in self.leases)
        task.state = "leased"
        self.leases.append(Lease(claim.lease_id, task, name))

    @precondition(lambda self: self.leases)
    @rule(which=SOME, stranger=SELDOM, who=SOME)
    def heartbeat(self, which: int, stranger: bool, who: int) -> None:
        if lease := self.lease(None, which):
            name, error = self.user(lease, stranger, who)
            self.call(lambda: self.queue(name).heartbeat(lease.lease_id), error)

    # -- submitting --

    @rule(
        which=SOME, stranger=SELDOM, who=SOME, claims=st.booleans(),
        how=st.sampled_from(["right", "right", "wrong number", "more rows afterwards"]),
    )  # fmt: skip
    def extract(self, which: int, stranger: bool, who: int, how: str, claims: bool) -> None:
        if claims:
            self.claim("extract", which)
        lease = self.leases[-1] if claims and self.leases else self.lease("extract", which)
        if lease is None or lease.task.kind != "extract":
            return
        name, error = self.user(lease, stranger, who)
        queue, task = self.queue(name), lease.task
        assert task.wat_id is not None
        urls = self.files[task.wat_id]
        before = next(
            (s for s in self.submissions.values() if s.lease is lease and s.worker == name), None
        )
        if not lease.copied[name] and not before:
            self.call(lambda: queue.copy_pairs(pair_rows(lease.lease_id, urls)), error)
            if error is None:
                lease.copied[name] += len(urls)
        rows = len(urls) + (how == "wrong number")
        if error is LeaseLost and before:
            error = None  # the answer was lost, and is given again
        elif error is None and how == "wrong number":
            error = Malformed
        found = self.call(
            lambda: queue.submit_extract(lease.lease_id, rows, [("image", "links", "", rows)]),
            error,
        )
        if before:
            assert error or found == before.submission_id
        elif error is None:
            s = Submission(found, task, lease, 0, name, rows)
            self.submissions[found] = s
            lease.ended_as, task.state = "completed", "submitted"
            if how == "more rows afterwards":
                self.call(
                    lambda: queue.copy_pairs(pair_rows(lease.lease_id, [URLS[-1]])), LeaseLost
                )
                self.db.smuggle_pairs(lease.lease_id, [URLS[-1]])
                s.poisoned = True

    @rule(
        which=SOME, stranger=SELDOM, who=SOME, part=st.integers(0, 4), mask=st.integers(1, 2**BATCH - 1),
        how=st.sampled_from(["success"] * 4 + ["timeout", "poison", "covered", "withdrawn", "twice", "lengths", "nothing"]),
    )  # fmt: skip
    def submit(self, which: int, stranger: bool, who: int, part: int, mask: int, how: str) -> None:
        lease = self.lease("download", which)
        if lease is None:
            return
        name, error = self.user(lease, stranger, who)
        left = sorted(self.left(lease.task))
        chosen = [n for i, n in enumerate(left) if mask >> i & 1]
        if how == "covered":
            chosen += sorted(set(range(BATCH + 1)) - self.open(lease.task))[:1]
        elif how == "withdrawn":
            chosen += sorted(self.open(lease.task).difference(left))
        elif how == "twice":
            chosen += chosen[:1]
        elif how == "nothing":
            chosen = []
        sent = outcomes(chosen, Outcome.TIMEOUT if how == "timeout" else Outcome.SUCCESS)
        if how == "poison":
            sent = replace(sent, http_status=[999] * len(chosen))
        elif how == "lengths":
            sent = replace(sent, sizes=[*sent.sizes, 1])
        before = next(
            (s for s in self.submissions.values() if s.lease is lease and s.part == part), None
        )
        if error is None and not before and (how in ("covered", "twice", "lengths") or not chosen):
            error = Malformed
        found = self.call(
            lambda: self.queue(name).submit_download(lease.lease_id, part, sent), error
        )
        if error is None and before:
            assert found == before.submission_id
        elif error is None:
            self.submissions[found] = Submission(
                found,
                lease.task,
                lease,
                part,
                name,
                len(chosen),
                frozenset(chosen),
                how == "poison",
            )

    @rule(which=SOME, stranger=SELDOM, who=SOME)
    def urls(self, which: int, stranger: bool, who: int) -> None:
        if lease := self.lease("download", which):
            name, error = self.user(lease, stranger, who)
            found = self.call(lambda: self.queue(name).urls(lease.lease_id), error)
            if error is None:
                assert lease.task.batch_id is not None
                batch = self.pairs[lease.task.batch_id]
                assert found == [(n, batch[n][0]) for n in sorted(self.left(lease.task))]

    @rule(
        which=SOME, stranger=SELDOM, who=SOME, claims=st.booleans(),
        rest=st.sampled_from(["success", "success", "timeout", "poison", "missing"]),
    )  # fmt: skip
    def complete(self, which: int, stranger: bool, who: int, rest: str, claims: bool) -> None:
        """Having submitted the rest; or too early."""
        if claims:
            self.claim("download", which)
        lease = self.lease("download", which)
        if lease is None:
            return
        name, error = self.user(lease, stranger, who)
        if rest != "missing" and self.left(lease.task):
            used = (s.part for s in self.submissions.values() if s.lease is lease)
            self.submit(which, stranger, who, 1 + max(used, default=4), 2**BATCH - 1, rest)
        if error is None and self.left(lease.task):
            error = Malformed
        self.call(lambda: self.queue(name).complete(lease.lease_id), error)
        if error is None:
            lease.ended_as, lease.task.state = "completed", "submitted"
            self.settle(lease.task)

    # -- giving back, and dying --

    @rule(which=SOME, stranger=SELDOM, who=SOME)
    def release(self, which: int, stranger: bool, who: int) -> None:
        if lease := self.lease(None, which):
            name, error = self.user(lease, stranger, who)
            self.call(lambda: self.queue(name).release(lease.lease_id), error)
            if error is None:
                lease.ended_as, lease.task.state = "released", "ready"

    @rule(which=SOME, stranger=SELDOM, who=SOME, retry=st.booleans())
    def fail(self, which: int, stranger: bool, who: int, retry: bool) -> None:
        if lease := self.lease(None, which):
            name, error = self.user(lease, stranger, who)
            self.call(lambda: self.queue(name).fail(lease.lease_id, "why", retry=retry), error)
            if error is None:
                lease.ended_as = "failed"
                self.put_back(lease.task, retry=retry)

    @rule(name=st.sampled_from(WORKERS["extract"] + WORKERS["download"]))
    def kill(self, name: str) -> None:
        """Its process forgets everything; another begins under the same login."""
        if name in self.disabled:
            return
        queue = self.queue(name)
        queue.close()
        again = type(queue)(queue._dsn)
        self.db._queues[name] = again, again.register().instance_id
        for lease in self.leases:
            lease.forgotten |= lease.worker == name

    @rule(which=SOME, everyone=SELDOM)
    def lose(self, which: int, everyone: bool) -> None:
        live = [x for x in self.leases if x.ended_as is None]
        for lease in live if everyone else live[which % len(live) :][:1] if live else []:
            self.db.admin.execute(
                "update mill.lease set expires_at = now() where lease_id = %s", (lease.lease_id,)
            )
            lease.late = True

    @precondition(lambda self: any(x.late and x.ended_as is None for x in self.leases))
    @rule(which=SOME)
    def expire(self, which: int) -> None:
        lost = [x for x in self.leases if x.late and x.ended_as is None]
        assert self.steward(which).maintain("expire_leases") == len(lost)
        for lease in lost:
            lease.ended_as = "expired"
            self.put_back(lease.task)

    @rule(which=SOME)
    def sweep(self, which: int) -> None:
        self.steward(which).maintain("sweep_inbox")

    # -- accepting --

    @precondition(lambda self: any(s.state == "received" for s in self.submissions.values()))
    @rule(which=SOME, all_of_them=st.booleans())
    def accept(self, which: int, all_of_them: bool) -> None:
        while True:
            received = [s for s in self.submissions.values() if s.state == "received"]
            answer = self.steward(which).accept_next()
            if not received:
                assert answer is None
                return
            s = min(received, key=lambda s: s.submission_id)
            assert answer is not None
            assert answer[:3] == (s.submission_id, s.task.kind, s.rows)
            assert (answer[3] is not None) == s.poisoned, answer
            if s.poisoned:
                self.reject(s)
            else:
                s.state = "accepted"
                if s.task.kind == "extract":
                    self.merged(s)
                self.settle(s.task)
            made = self.new_tasks()  # of batches that became full
            assert all(t.kind == "download" and t.attempt == 1 for t in made)
            if not all_of_them:
                return

    def merged(self, s: Submission) -> None:
        """The URLs of the file that no pair has that counts, and no other, are pairs now."""
        assert s.task.wat_id is not None
        known = {url for batch in self.pairs.values() for url, e in batch.values() if e.counts}
        fresh = self.db.rows(
            "select batch_id, n, url from mill.pair where submission_id = %s", s.submission_id
        )
        assert sorted(url for _, _, url in fresh) == sorted(set(self.files[s.task.wat_id]) - known)
        for batch_id, n, url in fresh:
            assert n not in self.pairs[batch_id]
            self.pairs[batch_id][n] = url, s

    # -- the admin --

    @precondition(lambda self: any(s.counts for s in self.submissions.values()))
    @rule(which=SOME, kind=st.sampled_from(["extract", "download", "download"]))
    def withdraw(self, which: int, kind: str) -> None:
        accepted = [s for s in self.submissions.values() if s.counts]
        accepted = [s for s in accepted if s.task.kind == kind] or accepted
        s = accepted[which % len(accepted)]
        self.db.admin.execute("select mill.withdraw(%s, 'why')", (s.submission_id,))
        self.withdrawn(s)
        made = self.new_tasks()
        if s.task.kind == "download":
            attempts = [t.attempt for t in self.tasks.values() if t.batch_id == s.task.batch_id]
            assert [(t.batch_id, t.attempt, t.positions) for t in made] == [
                (s.task.batch_id, len(attempts), s.positions)
            ]
            assert sorted(attempts) == [*range(1, len(attempts) + 1)]
        else:
            assert made == []

    @rule(which=SOME)
    def discard(self, which: int) -> None:
        task = list(self.tasks.values())[which % len(self.tasks)]
        discards = task.state in ("ready", "leased")
        assert self.db.value("select mill.discard_task(%s, 'why')", task.task_id) is discards
        if discards:
            task.state = "discarded"
            for lease in self.leases:
                if lease.task is task and lease.ended_as is None:
                    lease.ended_as = "expired"

    @precondition(lambda self: any(t.state == "discarded" for t in self.tasks.values()))
    @rule(which=SOME)
    def retry_task(self, which: int) -> None:
        for task in self.tasks.values():
            if task.state != "discarded":
                assert self.db.value("select mill.retry_task(%s)", task.task_id) is None
                break
        discarded = [t for t in self.tasks.values() if t.state == "discarded"]
        task = discarded[which % len(discarded)]
        assert self.db.value("select mill.retry_task(%s)", task.task_id) == task.kind
        task.state, task.attempts = "ready", 0

    @rule()
    def retry_outcomes(self) -> None:
        self.db.admin.execute("select * from mill.retry_outcomes(null, 0, 1000, true)")
        assert all(t.kind == "download" and t.attempt > 1 and t.positions for t in self.new_tasks())

    @rule(name=st.sampled_from(WORKERS["extract"] + WORKERS["download"]))
    def disable(self, name: str) -> None:
        if self.workers(self.kind_of[name]) not in ([name], []):
            assert self.db.value("select mill.disable_worker(%s)", name)
            self.disabled.add(name)

    @rule(name=st.sampled_from(WORKERS["extract"] + WORKERS["download"]))
    def quarantine(self, name: str) -> None:
        ((leases, rejected, withdrawn, rows, _),) = self.db.rows(
            "select * from mill.quarantine_worker(%s, null, 'lies')", name
        )
        live = [x for x in self.leases if x.worker == name and x.ended_as is None]
        for lease in live:
            lease.ended_as, lease.task.state = "expired", "ready"
        theirs = [s for s in self.submissions.values() if s.worker == name]
        received = [s for s in theirs if s.state == "received"]
        accepted = [s for s in theirs if s.counts]
        assert (leases, rejected, withdrawn, rows) == (
            len(live), len(received), len(accepted), sum(s.rows for s in accepted),
        )  # fmt: skip
        for s in received:
            self.reject(s)
        for s in accepted:
            self.withdrawn(s)
        # which positions are fetched anew, BROKEN judges
        assert all(t.kind == "download" and t.attempt > 1 and t.positions for t in self.new_tasks())

    @rule()
    def restore(self) -> None:
        live = [x for x in self.leases if x.ended_as is None]
        assert self.db.rows("select leases from mill.restored()") == [(len(live),)]
        for lease in live:
            lease.ended_as, lease.task.state = "expired", "ready"

    # -- after each step --

    @invariant()
    def nothing_is_broken(self) -> None:
        assert self.db.rows(BROKEN) == []

    @invariant()
    def the_model_says_the_same(self) -> None:
        db = self.db
        assert db.rows("select task_id, state, attempts from mill.task order by 1") == [
            (t.task_id, t.state, t.attempts) for t in self.tasks.values()
        ]
        assert db.rows("select lease_id, ended_as from mill.lease order by 1") == [
            (x.lease_id, x.ended_as) for x in self.leases
        ]
        assert db.rows(
            "select submission_id, case when x.submission_id is null then state else 'withdrawn' end, row_count"
            " from mill.submission left join mill.withdrawn x using (submission_id) order by 1"
        ) == [(s.submission_id, s.state, s.rows) for s in self.submissions.values()]
        credit = Counter(dict.fromkeys(self.kind_of, 0))
        for s in self.submissions.values():
            credit[s.worker] += s.rows * s.counts
        assert dict(db.rows("select name, rows_accepted from report.worker")) == dict(credit)

    # -- and in the end --

    def drive_to_the_end(self) -> None:
        """Everybody who may still work does all that there is: then each URL is accepted once."""
        for _ in range(50):
            self.lose(0, True)
            self.expire(0)
            self.accept(0, True)
            self.close_batches(0)
            for task in list(self.tasks.values()):
                if task.state == "discarded":
                    self.retry_task(0)
            for kind in ("extract", "download"):
                who = WORKERS[kind].index(self.workers(kind)[0])
                for _ in range(MAX_LEASES):
                    count = len(self.leases)
                    self.claim(kind, who)
                    if len(self.leases) == count:
                        break
                    # it is the only one that is live: those come first
                    if kind == "extract":
                        self.extract(0, False, 0, "right", claims=False)
                    else:
                        self.complete(0, False, 0, "success", claims=False)
                    self.nothing_is_broken()
            self.the_model_says_the_same()
            if all(t.state == "done" for t in self.tasks.values()) and not self.db.value(
                "select count(*) from mill.batch where closed_at is null and pair_count > 0"
            ):
                break
        else:
            pytest.fail("there is no end of it")
        urls = sorted({url for file in self.files.values() for url in file})
        assert self.db.rows(
            "select p.url from mill.current_download d join mill.pair p using (batch_id, n)"
            " where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id) order by 1"
        ) == [(url,) for url in urls]


def test_whatever_is_done_each_url_is_accepted_exactly_once(recorder: Template) -> None:
    Line.recorder, Line.page = recorder, arrows_of_the_page()
    examples = os.environ.get("PAIRMILL_STATES_EXAMPLES")
    run_state_machine_as_test(
        Line,
        settings=settings(
            max_examples=int(examples or 20), stateful_step_count=50, derandomize=examples is None,
            deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip
