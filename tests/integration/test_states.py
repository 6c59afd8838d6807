"""docs/states.md is complete: every arrow of it happens, and no other; whatever is done in whatever order.

PAIRMILL_STATES_EXAMPLES=1000 runs the state machine for long, and at random.
"""

import hashlib
import os
import re
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import psycopg
import pytest
from database import Database, new_database, outcomes, outcomes_of, pair_rows, score_rows
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
from line import wait_until
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import LeaseLost, Malformed, Refused, WorkerError
from pairmill.workers.queue import Claim, Queue

PAGE = Path(__file__).parents[2] / "docs" / "states.md"
URLS = [f"http://h{i}.example/{i}.jpg" for i in range(60)]


# ---- the page, and what happens ----------------------------------------------------------------


class Arrow(NamedTuple):
    machine: str
    old: str
    new: str
    function: str


def arrows_of_the_page() -> set[Arrow]:
    """The rows of the tables whose head is from, to, function, when."""
    found, machine, inside = set(), "", False
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            machine = line[3:].lower()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells == ["from", "to", "function", "when"])
        if inside and len(cells) == 4 and cells[2].startswith("`"):
            found.add(Arrow(machine, cells[0], cells[1], cells[2].strip("`")))
    return found


RECORDER = """
create schema seen;
create table seen.change (machine text, old text, new text, stack text);
create function seen.state(machine text, r jsonb) returns text language sql immutable as $$
    select case machine
        when 'lease' then coalesce(r ->> 'ended_as', 'live')
        when 'batch' then case when r ->> 'closed_at' is null then 'open' else 'closed' end
        when 'worker' then case when r ->> 'disabled_at' is null then 'active' else 'disabled' end
        else r ->> 'state' end
$$;
create function seen.note() returns trigger language plpgsql security definer as $$
declare
    machine text := tg_argv[0];
    old_state text := '(new)';
    new_state text := '(gone)';
    stack text;
begin
    get diagnostics stack = pg_context;
    if tg_table_name = 'withdrawn' then
        select state into old_state from mill.submission where submission_id = new.submission_id;
        new_state := 'withdrawn';
    else
        if tg_op <> 'INSERT' then old_state := seen.state(machine, to_jsonb(old)); end if;
        if tg_op <> 'DELETE' then new_state := seen.state(machine, to_jsonb(new)); end if;
    end if;
    if old_state is distinct from new_state then
        insert into seen.change values (machine, old_state, new_state, stack);
    end if;
    return null;
end
$$;
"""
RECORDED = {
    "task": "task", "lease": "lease", "submission": "submission", "withdrawn": "submission",
    "thumbnail_slot": "thumbnail slot", "batch": "batch", "worker": "worker", "recheck": "check",
}  # fmt: skip


KINDS = ("extract", "download", "score", "steward")


@pytest.fixture(scope="module")
def template(server: str) -> Iterator[tuple[str, str]]:
    """The server, and a database that keeps each change of state, and the functions that made it."""
    with new_database(server) as db:
        db.admin.execute(RECORDER)
        for table, machine in RECORDED.items():
            events = "insert" if table == "withdrawn" else "insert or update or delete"
            db.admin.execute(
                f"create trigger seen after {events} on mill.{table}"
                f" for each row execute function seen.note('{machine}')"
            )
        db.admin.close()  # or it is no template
        yield server, str(conninfo_to_dict(db.dsn)["dbname"])


@contextmanager
def recorded(template: tuple[str, str]) -> Iterator[Database]:
    """A copy of it: 30 ms, and a new one takes half a second."""
    server, original = template
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"create database {name} template {original}")
        # it commits often, and nobody pulls the plug
        admin.execute(f"alter database {name} set synchronous_commit = off")
        roles = [f"{name}_{kind}" for kind in KINDS]
        for kind, role in zip(KINDS, roles, strict=True):  # rights come from the original's
            admin.execute(f"create role {role} in role {original}_{kind}")
        db = Database(make_conninfo(server, dbname=name))
        try:
            yield db
        finally:
            roles = [login for (login,) in db.rows("select login from mill.worker")] + roles
            db.close()
            admin.execute(f"drop database {name} with (force)")
            for role in roles:
                admin.execute(f"drop role {role}")


