"""A database that is away, in every form: the process knows, says why, and knows when it is back.

The times are those of workers, divided: ``tests/unit/test_reach.py`` has their sum.
"""

import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.schema.outcomes import Outcome
from pairmill.workers import heartbeat, reach
from pairmill.workers.errors import WorkerError
from pairmill.workers.extract.calls import ExtractQueue
from pairmill.workers.heartbeat import Heartbeat
from pairmill.workers.reach import Reach
from support.database import Database, say_migrated
from support.line import Line, Web, Wire, all_said, said, wait_until

URLS = 60
QUICK = {
    heartbeat: {"SILENT_SECONDS": 0.2, "LOOK_SECONDS": 0.05, "ANSWER_SECONDS": 0.6, "AGAIN_SECONDS": (0.1, 0.2)},
    reach: {"GRACE_SECONDS": 0.1, "PROBE_SECONDS": 0.5},
}  # fmt: skip
PROGRAM = "; ".join(
    [
        "from pairmill.workers import heartbeat, reach",
        *(f"{m.__name__.rpartition('.')[2]}.{k} = {v}" for m, s in QUICK.items() for k, v in s.items()),
        "from pairmill.workers.steward import watchdog",
        "watchdog.EVERY_SECONDS = 0.2",
        "from pairmill.workers.download import web_reach",
        "web_reach.SILENT_SECONDS, web_reach.PAUSES = 0.3, (0.1, 0.2)",
        "from pairmill.ops.cli import main",
        "main()",
    ]
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, values in QUICK.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


class Computing:
    """A worker that holds a task and computes: only the heartbeat's thread asks anything."""

    def __init__(self, dsn: str) -> None:
        self.reach = Reach()
        self.queue = ExtractQueue(dsn, patience=60)
        self.queue.reach = self.reach
        claim = self.queue.claim(self.queue.register().instance_id)
        assert claim
        self.queue.serving = True
        self.lease_id, self.last_progress = claim.lease_id, float("inf")
        self.lost = threading.Event()
        self.heartbeat = Heartbeat(dsn, self.reach, 3600.0)
        self.heartbeat.hold(self, self.lost.set)
        self.heartbeat.start()

    def close(self) -> None:
        self.heartbeat.stop()
        self.heartbeat.join(10)
        self.queue.close()

    def sees(self, words: str) -> bool:
        outage = self.reach.outage()
        return outage is not None and words in outage.sentence


def login_of(computing: Computing) -> str:
    return str(conninfo_to_dict(computing.queue._dsn)["user"])


@contextmanager
def refused(db: Database, wire: Wire, computing: Computing) -> Iterator[str]:
    wire.cut()
    yield "does not answer since"
    wire.mend()


@contextmanager
def swallowed(db: Database, wire: Wire, computing: Computing) -> Iterator[str]:
    """A network that drops packets, or a pooler whose server is away: connected, and no answer."""
    wire.swallow()
    yield "no answer within"
    wire.mend()


@contextmanager
def too_many(db: Database, wire: Wire, computing: Computing) -> Iterator[str]:
    login = login_of(computing)
    db.admin.execute(f"alter role {login} connection limit 0")
    db.admin.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", (login,)
    )
    yield "too many connections"
    db.admin.execute(f"alter role {login} connection limit -1")


FORMS = [refused, swallowed, too_many]


@pytest.mark.usefixtures("quick")
def test_a_worker_that_computes_sees_every_form_of_it_and_its_end(db: Database) -> None:
    db.add_wat()
    with closing(Wire(int(str(conninfo_to_dict(db.dsn)["port"])))) as wire:
        dsn = make_conninfo(db.login("extract"), host="127.0.0.1", port=wire.port)
        with closing(Computing(dsn)) as computing:
            for form in FORMS:
                wait_until(lambda: computing.reach.silent < 0.2, "an answered probe")
                assert computing.reach.outage() is None
                with form(db, wire, computing) as words:
                    wait_until(lambda words=words: computing.sees(words), words)  # type: ignore[misc]
                wait_until(lambda: computing.reach.outage() is None, f"the end of {form.__name__}")
            assert not computing.lost.is_set()


