"""Chaos: a line at work on a server of its own, faults from a seeded generator, then the books.

    python tests/chaos.py --faults 1000 --urls 20000 --seed 1 [--json]

Two kinds of processes work: clients of this file, which make the calls of extract, download and
score workers without a web or a model, in odd orders and at odd times; and real workers, whose wall
clock can be moved. The seed decides which faults come in which order; what they meet is the
machine's.
"""

import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from database import QUEUES, Database, make_schema, outcomes, pair_rows, score_rows
from line import Web

from pairmill.ops.server.embedded import EmbeddedServer
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.calls import Outcomes
from pairmill.workers.errors import LeaseLost, Malformed, Refused, Unreachable, WorkerError
from pairmill.workers.queue import Claim

LEASE_SECONDS = 4
BATCH = 200
LINKS, OVERLAP = 500, 50  # of a WAT file, and how many of them the file before it has too
HOSTS = 60
PAUSE = 0.5  # a client waits up to this long between its parts
GAP = 0.4  # and we between faults
MODEL = "d1"
DAY = 86_400
LIMIT = 60.0  # seconds, for anything that is waited for
DRAIN_LIMIT = 300.0
MARK = "PAIRMILL_CHAOS"  # in the environment of every process of a run
HERE = Path(__file__).absolute()
AWAY = re.compile(r"pairmill: cannot reach the database[^\n]*\s*$")
YOUNG = 30.0  # a worker waits 15 s for its first answer, and may be stalled meanwhile
clock_offset = 0.0


# ---- clocks, in the processes that work ------------------------------------------------------


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


# ---- a client --------------------------------------------------------------------------------


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


# ---- the processes, seen from here -----------------------------------------------------------


@dataclass
class Place:
    """What is to be done by somebody: when a process ends, the next one takes its place."""

    name: str
    kind: str
    real: bool
    dsn: str = ""
    worker: str = ""  # its name in the database
    process: subprocess.Popen[bytes] | None = None
    started: int = 0
    started_at: float = 0.0
    excuse: str = ""  # why its process may end
    resume_at: float = 0.0  # while it is stopped

    @property
    def what(self) -> str:
        return self.kind if self.real else f"{self.kind} client"


class Crowd:
    """The processes that work, and their logs."""

    def __init__(self, folder: Path, environment: dict[str, str], seed: int) -> None:
        self.folder = folder
        self.token = uuid.uuid4().hex
        self.places: list[Place] = []
        self.problems: list[str] = []
        self.notes: Counter[str] = Counter()
        self._environment = os.environ | environment | {MARK: self.token}
        self._environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *sys.path])
        self._seed = seed

    def log(self, place: Place) -> Path:
        return self.folder / f"{place.name}.log"

    def start(self, place: Place, *, drain: bool = False) -> None:
        place.started += 1
        place.started_at = time.monotonic()
        place.excuse, place.resume_at = "", 0.0
        seed = f"{self._seed}/{place.name}/{place.started}"
        command = ["client", place.kind, seed, "drain" if drain else "on"]
        if place.real:
            command = ["worker", "work", place.kind, *(["--drain"] if drain else [])]
            command += ["--concurrency", "8"] if place.kind == "download" else []
        with self.log(place).open("ab") as log:
            place.process = subprocess.Popen(
                [sys.executable, str(HERE), *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=self._environment | {"PAIRMILL_WORKER_DSN": place.dsn},
            )  # fmt: skip

    def tick(self) -> None:
        """Let those go on whose time it is, and fill the places of those that ended."""
        for place in self.places:
            if place.resume_at and time.monotonic() >= place.resume_at:
                self.send(place, signal.SIGCONT)
                place.resume_at = 0.0
            if place.process and place.process.poll() is not None:
                self.ended(place)
                self.start(place)

    def send(self, place: Place, number: signal.Signals) -> None:
        if place.process and place.process.poll() is None:
            place.process.send_signal(number)

    def ended(self, place: Place) -> None:
        """Judge how a process ended."""
        assert place.process is not None
        code = place.process.returncode
        # SIGTERM may come before there is anybody to take it
        right = {"killed": (-9, 0), "stopped": (0, -15), "disabled": (0, 1), "drained": (0,)}
        if code not in right.get(place.excuse, ()):
            words = self.log(place).read_text(errors="replace")[-600:]
            young = time.monotonic() - place.started_at < YOUNG
            if AWAY.search(words) and (place.excuse == "stopped" or young):
                when = "was stopped" if place.excuse == "stopped" else "started"
                self.notes[f"a worker {when} while the database was away: exit code 1"] += 1
                return
            self.problems.append(
                f"{place.name} ended by itself ({place.excuse or 'no fault'}): {code}: {words}"
            )

    def stop(self) -> None:
        """Ask all to end, and wait."""
        for place in self.places:
            if place.process and place.process.poll() is None:
                place.excuse = place.excuse or "stopped"
                self.send(place, signal.SIGCONT)
                self.send(place, signal.SIGTERM)
        self.wait(LIMIT, "stop")

    def wait(self, limit: float, what: str) -> None:
        give_up = time.monotonic() + limit
        for place in self.places:
            if place.process is None:
                continue
            try:
                place.process.wait(max(0.1, give_up - time.monotonic()))
                self.ended(place)
            except subprocess.TimeoutExpired:
                words = self.log(place).read_text(errors="replace")[-600:]
                self.problems.append(f"{place.name} did not {what} in {limit:.0f} s: {words}")
                place.process.kill()
                place.process.wait()
            place.process = None

    def left_behind(self) -> list[int]:
        """Pids of processes that have our mark."""
        mark = f"{MARK}={self.token}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def kill(self) -> None:
        """No process of the run survives this."""
        for place in self.places:
            if place.process and place.process.poll() is None:
                place.process.kill()
                place.process.wait()
        with suppress(TimeoutError):
            wait_for(lambda: not self.left_behind(), "processes of processes", 10)
        for pid in self.left_behind():
            self.problems.append(f"process {pid} was left behind")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    pause = threading.Event()
    give_up = time.monotonic() + limit
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"waited {limit:.0f} s for {what}")
        pause.wait(0.05)