def seen(db: Database) -> set[tuple[str, str, str, frozenset[str]]]:
    """(machine, from, to, the functions that were at work, without their schemas)."""
    return {
        (machine, old, new, functions(stack))
        for machine, old, new, stack in db.rows(
            "select distinct machine, old, new, stack from seen.change"
        )
    }


def functions(stack: str) -> frozenset[str]:
    # of a function in SQL PostgreSQL gives the name without its schema
    found = re.findall(
        r'^(?:PL/pgSQL function (?:\w+\.)?(\w+)\(|SQL function "(\w+)")', stack, re.M
    )
    return frozenset(a or b for a, b in found) - {"note"}


def walked(db: Database, page: set[Arrow]) -> set[Arrow]:
    """The arrows of the page that were seen; fails where one was seen that is not on it."""
    found, strange = set(), []
    for machine, old, new, stack in seen(db):
        these = {
            a for a in page
            if a[:3] == (machine, old, new) and a.function.partition(".")[2] in stack
        }  # fmt: skip
        found |= these
        if not these:
            strange.append(f"{machine}: {old} -> {new} by {sorted(stack) or 'nobody'}")
    assert not strange, f"not in {PAGE.name}: {strange}"
    return found


# ---- one short story for each arrow ------------------------------------------------------------


def batches(db: Database, count: int, size: int = 2) -> None:
    """So many download tasks, each of so many URLs."""
    for i in range(count):
        db.extract([f"http://b{i}.example/{n}.jpg" for n in range(size)], f"batch-{i}.wat")
        db.close_batches()


def leased(db: Database, kind: str, name: str | None = None) -> tuple[Queue, Claim]:
    claim = db.claim(kind, name, "d1" if kind == "score" else None)
    assert claim
    return db.queue(kind, name)[0], claim


def late(db: Database) -> None:
    db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    db.queue("steward")[0].steward("expire_leases")


def newest_submission(db: Database, kind: str) -> int:
    return int(
        db.value(
            "select max(submission_id) from mill.submission join mill.task using (task_id) where kind = %s",
            kind,
        )
    )


def withdraw(db: Database, kind: str) -> None:
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (newest_submission(db, kind),))


def the_line(db: Database) -> None:
    db.admin.execute("select mill.ensure_slots(9::smallint)")
    db.add_model()
    batches(db, 1)
    db.download()
    db.score()
    db.queue("steward")[0].steward("empty_slots")


def a_batch_fills_up(db: Database) -> None:
    db.admin.execute("update mill.setting set batch_size = 2")
    db.extract(URLS[:5])


def a_model_comes_later(db: Database) -> None:
    batches(db, 1)
    db.download()
    db.add_model()


def handed_back(db: Database) -> None:
    batches(db, 1)
    for retry in (None, True, False):
        queue, claim = leased(db, "download")
        if retry is None:
            queue.release(claim.lease_id)
        else:
            queue.fail(claim.lease_id, "why", retry=retry)
        db.admin.execute("update mill.task set ready_at = now()")
    db.admin.execute("select mill.retry_task(%s)", (claim.task_id,))


def late_and_late_again(db: Database) -> None:
    db.admin.execute("update mill.setting set max_tries = 2")
    batches(db, 1)
    for _ in range(2):
        leased(db, "download")
        late(db)


def parked_by_an_admin(db: Database) -> None:
    batches(db, 2)
    _, claim = leased(db, "download")
    db.admin.execute("select mill.park_task(task_id, 'why') from mill.task where kind = 'download'")
    assert db.rows("select distinct state from mill.task where kind = 'download'") == [("parked",)]
    assert db.value("select ended_as from mill.lease where lease_id = %s", claim.lease_id)


