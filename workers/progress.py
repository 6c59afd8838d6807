"""What a worker shows: one live line on a terminal, else a line for each task that ends."""

import time

from rich.console import Console
from rich.status import Status

from pairmill.workers.metrics import Metrics
from pairmill.workers.queue import Claim


class Progress:
    """The progress line of one worker process, on standard error; each of its signs is one of life
    to the metrics, too."""

    def __init__(self, who: str, metrics: Metrics) -> None:
        self._who = who
        self.metrics = metrics
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = (
            self._console.status(who) if self._console.is_terminal else None
        )
        self._task = ""
        self._begun = time.monotonic()

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def begin(self, claim: Claim) -> None:
        self._begun = time.monotonic()
        location = claim.payload.get("location")  # its last part: the line must fit
        what = location.rsplit("/", 1)[-1] if location else f"batch {claim.payload.get('batch_id')}"
        self._task = f"task {claim.task_id}: {what}"
        self._show(self._task)

    def update(self, done: int, total: int | None, unit: str) -> None:
        rate = done / max(time.monotonic() - self._begun, 0.001)
        of = f" of {total:,}" if total is not None else ""
        self._show(f"{self._task}: {done:,}{of} {unit}, {rate:,.0f}/s")

    def idle(self) -> None:
        self._show("waiting for work")

    def say(self, sentence: str) -> None:
        self._console.print(f"{self._who}: {sentence}", markup=False)

    def _show(self, text: str) -> None:
        self.metrics.alive()
        if self._status is not None:
            self._status.update(f"{self._who}: {text}")
