"""pairmill status --watch, on a real terminal (a pty) and into a pipe."""

import importlib.util
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import psycopg
import pytest

from pairmill.ops.server.embedded import EmbeddedServer
from support.database import Database, make_schema, outcomes, say_migrated
from support.line import PATIENCE, Line

URLS = [f"http://h{i}.example/{i}.jpg" for i in range(8)]
WATCH = [sys.executable, "-m", "pairmill.ops.cli", "status", "--watch"]
SCREEN, NO_SCREEN, CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


class Watch:
    """The command on a terminal of its own, of 24 lines of 80 columns."""

    def __init__(self, line: Line) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
            os.execve(sys.executable, WATCH, line.environment | {"TERM": "xterm"})
        termios.tcsetwinsize(self._terminal, (24, 80))
        self.before = termios.tcgetattr(self._terminal)
        self.output = ""
        self.status: int | None = None

    def until(self, shown: Callable[[str], bool]) -> str:
        """Read on until a whole page is so; that page, as plain text."""
        seen = len(self.output)
        while select.select([self._terminal], [], [], PATIENCE)[0]:
            self.output += os.read(self._terminal, 65_536).decode()
            for page in self.output[seen:].split("\x1b[H")[1:-1]:
                plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", page)
                if shown(plain):
                    return plain
        raise AssertionError(f"waited {PATIENCE:.0f} s; last seen: {self.output[-3000:]}")

    def press(self, key: bytes) -> None:
        os.write(self._terminal, key)

    def ended(self) -> int:
        """Read what it says at its end; its exit code. One that goes on is killed."""
        give_up = time.monotonic() + PATIENCE
        while select.select([self._terminal], [], [], PATIENCE)[0]:
            if time.monotonic() > give_up:
                os.kill(self.pid, signal.SIGKILL)
            try:
                self.output += os.read(self._terminal, 65_536).decode()
            except OSError:  # nobody has the other end any more
                break
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._terminal)

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)


@contextmanager
def watching(line: Line) -> Iterator[Watch]:
    watch = Watch(line)
    try:
        yield watch
    finally:
        watch.close()


def row(page: str, name: str) -> list[str]:
    """The cells of the line that begins with this."""
    (found,) = [line.split() for line in page.splitlines() if line.split()[:1] == [name]]
    return found


def is_whole(watch: Watch) -> bool:
    """One screen was taken and given back, the cursor is shown, and keys are echoed again."""
    one = watch.output.count(SCREEN) == watch.output.count(NO_SCREEN) == 1
    end = watch.output[watch.output.rfind("\x1b[H") :]
    return one and NO_SCREEN in end and CURSOR in end and watch.attributes() == watch.before


def test_page_shows_what_goes_on_and_q_ends_it(line: Line, db: Database) -> None:
    db.add_model()
    db.extract(URLS)
    db.close_batches()
    with watching(line) as watch:
        page = watch.until(lambda page: "download" in page)
        assert row(page, "download")[1] == "1"  # ready
        assert row(page, "extract")[-2:] == ["1", "2"]  # done; 8 rows in 5 minutes
        assert "0 of 8 slots" in page
        claim = db.claim("download", "ada")
        assert claim
        queue, _ = db.queue("download", "ada")
        queue.submit_download(claim.lease_id, 0, outcomes(range(5)))
        db.accept_all()
        db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
        db.add_wat("broken.wat.gz")
        db.admin.execute(
            "select mill.discard_task(task_id, 'no such file') from mill.task where state = 'ready'"
        )
        page = watch.until(lambda page: "no such file" in page)
        # ready, leased, workers, late, to accept, discarded, done, rows a minute
        assert row(page, "download")[1:] == ["0", "1", "1", "1", "0", "0", "0", "1"]
        assert "discarded: 1 extract: no such file" in page
        assert "▒······· 1 of 8 slots, 1 batches" in page
        assert row(page, "ada") == ["ada", "5", "5"]
        assert re.search(r"mill\.\w+ +[\d.]+ [kM]?B +\+", page)
        assert re.search(r"WAL written +[\d.]+ \w+/s +\+[\d.]+ [kM]?B", page)
        watch.press(b"x")  # no key of its
        watch.press(b"q")
        assert watch.ended() == 0
        assert is_whole(watch)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_interrupted_it_leaves_the_terminal_whole(line: Line, how: str) -> None:
    with watching(line) as watch:
        watch.until(lambda page: "thumbnails" in page)
        assert watch.attributes() != watch.before
        if how == "Ctrl-C":
            watch.press(b"\x03")
        else:
            os.kill(watch.pid, signal.SIGTERM)
        assert watch.ended() == 130
        assert is_whole(watch)


def test_lost_database_is_said_and_found_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path / "server")
    server.start()
    try:
        make_schema(server.url())
        with psycopg.connect(server.url()) as admin:
            say_migrated(admin)
        with watching(Line(server.url(), tmp_path)) as watch:
            watch.until(lambda page: "thumbnails" in page)
            server.stop()
            page = watch.until(lambda page: "does not answer" in page)
            assert "0 of 8 slots" in page  # what was known stays
            server.start()
            with psycopg.connect(server.url(), autocommit=True) as admin:
                admin.execute("select mill.add_wat(null, '{a.wat.gz}')")
            page = watch.until(lambda page: row(page, "extract")[1] == "1")
            assert "does not answer" not in page
            watch.press(b"q")
            assert watch.ended() == 0
            assert is_whole(watch)
    finally:
        server.stop()


def test_picture_in_the_readme_is_of_todays_page(db: Database) -> None:
    """Would catch: a heading that was renamed, and is still the old one in the picture."""
    path = Path(__file__).parents[2] / "docs" / "make_watch_svg.py"
    spec = importlib.util.spec_from_file_location("make_watch_svg", path)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def words(svg: str) -> set[str]:
        """Without tables, numbers, times and units."""
        texts = (
            element.text or ""
            for element in ElementTree.fromstring(svg).iter()
            if element.tag.endswith("}text")
        )
        return {
            word
            for text in texts
            for word in text.split()
            if re.fullmatch(r"[a-zA-Z/]+", word) and not re.fullmatch(r"(bytes|[kMG]B)(/s)?", word)
        }

    today = words(script.svg(script.Poller(db.dsn, script.snapshot(db.admin))))
    assert {"ready", "done", "rows/min", "leaderboard", "WAL"} < today
    stored = script.OUT.read_text("utf-8")
    assert today - words(stored) == set(), "run docs/make_watch_svg.py"
    assert not re.search(r"url\(\W*http|href=\W*http", stored)  # nothing of another host


def test_without_a_terminal_pages_follow_each_other(line: Line) -> None:
    with subprocess.Popen(
        WATCH, env=line.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        assert child.stderr
        seen = ""
        while seen.count("thumbnails") < 2:
            text = child.stdout.readline()
            assert text, child.stderr.read()
            seen += text
        child.terminate()  # in the background Ctrl-C is ignored
        seen += child.stdout.read()
    assert child.returncode == 130
    assert "\x1b" not in seen
    heads = re.findall(r"^pairmill, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d$", seen, re.M)
    assert len(heads) >= 2


def test_database_that_was_never_there_is_an_error(tmp_path: Path) -> None:
    done = Line("postgresql://nobody@127.0.0.1:1/none", tmp_path).run("status", "--watch")
    assert done.returncode == 1
    assert done.stderr.startswith("pairmill: cannot connect to the database:")