# ---- the server ------------------------------------------------------------------------------


class Server:
    """An embedded server with the schema in it, which may be treated badly."""

    def __init__(self, folder: Path) -> None:
        self.embedded = EmbeddedServer(folder)
        self.folder = folder
        self.embedded.start()
        dsn = self.embedded.url()
        with psycopg.connect(dsn, autocommit=True) as admin:
            # we kill processes and never the machine: what was written stays written without it
            admin.execute("alter system set fsync = off")
            admin.execute("select pg_reload_conf()")
        make_schema(dsn)
        self.db = Database(dsn)
        self._port = self.db.admin.info.port
        self.db.admin.execute(
            "update mill.setting set lease_seconds = %s, batch_size = %s, pairs_per_wat = %s,"
            " open_batches_max = 4, retry_seconds = 0, max_tries = 30000, batches_per_slot = 8,"
            " unfinished_per_hour = 100000",
            (LEASE_SECONDS, BATCH, LINKS),
        )
        self.db.add_model(MODEL)

    def connect(self) -> None:
        """A new admin's connection, once the server takes one."""

        def connected() -> bool:
            try:
                self.db.admin = psycopg.connect(self.db.dsn, autocommit=True, connect_timeout=10)
                self.db.admin.execute("set statement_timeout = '60s'")
            except psycopg.OperationalError:
                return False
            return True

        self.db.admin.close()
        wait_for(connected, "the server")

    def restart(self, how: signal.Signals, down: float) -> None:
        """SIGINT is PostgreSQL's fast shutdown, SIGQUIT the immediate one; down for a while."""
        pid = int((self.folder / "postgres" / "postmaster.pid").read_text().split("\n")[0])
        os.kill(pid, how)
        wait_for(lambda: not self.embedded.running(), "the server's end")
        threading.Event().wait(down)
        # a client may have caught the port while nobody had it: connected to itself
        wait_for(self._port_is_free, "the port")
        self.embedded.start()
        self.connect()

    def crash(self, pid: int) -> None:
        """SIGKILL to one backend: the server ends all others, and recovers."""

        def noticed() -> bool:
            try:
                self.db.admin.execute("select 1")
            except psycopg.OperationalError:
                return True
            return False

        os.kill(pid, signal.SIGKILL)
        wait_for(noticed, "the server to notice")
        self.connect()

    def _port_is_free(self) -> bool:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError:
                return False
        return True

    def backends(self, logins: list[str]) -> list[int]:
        query = "select pid from pg_stat_activity where usename = any (%s) order by pid"
        return [pid for (pid,) in self.db.rows(query, logins)]

    def complaints(self) -> Counter[str]:
        """What the server's log calls an error, by its words without their numbers."""
        text = (self.folder / "postgres.log").read_text(errors="replace")
        found = re.findall(r"(?:ERROR|PANIC|FATAL|TRAP):  (.*)", text)
        return Counter(re.sub(r"[0-9a-f]{6,}|[0-9]+", "N", words) for words in found)


