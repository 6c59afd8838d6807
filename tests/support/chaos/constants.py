"""How large and how fast everything of a run is."""

import threading
import time
from collections.abc import Callable

LEASE_SECONDS = 4
BATCH = 200
LINKS, OVERLAP = 500, 50  # of a WAT file, and how many of them the file before it has too
HOSTS = 60
PAUSE = 0.5  # a client waits up to this long between its parts
GAP = 0.4  # and we between faults
MODEL = "d1"
LIMIT = 60.0  # seconds, for anything that is waited for
DRAIN_LIMIT = 300.0


def wait_for(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    pause = threading.Event()
    give_up = time.monotonic() + limit
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {limit:.0f} s for {what}")
        pause.wait(0.05)
