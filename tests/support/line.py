"""Running the real command, and the real workers as processes, against a test's database."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pytest

from pairmill.ops import cli
from pairmill.ops.demo.serve import Answers, server
from pairmill.ops.demo.site import File

PATIENCE = 120.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Look again and again, without keeping the processor busy, until it is so."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError(f"waited {PATIENCE:.0f} s for: {what}")


def here(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    """As `pairmill` itself runs, from its arguments to its exit code, without a terminal; in this
    process, since one of its own takes a second to start."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", ["pairmill", *command]),
        patch.object(sys, "stdin", io.StringIO()),
        redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended,
    ):  # fmt: skip
        cli.main()
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(command, ended.value.code, out.getvalue(), err.getvalue())


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command says when it cannot go on."""
    assert done.returncode == 1, done.stdout + done.stderr
    (said,) = done.stderr.strip().splitlines()
    assert "Traceback" not in said
    return said


class Line:
    """The command against one database: DATABASE_URL and PAIRMILL_HOME are the test's. program:
    what Python runs for a worker."""

    program = ("-m", "pairmill.ops.cli")

    def __init__(self, dsn: str, home: Path) -> None:
        self.environment = os.environ | {"DATABASE_URL": dsn, "PAIRMILL_HOME": str(home)}
        self._children: list[subprocess.Popen[str]] = []

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end: a worker, the server's and those of another tree as processes,
        others in this one."""
        other_tree = self.environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH")
        if other_tree or command[0] in ("work", "db") or "--watch" in command:
            return self._process(*command)
        return self.here(*command)

    def here(self, *command: str) -> subprocess.CompletedProcess[str]:
        return here(self.environment, *command)

    def _process(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pairmill.ops.cli", *command],
            env=self.environment, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def pairmill(self, *command: str) -> str:
        """What a command prints; it must succeed."""
        done = self.run(*command)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.pairmill("status", "--json"))
        return found

    def start(self, kind: str, *options: str) -> subprocess.Popen[str]:
        """Start a worker; ``stop_all`` ends it if the test does not."""
        child = subprocess.Popen(
            [sys.executable, *self.program, "work", kind, *options],
            env=self.environment, text=True, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._children.append(child)
        return child

    def drain(self, *kinds: str, options: dict[str, tuple[str, ...]] | None = None) -> None:
        """Run workers side by side until nothing is left to do."""
        with self.draining(*kinds, options=options):
            pass

    @contextmanager
    def draining(
        self, *kinds: str, options: dict[str, tuple[str, ...]] | None = None
    ) -> Iterator[None]:
        """Beside the block; afterwards they have ended, since nothing was left to do."""
        children = [self.start(kind, "--drain", *(options or {}).get(kind, ())) for kind in kinds]
        yield
        for child in children:
            _, errors = child.communicate(timeout=PATIENCE)
            assert child.returncode == 0, errors

    def stop_all(self) -> None:
        for child in self._children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                child.wait()
            if child.stderr:
                child.stderr.close()


def said(worker: subprocess.Popen[str], words: str) -> str:
    """The first line of a worker that has these words; the worker is killed if none ever comes."""
    return all_said(worker, words)[-1]


def all_said(worker: subprocess.Popen[str], *words: str) -> list[str]:
    """The lines of a worker until all of these words have come, in whichever order."""
    assert worker.stderr
    too_long = threading.Timer(PATIENCE, worker.kill)
    too_long.start()
    try:
        lines, missing = list[str](), set(words)
        for text in worker.stderr:
            lines.append(text)
            missing -= {each for each in missing if each in text}
            if not missing:
                return lines
        raise AssertionError(f"it ended without {missing}: {lines}")
    finally:
        too_long.cancel()


class Web:
    """A web server on loopback that counts what it is asked for, and can be told to hold.

    While ``hold`` says so for a path, the request waits until ``release`` is set.
    """

    def __init__(self, answers: Answers) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self.hold: Callable[[str], bool] = lambda path: False
        self.held = threading.Event()
        self.release = threading.Event()
        self._answers = answers
        self._lock = threading.Lock()
        self._server = server(self._answer)
        self.port = self._server.server_port

    def _answer(self, host: str, path: str) -> File | None:
        with self._lock:
            self.asked[host, path] += 1
        if self.hold(path):
            self.held.set()
            self.release.wait(PATIENCE)
        return self._answers(host, path)

    @property
    def environment(self) -> dict[str, str]:
        """What sends the downloader here."""
        return {
            "PAIRMILL_CONNECT_TO": f"127.0.0.1:{self.port}",
            "PAIRMILL_ALLOW_NETWORKS": "127.0.0.0/8",
        }

    @contextmanager
    def running(self) -> Iterator["Web"]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.release.set()
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class Wire:
    """A TCP port on loopback that leads to another: the network between two. It can be cut, and it
    can swallow what is sent, as a line does whose other end is gone."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._ends: set[socket.socket] = set()
        self._cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:  # closed
                return
            self._flows.wait()
            with self._lock:
                if self._cut:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self._to))
                self._ends |= {near, far}
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Every connection breaks, and none is let through until ``mend``."""
        with self._lock:
            self._cut = True
            ends, self._ends = self._ends, set()
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Nothing arrives until ``mend``, and nobody is told."""
        self._flows.clear()

    def mend(self) -> None:
        with self._lock:
            self._cut = False
        self._flows.set()

    def close(self) -> None:
        self.cut()
        self._flows.set()
        self._listening.close()


def lose_leases(connection: psycopg.Connection[Any]) -> None:
    """Let every live lease be late at once, as if its time had passed."""
    connection.execute("update mill.lease set expires_at = now() where ended_at is null")