# ---- the faults ------------------------------------------------------------------------------


@dataclass
class Plan:
    faults: int = 1000
    urls: int = 20_000
    seed: int = 1
    clients: int = 4
    extractors: int = 2
    scorers: int = 2
    downloaders: int = 2
    stewards: int = 1


@dataclass
class Report:
    plan: dict[str, int]
    seconds: float = 0.0
    faults: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    clients: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    database: dict[str, Any] = field(default_factory=dict)
    server: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


# how often each comes, beside the others
WEIGHTS = {
    "kill": 20, "stall": 10, "stop": 10, "cut": 20, "clock": 10, "withdraw": 12,
    "replace": 5, "quarantine": 2, "restart": 3, "immediate": 4, "crash": 4,
}  # fmt: skip


class Chaos:
    """The faults, by name. Each returns what happened."""

    def __init__(self, server: Server, crowd: Crowd, plan: Plan, report: Report) -> None:
        self.server, self.crowd, self.plan, self.report = server, crowd, plan, report
        self.rng = random.Random(plan.seed)
        self._pause = threading.Event()
        self._added = 0

    def populate(self) -> None:
        """Take on workers, and the first files."""
        plan = self.plan
        for count, kind, real in (
            (plan.stewards, "steward", True), (plan.downloaders, "download", True),
            (plan.clients, "download", False), (plan.extractors, "extract", False), (plan.scorers, "score", False),
        ):  # fmt: skip
            for i in range(count):
                place = Place(f"{kind}-{'real' if real else 'client'}-{i}", kind, real)
                self.crowd.places.append(place)
                self.take_on(place)
        self.feed(0.25)
        for place in self.crowd.places:
            self.crowd.start(place)

    def take_on(self, place: Place) -> None:
        """Give a place a worker of its own in the database."""
        place.worker = f"{place.name}-{uuid.uuid4().hex[:6]}"
        place.dsn = self.server.db.login(place.kind, place.worker)

    def feed(self, share: float) -> None:
        """Add WAT files until this share of all URLs is known to the queue."""
        while self._added < min(1.0, share) * self.plan.urls:
            last = min(self.plan.urls, self._added + LINKS - OVERLAP)
            self.server.db.add_wat(f"{max(0, self._added - OVERLAP)}-{last}")
            self._added = last

    def run(self) -> None:
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        for number in range(self.plan.faults):
            self.crowd.tick()
            self.feed(0.25 + 0.75 * (number + 1) / self.plan.faults)
            name = self.rng.choices(names, weights)[0]
            try:
                what = getattr(self, name)()
            except psycopg.Error as error:
                what = f"the database says: {error}"
                self.report.problems.append(f"fault {number}, {name}: {what}")
            self.report.faults[name][what] += 1
            self._pause.wait(self.rng.uniform(0, GAP))

    def somebody(self) -> Place:
        """A process that lives and that nothing befell yet, if there is one."""
        fresh = [p for p in self.crowd.places if not p.excuse and not p.resume_at]
        return self.rng.choice(fresh or self.crowd.places)

    def kill(self) -> str:
        """SIGKILL."""
        place = self.somebody()
        place.excuse = "killed"
        self.crowd.send(place, signal.SIGKILL)
        return place.what

    def stall(self) -> str:
        """SIGSTOP, and SIGCONT when its lease is over."""
        place = self.somebody()
        self.crowd.send(place, signal.SIGSTOP)
        place.resume_at = time.monotonic() + LEASE_SECONDS * self.rng.uniform(1.1, 1.6)
        return place.what

    def stop(self) -> str:
        """SIGTERM."""
        place = self.somebody()
        place.excuse = place.excuse or "stopped"
        self.crowd.send(place, signal.SIGTERM)
        return place.what

    def clock(self) -> str:
        """A process's clock is a day wrong, or right again."""
        place = self.somebody()
        self.crowd.send(place, signal.SIGUSR1)
        return place.what

    def _backend(self) -> int | None:
        logins = [psycopg.conninfo.conninfo_to_dict(p.dsn)["user"] for p in self.crowd.places]
        pids = self.server.backends([str(login) for login in logins])
        return self.rng.choice(pids) if pids else None

    def cut(self) -> str:
        """pg_terminate_backend."""
        pid = self._backend()
        if pid is None:
            return "nobody was connected"
        gone = self.server.db.value("select pg_terminate_backend(%s)", pid)
        return "a connection ended" if gone else "it was gone already"

    def crash(self) -> str:
        """SIGKILL to a backend, and the server recovers."""
        pid = self._backend()
        if pid is None:
            return "nobody was connected"
        try:
            self.server.crash(pid)
        except ProcessLookupError:
            return "it was gone already"
        return "the server recovered"

    def restart(self) -> str:
        """The server's fast shutdown, and its start."""
        self.server.restart(signal.SIGINT, self.rng.uniform(0, 1))
        return "the server restarted"

    def immediate(self) -> str:
        """The server's immediate shutdown, and its start."""
        self.server.restart(signal.SIGQUIT, self.rng.uniform(0, 1))
        return "the server recovered"

    def withdraw(self) -> str:
        """Take an accepted submission back."""
        kind = "extract" if self.rng.random() < 0.1 else "download"
        found = self.server.db.rows(
            "select s.submission_id from mill.submission s join mill.task t using (task_id)"
            " where s.state = 'accepted' and t.kind = %s"
            " and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)"
            " order by 1", kind,
        )  # fmt: skip
        if not found:
            return "nothing was accepted yet"
        self.server.db.value("select mill.withdraw(%s, 'chaos')", self.rng.choice(found)[0])
        return kind

    def replace(self, place: Place | None = None, *, quarantine: bool = False) -> str:
        """Disable a worker, and take on another."""
        place = place or self.somebody()
        self.server.db.value("select mill.disable_worker(%s)", place.worker)
        if quarantine:
            self.server.db.rows(
                "select * from mill.quarantine_worker(%s, null, 'chaos')", place.worker
            )
        self.crowd.send(place, signal.SIGCONT)
        place.excuse, place.resume_at = place.excuse or "disabled", 0.0
        self.take_on(place)
        return place.what

    def quarantine(self) -> str:
        """Disable a worker, take back all that it ever did, and take on another."""
        place = self.somebody()
        # what scorers did is not taken back: the ring has let go of its thumbnails
        return self.replace(place, quarantine=place.kind != "score")

    def drain(self) -> None:
        """Let all work end: those who work stop, and start again to finish what is left."""
        self.feed(1.0)
        self.crowd.stop()
        places = self.crowd.places
        stewards = [p for p in places if p.kind == "steward"]
        for some in (places, stewards):  # a steward sweeps the inboxes in its first round only
            for place in some:
                self.crowd.start(place, drain=True)
                place.excuse = "drained"
            self.crowd.wait(DRAIN_LIMIT, "drain")


