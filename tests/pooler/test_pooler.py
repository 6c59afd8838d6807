"""Everything that workers do, through PgBouncer in transaction mode: `make pooler-test`."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pairmill.workers.errors import LeaseLost, Refused, Unreachable
from pairmill.workers.queue import Queue
from support.database import Database, new_database, outcomes, say_migrated
from support.line import Line, Web, wait_until

DEPLOY = Path(__file__).parents[2] / "ops" / "deploy"
PASSWORD = "the pooler's own"
URLS = [f"http://h{i % 10}.example/{i}.jpg" for i in range(200)]


@contextmanager
def pgbouncer(folder: Path, dsn: str) -> Iterator[int]:
    """A PgBouncer of ops/deploy/pgbouncer.ini, on a free port, for this database."""
    program = shutil.which("pgbouncer")
    assert program, "PgBouncer is not installed: apt-get install pgbouncer"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    parts = conninfo_to_dict(dsn)
    ini = ConfigParser(interpolation=None, comment_prefixes=(";",))
    ini.read(DEPLOY / "pgbouncer.ini")
    place = f"host={parts['host']} port={parts['port']} dbname={parts['dbname']}"
    ini["databases"] = {str(parts["dbname"]): f"{place} auth_user=pairmill_pooler"}
    ini["pgbouncer"].update({
        "listen_addr": "127.0.0.1", "listen_port": str(port), "query_wait_timeout": "3", "auth_file": str(folder / "users"),
    })  # fmt: skip
    (folder / "users").write_text(f'"pairmill_pooler" "{PASSWORD}"\n')
    with (folder / "ini").open("w") as out:
        ini.write(out)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    # it refuses to run as root
    user = "nobody" if os.geteuid() == 0 else None
    with subprocess.Popen([program, str(folder / "ini")], user=user) as process:
        try:
            wait_until(lambda: listens(port), "PgBouncer")
            yield port
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Pooled(Database):
    """A database whose workers' logins lead through the pooler."""

    port = 0

    def login(self, kind: str, name: str | None = None) -> str:
        return make_conninfo(super().login(kind, name), host="127.0.0.1", port=self.port)


@pytest.fixture
def pooled(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooled]:
    folder = Path("/tmp") / tmp_path_factory.mktemp("pooler").name  # where nobody may look
    folder.mkdir()
    try:
        with new_database(server) as made:
            made.admin.execute((DEPLOY / "pooler.sql").read_text())
            made.admin.execute(f"alter role pairmill_pooler password $${PASSWORD}$$")
            say_migrated(made.admin)
            database = Pooled(made.dsn)
            try:
                with pgbouncer(folder, made.dsn) as database.port:
                    yield database
            finally:
                database.close()
                made.admin.execute("drop owned by pairmill_pooler; drop role pairmill_pooler")
    finally:
        shutil.rmtree(folder)


def test_the_whole_line(pooled: Pooled) -> None:
    """COPY in and out, functions, arrays: extract, download, score, accept, sweep."""
    pooled.add_model()
    pooled.extract(URLS)
    pooled.close_batches()
    pooled.download()
    pooled.score()
    assert pooled.value("select count(*) from report.score") == len(URLS)
    assert pooled.queue("steward")[0].maintain("empty_slots") == 1
    logins = pooled.rows(
        "select distinct usename from pg_stat_activity where application_name = 'pairmill/0.1.0'"
    )
    assert len(logins) >= 3  # each by its own login: session_user is who it is


def test_identity_and_leases_hold_through_shared_connections(pooled: Pooled) -> None:
    pooled.extract(URLS)
    pooled.close_batches()
    claim = pooled.claim("download", "ada")
    assert claim
    ada, _ = pooled.queue("download", "ada")
    eve, _ = pooled.queue("download", "eve")
    for _ in range(20):
        assert ada.heartbeat(claim.lease_id) > 0
        with pytest.raises(LeaseLost):
            eve.heartbeat(claim.lease_id)
    ada.submit_download(claim.lease_id, 0, outcomes(range(200)))
    ada.complete(claim.lease_id)
    pooled.accept_all()
    assert dict(pooled.rows("select name, urls from report.leaderboard")) == {"ada": 200}


def test_disabled_and_unknown_logins_do_not_get_in(pooled: Pooled) -> None:
    login = pooled.login("download", "ada")
    ada = Queue(login, patience=0.0)
    ada.register()
    pooled.admin.execute("select mill.disable_worker('ada', 'lies')")
    with pytest.raises((Refused, Unreachable)):  # its server's connection was ended
        ada.register()
    with pytest.raises(Refused, match="lies; ask the admin"):
        Queue(login).register()
    pooled.admin.execute("select mill.disable_worker('ada', p_close => true)")
    # who was connected waits for a server's connection that never comes; nobody comes in anew
    with pytest.raises((Refused, Unreachable)):
        ada.register()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(login)
    admin = make_conninfo(pooled.dsn, host="127.0.0.1", port=pooled.port, password="guessed")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(admin)


def test_real_workers(pooled: Pooled, tmp_path: Path) -> None:
    pooled.add_model()
    pooled.extract(URLS)
    pooled.close_batches()
    line = Line(pooled.dsn, tmp_path)
    try:
        with Web(lambda host, path: None).running() as web:
            line.environment |= web.environment
            line.drain(
                "steward",
                "download",
                options={
                    kind: ("--dsn", pooled.login(kind, f"real-{kind}"))
                    for kind in ("steward", "download")
                },
            )
        assert line.status()["fetched"] == {"http_error": len(URLS)}
    finally:
        line.stop_all()
