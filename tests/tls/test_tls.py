"""The line of docs/security.md, on a real PostgreSQL that has TLS: `make tls-test`.

The settings, the lines of pg_hba.conf and the commands that make certificates are the page's. Its
inside network is 127.0.0.1 here; who comes from outside comes through a relay, from 127.0.0.2. Its
superuser `postgres` is whoever runs the tests.
"""

import os
import re
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from getpass import getuser
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from psycopg.conninfo import make_conninfo

from pairmill.ops.server.programs import Programs
from support.database import Database
from support.line import Line, Web, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
SECTION = PAGE.read_text().partition("**The line.**")[2].partition("\n## ")[0]
INSIDE, OUTSIDE = "127.0.0.1", "127.0.0.2"
ADMIN = getuser()
PASSWORD = "the admin's own"
OUTSIDERS = ("extract", "score", "download")
CERTIFIED = ("extract", "score")
URLS = [f"http://h{i % 10}.example/{i}.jpg" for i in range(100)]


def block(having: str) -> str:
    """The block of the page in which this stands."""
    found = re.findall(r"```(?:text|sh)\n(.*?)```", SECTION, re.S)
    (text,) = (b for b in found if having in b)
    return str(text)


def replaced(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new)


SETTINGS = block("ssl = on")
HBA = replaced(block("hostssl"), "10.0.0.0/24", f"{INSIDE}/32")


# ---- from outside --------------------------------------------------------------------------------


class _Relays(socketserver.ThreadingTCPServer):
    daemon_threads = True
    to = 0


