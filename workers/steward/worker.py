"""The steward: accepts submissions and keeps the queue, the ring and the partitions in order.

Beside it, in a thread of its own, the watchdog.

One is enough; several do no harm, every chore locks what it changes.
"""

import itertools
from typing import TYPE_CHECKING

import trio

from pairmill.workers.daemon import connected
from pairmill.workers.metrics import Metrics
from pairmill.workers.progress import Progress
from pairmill.workers.queue import Accepted, Queue
from pairmill.workers.steward.watchdog import Watchdog

if TYPE_CHECKING:  # it needs rbloom
    from pairmill.workers.steward.url_filter import UrlFilter

ROUND_SECONDS = 1.0
COUNT_EVERY = 15  # rounds; it reads every task
CHORES = ("ensure_partitions", "expire_leases", "close_batches", "judge_checks", "empty_slots")
SWEEPS, SWEEP_EVERY = (
    ("sweep_inbox", "sweep_host_files", "sweep_canaries"),
    60,
)  # rounds; nothing of it is urgent


async def serve(
    dsn: str,
    *,
    drain: bool = False,
    url_filter: "UrlFilter | None" = None,
    metrics: Metrics | None = None,
) -> None:
    """Work until stopped, or with ``drain`` until the whole line is empty."""
    async with connected(dsn, "steward") as (queue, hello):
        with Progress(f"steward {hello.name}", metrics or Metrics("steward")) as line:
            watchdog = Watchdog(dsn, line)
            watchdog.start()
            try:
                await _rounds(queue, line, drain, url_filter)
            finally:
                watchdog.stop()
                if url_filter:
                    url_filter.save()


async def _rounds(
    queue: Queue, line: Progress, drain: bool, url_filter: "UrlFilter | None"
) -> None:
    for number in itertools.count():
        await _accept_all(queue, line, url_filter)
        for chore in CHORES if number % SWEEP_EVERY else (*CHORES, *SWEEPS):
            await trio.to_thread.run_sync(queue.steward, chore)
        if number % COUNT_EVERY == 0:
            line.metrics.queue(await trio.to_thread.run_sync(queue.counts))
        if drain and await trio.to_thread.run_sync(queue.drained):
            line.say("nothing left to do")
            return
        line.idle()
        await trio.sleep(ROUND_SECONDS)


async def _accept_all(queue: Queue, line: Progress, url_filter: "UrlFilter | None") -> None:
    while accepted := await trio.to_thread.run_sync(_accept, queue, url_filter):
        submission_id, kind, rows, rejected_because = accepted
        if rejected_because:
            line.say(f"submission {submission_id} ({kind}) rejected: {rejected_because}")
        else:
            line.say(f"submission {submission_id} accepted: {kind}, {rows:,} rows")
        line.metrics.rows(f"{kind}_{'rejected' if rejected_because else 'accepted'}", rows)
        await trio.lowlevel.checkpoint()


def _accept(queue: Queue, url_filter: "UrlFilter | None") -> Accepted | None:
    if url_filter is None:
        return queue.accept_next()
    filtered = url_filter.accept_next(queue)
    return filtered.accepted if filtered else None
