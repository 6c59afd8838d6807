"""What an operator reads of an outage: its begin, once a minute that it lasts, and its end."""

import time
from collections.abc import Callable

from pairmill.workers.reach import Outage, Watched
from pairmill.workers.tally import lasting

AGAIN_SECONDS = 60.0


class OutageLines:
    """The lines of one thing that may be away. clock: as time.monotonic."""

    def __init__(
        self,
        watched: Watched,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watched, self._say, self._clock = watched, say, clock
        self._outage: Outage | None = None  # the last that was seen
        self._begun = self._said = 0.0

    def look(self) -> Outage | None:
        """The outage of this moment, after saying what there is to say of it."""
        outage, now = self._watched.outage(), self._clock()
        if outage is None:
            if self._outage is not None:
                self._say(f"{self._watched.back}, after {lasting(now - self._begun)}")
        elif self._outage is None:
            self._begun, self._said = now - outage.seconds, now
            self._say(f"{outage.sentence}; {self._watched.advice}")
        elif now - self._said >= AGAIN_SECONDS:
            self._said = now
            self._say(f"{outage.sentence}; for {lasting(now - self._begun)} now")
        self._outage = outage
        return outage