# ---- the books -------------------------------------------------------------------------------

COUNTS = "not exists (select from mill.withdrawn w where w.submission_id = {}.submission_id)"
# each must give no row
BOOKS = {
    "a URL without exactly one counting download": f"""
        select p.url, count(*), count(d.n) from mill.pair p
          left join mill.current_download d using (batch_id, n)
         where {COUNTS.format("p")} group by p.url having count(*) <> 1 or count(d.n) <> 1""",
    "a (batch, n, attempt) twice": """
        select batch_id, n, attempt from mill.download group by 1, 2, 3 having count(*) > 1""",
    "a download that counts beside another attempt's": f"""
        select batch_id, n, count(*) from mill.download d
         where {COUNTS.format("d")} group by 1, 2 having count(*) > 1""",
    "credit that is not the rows that count": f"""
        select * from (select (select coalesce(sum(rows_accepted), 0) from report.worker where kind = 'download') as credit,
               (select count(*) from mill.download d where {COUNTS.format("d")}) as rows) x where credit <> rows""",
    "a task that is not done": "select * from report.task where state <> 'done'",
    "a lease that lives": "select * from mill.lease where ended_at is null",
    "a lease of a done task that ended in no way": "select * from mill.lease where ended_as is null",
    "a row in an inbox": "select lease_id from inbox.pair union all select lease_id from inbox.score",
    "a submission that waits": "select * from mill.submission where state = 'received'",
    "packed outcomes of a decided submission": "select submission_id from mill.submission_download",
    "packed counts of a decided submission": "select submission_id from mill.submission_extract",
    "a download submission whose rows are not its row_count": """
        select s.submission_id, s.state, s.row_count, (select count(*) from mill.download d where d.submission_id = s.submission_id)
          from mill.submission s join mill.task t using (task_id)
         where t.kind = 'download' and case s.state when 'accepted' then s.row_count else 0 end
               <> (select count(*) from mill.download d where d.submission_id = s.submission_id)""",
    "an extraction whose counts are not its row_count": f"""
        select s.submission_id, s.row_count, c.* from mill.submission s join mill.task t using (task_id),
               lateral (select coalesce(sum(count) filter (where stage = 'links'), 0) as links,
                               coalesce(sum(count) filter (where stage in ('pair', 'duplicate', 'dropped')), 0) as ends,
                               coalesce(sum(count) filter (where stage = 'pair'), 0) as pairs
                          from mill.wat_count w where w.submission_id = s.submission_id) c
         where t.kind = 'extract' and s.state = 'accepted' and {COUNTS.format("s")}
           and (s.row_count <> c.links or c.links <> c.ends
                or c.pairs <> (select count(*) from mill.pair p where p.submission_id = s.submission_id))""",
    "a file that was not extracted exactly once": f"""
        select t.wat_id, count(s.submission_id) from mill.task t left join mill.submission s
            on s.task_id = t.task_id and s.state = 'accepted' and {COUNTS.format("s")}
         where t.kind = 'extract' group by 1 having count(s.submission_id) <> 1""",
    "a known URL that is not its pair's": f"""
        select * from (select url_key, batch_id, n from mill.pair p where {COUNTS.format("p")}) p
          full join mill.seen_url k using (url_key, batch_id, n) where p.url_key is null or k.url_key is null""",
    "a batch whose pairs are not its pair_count": """
        select b.batch_id, b.pair_count, count(p.n), max(p.n) from mill.batch b left join mill.pair p using (batch_id)
         group by 1, 2 having b.pair_count <> count(p.n) or max(p.n) <> b.pair_count - 1""",
    "a counting success without exactly one score and embedding": """
        select d.batch_id, d.n, d.attempt, count(x.n) from mill.current_download d
          left join (select s.batch_id, s.n, s.attempt from mill.current_score s
                       join mill.embedding e using (batch_id, n, attempt, model_id, submission_id)) x using (batch_id, n, attempt)
         where d.outcome = 0 group by 1, 2, 3 having count(x.n) <> 1""",
    "a score submission whose rows are not its row_count": """
        select * from (
            select s.submission_id, s.state, s.row_count, case s.state when 'accepted' then s.row_count else 0 end as wanted,
                   (select count(*) from mill.score x where x.submission_id = s.submission_id) as scores,
                   (select count(*) from mill.embedding x where x.submission_id = s.submission_id) as embeddings
              from mill.submission s join mill.task t using (task_id) where t.kind = 'score') x
         where wanted <> scores or wanted <> embeddings""",
    "a thumbnail that nobody needs": "select slot, batch_id, n from mill.thumbnail",
    "a slot that is not empty": "select * from mill.thumbnail_slot where state <> 'empty' or batches <> 0",
    "a crawl's sums that are not its files'": f"""
        select * from (select link_kind, stage, name, sum(count) as files from mill.wat_count c where {COUNTS.format("c")} group by 1, 2, 3) f
          full join (select link_kind, stage, name, count as crawl from mill.crawl_count where stage <> 'files' and count <> 0) c
              using (link_kind, stage, name) where files is distinct from crawl""",
}  # fmt: skip
NUMBERS = {
    "urls": f"select count(distinct url) from mill.pair p where {COUNTS.format('p')}",
    "pairs": "select count(*) from mill.pair",
    "downloads": "select count(*) from mill.download",
    "scores": "select count(*) from mill.score",
    "highest attempt": "select max(attempt) from mill.download",
    "most tries": "select max(tries) from mill.task",
    "withdrawn": "select count(*) from mill.withdrawn",
    "instances": "select count(*) from mill.instance",
    "leases": "select jsonb_object_agg(ended_as, n) from (select coalesce(ended_as, 'live') as ended_as, count(*) as n from mill.lease group by 1) x",
    "submissions": "select jsonb_object_agg(state, n) from (select state, count(*) as n from mill.submission group by 1) x",
}
# what the server's log may say, for our faults make it; anything else is a problem
EXPECTED = re.compile(
    "lease N is not held|task N is not complete|a position is not of this task|rows were announced"
    "|terminating connection due to administrator command|the database system is"
    "|worker .* was disabled|is not permitted to log in|too many connections for role"
    "|terminating connection because of crash|canceling authentication"
)


