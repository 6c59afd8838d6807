"""The progress of a worker: one live line on a terminal, else a line for each task that ends."""

import time

from rich.console import Console
from rich.status import Status
from rich.text import Text

from pairmill.workers.metrics import Metrics
from pairmill.workers.queue import Claim
from pairmill.workers.safe_text import safe

NOTICE_SECONDS = 5.0  # without work, until a draining worker names the work it waits for


class Progress:
    """The progress line of one worker process, on standard error. Each update also counts as a
    sign of life in the metrics."""

    def __init__(self, worker: str, metrics: Metrics) -> None:
        self._worker = worker
        self.metrics = metrics
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._status: Status | None = (
            self._console.status(Text(safe(worker))) if self._console.is_terminal else None
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
        batch = f"batch {claim.payload.get('batch_id')}"
        subject = location.rsplit("/", 1)[-1] if location else batch
        self._task = f"task {claim.task_id}: {subject}"
        self._show(self._task)

    def update(self, done: int, total: int | None, unit: str) -> None:
        rate = done / max(time.monotonic() - self._begun, 0.001)
        of = f" of {total:,}" if total is not None else ""
        self._show(f"{self._task}: {done:,}{of} {unit}, {rate:,.0f}/s")

    def idle(self) -> None:
        self._show("waiting for work")

    def say(self, sentence: str) -> None:
        # soft_wrap: rich would break lines of a log at 80 columns
        self._console.print(self._safe(sentence), soft_wrap=True)

    def _show(self, text: str) -> None:
        self.metrics.alive()
        if self._status is not None:
            self._status.update(self._safe(text))

    def _safe(self, text: str) -> Text:
        """A line of this worker; of a str, rich would take what it holds for markup."""
        return Text(safe(f"{self._worker}: {text}"))


class DrainNotice:
    """Names the work that ``--drain`` waits for, once after ``NOTICE_SECONDS`` without work, and
    again after work has come."""

    def __init__(self, line: Progress) -> None:
        self._line = line
        self._said = False
        self._since = time.monotonic()

    def work_came(self) -> None:
        self._said = False
        self._since = time.monotonic()

    def due(self) -> bool:
        return not self._said and time.monotonic() - self._since >= NOTICE_SECONDS

    def say(self, awaited: str) -> None:
        self._said = True
        self._line.say(f"nothing to do now; --drain waits for {awaited}")