class _Relay(socketserver.BaseRequestHandler):
    """Passes bytes on to the server, from an address of the outside."""

    def handle(self) -> None:
        assert isinstance(self.server, _Relays)
        to = (INSIDE, self.server.to)
        with socket.create_connection(to, source_address=(OUTSIDE, 0)) as upstream:
            back = threading.Thread(target=_pass, args=(upstream, self.request))
            back.start()
            _pass(self.request, upstream)
            back.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relay(to: int) -> Iterator[int]:
    with _Relays((INSIDE, 0), _Relay) as relays:
        relays.to = to
        thread = threading.Thread(target=relays.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield relays.server_address[1]
        finally:
            relays.shutdown()
            thread.join()


# ---- the server ----------------------------------------------------------------------------------


@dataclass
class Server:
    """A server as the page wants it, with a database `pairmill` and a login of each kind."""

    folder: Path
    line: Line
    admin: psycopg.Connection[Any]
    dsns: dict[str, str]  # inside for steward and researcher, outside for the others
    outside: int  # the port there

    def login(self, kind: str) -> str:
        return re.findall("pm_[0-9a-f]+", self.dsns[kind])[0]

    def dsn(self, kind: str, **changes: Any) -> str:
        """What the command printed, and the client certificate where one is asked for."""
        own = self.certificate(self.login(kind)) if kind in CERTIFIED else {}
        return make_conninfo(self.dsns[kind], **own | changes)

    def certificate(self, name: str) -> dict[str, str]:
        return {
            "sslcert": str(self.folder / f"{name}.pem"),
            "sslkey": str(self.folder / f"{name}.key"),
        }


@contextmanager
def postgres(folder: Path) -> Iterator[int]:
    """A server with the page's settings and these files, and its port."""
    with socket.create_server((INSIDE, 0)) as taken:
        port = taken.getsockname()[1]
    run = Programs(folder)

    def owned(path: Path) -> Path:
        if run.user:
            os.chown(path, run.user.pw_uid, run.user.pw_gid)
        return path

    data = owned(folder) / "data"
    subprocess.run(
        run.command("initdb", "-D", str(data), "-U", ADMIN, "--auth=reject", "--no-sync"),
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    with (data / "postgresql.conf").open("a") as conf:
        conf.write(SETTINGS)
    (data / "pg_hba.conf").write_text(HBA)
    for name in ("server.pem", "server.key", "clients.pem"):
        owned(Path(shutil.copy(folder / name, data)))
    (data / "server.key").chmod(0o600)
    here = {
        "port": port, "listen_addresses": INSIDE, "unix_socket_directories": folder,
        "log_connections": "on", "fsync": "off",
    }  # fmt: skip
    command = run.command(
        "postgres", "-D", str(data), *(f"--{name}={value}" for name, value in here.items())
    )
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            wait_until(lambda: process.poll() is not None or listens(port), "PostgreSQL")
            assert process.poll() is None, (folder / "log").read_text()
            yield port
        finally:
            process.send_signal(signal.SIGINT)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((INSIDE, port)) == 0


def shell(commands: str, folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def certify(folder: Path, login: str) -> None:
    shell(replaced(block("login=pm_"), "login=pm_0123456789ab", f"login={login}"), folder)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pairmill-tls-"))  # short: it has a socket
    folder.chmod(0o755)
    shell(replaced(block("/CN=pairmill-server"), "db.example.org", "localhost"), folder)
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    shell(block("/CN=pairmill-clients"), folder)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        if "PAIRMILL_POSTGRES_BIN" not in os.environ:
            debians = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
            assert debians, "there is no PostgreSQL with TLS here: apt-get install postgresql"
            patch.setenv("PAIRMILL_POSTGRES_BIN", str(debians[-1]))
        port = stack.enter_context(postgres(folder))
        outside = stack.enter_context(relay(port))
        url = make_conninfo(
            host=str(folder), port=port, user=ADMIN, dbname="pairmill",
            # not for a socket, but for the workers' DSNs
            sslmode="verify-full", sslrootcert=str(folder / "root.pem"),
        )  # fmt: skip
        with psycopg.connect(url, dbname="postgres", autocommit=True) as first:
            first.execute("create database pairmill")
        line = Line(url, folder / "home")
        line.pairmill("migrate")
        dsns = {}
        for kind in (*OUTSIDERS, "steward"):
            where = f"localhost:{port if kind == 'steward' else outside}"
            dsns[kind] = line.pairmill(
                "worker", "add", f"{kind}-1", "--kind", kind, "--host", where
            ).strip()
        dsns["researcher"] = make_conninfo(
            line.pairmill("researcher", "add", "Ada").strip(), host="localhost"
        )
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(f"alter role {ADMIN} password $${PASSWORD}$$")
            made = Server(folder, line, admin, dsns, outside)
            for kind in OUTSIDERS:
                certify(folder, made.login(kind))
            yield made
            line.stop_all()


# ---- what is let in ------------------------------------------------------------------------------


def enter(dsn: str) -> tuple[str, str]:
    """Log in; (the TLS version, the address that the server sees)."""
    with psycopg.connect(dsn, connect_timeout=20) as connection:
        row = connection.execute(
            "select s.version, host(inet_client_addr()) from pg_stat_ssl s where pid = pg_backend_pid()"
        ).fetchone()
    assert row
    return row


def refusal(dsn: str) -> str:
    """Why one is not let in."""
    with pytest.raises(psycopg.OperationalError) as refused:
        psycopg.connect(dsn, connect_timeout=20).close()
    return " ".join(str(refused.value).split())


def test_server_runs_with_the_lines_of_the_page(server: Server) -> None:
    for line in SETTINGS.splitlines():
        name, value = re.findall(r"^(\w+) = '?([\w.-]+)", line)[0]
        assert server.admin.execute("select current_setting(%s)", (name,)).fetchone() == (value,)
    lines = [line for line in HBA.splitlines() if not line.startswith("#")]
    rules = server.admin.execute("select type, error from pg_hba_file_rules").fetchall()
    assert rules == [(line.split()[0], None) for line in lines]


@pytest.mark.parametrize("kind", OUTSIDERS)
def test_worker_from_outside_is_let_in(server: Server, kind: str) -> None:
    assert enter(server.dsn(kind)) == ("TLSv1.3", OUTSIDE)


@pytest.mark.parametrize("kind", ["steward", "researcher"])
def test_steward_and_researcher_are_let_in_from_inside_only(server: Server, kind: str) -> None:
    assert enter(server.dsn(kind)) == ("TLSv1.3", INSIDE)
    assert f'pg_hba.conf rejects connection for host "{OUTSIDE}"' in refusal(
        server.dsn(kind, port=server.outside)
    )


@pytest.mark.parametrize("kind", OUTSIDERS)
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sslmode": "disable", "sslcert": "", "sslkey": ""}, "pg_hba.conf rejects connection .* no encryption"),
        ({"ssl_min_protocol_version": "TLSv1.2", "ssl_max_protocol_version": "TLSv1.2"}, "alert protocol version"),
        ({"password": "guessed"}, "password authentication failed"),
        ({"user": "pm_000000000000", "sslcert": "", "sslkey": ""}, "pg_hba.conf rejects connection"),
        ({"sslrootcert": "other.pem"}, "certificate verify failed"),
        ({"host": INSIDE}, "does not match host name"),
    ],
    ids=["no TLS", "TLSv1.2", "wrong password", "unknown login", "another CA's server", "another host's name"],
)  # fmt: skip
def test_worker_is_refused(server: Server, kind: str, changes: dict[str, str], why: str) -> None:
    if "sslrootcert" in changes:
        changes = {"sslrootcert": str(server.folder / changes["sslrootcert"])}
    assert re.search(why, refusal(server.dsn(kind, **changes)))


@pytest.mark.parametrize("kind", CERTIFIED)
def test_login_needs_its_own_client_certificate(server: Server, kind: str) -> None:
    assert "requires a valid client certificate" in refusal(server.dsn(kind, sslcert="", sslkey=""))
    # a right one, of another login
    another = server.certificate(server.login("download"))
    assert "authentication failed for user" in refusal(server.dsn(kind, **another))
    # another CA's, with the right name
    login = server.login(kind)
    forged = trustme.CA().issue_cert(common_name=login)
    own = {name: server.folder / f"forged.{name}" for name in ("sslcert", "sslkey")}
    forged.cert_chain_pems[0].write_to_path(own["sslcert"])
    forged.private_key_pem.write_to_path(own["sslkey"])
    own["sslkey"].chmod(0o600)
    assert "unknown ca" in refusal(server.dsn(kind, **{k: str(path) for k, path in own.items()}))
    # and it alone is not enough
    assert enter(server.dsn(kind)) == ("TLSv1.3", OUTSIDE)
    assert "password authentication failed" in refusal(server.dsn(kind, password="guessed"))


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_admin_comes_by_the_socket_only(server: Server, where: str) -> None:
    port = server.outside if where == "outside" else server.admin.info.port
    by_tcp = make_conninfo(server.admin.info.dsn, host="localhost", port=port, password=PASSWORD)
    assert "pg_hba.conf rejects connection" in refusal(by_tcp)
    with psycopg.connect(server.admin.info.dsn) as by_socket:
        assert by_socket.execute("show is_superuser").fetchone() == ("on",)


def test_admin_makes_a_base_backup_by_the_socket(server: Server) -> None:
    bin, made = Path(os.environ["PAIRMILL_POSTGRES_BIN"]), server.folder / "backup"
    dsn = make_conninfo(host=str(server.folder), port=server.admin.info.port, user=ADMIN)
    subprocess.run(
        [bin / "pg_basebackup", "--checkpoint=fast", f"--dbname={dsn}", f"--pgdata={made}"],
        check=True,
    )
    subprocess.run([bin / "pg_verifybackup", "--quiet", made], check=True)


@pytest.mark.parametrize("kind", ["download", "researcher"])
def test_login_comes_by_the_socket_with_its_password(server: Server, kind: str) -> None:
    """The local worker's, where DATABASE_URL names the socket."""
    by_socket = server.dsn(kind, host=str(server.folder), port=server.admin.info.port)
    psycopg.connect(by_socket).close()
    assert "password authentication failed" in refusal(make_conninfo(by_socket, password="x"))


def test_local_worker_has_a_login_of_its_own(server: Server) -> None:
    """Would catch: lines of pg_hba.conf that let in no worker beside the database."""
    server.line.drain("steward")
    assert "local-steward-" in server.line.pairmill("worker", "list")


def test_disabled_worker_is_told_why_from_outside(server: Server) -> None:
    """Would catch: a login that was moved out of the group that pg_hba.conf lets in."""
    where = ("--host", f"localhost:{server.outside}")
    dsn = server.line.pairmill("worker", "add", "eve", "--kind", "extract", *where).strip()
    server.line.pairmill("worker", "disable", "eve", "--reason", "lies")
    told = server.line.here("worker", "me", "--dsn", dsn)
    assert (told.returncode, "disabled" in told.stdout) == (1, True)
    assert told.stderr.strip().endswith("UTC: lies; ask the admin")
    server.line.pairmill("worker", "disable", "eve", "--no-login")
    closed = server.line.here("worker", "me", "--dsn", dsn)
    assert f"the login {re.findall('pm_[0-9a-f]+', dsn)[0]} was closed" in closed.stderr


WRONG = {
    "no TLS": ({"sslmode": "disable"}, "without TLS: take sslmode=disable out"),
    "a password": ({"password": "guessed"}, "refuses the password"),
    "another CA": ({"sslrootcert": "other.pem"}, "none of the authorities in sslrootcert"),
    "a missing CA": ({"sslrootcert": "none.pem"}, "names a file as sslrootcert that is not here"),
    "an address": ({"host": INSIDE}, "shows the certificate of another name"),
    "another database": ({"dbname": "pairmil"}, "is the end of the DSN whole"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_volunteer_is_told_the_right_cure(server: Server, wrong: str) -> None:
    changes, says = WRONG[wrong]
    if "sslrootcert" in changes:
        changes = {"sslrootcert": str(server.folder / str(changes["sslrootcert"]))}
    done = server.line.here("worker", "me", "--dsn", server.dsn("download", **changes))
    assert done.returncode == 1
    assert says in done.stderr


def test_passwords_are_kept_as_scram(server: Server) -> None:
    kept = server.admin.execute("select rolpassword from pg_authid where rolpassword is not null")
    passwords = [password for (password,) in kept]
    assert len(passwords) >= 6  # five logins, and the admin's that was set in the clear
    assert all(password.startswith("SCRAM-SHA-256$") for password in passwords)


AS_IF_A_ROOT = """
import ssl, sys
from pairmill.ops import cli
known = ssl.get_default_verify_paths()._replace(cafile=sys.argv.pop(1))
ssl.get_default_verify_paths = lambda: known
cli.main()
"""


def test_roots_of_the_system(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """sslrootcert=system, which psycopg's own OpenSSL would not find."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    ours = str(server.folder / "root.pem")
    me = ("worker", "me", "--dsn", server.dsn("download", sslrootcert="system"))
    refused, let_in = (
        subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
        for command in (
            ("-m", "pairmill.ops.cli", *me),
            ("-c", AS_IF_A_ROOT, ours, *me),
        )
    )
    assert (
        "of none of the authorities in sslrootcert" in refused.stderr
    )  # our root is none of this machine's
    assert "download-1" in let_in.stdout, let_in.stderr


class Tls(Database):
    """The database, with the logins that are there."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.admin.info.dsn)
        self._server = server

    def login(self, kind: str, name: str | None = None, *, checked: bool = False) -> str:
        return self._server.dsn(kind)


def test_real_workers(server: Server) -> None:
    """A download worker from outside, a steward from inside: a batch from end to end."""
    database = Tls(server)
    try:
        database.extract(URLS)
        database.close_batches()
        server.line.pairmill("worker", "prove", "download-1")  # nobody repeats what it does
        with Web(lambda host, path: None).running() as web:
            server.line.environment |= web.environment
            server.line.drain(
                "steward",
                "download",
                options={kind: ("--dsn", server.dsn(kind)) for kind in ("steward", "download")},
            )
        assert server.line.status()["fetched"] == {"http_error": len(URLS)}
    finally:
        database.close()
    log = (server.folder / "log").read_text()
    for kind in ("steward", "download"):
        assert re.search(
            rf"authorized: user={server.login(kind)} .*SSL enabled \(protocol=TLSv1.3", log
        )