def the_ring_is_full(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set batches_per_slot = 2")
    batches(db, 10)
    db.download()  # filling
    db.download()  # full
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    for _ in range(7):
        db.download()
    assert db.claim("download") is None
    for _ in range(9):
        db.score()
    db.queue("steward")[0].steward("empty_slots")
    db.download()


def extractions_are_rejected(db: Database) -> None:
    db.admin.execute("update mill.setting set max_tries = 2, retry_seconds = 0")
    db.admin.execute("alter table mill.pair add constraint odd check (url not like '%/7.jpg')")
    db.add_wat()
    for _ in range(2):
        queue, claim = leased(db, "extract")
        queue.copy_pairs(pair_rows(claim.lease_id, URLS[:8]))
        queue.submit_extract(claim.lease_id, 8, [("image", "links", "", 8)])
        assert [a[3] is not None for a in db.accept_all()] == [True]


def downloads_are_rejected(db: Database) -> None:
    db.admin.execute("update mill.setting set max_tries = 2, retry_seconds = 0")
    db.admin.execute("alter table mill.download add constraint odd check (http_status <> 999)")
    batches(db, 1)
    for _ in range(2):
        queue, claim = leased(db, "download")
        queue.submit_download(claim.lease_id, 0, replace(outcomes([0, 1]), http_status=[200, 999]))
        queue.complete(claim.lease_id)
        assert [a[3] is not None for a in db.accept_all()] == [True]


def withdrawn(db: Database) -> None:
    the_line(db)
    withdraw(db, "score")
    withdraw(db, "download")
    withdraw(db, "extract")


def scores_of_a_parked_task_are_withdrawn(db: Database) -> None:
    db.add_model()
    batches(db, 1)
    db.download()
    queue, claim = leased(db, "score")
    queue.copy_scores(score_rows(claim.lease_id, 0, [0]))
    queue.submit_score(claim.lease_id, 0, 1)
    db.accept_all()
    db.admin.execute("select mill.park_task(%s, 'why')", (claim.task_id,))
    withdraw(db, "score")


def tried_again(db: Database) -> None:
    batches(db, 1)
    db.download(Outcome.TIMEOUT)
    db.admin.execute("select mill.retry_outcomes(null, 0, 100, true)")


def parked_until_its_thumbnails_were_gone(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set parked_hold_seconds = 0")
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.submit_download(claim.lease_id, 0, outcomes([0]))
    db.accept_all()
    queue.fail(claim.lease_id, "why", retry=False)
    assert db.queue("steward")[0].steward("empty_slots") == 1
    assert db.value("select mill.retry_task(%s)", claim.task_id) == "download"


def parked_with_nothing_submitted(db: Database) -> None:
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.fail(claim.lease_id, "why", retry=False)
    db.queue("steward")[0].steward("empty_slots")


def quarantined(db: Database) -> None:
    batches(db, 2)
    eve, first = leased(db, "download", "eve")
    eve.submit_download(first.lease_id, 0, outcomes([0]))
    db.accept_all()
    eve.submit_download(first.lease_id, 1, outcomes([1]))
    db.admin.execute("select mill.quarantine_worker('eve', null, 'lies')")
    db.admin.execute("select mill.disable_worker('eve')")


def restored(db: Database) -> None:
    batches(db, 1)
    leased(db, "download")
    db.admin.execute("select mill.restored()")


def checked(db: Database, *answers: str) -> None:
    """A batch is downloaded, and repeated twice if need be: so many say the same of it."""
    names = ["ada", "bob", "eve"]
    for name in names:
        db.queue("download", name)
    db.admin.execute("update mill.worker set streak = 0 where kind = 'download'")
    batches(db, 1, size=6)
    for name, answer in zip(names, answers, strict=False):
        queue, claim = leased(db, "download", name)
        positions = [n for n, _ in queue.urls(claim.lease_id)]
        said = [hashlib.sha256(f"{n} {answer}".encode()).digest() for n in positions]
        found = (
            outcomes(positions, Outcome.TIMEOUT)
            if answer == "timeout"
            else outcomes_of(positions, said)
        )
        queue.submit_download(claim.lease_id, 0, found)
        queue.complete(claim.lease_id)
        db.accept_all()
        db.queue("steward")[0].steward("judge_checks")


def a_check_agrees(db: Database) -> None:
    checked(db, "a", "a")


def a_check_fails_by_two(db: Database) -> None:
    checked(db, "a", "b", "b")


def a_checker_is_wrong(db: Database) -> None:
    checked(db, "a", "b", "a")


def three_say_three_things(db: Database) -> None:
    checked(db, "a", "b", "c")


def a_check_tells_nothing(db: Database) -> None:
    checked(db, "a", "timeout")


def a_friend_is_checked_again(db: Database) -> None:
    checked(db, "a", "a")
    db.admin.execute(
        "select mill.count_check(worker_id, (select min(task_id) from mill.task where is_check), 10, 0, false)"
        " from mill.worker where name = 'bob'"
    )


def canaries_fail(db: Database) -> None:
    db.admin.execute(
        "insert into mill.canary (url, by_admin)"
        " select 'http://c.example/' || i, true from generate_series(1, 5) i"
    )
    db.queue("download", "ada")
    db.admin.execute("update mill.worker set streak = 0 where kind = 'download'")
    batches(db, 1, size=100)
    queue, claim = leased(db, "download", "ada")
    given = [n for n, _ in queue.urls(claim.lease_id)]
    queue.submit_download(claim.lease_id, 0, outcomes(given))
    queue.complete(claim.lease_id)
    db.queue("steward")[0].steward("judge_checks")


def dead_links_are_doubted(db: Database) -> None:
    batches(db, 1)
    db.download(Outcome.HTTP_ERROR)
    db.admin.execute("select mill.retry_doubted(0, 100)")


STORIES: list[Callable[[Database], None]] = [
    the_line, a_batch_fills_up, a_model_comes_later, handed_back, late_and_late_again, parked_by_an_admin,
    the_ring_is_full, extractions_are_rejected, downloads_are_rejected, withdrawn,
    scores_of_a_parked_task_are_withdrawn, tried_again, parked_until_its_thumbnails_were_gone,
    parked_with_nothing_submitted, quarantined,
    restored, a_check_agrees, a_check_fails_by_two, a_checker_is_wrong, three_say_three_things,
    a_check_tells_nothing, a_friend_is_checked_again, canaries_fail, dead_links_are_doubted,
]  # fmt: skip


def test_every_arrow_of_the_page_happens_and_no_other(template: tuple[str, str]) -> None:
    page = arrows_of_the_page()
    assert Counter(a.machine for a in page).keys() == set(RECORDED.values())
    found = set()
    for story in STORIES:
        with recorded(template) as db:
            story(db)
            found |= walked(db, page)
    assert sorted(page - found) == []


def test_a_strange_arrow_is_noticed(template: tuple[str, str]) -> None:
    page = arrows_of_the_page()
    with recorded(template) as db:
        db.add_wat()
        db.admin.execute("update mill.task set state = 'done'")
        with pytest.raises(AssertionError, match="task: ready -> done by nobody"):
            walked(db, page)
    with recorded(template) as db:
        db.add_wat()
        with pytest.raises(AssertionError, match=r"task: \(new\) -> ready by \['add_wat'\]"):
            walked(db, {a for a in page if a.function != "mill.add_wat"})


# ---- whatever is done, in whatever order -------------------------------------------------------

# What must hold between any two calls; each query gives what breaks it.
BROKEN = """
select 'a task with two live leases', task_id from mill.lease where ended_at is null group by task_id having count(*) > 1
union all
select 'a task is leased and has no live lease, or the other way round', task_id
  from mill.task t
 where (state = 'leased') <> exists (select from mill.lease l where l.task_id = t.task_id and l.ended_at is null)
union all
select 'a task awaits acceptance of nothing', task_id
  from mill.task t
 where state = 'submitted' and not exists (select from mill.submission s where s.task_id = t.task_id and s.state = 'received')
union all
select 'two rows of one attempt', batch_id from mill.download group by batch_id, n, attempt having count(*) > 1
union all
select 'two rows of a pair count', batch_id from mill.current_download group by batch_id, n having count(*) > 1
union all
select 'rows of a download submission are not there, or are there too early', s.submission_id
  from mill.submission s join mill.task t using (task_id)
 where t.kind = 'download'
   and (s.row_count <> case s.state when 'received' then (select cardinality(positions) from mill.submission_download d where d.submission_id = s.submission_id)
                                    when 'rejected' then s.row_count else 0 end
                     + (select count(*) from mill.download d where d.submission_id = s.submission_id)
        or s.state <> 'received' and exists (select from mill.submission_download d where d.submission_id = s.submission_id))
union all
-- withdrawn later or not: what is done has been given once
select 'a position of a done download has not one row', t.task_id
  from mill.task t
  join mill.pair p on p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))
 where t.kind = 'download' and t.state = 'done'
   and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
   and 1 <> (select count(*) from mill.download d where d.batch_id = p.batch_id and d.n = p.n and d.attempt = t.attempt)
union all
-- a row of this attempt that counts no more is not asked for again: the task does not stand for its position
select 'a pair is lost', p.batch_id
  from mill.pair p
  join mill.batch b on b.batch_id = p.batch_id and b.closed_at is not null
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
   and not exists (select from mill.current_download d where d.batch_id = p.batch_id and d.n = p.n)
   and not exists (
       select from mill.task t
        where t.kind = 'download' and t.batch_id = p.batch_id and t.state <> 'done'
          and (t.positions is null or p.n = any (t.positions))
          and not exists (select from mill.download d where d.batch_id = p.batch_id and d.n = p.n and d.attempt = t.attempt))
union all
select 'a URL has two pairs that count', min(batch_id)
  from mill.pair p where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by url having count(*) > 1
union all
select 'credit is not what was accepted and counts', w.worker_id
  from report.worker r
  join mill.worker w using (name)
 where w.kind = 'download'
   and r.rows_accepted <> (select count(*) from mill.download d join mill.submission s using (submission_id)
                            where s.worker_id = w.worker_id
                              and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id))
"""
MAX_TRIES = 3
MAX_LEASES = 3
MAX_FILES = 6
BATCH = 4


@dataclass
class Task:
    task_id: int
    kind: str
    wat_id: int | None
    batch_id: int | None
    attempt: int
    positions: frozenset[int] | None
    state: str = "ready"
    tries: int = 0


@dataclass
class Lease:
    lease_id: int
    task: Task
    worker: str
    ended_as: str | None = None
    late: bool = False
    forgotten: bool = False
    copied: Counter[str] = field(default_factory=Counter)  # rows of inbox.pair, by worker

    @property
    def held(self) -> bool:
        return self.ended_as is None and not self.late


@dataclass
class Submission:
    submission_id: int
    task: Task
    lease: Lease
    part: int
    worker: str
    rows: int
    positions: frozenset[int] = frozenset()
    poisoned: bool = False
    state: str = "received"

    @property
    def counts(self) -> bool:
        return self.state == "accepted"


SOME = st.integers(0, 2**16)  # which of those that there are
SELDOM = st.sampled_from([False] * 5 + [True])


class Line(RuleBasedStateMachine):
    """Extraction and download with several workers, beside a model in Python that says what each
    call must answer and which state everything is in afterwards."""

    template: ClassVar[tuple[str, str]]
    page: ClassVar[set[Arrow]]
    arrows: ClassVar[set[Arrow]] = set()
    WORKERS: ClassVar[dict[str, list[str]]] = {
        "extract": ["extract-a", "extract-b"],
        "download": ["download-a", "download-b", "download-c"],
        "steward": ["steward-a", "steward-b"],
    }

    def __init__(self) -> None:
        super().__init__()
        self.context = recorded(self.template)
        self.db = self.context.__enter__()
        self.db.admin.execute(
            "update mill.setting set batch_size = %s, open_batches_max = 2, pairs_per_wat = 6, max_tries = %s,"
            " retry_seconds = 0, url_retry_seconds = 0, lease_seconds = 3600, leases_per_worker = %s",
            (BATCH, MAX_TRIES, MAX_LEASES),
        )
        # passes every check at the door, and no acceptance
        self.db.admin.execute(
            "alter table mill.download add constraint odd check (http_status is distinct from 999)"
        )
        self.kind_of = {name: kind for kind, names in self.WORKERS.items() for name in names}
        for name, kind in self.kind_of.items():
            self.db.queue(kind, name)
        self.disabled: set[str] = set()
        self.files: dict[int, list[str]] = {}
        self.tasks: dict[int, Task] = {}
        self.leases: list[Lease] = []
        self.submissions: dict[int, Submission] = {}
        # batch -> position -> (URL, the extraction that gave it)
        self.pairs: dict[int, dict[int, tuple[str, Submission]]] = defaultdict(dict)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.drive_to_the_end()
                Line.arrows |= walked(self.db, self.page)
        finally:
            self.context.__exit__(None, None, None)

    # -- the model --

    def queue(self, name: str) -> Queue:
        return self.db.queue(self.kind_of[name], name)[0]

    def workers(self, kind: str) -> list[str]:
        return [name for name, k in self.kind_of.items() if k == kind and name not in self.disabled]

    def worker(self, kind: str, which: int) -> str:
        names = [name for name, k in self.kind_of.items() if k == kind]
        return names[which % len(names)]

    def steward(self, which: int) -> Queue:
        return self.queue(self.worker("steward", which))

    def lease(self, kind: str | None, which: int) -> Lease | None:
        """One of the leases that are not forgotten: any that is live, or of the last that ended."""
        known = [x for x in self.leases if not x.forgotten and kind in (None, x.task.kind)]
        some = [x for x in known if x.ended_as is None] + [x for x in known if x.ended_as][-2:]
        return some[which % len(some)] if some else None

    def user(
        self, lease: Lease, stranger: bool, which: int
    ) -> tuple[str, type[WorkerError] | None]:
        """Who calls with this lease, and what the lease earns them."""
        name = self.worker(lease.task.kind, which) if stranger else lease.worker
        if name in self.disabled:
            return name, Refused
        return name, None if lease.held and lease.worker == name else LeaseLost

    def call(self, work: Callable[[], Any], error: type[WorkerError] | None) -> Any:
        """What the call answers, where the model expects no error; else it must raise that."""
        if error is None:
            return work()
        with pytest.raises(error):
            work()
        return None

    def of_task(self, task: Task) -> list[Submission]:
        return [s for s in self.submissions.values() if s.task is task]

    def open(self, task: Task) -> set[int]:
        """What may be handed over: also what was handed out before its extraction was withdrawn."""
        if task.batch_id is None:
            return set()
        whole = self.pairs[task.batch_id].keys()
        covered = (s.positions for s in self.of_task(task) if s.state != "rejected")
        return set(whole if task.positions is None else task.positions).difference(*covered)

    def left(self, task: Task) -> set[int]:
        """What must be handed over."""
        return {n for n in self.open(task) if self.pairs[task.batch_id or 0][n][1].counts}

    def put_back(self, task: Task, *, retry: bool = True) -> None:
        task.tries += 1
        task.state = "ready" if retry and task.tries < MAX_TRIES else "parked"

    def settle(self, task: Task) -> None:
        if task.state == "submitted" and all(s.state != "received" for s in self.of_task(task)):
            if self.left(task):
                self.put_back(task)
            else:
                task.state = "done"

    def reject(self, s: Submission) -> None:
        s.state = "rejected"
        if s.task.kind == "extract":
            self.put_back(s.task)
        else:
            self.settle(s.task)

    def withdrawn(self, s: Submission) -> None:
        s.state = "withdrawn"
        if s.task.kind == "extract":
            s.task.state, s.task.tries = "ready", 0

    def new_tasks(self) -> list[Task]:
        """The tasks that the database has made since; their beginnings are not the model's to say."""
        made = [
            Task(*row[:5], None if row[5] is None else frozenset(row[5]))
            for row in self.db.rows(
                "select task_id, kind, wat_id, batch_id, attempt, positions from mill.task"
                " where task_id > %s order by task_id",
                max(self.tasks, default=0),
            )
        ]
        self.tasks |= {task.task_id: task for task in made}
        return made

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
        idle = all(
            t.state in ("done", "parked") for t in self.tasks.values() if t.kind == "extract"
        )
        closed = self.steward(which).steward("close_batches")
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
        again = Queue(queue._dsn)
        self.db._queues[name] = again, again.hello().instance_id
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
        assert self.steward(which).steward("expire_leases") == len(lost)
        for lease in lost:
            lease.ended_as = "expired"
            self.put_back(lease.task)

    @rule(which=SOME)
    def sweep(self, which: int) -> None:
        self.steward(which).steward("sweep_inbox")

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
    def park(self, which: int) -> None:
        task = list(self.tasks.values())[which % len(self.tasks)]
        parks = task.state in ("ready", "leased")
        assert self.db.value("select mill.park_task(%s, 'why')", task.task_id) is parks
        if parks:
            task.state = "parked"
            for lease in self.leases:
                if lease.task is task and lease.ended_as is None:
                    lease.ended_as = "expired"

    @precondition(lambda self: any(t.state == "parked" for t in self.tasks.values()))
    @rule(which=SOME)
    def retry_task(self, which: int) -> None:
        for task in self.tasks.values():
            if task.state != "parked":
                assert self.db.value("select mill.retry_task(%s)", task.task_id) is None
                break
        parked = [t for t in self.tasks.values() if t.state == "parked"]
        task = parked[which % len(parked)]
        assert self.db.value("select mill.retry_task(%s)", task.task_id) == task.kind
        task.state, task.tries = "ready", 0

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
        assert db.rows("select task_id, state, tries from mill.task order by 1") == [
            (t.task_id, t.state, t.tries) for t in self.tasks.values()
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
                if task.state == "parked":
                    self.retry_task(0)
            for kind in ("extract", "download"):
                who = self.WORKERS[kind].index(self.workers(kind)[0])
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


def test_whatever_is_done_each_url_is_accepted_exactly_once(template: tuple[str, str]) -> None:
    Line.template, Line.page = template, arrows_of_the_page()
    examples = os.environ.get("PAIRMILL_STATES_EXAMPLES")
    run_state_machine_as_test(
        Line,
        settings=settings(
            max_examples=int(examples or 20), stateful_step_count=50, derandomize=examples is None,
            deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=False,
        ),
    )  # fmt: skip


# ---- races that the machine does not run into ----------------------------------------------------

WAITING = "select count(*) > 0 from pg_locks where not granted"


def test_full_ring_lets_what_has_its_slot_go_on(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set batches_per_slot = 1")
    batches(db, 9)
    # the oldest has had no slot yet, and waits, as those of retry_outcomes do
    db.admin.execute(
        "update mill.task set ready_at = now() + interval '1 hour'"
        " where task_id = (select min(task_id) from mill.task where kind = 'download')"
    )
    for claim in [leased(db, "download")[1] for _ in range(8)]:
        db.queue("download")[0].release(claim.lease_id)
    db.admin.execute("update mill.task set ready_at = now()")
    assert db.queue("steward")[0].steward("empty_slots") == 0
    assert db.claim("download")


def test_quarantine_leaves_alone_what_another_claims_meanwhile(db: Database) -> None:
    batches(db, 2)
    (eve, first), (_, second) = leased(db, "download", "eve"), leased(db, "download", "eve")
    db.queue("download", "ada")
    with (
        psycopg.connect(db.dsn) as other,
        psycopg.connect(db.dsn, autocommit=True) as admin,
        ThreadPoolExecutor() as pool,
    ):
        other.execute("select from mill.task where task_id = %s for update", (first.task_id,))
        quarantine = pool.submit(
            lambda: admin.execute("select mill.quarantine_worker('eve', null, 'lies')")
        )
        wait_until(lambda: db.value(WAITING), "the quarantine to wait")
        eve.release(second.lease_id)
        _, claim = leased(db, "download", "ada")
        assert claim.task_id == second.task_id
        other.commit()
        quarantine.result()
    assert db.value("select state from mill.task where task_id = %s", claim.task_id) == "leased"
    # else this fails for everybody, for as long as ada has it
    leased(db, "download", "bob")


def test_thumbnails_of_what_awaits_acceptance_are_kept_or_fetched_again(db: Database) -> None:
    db.add_model()
    db.admin.execute("update mill.setting set parked_hold_seconds = 0")
    batches(db, 1)
    queue, claim = leased(db, "download")
    queue.submit_download(claim.lease_id, 0, outcomes([0]))
    queue.fail(claim.lease_id, "why", retry=False)
    db.queue("steward")[0].steward("empty_slots")
    db.admin.execute("select mill.retry_task(%s)", (claim.task_id,))
    db.accept_all()
    db.download()
    queue, claim = leased(db, "score")
    if len(queue.thumbnails(claim.lease_id, 0, 100)) < claim.payload["count"]:
        queue.fail(claim.lease_id, "fewer thumbnails than were promised", retry=False)
        assert (
            db.value("select mill.retry_task(%s)", claim.task_id) == "download"
        )  # and not score, for ever


def test_two_attempts_are_withdrawn_at_once(db: Database) -> None:
    withdrawal = "select mill.withdraw(%s, 'why')"
    batches(db, 1)
    db.download(Outcome.TIMEOUT)
    first = newest_submission(db, "download")
    db.admin.execute("select mill.retry_outcomes(null, 0, 100, true)")
    db.download(Outcome.TIMEOUT)
    second = newest_submission(db, "download")
    with (
        psycopg.connect(db.dsn) as one,
        psycopg.connect(db.dsn, autocommit=True) as other,
        ThreadPoolExecutor() as pool,
    ):
        one.execute(withdrawal, (first,))
        waiting = pool.submit(lambda: other.execute(withdrawal, (second,)))
        wait_until(lambda: waiting.done() or db.value(WAITING), "the other withdrawal to wait")
        one.commit()
        waiting.result()
