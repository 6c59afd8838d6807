"""Logins of workers, researchers and pages: random names, passwords shown once, not stored."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pairmill.ops.admin.connection import admin, home
from pairmill.ops.errors import UserError
from pairmill.schema.kinds import PAGES, worker_kinds
from pairmill.workers.dsn import WEB_DSN, checked_pages, here_only, unverified
from pairmill.workers.errors import Refused
from pairmill.workers.queue import Queue
from pairmill.workers.sqlstate import sqlstate_of


def _new_password(connection: psycopg.Connection, login: str) -> tuple[str, str]:
    """(password, SCRAM-SHA-256 verifier): the server's logs see the verifier only."""
    password = secrets.token_urlsafe(24)
    verifier = connection.pgconn.encrypt_password(
        password.encode(), login.encode(), b"scram-sha-256"
    ).decode()
    return password, verifier


def _new_login(connection: psycopg.Connection) -> tuple[str, str, str]:
    """(login, password, verifier)."""
    login = "pm_" + secrets.token_hex(6)  # pg_roles is public: a login says nothing of its owner
    return login, *_new_password(connection, login)


def _url(connection: psycopg.Connection, login: str, password: str, server: str = "") -> str:
    """The connection's own URL with another login. server: HOST or HOST:PORT, where others reach
    the database by another name, or through a pooler. Raises UserError."""
    parts = conninfo_to_dict(connection.info.dsn)
    host, port, name = connection.info.host, connection.info.port, connection.info.dbname
    kept = {
        k: v
        for k, v in parts.items()
        if k.startswith("ssl") and not k.startswith(("sslcert", "sslkey"))
    }
    options = "&".join(f"{k}={quote(str(v), safe='')}" for k, v in kept.items())
    if server:
        host, port = _host_and_port(server, port)
    host = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"postgresql://{login}:{password}@{host}:{port}/{quote(name)}" + (
        f"?{options}" if options else ""
    )


def _host_and_port(server: str, port: int) -> tuple[str, int]:
    host, colon, given = server.rpartition(":") if server.count(":") == 1 else (server, "", "")
    if server.startswith("[") and "]:" in server:
        host, colon, given = server.rpartition(":")
    if colon and not (given.isdecimal() and 0 < int(given) < 65536):
        raise UserError(f"--host is HOST or HOST:PORT, not {server!r}")
    if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?", host.strip("[]")):
        raise UserError(f"--host is HOST or HOST:PORT, not {server!r}")
    return host.strip("[]"), int(given) if colon else port


def warning(dsn: str) -> str | None:
    """What keeps a new DSN from being of use, or safe, on another machine; None where nothing
    does."""
    if here_only(dsn) and not os.environ.get("DATABASE_URL"):
        return (
            "this DSN leads to the embedded server, which no other machine reaches: for workers"
            ' elsewhere DATABASE_URL names a PostgreSQL of yours (docs/admin.md, "A database")'
        )
    if place := here_only(dsn):
        return (
            f"this DSN leads to {place}, which is this machine alone: for another one say --host"
            " HOST[:PORT], as others reach the database (with `rotate`, a new DSN of the same name)"
        )
    if unverified(dsn):
        return (
            "this DSN lets any server answer in the database's place: put"
            " sslmode=verify-full&sslrootcert=system into DATABASE_URL, and `rotate` prints a DSN"
            ' with them (docs/security.md, "The line")'
        )
    return None


def add_worker(connection: psycopg.Connection, name: str, kind: str, server: str = "") -> str:
    """Make a worker's login; returns its DSN, which cannot be had a second time."""
    if kind not in worker_kinds():
        raise UserError(f"unknown kind {kind!r}: it is one of {', '.join(worker_kinds())}")
    login, password, verifier = _new_login(connection)
    try:
        with connection.transaction():
            connection.execute(
                "select mill.add_worker(%s, %s, %s, %s)", (login, name, kind, verifier)
            )
    except psycopg.errors.UniqueViolation:
        raise UserError(
            f"there is a worker {name!r} already: choose another name, or give it another DSN with"
            " `pairmill worker rotate`"
        ) from None
    return _url(connection, login, password, server)


def rotate_worker(connection: psycopg.Connection, name: str, server: str = "") -> str:
    """Give a worker another password and end its sessions; returns its new DSN."""
    row = connection.execute("select mill.login_of(%s)", (name,)).fetchone()
    if not row or row[0] is None:
        raise UserError(f"there is no worker {name!r} that may work: see `pairmill worker list`")
    password, verifier = _new_password(connection, row[0])
    connection.execute("select mill.rotate_worker(%s, %s)", (name, verifier))
    return _url(connection, row[0], password, server)


def add_researcher(connection: psycopg.Connection, name: str, server: str = "") -> str:
    """Make a login that reads the views of schema report; returns its DSN."""
    login, password, verifier = _new_login(connection)
    try:
        with connection.transaction():
            connection.execute("select mill.add_researcher(%s, %s, %s)", (login, name, verifier))
    except psycopg.errors.UniqueViolation:
        raise UserError(
            f"there is a researcher {name!r} already: choose another name, or give them another DSN"
            " with `pairmill researcher rotate`"
        ) from None
    return _url(connection, login, password, server)


