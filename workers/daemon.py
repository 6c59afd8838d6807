"""The loop that every kind of worker runs: register, claim, work, and an orderly end.

Trio from end to end. Calls to the database are synchronous and run in threads
(psycopg has no trio backend; a batch makes a few dozen). The heartbeat and the lines that
say whether the database answers are threads of their own (``heartbeat``, ``progress``).
"""

import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

import trio

from pairmill.schema.kinds import login_of
from pairmill.workers.connected import Stopped, connected, root_cause
from pairmill.workers.errors import (
    LeaseLost,
    Malformed,
    NotNow,
    Refused,
    TaskFailed,
    Unreachable,
    WorkerError,
)
from pairmill.workers.heartbeat import Heartbeat
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import DrainNotice, Progress, subject
from pairmill.workers.queue import Claim, Queue, Registration
from pairmill.workers.reach import Reach, Watched
from pairmill.workers.safe_text import say_traceback
from pairmill.workers.tally import counted, lasting

IDLE_SECONDS = 2.0
RELEASE_SECONDS = 5.0  # how long a stopped worker tries to hand its lease back
Returned = TypeVar("Returned")
AnyQueue = TypeVar("AnyQueue", bound=Queue)


class Job(Generic[AnyQueue]):
    """A claimed task, as the worker kind sees it.

    counts: rows done, by outcome. said: what the line of its end says of it; by default its counts.
    """

    def __init__(self, claim: Claim, queue: AnyQueue, line: Progress) -> None:
        self.lease_id = claim.lease_id
        self.payload = claim.payload
        self.model_digest = claim.model_digest
        self.queue = queue
        self.counts: Counter[str] = Counter()
        self.said = ""
        self._line = line
        self._name = f"task {claim.task_id} ({subject(claim)})"
        self._begun = self.last_progress = time.monotonic()
        self._done, self._unit, self._of = 0, "", ""

    def progress(self, done: int, total: int | None = None, unit: str = "rows") -> None:
        """Say that work goes on: feeds the heartbeat and the progress line."""
        self.last_progress = time.monotonic()
        self._done, self._unit = done, unit
        self._of = f" of {total:,}" if total is not None else ""
        self._line.update(done, total, unit)

    def count(self, outcome: str, rows: int = 1) -> None:
        """Rows done, by how they ended: for the metrics, and the line of the task's end."""
        self._line.metrics.rows(outcome, rows)
        self._line.tally.rows[outcome] += rows
        self.counts[outcome] += rows

    def say(self, sentence: str) -> None:
        """Tell the operator, from any thread."""
        self._line.say(sentence)

    def ended(self, how: str, why: str = "") -> None:
        """The line of its end, and its place in the metrics. how: as ``Metrics.task`` has it."""
        self._line.metrics.task(how)
        self._line.tally.tasks[how.replace("_", " ")] += 1
        seconds = max(time.monotonic() - self._begun, 0.001)
        if how == "done":
            said = self.said or counted(self.counts) or "nothing to count"
            rate = f", {self._done / seconds:,.0f} {self._unit}/s" if self._done else ""
            why = f"{said}; {lasting(seconds)}{rate}"
        elif self._unit:
            why = f"{why}; {self._done:,}{self._of} {self._unit} were done, in {lasting(seconds)}"
        self.say(f"{self._name} {how.replace('_', ' ')}: {why.removeprefix('; ')}")

    async def call(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Run a blocking method of the queue in a thread.

        Not abandoned on cancellation: a submission under way is finished.
        """
        return await trio.to_thread.run_sync(lambda: function(*arguments))


class WorkerKind(Protocol[AnyQueue]):
    """How tasks of a kind are done. queue_type: the calls that its login may make. watched: what it
    needs beside the database, and may be away."""

    name: str
    queue_type: type[AnyQueue]
    watched: Sequence[Watched] = ()

    def digests(self, queue: AnyQueue) -> Sequence[str | None]:
        """The models whose tasks it claims, in this order; (None,) where a task has no model."""
        return (None,)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Resources kept from task to task, open while the worker runs."""
        return nullcontext()

    async def ready(self) -> None:
        """Return as soon as it can do a task; none is claimed before."""
        await trio.lowlevel.checkpoint()

    async def work(self, job: Job[AnyQueue]) -> None:
        """Do the task and submit it. Raise TaskFailed with the reason if it cannot be done, NotNow
        where this worker cannot for now."""


@contextmanager
def beating(dsn: str, reach: Reach, interval: float) -> Iterator[Heartbeat]:
    heartbeat = Heartbeat(dsn, reach, interval)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()


async def serve(
    kind: WorkerKind[AnyQueue], dsn: str, *, drain: bool = False, metrics: Metrics | None = None
) -> None:
    """Claim and do tasks until stopped, or with ``drain`` until nothing is left.

    Raises Refused where this login or configuration cannot work at all, Unreachable when
    the database stays away.
    """
    metrics = metrics or Metrics(kind.name)
    for watched in kind.watched:
        metrics.watch(watched)
    reach = metrics.database
    async with (
        connected(dsn, login_of(kind.name), kind.queue_type, reach) as (queue, registration),
        kind.running(),
    ):
        with (
            Progress(f"{kind.name} {registration.name}", metrics) as line,
            beating(dsn, reach, registration.heartbeat_seconds) as heartbeat,
        ):
            await _Loop(kind, queue, registration, line, heartbeat).run(drain=drain)


class _Loop(Generic[AnyQueue]):
    """One worker's tasks, one after another."""

    def __init__(
        self,
        kind: WorkerKind[AnyQueue],
        queue: AnyQueue,
        registration: Registration,
        line: Progress,
        heartbeat: Heartbeat,
    ) -> None:
        self._kind, self._queue, self._line = kind, queue, line
        self._instance = registration.instance_id
        self._heartbeat = heartbeat

    async def run(self, *, drain: bool) -> None:
        notice = DrainNotice(self._line)
        name = self._kind.name
        while True:
            self._line.idle()
            await self._kind.ready()
            claim = await self._claim()
            if claim is not None:
                notice.work_came()
                await self._do(claim)
                continue
            if drain:
                if await trio.to_thread.run_sync(self._drained):
                    self._line.say("nothing left to do")
                    return
                if notice.due():
                    notice.say(
                        f"{name} tasks, and tasks that lead to such, that are leased, due for"
                        " another attempt, or submitted and not yet accepted by a steward (is one"
                        " running? pairmill work steward)"
                    )
            self._line.idle()
            # jitter: a fleet that was idle together must not ask together
            await trio.sleep(IDLE_SECONDS * random.uniform(0.5, 1.5))

    async def _claim(self) -> Claim | None:
        with trio.CancelScope(shield=True):  # a claim whose answer is dropped would be a lost lease
            claim = await trio.to_thread.run_sync(self._claim_any)
        return claim  # noqa: RET504 - to mypy, a return within the scope may be swallowed

    def _claim_any(self) -> Claim | None:
        for digest in self._kind.digests(self._queue):
            if claim := self._claim_of(digest):
                return claim
        return None

    def _claim_of(self, digest: str | None) -> Claim | None:
        try:
            return self._queue.claim(self._instance, digest, self._kind.name)
        except Malformed:
            # a database that was restored may not know this process
            instance = self._queue.register().instance_id
            if instance == self._instance:
                raise
            self._instance = instance
            return self._queue.claim(self._instance, digest, self._kind.name)

    def _drained(self) -> bool:
        kind = self._kind
        return all(self._queue.drained(digest, kind.name) for digest in kind.digests(self._queue))

    async def _do(self, claim: Claim) -> None:
        """One task, to whichever end. A fault costs this task one attempt, never the worker."""
        job = Job(claim, self._queue, self._line)
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:

            def lost() -> None:
                token.run_sync_soon(scope.cancel)

            self._heartbeat.hold(job, lost)
            try:
                self._line.begin(claim)
                await self._kind.work(job)
                job.ended("done")
            except BaseException as error:
                self._heartbeat.let_go()
                gone = scope.cancel_called and isinstance(root_cause(error), trio.Cancelled)
                if gone or not await _hand_back(self._queue, job, error):
                    raise
            finally:
                self._heartbeat.let_go()
        if scope.cancelled_caught:
            job.ended("lost", "the lease was lost, the work is dropped")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a worker's main function; its error comes out alone, not in a group."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        cause = root_cause(group)
        if not isinstance(cause, Stopped):
            raise cause from None


async def _hand_back(queue: Queue, job: Job[Any], error: BaseException) -> bool:
    """Tell the database how the task ended; True if the worker can go on."""
    cause = root_cause(error)
    if isinstance(cause, LeaseLost):
        job.ended("lost", str(cause))
        return True
    if isinstance(cause, Exception) and not isinstance(cause, (Refused, Unreachable, NotNow)):
        await _fail(queue, job, cause)
        return True
    why = str(cause) if isinstance(cause, WorkerError) else "stopped"
    problem = f"no answer within {RELEASE_SECONDS:.0f} s"
    with trio.move_on_after(RELEASE_SECONDS, shield=True):
        try:
            await trio.to_thread.run_sync(queue.release, job.lease_id, abandon_on_cancel=True)
            problem = ""
        except WorkerError as found:
            problem = str(found)
    if problem:
        job.ended("lost", f"{why}, and the lease could not be handed back: {problem}")
    else:
        job.ended("handed_back", why)
    return isinstance(cause, NotNow)


async def _fail(queue: Queue, job: Job[Any], cause: Exception) -> None:
    known = isinstance(cause, WorkerError)
    reason = str(cause) if known else f"{type(cause).__name__}: {cause}"
    retry = cause.retry if isinstance(cause, TaskFailed) else True
    job.ended("failed", f"{reason} ({'another attempt follows' if retry else 'given up'})")
    if not known:
        say_traceback(cause)
    with trio.move_on_after(RELEASE_SECONDS, shield=True):
        try:
            await trio.to_thread.run_sync(
                lambda: queue.fail(job.lease_id, reason, retry=retry), abandon_on_cancel=True
            )
        except WorkerError as problem:
            job.say(f"the database was not told of the failure: {problem}")