def check(server: Server, plan: Plan, report: Report) -> None:
    """Every book must balance."""
    for what, query in BOOKS.items():
        if found := server.db.rows(query):
            report.problems.append(f"{what}: {len(found)}, the first are {found[:3]}")
    report.database = {what: server.db.value(query) for what, query in NUMBERS.items()}
    if report.database["urls"] != plan.urls:
        report.problems.append(f"{report.database['urls']} URLs count, not {plan.urls}")


def read_logs(server: Server, crowd: Crowd, report: Report) -> None:
    """What clients did beside our faults, and what nobody should have said."""
    for place in crowd.places:
        text = crowd.log(place).read_text(errors="replace")
        if "Traceback" in text:
            start = text.index("Traceback")
            report.problems.append(f"{place.name} said: {text[start : start + 2000]}")
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                report.clients[said["what"]][said["answer"]] += 1
                if said["wrong"]:
                    report.problems.append(f"{place.name}: {said['what']}: {said['answer']}")
    report.server = server.complaints()
    for words, times in report.server.items():
        if not EXPECTED.search(words):
            report.problems.append(f"the server's log, {times} times: {words}")


# ---- a run -----------------------------------------------------------------------------------


def not_found(*_: object) -> None:
    """404, and not at once."""
    threading.Event().wait(0.02)


