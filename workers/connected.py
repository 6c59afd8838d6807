"""A worker's connection to its database, from its registration to an orderly end."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from pairmill.workers.errors import Unreachable, of_another_kind
from pairmill.workers.queue import PATIENCE, Queue, Registration
from pairmill.workers.reach import Reach
from pairmill.workers.safe_text import say

OUTAGE_SECONDS = 86_400.0  # a running worker waits this long for its database to come back
SAY_SECONDS = 5.0  # of a database that does not answer at the start
# The queue gives up between two attempts, after PATIENCE; an attempt itself may never end, where a
# server stands still, or the table of processes is locked.
GIVE_UP_SECONDS = 2 * PATIENCE
CUT_SECONDS = 0.5
AnyQueue = TypeVar("AnyQueue", bound=Queue)


class Stopped(Exception):
    """The worker was stopped before its database had answered."""


@asynccontextmanager
async def connected(
    dsn: str, kind: str, queue_type: type[AnyQueue], reach: Reach
) -> AsyncIterator[tuple[AnyQueue, Registration]]:
    """Register as a worker of this kind, and cancel the block on SIGTERM or Ctrl-C. reach: told of
    the answers to the queue's calls."""
    queue = queue_type(dsn)
    queue.reach = reach
    try:
        async with trio.open_nursery() as nursery:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:

                async def watch() -> None:
                    async for _ in signals:
                        say("stopping …", err=True)
                        queue.hurry()
                        scope.cancel()
                        nursery.start_soon(_cut_in_outage, queue)

                nursery.start_soon(watch)
                begun = False
                with trio.CancelScope() as scope:
                    registration = await _registered(queue)
                    if registration.kind != kind:
                        raise of_another_kind(registration.kind, kind)
                    queue.patience = OUTAGE_SECONDS
                    queue.serving = True
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


async def _registered(queue: Queue) -> Registration:
    """Raises Unreachable where nothing is answered in time."""

    async def say_late() -> None:
        await trio.sleep(SAY_SECONDS)
        outage = queue.reach.outage()
        sentence = outage.sentence if outage else "the database does not answer yet"
        say(f"{sentence}; given up within {GIVE_UP_SECONDS:.0f} s", err=True)

    try:
        with trio.fail_after(GIVE_UP_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say_late)
                registration = await trio.to_thread.run_sync(queue.register, abandon_on_cancel=True)
                nursery.cancel_scope.cancel()
    except trio.TooSlowError:
        queue.abandon()
        why = f"no answer within {GIVE_UP_SECONDS:.0f} s"
        raise Unreachable(f"cannot reach the database: {why}") from None
    except BaseException:
        queue.abandon()
        raise
    return registration


async def _cut_in_outage(queue: Queue) -> None:
    """A call to a server that is stopped, or behind a network that is gone, would wait for ever."""
    while True:
        if queue.reach.outage():
            queue.cut()
        await trio.sleep(CUT_SECONDS)


def root_cause(error: BaseException) -> BaseException:
    """The first error within nested exception groups that is no cancellation."""
    while isinstance(error, BaseExceptionGroup):
        errors = [e for e in error.exceptions if not isinstance(e, trio.Cancelled)]
        error = (errors or error.exceptions)[0]
    return error
