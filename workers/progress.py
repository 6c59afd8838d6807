"""The progress of a worker: one live line on a terminal, else a line for each task that ends."""

import threading
import time
from collections import deque

from rich.console import Console
from rich.status import Status
from rich.text import Text

from pairmill.workers.metrics import Metrics
from pairmill.workers.outage_lines import OutageLines
from pairmill.workers.queue import Claim
from pairmill.workers.safe_text import safe
from pairmill.workers.tally import Tally, lasting

NOTICE_SECONDS = 5.0  # without work, until a draining worker names the work it waits for
LOOK_SECONDS = 0.5
RATE_LOOKS = 20  # the rate on the line is that of the last ten seconds


class Progress:
    """The progress line of one worker process, on standard error, and the sentences beside it. Each
    update also counts as a sign of life in the metrics.

    Within its block a thread looks for outages of what the metrics watch, and says them; neither a
    busy event loop nor a call that waits keeps it from that.
    """

    def __init__(self, worker: str, metrics: Metrics) -> None:
        self._worker = worker
        self.metrics = metrics
        self.tally = Tally()
        self._console = Console(stderr=True, markup=False, emoji=False, highlight=False)
        self._status: Status | None = (
            self._console.status(Text(safe(worker))) if self._console.is_terminal else None
        )
        self._begun = time.monotonic()
        self._text, self._unit = worker, ""
        self._done: deque[tuple[float, int]] = deque(maxlen=RATE_LOOKS)
        self._total: int | None = None
        self._now = 0
        self._outages: list[str] = []
        self._ended = threading.Event()
        self._looking = threading.Thread(target=self._look_on, daemon=True, name="progress")

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._looking.join()
        if self._status is not None:
            self._status.stop()
        if did := self.tally.sentence():
            self.say(f"ends after {lasting(time.monotonic() - self._begun)}: {did}")

    def begin(self, claim: Claim) -> None:
        self._done.clear()
        self._done.append((time.monotonic(), 0))
        self._now, self._total, self._unit = 0, None, ""
        self._show(f"task {claim.task_id}: {subject(claim)}")

    def update(self, done: int, total: int | None, unit: str) -> None:
        self.metrics.alive()
        self._now, self._total, self._unit = done, total, unit

    def idle(self) -> None:
        self._done.clear()
        self._unit = ""
        self._show("waiting for work")

    def say(self, sentence: str) -> None:
        # soft_wrap: rich would break lines of a log at 80 columns
        self._console.print(self._safe(sentence), soft_wrap=True)

    def _show(self, text: str) -> None:
        self.metrics.alive()
        self._text = text
        self._refresh()

    def _look_on(self) -> None:
        lines = [OutageLines(watched, self.say) for watched in self.metrics.watched]
        while not self._ended.wait(LOOK_SECONDS):
            found = [outage for each in lines if (outage := each.look())]
            self._outages = [outage.sentence for outage in found]
            if self._done:
                self._done.append((time.monotonic(), self._now))
            self._refresh()

    def _refresh(self) -> None:
        if self._status is not None:
            self._status.update(self._safe(self.line))

    @property
    def line(self) -> str:
        """The live line. In an outage it has no rate: work that waits for the database, or for the
        network, has none that means anything."""
        parts = [self._text]
        if self._unit:
            of = f" of {self._total:,}" if self._total is not None else ""
            parts.append(f"{self._now:,}{of} {self._unit}")
        if self._outages:
            return "; ".join([": ".join(parts), *self._outages])
        rate = f", {self._rate:,.0f}/s" if self._unit else ""
        return ": ".join(parts) + rate

    @property
    def _rate(self) -> float:
        samples = list(self._done)  # another thread may clear it
        since, before = samples[0] if samples else (self._begun, 0)
        return max(0, self._now - before) / max(time.monotonic() - since, 0.001)

    def _safe(self, text: str) -> Text:
        """A line of this worker; of a str, rich would take what it holds for markup."""
        return Text(safe(f"{self._worker}: {text}"))


def subject(claim: Claim) -> str:
    """What a task is about: the file's name, the batch, or the item."""
    payload = claim.payload
    if location := payload.get("location"):  # its last part: the line must fit
        return str(location).rsplit("/", 1)[-1]
    for name in ("batch", "item"):
        if (number := payload.get(f"{name}_id")) is not None:
            return f"{name} {number}"
    return "no subject"


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
