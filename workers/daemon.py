"""The loop that every kind of worker runs: register, claim, work, and an orderly end.

Trio from end to end. Calls to the database are synchronous and run in threads
(psycopg has no trio backend; a batch makes a few dozen). The heartbeat is a thread of
its own, on a connection of its own, so that neither a busy event loop nor a long COPY
can starve it; it stops when the work reports no progress, so that a worker that hangs
loses its lease.
"""

import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Generic, Protocol, TypeVar

import trio

from pairmill.schema.kinds import login_of
from pairmill.workers.errors import LeaseLost, Refused, TaskFailed, Unreachable, WorkerError
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import DrainNotice, Progress
from pairmill.workers.queue import Claim, Queue, Registration
from pairmill.workers.safe_text import say, say_traceback

IDLE_SECONDS = 2.0
STALL_SECONDS = 300.0  # no progress for this long: no more heartbeats
RELEASE_SECONDS = 5.0  # how long a stopped worker tries to hand its lease back
OUTAGE_SECONDS = 86_400.0  # a running worker waits this long for its database to come back
Returned = TypeVar("Returned")
AnyQueue = TypeVar("AnyQueue", bound=Queue)


class Stopped(Exception):
    """The worker was stopped before its database had answered."""


class Job(Generic[AnyQueue]):
    """A claimed task, as the worker kind sees it."""

    def __init__(self, claim: Claim, queue: AnyQueue, line: Progress) -> None:
        self.lease_id = claim.lease_id
        self.payload = claim.payload
        self.model_digest = claim.model_digest
        self.queue = queue
        self._line = line
        self.last_progress = time.monotonic()

    def progress(self, done: int, total: int | None = None, unit: str = "rows") -> None:
        """Say that work goes on: feeds the heartbeat and the progress line."""
        self.last_progress = time.monotonic()
        self._line.update(done, total, unit)

    def count(self, outcome: str, rows: int = 1) -> None:
        """Rows done, by how they ended: for the metrics."""
        self._line.metrics.rows(outcome, rows)

    def say(self, sentence: str) -> None:
        """Tell the operator, from any thread."""
        self._line.say(sentence)

    async def call(self, function: Callable[..., Returned], *arguments: object) -> Returned:
        """Run a blocking method of the queue in a thread.

        Not abandoned on cancellation: a submission under way is finished.
        """
        return await trio.to_thread.run_sync(lambda: function(*arguments))


