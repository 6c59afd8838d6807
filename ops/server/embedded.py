"""An embedded PostgreSQL: the server that runs where DATABASE_URL names no other.

We drive PostgreSQL's programs (programs.py) ourselves: the Python layer of the package that
brings them takes no settings and, as root, makes every parent folder readable to all.

The server listens on loopback TCP only: a path under PAIRMILL_HOME may well be longer
than the 107 bytes that a Unix socket's may have. Every login needs a password (SCRAM).
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from pairmill.ops.server.programs import EmbeddedError, Programs
from pairmill.workers.safe_text import say

ADMIN = "pairmill_admin"
DATABASE = "pairmill"
DYING_SECONDS = 5.0
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "jit": "off",  # compiling costs more than our short statements
    "timezone": "UTC",
    "log_timezone": "UTC",
}
# `all` does not mean replication, which pg_basebackup needs
HBA = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"


class EmbeddedServer:
    """The server of one home folder. Every method may be called by several processes at once.

    home: the folder; the server's files are in ``home/postgres``, its log in ``home/postgres.log``.
    """

    def __init__(self, home: Path) -> None:
        self._home = home.absolute()
        self._data = self._home / "postgres"
        self._log = self._home / "postgres.log"
        self._programs = Programs(self._home)
        self._secrets = self._home / "server.json"  # port and password, for its owner only

    def url(self, database: str = DATABASE) -> str:
        """The admin's URL; it answers while the server runs."""
        known = json.loads(self._secrets.read_text())
        return f"postgresql://{ADMIN}:{known['password']}@127.0.0.1:{known['port']}/{database}"

    def is_made(self) -> bool:
        """Whether its files are there. Makes nothing."""
        return (self._data / "PG_VERSION").exists()

    def running(self) -> bool:
        return self._pid() is not None

    def start(self, *, keep: bool = False) -> None:
        """Start the server unless it runs; the first time, make its files and the database.

        keep: leave it running when its last user goes, until ``stop``.
        """
        self._check_programs()
        with self._locked():
            if keep:
                (self._home / "server.keep").touch()
            if not self.running():
                self._start()

    def stop(self) -> bool:
        """Stop the server and wait for its end; True if it was running."""
        if not self._home.exists():
            return False
        with self._locked():
            (self._home / "server.keep").unlink(missing_ok=True)
            return self._stop()

    @contextmanager
    def used(self) -> Iterator[str]:
        """The admin's URL, of a server that runs for as long as somebody uses it."""
        self._check_programs()
        self._make_home()
        with (self._home / "server.users").open("a") as users:
            with self._locked():
                fcntl.flock(users, fcntl.LOCK_SH)
                if not self.running():
                    self._start()
            try:
                yield self.url()
            finally:
                with self._locked():
                    self._stop_if_unused(users.fileno())

    def _stop_if_unused(self, users: int) -> None:
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody else still uses it
        if not (self._home / "server.keep").exists():
            self._stop()

    def _check_programs(self) -> None:
        """Before a first folder is made: nothing is left behind where PostgreSQL is missing."""
        if not self._home.exists():
            self._programs.check()

    def _make_home(self) -> None:
        try:
            self._home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedError(
                f"cannot make {self._home}, the folder of the embedded PostgreSQL"
                f" ({error.strerror}): PAIRMILL_HOME names another"
            ) from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One start or stop at a time."""
        self._make_home()
        with (self._home / "server.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ---- the process -------------------------------------------------------------------------

    def _written_pid(self) -> int | None:
        """The pid in the server's own file, whoever has it now."""
        try:
            return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _pid(self) -> int | None:
        """The pid of our running server: one that is alive and has our data directory."""
        pid = self._written_pid()
        if pid is None or not _alive(pid):
            return None
        try:  # a pid may have been given to another process since; /proc is Linux's
            if Path(f"/proc/{pid}/cwd").readlink() != self._data:
                return None
        except (FileNotFoundError, PermissionError):
            if Path("/proc/self").exists():
                return None
        return pid

    def _await_the_dead(self) -> None:
        """A server that was killed may still be dying, without a folder of its own but with its
        pid, and the next one would refuse to start beside it."""
        give_up = time.monotonic() + DYING_SECONDS
        while (pid := self._written_pid()) is not None and time.monotonic() < give_up:
            with suppress(ChildProcessError):  # it is not our child
                os.waitpid(pid, os.WNOHANG)
            if not _alive(pid) or not Path("/proc/self").exists():
                return
            try:
                Path(f"/proc/{pid}/cwd").readlink()
            except FileNotFoundError:
                time.sleep(0.05)
            except PermissionError:
                return
            else:
                return  # it lives, and is another's: PostgreSQL knows what to do

    def _start(self) -> None:
        if not self.is_made():
            self._make()
        self._await_the_dead()
        known = json.loads(self._secrets.read_text())
        if not _free(known["port"]):
            old, known["port"] = known["port"], _free_port()
            self._save(known)
            say(f"port {old} is taken, now listening on {known['port']}", err=True)
        settings = [f"--{k}={v}" for k, v in ({"port": str(known["port"])} | SETTINGS).items()]
        with self._log.open("ab") as log:
            server = subprocess.Popen(
                self._programs.command("postgres", "-D", str(self._data), *settings),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._home,
                start_new_session=True,  # Ctrl-C in the terminal that started it is not for it
            )  # fmt: skip
        self._wait_until_ready(server)
        with psycopg.connect(self.url("postgres"), autocommit=True) as admin:
            exists = "select 1 from pg_database where datname = %s"
            if not admin.execute(exists, (DATABASE,)).fetchone():
                admin.execute(f"create database {DATABASE}")

    def _wait_until_ready(self, server: subprocess.Popen[bytes]) -> None:
        give_up = time.monotonic() + START_SECONDS
        url = self.url("postgres")
        while True:
            if server.poll() is not None:
                raise EmbeddedError(f"the embedded PostgreSQL did not start: {self._last_words()}")
            try:
                psycopg.connect(url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > give_up:
                    server.send_signal(signal.SIGQUIT)
                    raise EmbeddedError(
                        f"the embedded PostgreSQL was not ready within {START_SECONDS:.0f} s:"
                        f" {self._last_words()}"
                    ) from None
            time.sleep(0.05)

    def _stop(self) -> bool:
        pid = self._pid()
        if pid is None:
            return False
        os.kill(pid, signal.SIGINT)  # PostgreSQL's fast shutdown
        give_up = time.monotonic() + STOP_SECONDS
        while self._pid() == pid:
            if time.monotonic() > give_up:
                say(
                    f"the embedded PostgreSQL (pid {pid}) is slow to stop: stopping it at once",
                    err=True,
                )
                os.kill(pid, signal.SIGQUIT)
                give_up += STOP_SECONDS
            time.sleep(0.05)
        return True

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-5:]
        return f"{' | '.join(lines) or 'it said nothing'} (log: {self._log})"

    # ---- its files ---------------------------------------------------------------------------

    def _make(self) -> None:
        """initdb, into a folder that is renamed once it is whole."""
        self._save({"port": _free_port(), "password": secrets.token_urlsafe(24)})
        half = self._home / "postgres.new"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(mode=0o700)
        password = self._home / "initdb.password"
        password.touch(mode=0o600)
        password.write_text(json.loads(self._secrets.read_text())["password"])
        if user := self._programs.user:
            for path in (half, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        try:
            made = subprocess.run(
                self._programs.command(
                    "initdb", "-D", str(half), "-U", ADMIN, f"--pwfile={password}",
                    "--auth=scram-sha-256", "--encoding=UTF8", "--data-checksums",
                    # C: the same order on every machine, and indexes that no upgrade of libc breaks
                    "--locale=C",
                ),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                cwd=self._home,
            )  # fmt: skip
        finally:
            password.unlink()
        if made.returncode:
            shutil.rmtree(half, ignore_errors=True)
            raise EmbeddedError(f"initdb failed: {' '.join(made.stderr.split())}")
        (half / "pg_hba.conf").write_text(HBA)
        half.rename(self._data)

    def _save(self, known: dict[str, object]) -> None:
        handle = os.open(self._secrets, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as out:
            json.dump(known, out)


@contextmanager
def embedded(home: Path) -> Iterator[str]:
    """The URL of the embedded server of this home, which runs for as long as it is used."""
    with EmbeddedServer(home).used() as url:
        yield url


def _alive(pid: int) -> bool:
    """Whether a process runs; one of ours that ended but was not waited for does not."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
