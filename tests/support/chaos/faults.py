"""The faults, from a seeded generator."""

import random
import signal
import threading
import time
import uuid

import psycopg

from support.chaos.constants import DRAIN_LIMIT, GAP, LEASE_SECONDS, LINKS, OVERLAP
from support.chaos.crowd import Crowd, Place
from support.chaos.plan import Plan, Report
from support.chaos.server import Server

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