class WorkerKind(Protocol[AnyQueue]):
    """How tasks of a kind are done. queue_type: the calls that its login may make."""

    name: str
    queue_type: type[AnyQueue]

    def digests(self, queue: AnyQueue) -> Sequence[str | None]:
        """The models whose tasks it claims, in this order; (None,) where a task has no model."""
        return (None,)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Resources kept from task to task, open while the worker runs."""
        return nullcontext()

    async def work(self, job: Job[AnyQueue]) -> None:
        """Do the task and submit it. Raise TaskFailed with the reason if it cannot be done."""


class Heartbeat(threading.Thread):
    """Keeps one lease alive until stopped; calls ``lost`` once if the lease is gone."""

    def __init__(self, dsn: str, job: Job[Any], interval: float, lost: Callable[[], None]) -> None:
        super().__init__(daemon=True, name="heartbeat")
        self._queue = Queue(dsn, patience=interval)
        self._job = job
        self._interval = interval
        self._lost = lost
        self._ended = threading.Event()  # not _stop, which is Thread's own

    def run(self) -> None:
        while not self._ended.wait(self._interval):
            if time.monotonic() - self._job.last_progress > STALL_SECONDS:
                break
            try:
                self._queue.heartbeat(self._job.lease_id)
            except Unreachable:
                continue  # the lease may well outlive this; the next beat will tell
            except WorkerError:
                self._lost()
                break
        self._queue.close()

    def stop(self) -> None:
        self._ended.set()


@asynccontextmanager
async def connected(
    dsn: str, kind: str, queue_type: type[AnyQueue]
) -> AsyncIterator[tuple[AnyQueue, Registration]]:
    """Register as a worker of this kind, and cancel the block on SIGTERM or Ctrl-C."""
    queue = queue_type(dsn)
    try:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

                async def watch() -> None:
                    async for _ in signals:
                        say("stopping …", err=True)
                        queue.hurry()
                        scope.cancel()

                nursery.start_soon(watch)
                begun = False
                with trio.CancelScope() as scope:
                    registration = await trio.to_thread.run_sync(
                        queue.register, abandon_on_cancel=True
                    )
                    if registration.kind != kind:
                        raise Refused(f"this login is for kind {registration.kind}, not {kind}")
                    queue.patience = OUTAGE_SECONDS
                    begun = True
                    try:
                        yield queue, registration
                    except BaseException as error:
                        # stopped while the database was away: the lease cannot be handed back and
                        # runs out, and the stop that was asked for succeeds all the same
                        away = isinstance(root_cause(error), Unreachable)
                        if not (scope.cancel_called and away):
                            raise
                nursery.cancel_scope.cancel()
                if not begun:
                    raise Stopped
    finally:
        queue.close()


async def serve(
    kind: WorkerKind[AnyQueue], dsn: str, *, drain: bool = False, metrics: Metrics | None = None
) -> None:
    """Claim and do tasks until stopped, or with ``drain`` until nothing is left.

    Raises Refused where this login or configuration cannot work at all, Unreachable when
    the database stays away.
    """
    async with (
        connected(dsn, login_of(kind.name), kind.queue_type) as (queue, registration),
        kind.running(),
    ):
        with Progress(f"{kind.name} {registration.name}", metrics or Metrics(kind.name)) as line:
            await _claim_loop(kind, queue, dsn, registration, line, drain)


async def _claim_loop(
    kind: WorkerKind[AnyQueue],
    queue: AnyQueue,
    dsn: str,
    registration: Registration,
    line: Progress,
    drain: bool,
) -> None:
    notice = DrainNotice(line)
    while True:
        claim = await _claim(queue, registration, kind)
        if claim is not None:
            notice.work_came()
            await _do(kind, queue, dsn, registration, claim, line)
            continue
        if drain:
            if await trio.to_thread.run_sync(_drained, queue, kind):
                line.say("nothing left to do")
                return
            if notice.due():
                notice.say(
                    f"{kind.name} tasks, and tasks that lead to such, that are leased, due for"
                    " another attempt, or submitted and not yet accepted by a steward (is one"
                    " running? pairmill work steward)"
                )
        line.idle()
        # jitter: a fleet that was idle together must not ask together
        await trio.sleep(IDLE_SECONDS * random.uniform(0.5, 1.5))


async def _claim(
    queue: AnyQueue, registration: Registration, kind: WorkerKind[AnyQueue]
) -> Claim | None:
    def claim_any() -> Claim | None:
        claims = (
            queue.claim(registration.instance_id, digest, kind.name)
            for digest in kind.digests(queue)
        )
        return next((claim for claim in claims if claim), None)

    with trio.CancelScope(shield=True):  # a claim whose answer is dropped would be a lost lease
        claim = await trio.to_thread.run_sync(claim_any)
    return claim  # noqa: RET504 - to mypy, a return within the scope may be swallowed


def _drained(queue: AnyQueue, kind: WorkerKind[AnyQueue]) -> bool:
    return all(queue.drained(digest, kind.name) for digest in kind.digests(queue))


async def _do(
    kind: WorkerKind[AnyQueue],
    queue: AnyQueue,
    dsn: str,
    registration: Registration,
    claim: Claim,
    line: Progress,
) -> None:
    """One task, to whichever end. A fault costs this task one attempt, never the worker."""
    job = Job(claim, queue, line)
    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:

        def lost() -> None:
            token.run_sync_soon(scope.cancel)

        heartbeat = Heartbeat(dsn, job, registration.heartbeat_seconds, lost)
        heartbeat.start()
        try:
            line.begin(claim)
            await kind.work(job)
            line.metrics.task("done")
            line.say(f"task {claim.task_id} done")
        except BaseException as error:
            heartbeat.stop()
            if not await _hand_back(queue, claim, error, line):
                raise
        finally:
            heartbeat.stop()
    if scope.cancelled_caught:
        line.metrics.task("lost")
        line.say(f"task {claim.task_id}: the lease was lost, the work is dropped")


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Run a worker's main function; its error comes out alone, not in a group."""
    try:
        trio.run(main)
    except BaseExceptionGroup as group:
        cause = root_cause(group)
        if not isinstance(cause, Stopped):
            raise cause from None


def root_cause(error: BaseException) -> BaseException:
    """The first error within nested exception groups that is no cancellation."""
    while isinstance(error, BaseExceptionGroup):
        errors = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (errors or error.exceptions)[0]
    return error


async def _hand_back(queue: Queue, claim: Claim, error: BaseException, line: Progress) -> bool:
    """Tell the database how the task ended; True if the worker can go on."""
    cause = root_cause(error)
    if isinstance(cause, LeaseLost):
        line.metrics.task("lost")
        line.say(f"task {claim.task_id}: {cause}")
        return True
    failed = isinstance(cause, Exception) and not isinstance(cause, (Refused, Unreachable))
    line.metrics.task("failed" if failed else "handed_back")
    with trio.move_on_after(RELEASE_SECONDS, shield=True):
        try:
            if failed:
                reason = (
                    str(cause)
                    if isinstance(cause, WorkerError)
                    else f"{type(cause).__name__}: {cause}"
                )
                retry = cause.retry if isinstance(cause, TaskFailed) else True
                line.say(f"task {claim.task_id} failed: {reason}")
                if not isinstance(cause, WorkerError):
                    say_traceback(cause)
                await trio.to_thread.run_sync(
                    lambda: queue.fail(claim.lease_id, reason, retry=retry), abandon_on_cancel=True
                )
            else:
                await trio.to_thread.run_sync(queue.release, claim.lease_id, abandon_on_cancel=True)
                line.say(f"task {claim.task_id} handed back")
        except WorkerError as problem:
            line.say(f"task {claim.task_id}: {problem}")
    return failed
