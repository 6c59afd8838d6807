"""Clocks of the processes that work, which can be moved."""

import random
import signal
import sys
import time
from collections.abc import Callable

DAY = 86_400
clock_offset = 0.0


def wrong_clocks(*names: str) -> None:
    """From now on these functions of ``time`` are off by ``clock_offset``."""

    def moved(real: Callable[[], float]) -> Callable[[], float]:
        return lambda: real() + clock_offset

    for name in names:
        setattr(time, name, moved(getattr(time, name)))


def move_clock(*_: object) -> None:
    """A day on, a day back, or right again."""
    global clock_offset
    clock_offset = random.choice([offset for offset in (-DAY, 0, DAY) if offset != clock_offset])


def real_worker(arguments: list[str]) -> None:
    """The command ``pairmill``, with a wall clock that SIGUSR1 moves."""
    signal.signal(signal.SIGUSR1, move_clock)
    wrong_clocks("time")
    from pairmill.ops.cli import main

    sys.argv = ["pairmill", *arguments]
    main()
