"""The processes that work, seen from outside: started, ended, judged."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support.chaos.constants import LIMIT, wait_for

MARK = "PAIRMILL_CHAOS"  # in the environment of every process of a run
TESTS = Path(__file__).absolute().parents[2]
AWAY = re.compile(r"pairmill: cannot reach the database[^\n]*\s*$")
YOUNG = 30.0  # a worker waits 15 s for its first answer, and may be stalled meanwhile


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
    terminated: bool = False  # whether its process was sent SIGTERM
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
        self._environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
        self._seed = seed

    def log(self, place: Place) -> Path:
        return self.folder / f"{place.name}.log"

    def start(self, place: Place, *, drain: bool = False) -> None:
        place.started += 1
        place.started_at = time.monotonic()
        place.excuse, place.resume_at, place.terminated = "", 0.0, False
        seed = f"{self._seed}/{place.name}/{place.started}"
        command = ["client", place.kind, seed, "drain" if drain else "on"]
        if place.real:
            command = ["worker", "work", place.kind, *(["--drain"] if drain else [])]
            command += ["--concurrency", "8"] if place.kind == "download" else []
        with self.log(place).open("ab") as log:
            place.process = subprocess.Popen(
                [sys.executable, "-m", "support.chaos", *command],
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
            place.terminated |= number == signal.SIGTERM

    def ended(self, place: Place) -> None:
        """Judge how a process ended."""
        assert place.process is not None
        code = place.process.returncode
        right = {"killed": (-9, 0), "stopped": (0,), "disabled": (0, 1), "drained": (0,)}
        # SIGTERM may come before there is anybody to take it, and after: to who was disabled, and
        # is on its way out when all are stopped
        if code not in right.get(place.excuse, ()) and not (code == -15 and place.terminated):
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
