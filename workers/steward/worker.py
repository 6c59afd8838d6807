"""The steward: accepts submissions and keeps the queue, the ring and the partitions in order.

The watchdog runs beside it, in a thread of its own.

One is enough; several do no harm: every maintenance function locks the rows that it changes.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from pairmill.workers.connected import connected
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import DrainNotice, Progress
from pairmill.workers.steward.calls import Accepted, StewardQueue
from pairmill.workers.steward.summary import Summary
from pairmill.workers.steward.watchdog import Watchdog

if TYPE_CHECKING:  # it needs rbloom
    from pairmill.workers.steward.url_filter import UrlFilter

ROUND_SECONDS = 1.0
COUNT_EVERY = 15  # rounds; it reads every task
MAINTENANCE = (
    "ensure_partitions",
    "expire_leases",
    "close_batches",
    "judge_replications",
    "empty_slots",
)
# nothing of these is urgent
SWEEPS = ("sweep_inbox", "sweep_host_files", "sweep_gold_questions")
SWEEP_EVERY = 60  # rounds


async def serve(
    dsn: str,
    *,
    drain: bool = False,
    url_filter: "UrlFilter | None" = None,
    verbose: bool = False,
    metrics: Metrics | None = None,
) -> None:
    """Work until stopped, or with ``drain`` until the whole line is empty. verbose: a line for each
    submission, and not only one a minute."""
    metrics = metrics or Metrics("steward")
    async with connected(dsn, "steward", StewardQueue, metrics.database) as (queue, registration):
        with Progress(f"steward {registration.name}", metrics) as line:
            watchdog = Watchdog(dsn, line)
            watchdog.start()
            summary = Summary(line.say, verbose=verbose)
            try:
                await _rounds(queue, line, summary, drain, url_filter)
            finally:
                summary.end()
                watchdog.stop()
                if url_filter:
                    url_filter.save()


async def _rounds(
    queue: StewardQueue,
    line: Progress,
    summary: Summary,
    drain: bool,
    url_filter: "UrlFilter | None",
) -> None:
    notice = DrainNotice(line)
    for number in itertools.count():
        if await _accept_all(queue, line, summary, url_filter):
            notice.work_came()
        for name in MAINTENANCE if number % SWEEP_EVERY else (*MAINTENANCE, *SWEEPS):
            summary.changed(name, await trio.to_thread.run_sync(queue.maintain, name))
        summary.look()
        if number % COUNT_EVERY == 0:
            line.metrics.queue(await trio.to_thread.run_sync(queue.counts))
        if drain:
            if await trio.to_thread.run_sync(queue.drained):
                line.say("nothing left to do")
                return
            if notice.due():
                notice.say(_awaited(await trio.to_thread.run_sync(queue.counts)))
        line.idle()
        await trio.sleep(ROUND_SECONDS)


def _awaited(counts: Sequence[tuple[str, str, float]]) -> str:
    """The tasks that only workers of other kinds can finish, as a list for the operator."""
    left: dict[str, list[str]] = {}
    for kind, state, value in counts:
        if state in ("ready", "leased") and value:
            left.setdefault(kind, []).append(f"{int(value):,} {state}")
    tasks = ", ".join(f"{kind} tasks ({', '.join(states)})" for kind, states in left.items())
    running = "do workers of every kind run? pairmill work KIND"
    return f"{tasks or 'open batches or thumbnails'} ({running})"


async def _accept_all(
    queue: StewardQueue, line: Progress, summary: Summary, url_filter: "UrlFilter | None"
) -> int:
    """Accept all that was submitted. Returns the number of submissions."""
    count = 0
    while accepted := await trio.to_thread.run_sync(_accept, queue, url_filter):
        count += 1
        _, kind, rows, rejected_because = accepted
        summary.accepted(accepted)
        summary.look()
        line.metrics.alive()
        line.metrics.rows(f"{kind}_{'rejected' if rejected_because else 'accepted'}", rows)
        await trio.lowlevel.checkpoint()
    return count


def _accept(queue: StewardQueue, url_filter: "UrlFilter | None") -> Accepted | None:
    if url_filter is None:
        return queue.accept_next()
    filtered = url_filter.accept_next(queue)
    return filtered.accepted if filtered else None