@pytest.mark.usefixtures("quick")
def test_a_worker_that_asks_waits_for_a_restore_to_end(db: Database) -> None:
    """It was served before: the schema, its rights, or the database itself come back. Before, it
    ended with advice to migrate."""
    db.add_wat()
    with closing(Computing(db.login("extract"))) as computing:
        group = db.group("extract")
        for away, words, back in (
            ("alter schema api rename to gone", "no schema api now", "alter schema gone rename to api"),
            (f"revoke usage on schema api from {group}", "no rights now", f"grant usage on schema api to {group}"),
            (
                "alter function api.drained_v1 rename to gone", "lacks a function",
                "alter function api.gone rename to drained_v1",
            ),
        ):  # fmt: skip
            db.admin.execute(away)
            found: list[Any] = []
            asking = threading.Thread(target=lambda f=found: f.append(computing.queue.drained()))
            asking.start()
            wait_until(lambda words=words: computing.sees(words), words)  # type: ignore[misc]
            db.admin.execute(back)
            asking.join(30)
            assert found == [False]
            assert computing.reach.outage() is None
    stranger = ExtractQueue(db.login("extract"), patience=0.2)
    db.admin.execute("alter schema api rename to gone")
    with closing(stranger), pytest.raises(WorkerError, match="pairmill migrate"):
        stranger.register()


# ---- real workers, and a server that stands still ------------------------------------------------


class Server:
    """The tests' own server, on this machine, that can be made to stand still: stopped, it keeps
    its connections and answers nobody."""

    def __init__(self, db: Database) -> None:
        file = Path(db.value("show data_directory")) / "postmaster.pid"
        if not file.exists():
            pytest.skip("PAIRMILL_TEST_SERVER is on another machine, or another user's")
        self._postmaster = int(file.read_text().split("\n", 1)[0])

    def signal(self, how: signal.Signals) -> None:
        """To it and its sessions."""
        task = f"/proc/{self._postmaster}/task/{self._postmaster}/children"
        for pid in (self._postmaster, *map(int, Path(task).read_text().split())):
            with suppress(ProcessLookupError):
                os.kill(pid, how)


def health(port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def sample(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name + "{"))


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    def ports(count: int) -> list[int]:
        with ExitStack() as taken:
            found = [
                taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
            ]
            return [int(each.getsockname()[1]) for each in found]

    return ports