@contextmanager
def deaf_to_usr1() -> Iterator[None]:
    """A process that is so young that it has no handler is not ended by SIGUSR1: it inherits this."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits while things are put away."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def put_away(act: Callable[[], object]) -> None:
    with uninterrupted():
        act()


def run(plan: Plan, folder: Path) -> Report:
    """Everything, in an empty folder; whatever happens, no process stays."""
    report = Report(asdict(plan))
    begun = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(deaf_to_usr1())
        web = stack.enter_context(Web(not_found).running())
        stack.callback(put_away, EmbeddedServer(folder).stop)
        server = Server(folder)
        crowd = Crowd(folder, web.environment, plan.seed)
        stack.callback(put_away, crowd.kill)
        chaos = Chaos(server, crowd, plan, report)
        try:
            chaos.populate()
            chaos.run()
            chaos.drain()
        except TimeoutError as late:
            crowd.problems.append(str(late))
        crowd.kill()
        report.problems += crowd.problems
        report.notes = crowd.notes
        check(server, plan, report)
        read_logs(server, crowd, report)
        server.db.close()
    report.seconds = round(time.monotonic() - begun, 1)
    return report


def table(report: Report) -> str:
    """Faults by kind, and what happened, for people."""
    lines = [f"{sum(sum(c.values()) for c in report.faults.values())} faults in {report.seconds} s"]
    for title, counts in (("fault", report.faults), ("a client's", report.clients)):
        lines.append(f"\n{title:<28}{'times':>7}  what happened")
        for name, found in sorted(counts.items()):
            answers = ", ".join(f"{what} {n}" for what, n in found.most_common())
            lines.append(f"{name:<28}{sum(found.values()):>7}  {answers}")
    lines.append("\nthe server's log")
    lines += [f"{n:>9}  {words[:110]}" for words, n in report.server.most_common()]
    lines.append("\nat the end")
    lines += [f"{what:<28}{value}" for what, value in report.database.items()]
    lines += [f"\nnoted {n} times: {what}" for what, n in report.notes.items()]
    lines += [f"\nPROBLEM  {problem}" for problem in report.problems]
    lines.append(f"\n{len(report.problems)} problems")
    return "\n".join(lines)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults on a line at work; then the books.")
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--urls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs and data, which stays")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    plan = Plan(options.faults, options.urls, options.seed)
    with ExitStack() as stack:
        folder = options.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        try:
            report = run(plan, Path(folder))
        except KeyboardInterrupt:
            sys.exit(130)
    print(json.dumps(vars(report), indent=2, default=str) if options.json else table(report))
    sys.exit(bool(report.problems))


if __name__ == "__main__":
    modes = {"client": lambda: client(*sys.argv[2:]), "worker": lambda: real_worker(sys.argv[2:])}
    modes.get(sys.argv[1] if len(sys.argv) > 1 else "", main)()
