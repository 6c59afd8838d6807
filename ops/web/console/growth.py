"""Growth of tables and of the WAL since the process began: a sample a minute, for a day."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

import psycopg

from pairmill.ops.web.console.readings import Readings

EVERY_SECONDS = 60.0
SAMPLES = 24 * 60


@dataclass(frozen=True)
class SizeSample:
    """Bytes at one moment. wal: written since the server was made; None where that is not known."""

    at: datetime
    clock: float
    bytes: int
    wal: int | None
    tables: Mapping[str, int]


class Growth(threading.Thread):
    """Takes the samples. The first and the newest are kept, and those of the last day."""

    def __init__(self, readings: Readings, every: float = EVERY_SECONDS) -> None:
        super().__init__(daemon=True, name="growth")
        self._readings = readings
        self._every = every
        self._ended = threading.Event()
        self.samples: deque[SizeSample] = deque(maxlen=SAMPLES)

    def run(self) -> None:
        while True:
            self.take()
            if self._ended.wait(self._every):
                return

    def take(self) -> None:
        """Take one now; none where the database does not answer."""
        try:
            (row,) = self._readings.rows("growth")
            tables = {r["table"]: r["bytes"] for r in self._readings.rows("sizes")}
        except psycopg.Error:
            return
        self.samples.append(
            SizeSample(datetime.now(UTC), time.monotonic(), row["bytes"], row["wal"], tables)
        )

    def stop(self) -> None:
        self._ended.set()

    def rates(self) -> list[tuple[float, float]]:
        """(minutes before the newest sample, negative; bytes of WAL a second until then)."""
        found = list(self.samples)
        newest = found[-1].clock if found else 0.0
        return [
            ((b.clock - newest) / 60, max(0.0, (b.wal - a.wal) / max(b.clock - a.clock, 1e-9)))
            for a, b in pairwise(found)
            if a.wal is not None and b.wal is not None
        ]
