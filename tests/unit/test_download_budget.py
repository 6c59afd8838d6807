"""Shared bytes: bounded, in order, and never lost."""

import random

import trio
import trio.testing

from pairmill.workers.download.budget import SMALL, MemoryBudget


def test_small_bodies_need_not_ask() -> None:
    async def main() -> None:
        budget = MemoryBudget(0)
        with budget.room() as room:
            await room.take(SMALL)
            assert room.taken == 0

    trio.run(main)


def test_never_more_than_there_is_and_everything_comes_back() -> None:
    size = 10 * SMALL
    budget = MemoryBudget(size)
    held = most = done = 0
    numbers = random.Random(1)

    async def one(need: int, cancel_after: float) -> None:
        nonlocal held, most, done
        with trio.move_on_after(cancel_after), budget.room() as room:
            await room.take(need)
            await room.take(need)  # asks once
            held += room.taken
            most = max(most, held)
            try:
                await trio.sleep(1.0)
            finally:
                held -= room.taken
        done += 1

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                need = numbers.randrange(SMALL, 12 * SMALL)  # some more than there is at all
                nursery.start_soon(one, need, numbers.choice([0.5, 3.0, 10_000.0]))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert done == 300
    assert 0 < most <= size
    assert budget._free == size
    assert not budget._waiting


def test_large_one_is_not_starved_by_small_ones() -> None:
    order: list[str] = []

    async def one(budget: MemoryBudget, name: str, need: int) -> None:
        with budget.room() as room:
            await room.take(need)
            order.append(name)
            await trio.sleep(1.0)

    async def main() -> None:
        budget = MemoryBudget(4 * SMALL)
        async with trio.open_nursery() as nursery:
            for number, need in enumerate([2, 4, 2, 2]):
                nursery.start_soon(one, budget, str(number), need * SMALL)
                await trio.testing.wait_all_tasks_blocked()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert order[:2] == ["0", "1"]  # the others would have had room before
    assert set(order[2:]) == {"2", "3"}  # both at once
