"""A client: it makes a worker's calls in odd orders and at odd times, and checks every answer."""

import json
import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import Outcomes
from pairmill.workers.errors import LeaseLost, Malformed, Refused, Unreachable, WorkerError
from pairmill.workers.queue import Claim
from support.chaos.clocks import move_clock, wrong_clocks
from support.chaos.constants import BATCH, HOSTS, LEASE_SECONDS, LIMIT, MODEL, PAUSE
from support.database import QUEUES, outcomes, pair_rows, score_rows


class Done(Exception):
    """The client was told to stop, or has nothing left to do."""


class Client:
    """Claims and does tasks of one kind as no sane worker would, and checks every answer.

    Its log has a line of JSON for each odd thing that it did: what, and how it was answered.
    """

    def __init__(self, kind: str, seed: str, *, drain: bool) -> None:
        self.work: Callable[[Claim], None] = getattr(self, kind)
        self.model = MODEL if kind == "score" else None
        self.rng = random.Random(seed)
        self.drain = drain
        self.parent = os.getppid()
        self.queue = QUEUES[kind](os.environ["PAIRMILL_WORKER_DSN"], patience=LIMIT)
        self.instance: int | None = None
        self.late: Callable[[], object] | None = None  # a submission under a lease that was lost

    def run(self) -> None:
        """Work until told to stop; a lost database or lease costs a task and no more."""
        while True:
            self.pause(0)
            try:
                self.one_task()
            except LeaseLost:
                self.say("a lease", "lost")
            except Unreachable:  # a clock that jumped a day while it waited
                self.late = None  # the lease may well live
                self.say("a database", "given up")

    def one_task(self) -> None:
        self.instance = self.instance or self.queue.register().instance_id
        claim = self.queue.claim(self.instance, self.model)
        if claim is not None:
            try:
                self.work(claim)
            except Malformed as error:
                self.say("a call", f"refused: {re.sub('[0-9]+', 'N', str(error))}")
                self.queue.fail(claim.lease_id, str(error), retry=True)
        elif self.drain and self.queue.drained(self.model):
            raise Done
        else:
            self.pause(0.3)

    def pause(self, seconds: float) -> None:
        """Wait; obey what signals say: no handler, so nothing is torn in the middle."""
        end = time.perf_counter() + seconds
        while True:
            got = signal.sigtimedwait(
                {signal.SIGTERM, signal.SIGUSR1}, max(0.0, end - time.perf_counter())
            )
            if got is None:
                break
            if got.si_signo == signal.SIGTERM:
                raise Done
            move_clock()
        if os.getppid() != self.parent:  # who started us is gone
            raise Done

    def say(self, what: str, answer: str, *, wrong: bool = False) -> None:
        line = json.dumps({"what": what, "answer": answer, "wrong": wrong})
        os.write(2, f"{line}\n".encode())

    def answer(self, what: str, call: Callable[[], object], *right: str) -> str:
        """Make an odd call; say how it was answered, and whether that was right."""
        try:
            got = str(call())
        except LeaseLost:
            got = "lease lost"
        except Malformed:
            got = "refused"
        if wrong := got not in right:
            got = f"{got}, not {' or '.join(right)}"
        self.say(what, got, wrong=wrong)
        return got

    def twice(self, what: str, send: Callable[[], int], first: int, *also_right: str) -> None:
        """Submit once more what was answered already."""
        self.answer(
            what, lambda: "the same" if send() == first else "another", "the same", *also_right
        )

    # ---- download

    def download(self, claim: Claim) -> None:
        """Submit a batch in parts of random size, order and number; then complete, or not."""
        left = [n for n, _ in self.queue.urls(claim.lease_id)]
        self.rng.shuffle(left)
        numbers = self.rng.sample(range(1000), 1000)
        if self.late and self.rng.random() < 0.5:
            self.answer("submission of a lost lease", self.late, "lease lost")
        while left:
            size = self.rng.randint(1, 40)
            part, left = left[:size], left[size:]
            self.submit(claim.lease_id, numbers.pop(), some_outcomes(part, self.rng))
            chance = self.rng.random()
            if chance < 0.01:
                self.queue.release(claim.lease_id)
                return self.say("a task", "released")
            if chance < 0.02:
                self.queue.fail(claim.lease_id, "by chance", retry=True)
                return self.say("a task", "failed")
            self.breathe(claim.lease_id)
        self.queue.complete(claim.lease_id)
        if self.rng.random() < 0.2:
            again = self.rng.choice([self.queue.complete, self.queue.release])
            self.answer("end of a lease, twice", lambda: again(claim.lease_id), "lease lost")
        return None

    def submit(self, lease: int, number: int, rows: Outcomes) -> None:
        def send(part: int = number) -> int:
            return self.queue.submit_download(lease, part, rows)

        self.late = send
        if self.rng.random() < 0.01:
            self.pause(LEASE_SECONDS * self.rng.uniform(1.1, 1.6))
            if self.answer("a part after a stall", send, "lease lost") == "lease lost":
                raise LeaseLost("as it should be")
        first = send()
        if self.rng.random() < 0.15:
            self.twice("a part, twice", send, first, "lease lost")
        if self.rng.random() < 0.1:
            self.answer("rows in another part", lambda: send(number + 1000), "refused", "lease lost")  # fmt: skip

    def breathe(self, lease: int) -> None:
        if not self.drain:
            self.pause(self.rng.uniform(0, PAUSE))
            self.queue.heartbeat(lease)

    # ---- extract

    def extract(self, claim: Claim) -> None:
        """COPY a file's links and submit them, twice at times; or leave them behind."""
        first, last = map(int, claim.payload["location"].split("-"))
        urls = [url(i) for i in range(first, last)]
        self.queue.copy_pairs(pair_rows(claim.lease_id, urls))
        if not self.drain:
            self.pause(self.rng.uniform(0, PAUSE))
        if self.rng.random() < 0.1:
            self.queue.fail(claim.lease_id, "by chance", retry=True)
            return self.say("a task", "failed")

        def send() -> int:
            counts = [("image", "links", "", len(urls)), ("", "records", "", 1)]
            return self.queue.submit_extract(claim.lease_id, len(urls), counts)

        submission = send()
        if self.rng.random() < 0.3:
            self.twice("an extraction, twice", send, submission)
        return None

    # ---- score

    def score(self, claim: Claim) -> None:
        """Score a batch in parts of random size and number; COPY more than was submitted, at times."""
        found = self.queue.thumbnails(claim.lease_id, 0, BATCH)
        if len(found) != claim.payload["count"]:  # something was withdrawn meanwhile
            self.queue.fail(claim.lease_id, "fewer thumbnails than were counted", retry=True)
            return self.say("a task", "failed: fewer thumbnails than were counted")
        left = [row[0] for row in found]
        self.rng.shuffle(left)
        numbers = self.rng.sample(range(1000), 1000)
        while left:
            size = self.rng.randint(1, 80)
            part, left, number = left[:size], left[size:], numbers.pop()
            self.queue.copy_scores(score_rows(claim.lease_id, number, part))
            self.submit_scores(claim.lease_id, number, part)
            self.breathe(claim.lease_id)
        self.queue.complete(claim.lease_id)
        return None

    def submit_scores(self, lease: int, number: int, part: list[int]) -> None:
        def send() -> int:
            return self.queue.submit_score(lease, number, len(part))

        first = send()
        if self.rng.random() < 0.15:
            self.twice("scores, twice", send, first, "lease lost")
        if self.rng.random() < 0.02:
            self.queue.copy_scores(score_rows(lease, number, part))
            self.say("a COPY", "made again after its submission")


def url(i: int) -> str:
    return f"http://h{i % HOSTS}.example/{i}.jpg"


def some_outcomes(positions: list[int], rng: random.Random) -> Outcomes:
    return outcomes(positions, rng.choice([Outcome.SUCCESS, Outcome.TIMEOUT, Outcome.EMPTY]))


def client(kind: str, seed: str, drain: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    wrong_clocks("time", "monotonic")
    worker = Client(kind, seed, drain=drain == "drain")
    try:
        worker.run()
    except Done:
        pass
    except Refused as refused:
        sys.exit(f"refused: {refused}")
    finally:
        with suppress(WorkerError):
            worker.queue.close()
