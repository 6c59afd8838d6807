"""A model of the line: its tasks, leases, submissions and pairs, beside the database's."""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
)

from pairmill.workers.errors import LeaseLost, Refused, WorkerError
from pairmill.workers.steward.calls import StewardQueue
from support.states import Arrow, walked
from support.template import Template

WORKERS = {
    "extract": ["extract-a", "extract-b"],
    "download": ["download-a", "download-b", "download-c"],
    "steward": ["steward-a", "steward-b"],
}
URLS = [f"http://h{i}.example/{i}.jpg" for i in range(60)]

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
    attempts: int = 0


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


class Model(RuleBasedStateMachine):
    """What is known of the line, and what each call must answer."""

    recorder: ClassVar[Template]
    page: ClassVar[set[Arrow]]
    arrows: ClassVar[set[Arrow]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.context = self.recorder.copy()
        self.db = self.context.__enter__()
        self.db.admin.execute(
            "update mill.setting set batch_size = %s, open_batches_max = 2, pairs_per_wat = 6, max_attempts = %s,"
            " retry_seconds = 0, url_retry_seconds = 0, lease_seconds = 3600, leases_per_worker = %s",
            (BATCH, MAX_TRIES, MAX_LEASES),
        )
        # passes every check at the door, and no acceptance
        self.db.admin.execute(
            "alter table mill.download add constraint odd check (http_status is distinct from 999)"
        )
        self.kind_of = {name: kind for kind, names in WORKERS.items() for name in names}
        for name, kind in self.kind_of.items():
            self.db.queue(kind, name)
        self.disabled: set[str] = set()
        self.files: dict[int, list[str]] = {}
        self.tasks: dict[int, Task] = {}
        self.leases: list[Lease] = []
        self.submissions: dict[int, Submission] = {}
        # batch -> position -> (URL, the extraction that gave it)
        self.pairs: dict[int, dict[int, tuple[str, Submission]]] = defaultdict(dict)

    def drive_to_the_end(self) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.drive_to_the_end()
                type(self).arrows = type(self).arrows | walked(self.db, self.page)
        finally:
            self.context.__exit__(None, None, None)

    def queue(self, name: str) -> Any:
        return self.db.queue(self.kind_of[name], name)[0]

    def workers(self, kind: str) -> list[str]:
        return [name for name, k in self.kind_of.items() if k == kind and name not in self.disabled]

    def worker(self, kind: str, which: int) -> str:
        names = [name for name, k in self.kind_of.items() if k == kind]
        return names[which % len(names)]

    def steward(self, which: int) -> StewardQueue:
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
        task.attempts += 1
        task.state = "ready" if retry and task.attempts < MAX_TRIES else "discarded"

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
            s.task.state, s.task.attempts = "ready", 0

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