def test_workers_say_that_their_database_and_their_network_are_away(
    db: Database, tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    """An idle one, one with a task that asks nothing, and the steward with its watchdog, before a
    server that stands still: a line, a 503 and metrics; lines at its end. One that is told to stop
    meanwhile ends. The same for a downloader's network, and no link is dead for it. A worker has
    one connection while it is idle, and two at work, as without the probes."""
    server, line = Server(db), Line(db.dsn, tmp_path / "home")
    say_migrated(db.admin)
    line.program = ("-c", PROGRAM)
    try:
        db.extract([f"http://h{i}.example/{i}.jpg" for i in range(URLS)])
        db.close_batches()
        ports = dict(zip(("extract", "download", "steward"), free_ports(3), strict=True))
        dsns = {kind: db.login(kind, f"{kind}-real") for kind in ports}
        with (
            Web(lambda host, path: None).running() as web,
            closing(Wire(web.port)) as wire,
        ):
            line.environment |= web.environment | {"PAIRMILL_CONNECT_TO": f"127.0.0.1:{wire.port}"}
            line.environment["PAIRMILL_AGREE"] = "yes"
            web.hold = lambda path: sum("jpg" in path for _, path in list(web.asked)) > URLS / 2
            workers = {
                kind: line.start(kind, "--dsn", dsns[kind], "--metrics", f"127.0.0.1:{port}")
                for kind, port in ports.items()
            }
            assert web.held.wait(60)
            for port in ports.values():
                wait_until(lambda port=port: reachable(port) == 200, "its health")  # type: ignore[misc]
            asks = "select count(*) from pg_stat_activity where usename = %s and query like '%%claim%%'"
            login = conninfo_to_dict(dsns["extract"])["user"]
            wait_until(lambda: db.value(asks, login) == 1, "the idle one's first claim")
            wait_until(lambda: counted(ports["steward"]), "the steward's first round")
            server.signal(signal.SIGSTOP)
            for kind, worker in workers.items():
                told = said(worker, "the database does not answer since")
                assert told.startswith(f"{kind} {kind}-real: the database does not answer")
                assert "what is under way goes on" in told
                status, why = health(ports[kind])
                assert (status, why.partition(" since")[0]) == (503, "the database does not answer")
                assert sample(ports[kind], "pairmill_database_up") == 0
                assert sample(ports[kind], "pairmill_database_down_seconds") > 0
            ends(workers.pop("extract"))
            server.signal(signal.SIGCONT)
            for kind, worker in workers.items():
                assert "the database answers again, after" in said(worker, "again")
                assert health(ports[kind]) == (200, "ok\n")
                assert sample(ports[kind], "pairmill_database_up") == 1
                assert sessions(db, dsns[kind]) <= 2
            wait_until(lambda: sessions(db, dsns["extract"]) == 0, "the end of what was cut")

            download = workers["download"]
            wire.cut()
            web.release.set()
            told = said(download, "no host answers since")
            assert "is this machine's network down?" in told
            status, why = health(ports["download"])
            assert (status, why.partition(" since")[0]) == (503, "no host answers")
            assert sample(ports["download"], "pairmill_network_up") == 0
            web.hold = lambda path: False
            wire.mend()
            numbers = f"(batch 0) done: {URLS} URLs, 0 success, 0 opted out, {URLS} failed, 0.0 MB"
            all_said(download, "hosts answer again, after", numbers)
            wait_until(lambda: db.value("select count(*) from mill.download") == URLS, "its rows")
            assert db.rows("select distinct outcome, http_status from mill.download") == [
                (Outcome.HTTP_ERROR, 404)
            ]
            assert f"1 task done; {URLS} http error" in ends(download)
        assert f"accepted download {URLS} rows in" in ends(workers["steward"])
    finally:
        server.signal(signal.SIGCONT)
        line.stop_all()


def test_a_worker_whose_registration_is_never_answered_gives_up_and_can_be_stopped(
    db: Database, tmp_path: Path
) -> None:
    """Connected, and then no answer: it said that it gives up, and waited for ever; its end waited
    for the call."""
    line, dsn = Line(db.dsn, tmp_path / "home"), db.login("extract")
    hurried = f"from pairmill.workers import connected; connected.GIVE_UP_SECONDS = 1; {PROGRAM}"
    try:
        with db.admin.transaction():
            db.admin.execute("lock table mill.instance in access exclusive mode")
            line.program = ("-c", PROGRAM)
            stopped = line.start("extract", "--dsn", dsn)
            said(stopped, "does not answer yet; given up within 30 s")
            ends(stopped)
            line.program = ("-c", hurried)
            late = line.start("extract", "--dsn", dsn)
            _, errors = late.communicate(timeout=60)
        assert late.returncode == 1
        assert "cannot reach the database: no answer within 1 s" in errors
    finally:
        line.stop_all()


def ends(worker: subprocess.Popen[str]) -> str:
    """It is told to stop, and does; what it said."""
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 0, errors
    return errors


def reachable(port: int) -> int:
    try:
        return health(port)[0]
    except OSError:
        return 0


def counted(port: int) -> bool:
    """Whether a steward has gone through one round, which ends with the queue's counts."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return b"\npairmill_queue{" in answer.read()


def sessions(db: Database, dsn: str) -> int:
    login = conninfo_to_dict(dsn)["user"]
    return int(db.value("select count(*) from pg_stat_activity where usename = %s", login))
