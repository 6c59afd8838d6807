"""The steward: accepts submissions and keeps the queue, the ring and the partitions in order.

One is enough; several do no harm, every chore locks what it changes.
"""

import itertools

import trio

from pairmill.workers.daemon import connected
from pairmill.workers.progress import Progress
from pairmill.workers.queue import Queue

ROUND_SECONDS = 1.0
CHORES = ("ensure_partitions", "expire_leases", "close_batches", "empty_slots")
SWEEP_EVERY = 60  # rounds; what it deletes harms nobody meanwhile


async def serve(dsn: str, *, drain: bool = False) -> None:
    """Work until stopped, or with ``drain`` until the whole line is empty."""
    async with connected(dsn, "steward") as (queue, hello):
        with Progress(f"steward {hello.name}") as line:
            await _rounds(queue, line, drain)


async def _rounds(queue: Queue, line: Progress, drain: bool) -> None:
    for number in itertools.count():
        await _accept_all(queue, line)
        for chore in CHORES if number % SWEEP_EVERY else (*CHORES, "sweep_inbox"):
            await trio.to_thread.run_sync(queue.steward, chore)
        if drain and await trio.to_thread.run_sync(queue.drained):
            line.say("nothing left to do")
            return
        line.idle()
        await trio.sleep(ROUND_SECONDS)


async def _accept_all(queue: Queue, line: Progress) -> None:
    while accepted := await trio.to_thread.run_sync(queue.accept_next):
        submission_id, kind, rows, rejected_because = accepted
        if rejected_because:
            line.say(f"submission {submission_id} ({kind}) rejected: {rejected_because}")
        else:
            line.say(f"submission {submission_id} accepted: {kind}, {rows:,} rows")
        await trio.lowlevel.checkpoint()