def rotate_researcher(connection: psycopg.Connection, name: str, server: str = "") -> str:
    """Give a researcher another password and end their sessions; returns their new DSN."""
    found = connection.execute(
        "select login, disabled_at is null from mill.researcher where name = %s", (name,)
    ).fetchone()
    if not found or not found[1]:
        raise UserError(
            f"there is no researcher {name!r} that may log in: see `pairmill researcher list`"
        )
    password, verifier = _new_password(connection, found[0])
    connection.execute("select mill.rotate_researcher(%s, %s)", (name, verifier))
    return _url(connection, found[0], password, server)


def local_worker(connection: psycopg.Connection, kind: str) -> str:
    """The DSN of this machine's own worker of a kind: made at its first use, kept in PAIRMILL_HOME.

    So that a worker that an admin starts beside the database has a worker's rights and no more.
    """
    file = _file(connection, kind)
    if file.exists() and (dsn := _kept(connection, file)):
        return dsn
    name = f"local-{kind}-{secrets.token_hex(3)}"
    dsn = add_worker(connection, name, kind)
    connection.execute("select mill.prove_worker(%s, true)", (name,))  # it is the admin's own
    _keep(file, dsn)
    return dsn


def add_page(connection: psycopg.Connection, page: str, server: str = "", name: str = "") -> str:
    """Make the login of a process that serves a page of PAGES; returns its DSN, which cannot be had
    a second time. name: the page's own by default."""
    if page not in PAGES:
        raise UserError(f"there is no page {page!r}: it is one of {', '.join(PAGES)}")
    login, password, verifier = _new_login(connection)
    try:
        with connection.transaction():
            connection.execute(
                "select mill.add_page_login(%s, %s, %s, %s)", (login, page, name or page, verifier)
            )
    except psycopg.errors.UniqueViolation:
        raise UserError(
            f"there is a page's login {name or page!r} already: give this one a --name, or that one"
            " another DSN with `pairmill web rotate-login`"
        ) from None
    return _url(connection, login, password, server)


def rotate_page(connection: psycopg.Connection, name: str, server: str = "") -> str:
    """Give a page's login another password and end its sessions; returns its new DSN."""
    found = connection.execute(
        "select login from mill.page_login where name = %s", (name,)
    ).fetchone()
    if not found:
        raise UserError(f"there is no page's login {name!r}: see `pairmill web logins`")
    password, verifier = _new_password(connection, found[0])
    connection.execute("select mill.rotate_page_login(%s, %s)", (name, verifier))
    return _url(connection, found[0], password, server)


def local_page(connection: psycopg.Connection, page: str) -> str:
    """The DSN of this machine's own process of a page: made at its first use, kept in
    PAIRMILL_HOME, as ``local_worker``'s."""
    file = _file(connection, page)
    if file.exists():
        dsn = file.read_text().strip()
        found = connection.execute(
            "select p.name from mill.page_login p join pg_roles r on r.rolname = p.login"
            " where p.login = %s and p.page = %s",
            (conninfo_to_dict(dsn).get("user"), page),
        ).fetchone()
        if found:
            if sqlstate_of(dsn) == "28P01":  # its password was changed (`web rotate-login`)
                dsn = rotate_page(connection, found[0])
                _keep(file, dsn)
            return dsn
    dsn = add_page(connection, page, name=f"local-{page}-{secrets.token_hex(3)}")
    _keep(file, dsn)
    return dsn


@contextmanager
def page_dsn(page: str) -> Iterator[str]:
    """The DSN with which a process serves a page of PAGES: PAIRMILL_WEB_DSN, else, beside the
    admin's database, ``local_page``'s; an embedded server is kept running meanwhile. Raises
    UserError where there is neither."""
    if dsn := os.environ.get(WEB_DSN):
        yield checked_pages(dsn)
        return
    with admin() as connection:
        yield local_page(connection, page)


def _file(connection: psycopg.Connection, what: str) -> Path:
    folder = home() / "logins"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # a second database or a second server is another file
    place = f"{connection.info.dbname}-{connection.info.host}-{connection.info.port}"
    return folder / f"{place.replace('/', '_')}-{what}.dsn"


def _keep(file: Path, dsn: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as out:
        out.write(dsn + "\n")


def _kept(connection: psycopg.Connection, file: Path) -> str | None:
    """The DSN in this file; None where the database was made anew since, and knows no such login.
    Raises UserError where an admin has disabled it, Unreachable where the database is away."""
    dsn = file.read_text().strip()
    found = connection.execute(
        "select w.name, mill.why_disabled(w) from mill.worker w"
        " join pg_roles r on r.rolname = w.login where w.login = %s",
        (conninfo_to_dict(dsn).get("user"),),
    ).fetchone()
    if found is None:
        return None
    name, why = found
    if why:
        raise UserError(
            f"this machine's own {why.removesuffix('; ask the admin')}: `pairmill worker enable"
            f" {name} --proven` lets it work again"
        )
    queue = Queue(dsn)
    try:
        queue.me()
    except Refused:  # its password was changed (`worker rotate`), or pg_hba.conf lacks a line
        dsn = rotate_worker(connection, name)
        _keep(file, dsn)
    finally:
        queue.close()
    return dsn
