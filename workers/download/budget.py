"""The memory of response bodies, bounded from their first byte until they are decoded."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import trio

SMALL = 256 * 1024  # every fetch may hold so much and need not ask
SHARED = 32_000_000  # bytes for those that need more; with 64 fetches of SMALL, 48 MB in all


class MemoryBudget:
    """Shared bytes, given out in the order in which they were asked for.

    A fetch asks once, for the largest body that it may hold: two fetches with half of their
    memory each would wait for each other for ever (a deadlock).
    """

    def __init__(self, shared: int = SHARED) -> None:
        self._size = self._free = shared
        self._waiting: deque[tuple[int, trio.Event]] = deque()

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """Room for one body, given back at the end of the block."""
        room = Room(self)
        try:
            yield room
        finally:
            self._give_back(room.taken)

    async def take(self, size: int) -> int:
        """Wait for so many bytes, or for all that there are; returns how many were taken."""
        size = min(size, self._size)
        if not self._waiting and size <= self._free:
            self._free -= size
            return size
        turn = trio.Event()
        self._waiting.append((size, turn))
        try:
            await turn.wait()  # by then they are taken
        except trio.Cancelled:
            if turn.is_set():
                self._give_back(size)
            else:
                self._waiting.remove((size, turn))
                self._give_back(0)  # the next in the queue may fit now
            raise
        return size

    def _give_back(self, size: int) -> None:
        self._free += size
        while self._waiting and self._waiting[0][0] <= self._free:
            needed, turn = self._waiting.popleft()
            self._free -= needed
            turn.set()


class Room:
    """The memory of one body."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self.taken = 0

    async def take(self, size: int) -> None:
        """Wait until a body of so many bytes may be held. Only the first call can ask for more
        than SMALL, so its size is the largest that the body may have."""
        if size > SMALL and not self.taken:
            self.taken = await self._budget.take(size)

    def give_back(self) -> None:
        """The body is gone; another may be asked room for."""
        taken, self.taken = self.taken, 0
        self._budget._give_back(taken)
