"""The server of a run, which is killed and started again."""

import os
import re
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import psycopg

from pairmill.ops.server.embedded import EmbeddedServer
from support.chaos.constants import BATCH, LEASE_SECONDS, LINKS, MODEL, wait_for
from support.database import Database, make_schema


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
            " open_batches_max = 4, retry_seconds = 0, max_attempts = 30000, batches_per_slot = 8,"
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
