"""The line that bench/line.py measures: its processes, and what each stage of it took.

A stage is one worker, as a process of its own, from an empty queue to an empty queue; the steward
runs all the time. CPU seconds: of the worker with its children, as the kernel gives them at its
end, less those of one that found nothing to do; of the server and the steward by /proc.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from cpu import process_seconds, server_seconds
from line_needs import Measured, Stage
from own_server import note

LOOK_SECONDS = 0.2
SAY_SECONDS = 15.0
PATIENCE = 120.0  # seconds in which the steward ends what a worker handed over
TABLES = cast(LiteralString, (Path(__file__).parent / "line_tables.sql").read_text())
OPEN = "select count(*) from mill.batch where closed_at is null"
GIVEN_UP = "select kind, reason from mill.task where state = 'discarded' limit 1"
UNDER_WAY = (
    "select count(*) from mill.task where kind = %s and state in ('ready', 'leased', 'submitted')"
)
BY_STATE = "select state, count(*) from mill.task where kind = %s group by 1 order by 1"


@dataclass
class Seen:
    """The state of the clocks and counters at one moment. wal: bytes since the server was made.
    disk: bytes of the database."""

    clock: float
    server: float
    wal: int
    disk: int


@dataclass
class Line:
    """A database with its server, its web and its processes. environment: of these. start: CPU
    seconds of a worker of a kind that finds nothing to do."""

    connection: psycopg.Connection[Any]
    folder: Path
    postmaster: int
    environment: dict[str, str]
    start: dict[str, float] = field(default_factory=dict)
    steward: int = 0

    def value(self, query: LiteralString, *arguments: Any) -> Any:
        row = self.connection.execute(query, arguments).fetchone()
        return row[0] if row else None

    def see(self) -> Seen:
        wal = self.value("select pg_current_wal_lsn() - '0/0'::pg_lsn")
        server = server_seconds(self.postmaster) + process_seconds(self.steward)
        disk = self.value("select pg_database_size(current_database())")
        return Seen(time.perf_counter(), server, int(wal), disk)

    def tables(self) -> dict[str, int]:
        """Bytes by table."""
        return {name: int(size) for name, size in self.connection.execute(TABLES)}

    def pairmill(self, *command: str) -> float:
        """Run a command to its end; returns its CPU seconds. Ends the bench where it fails."""
        with self.child(*command) as (child, output):
            said = time.perf_counter()
            while True:
                ended, status, usage = os.wait4(child.pid, os.WNOHANG)
                if ended:
                    break
                time.sleep(LOOK_SECONDS)
                if command[0] == "work" and time.perf_counter() - said > SAY_SECONDS:
                    said = time.perf_counter()
                    note(f"{command[1]}: {self.progress(command[1])}")
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                what = f"pairmill {' '.join(command)} ended with {child.returncode}"
                raise SystemExit(f"{what}:\n{output.read_text()[-2000:]}")
        return usage.ru_utime + usage.ru_stime

    @contextmanager
    def child(self, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """A process of the command, ended with the block; and the file that has what it says."""
        file = self.folder / f"{'-'.join(command[:2]).replace('/', '_')}.log"
        with file.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "pairmill.ops.cli", *command],
                env=self.environment, stdout=output, stderr=output,
            )  # fmt: skip
            try:
                yield child, file
            finally:
                end(child)

    @contextmanager
    def stewarded(self) -> Iterator[None]:
        """With a steward beside the block."""
        with self.child("work", "steward") as (child, _):
            self.steward = child.pid
            try:
                yield
            finally:
                self.steward = 0

    def progress(self, kind: str) -> str:
        found = self.connection.execute(BY_STATE, (kind,)).fetchall()
        return ", ".join(f"{count} {state}" for state, count in found) or "nothing"

    def started(self, kind: str, *options: str) -> None:
        """Measure the start of a worker: one that finds nothing."""
        self.start[kind] = self.pairmill("work", kind, "--drain", *options)
        note(f"{kind}: a start takes {self.start[kind]:.1f} s of CPU")

    def stage(self, name: str, kind: str, units: Any, *options: str) -> Stage:
        """Let one worker do all that there is. units: a query that counts them, or their number."""
        before = self.see()
        cpu = self.pairmill("work", kind, "--drain", *options)
        self.settle(kind)
        return self.stage_of(name, before, cpu - self.start[kind], units)

    def stage_of(self, name: str, before: Seen, cpu: float, units: Any) -> Stage:
        after = self.see()
        count = self.value(units) if isinstance(units, str) else units
        done = Stage(
            count,
            after.clock - before.clock,
            max(0.0, cpu),
            after.server - before.server,
            after.wal - before.wal,
            after.disk - before.disk,
        )
        note(f"{name}: {count:,} in {done.wall:.0f} s")
        return done

    def settle(self, kind: str) -> None:
        """Until the steward has accepted all, and closed the batches."""
        for _ in range(int(PATIENCE / LOOK_SECONDS)):
            if given_up := self.connection.execute(GIVEN_UP).fetchone():
                raise SystemExit(f"a task was given up: {' '.join(given_up)}")
            if not self.value(UNDER_WAY, kind) and not self.value(OPEN):
                return
            time.sleep(LOOK_SECONDS)
        raise SystemExit(f"the steward left {kind} tasks undone: {self.progress(kind)}")


def end(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is None and child.poll() is None:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def web(folder: Path, dead: float) -> Iterator[str]:
    """The address of bench/line_web.py over the images of a folder."""
    command = [sys.executable, str(Path(__file__).parent / "line_web.py"), str(folder), str(dead)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin
        assert child.stdout
        try:
            port = child.stdout.readline().strip()
            if not port:
                raise SystemExit("the web server did not start")
            yield f"127.0.0.1:{port}"
        finally:
            child.stdin.close()


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """Bytes that each table grew by, of those that changed."""
    grown = {name: size - before.get(name, 0) for name, size in after.items()}
    return {name: size for name, size in grown.items() if size}


def loaded(file: Path) -> dict[str, Any]:
    """The result of an earlier run with --json. Ends the bench where it is none."""
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        Measured.of(found["measured"])
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise SystemExit(f"{file} has no result of `bench/line.py --json`: {wrong!r}") from None
    return found
