"""What a server, a name server or libpq says, as a sentence with its remedy."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import trustme

from pairmill.workers.errors import Refused, Unreachable
from pairmill.workers.queue import Queue
from pairmill.workers.sqlstate import sqlstate_of
from pairmill.workers.trouble import trouble_of

SSL_REQUEST, GSS_REQUEST = 80877103, 80877104


def error_response(state: str, words: str) -> bytes:
    fields = b"".join(f"{name}{value}\0".encode() for name, value in (("S", "FATAL"), ("C", state), ("M", words)))  # fmt: skip
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0"


@contextmanager
def server(answer: bytes, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port on which every login is answered alike, after TLS if there is a context."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer:
                try:
                    _answer(peer, answer, tls)
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(10)


def _answer(peer: socket.socket, answer: bytes, tls: ssl.SSLContext | None) -> None:
    while head := peer.recv(8):
        length, version = (int.from_bytes(part, "big") for part in (head[:4], head[4:]))
        if version in (SSL_REQUEST, GSS_REQUEST):
            offered = tls is not None and version == SSL_REQUEST
            peer.sendall(b"S" if offered else b"N")
            if offered and tls is not None:
                peer = tls.wrap_socket(peer, server_side=True)
            continue
        peer.recv(length - 8)
        peer.sendall(answer)
        return


def said(dsn: str, *, admin: bool = False) -> str:
    with pytest.raises(psycopg.OperationalError) as failed:
        psycopg.connect(dsn, connect_timeout=5).close()
    return trouble_of(failed.value, dsn, admin=admin).sentence


@pytest.mark.parametrize(
    ("state", "words", "says", "final"),
    [
        ("28P01", 'password authentication failed for user "pm_a"', "refuses the password of the login pm_a", True),
        ("28P01", "Passwort-Authentifizierung für Benutzer »pm_a« fehlgeschlagen", "refuses the password", True),
        ("28P01", "ユーザー\"pm_a\"のパスワード認証に失敗しました", "refuses the password", True),
        ("28000", "role »pm_a« darf sich nicht anmelden", "does not let the login pm_a in from here, to pairmill", True),
        ("28000", 'role "pm_a" is not permitted to log in', "the login pm_a was closed", True),
        ("28000", "connection requires a valid client certificate", "add &sslcert=FILE&sslkey=FILE", True),
        ("28000", 'pg_hba.conf rejects connection for host "::1", user "pm_a", database "d", no encryption', "without TLS", True),
        ("3D000", "Datenbank »pairmil« existiert nicht", "there is no database pairmill at 127.0.0.1", True),
        ("42501", "keine Berechtigung für Datenbank pairmill", "no right to connect to the database pairmill", True),
        ("53300", "tut mir leid, schon zu viele Verbindungen", "no connection left for the login pm_a", False),
        ("53300", 'too many connections for role "pm_a"', "no connection left for the login pm_a", False),
        ("57P03", "das Datenbanksystem startet", "is starting up or shutting down", False),
        ("08P01", "no more connections allowed (max_client_conn)", "the pooler in front of the database refuses", False),
        ("XX000", "etwas anderes", "etwas anderes", False),
    ],
)  # fmt: skip
def test_server_is_understood_in_any_language(
    state: str, words: str, says: str, final: bool
) -> None:
    """Would catch: a cure for the wrong fault, where the server speaks no English."""
    with server(error_response(state, words)) as port:
        dsn = f"postgresql://pm_a:Zq3-Wx_9@127.0.0.1:{port}/pairmill"
        for admin in (False, True):
            assert says in said(dsn, admin=admin) or (admin and says.startswith("add &"))
            assert "Zq3" not in said(dsn, admin=admin)
        queue = Queue(dsn, patience=0.0)
        with pytest.raises(Refused if final else Unreachable):
            queue.register()
        serving = Queue(dsn, patience=0.0)
        serving.serving = True
        with pytest.raises(Refused if state.startswith("28") else Unreachable):
            serving.register()


def test_sqlstate_is_had_from_libpq() -> None:
    with server(error_response("28P01", "nein")) as port:
        assert sqlstate_of(f"postgresql://a:b@127.0.0.1:{port}/d") == "28P01"
    assert sqlstate_of(f"postgresql://a:b@127.0.0.1:{port}/d") is None


def test_what_answers_is_no_postgresql() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 40) as port:
        assert "is no PostgreSQL" in said(f"postgresql://a:b@127.0.0.1:{port}/d")
    assert f"nothing listens at 127.0.0.1:{port}" in said(f"postgresql://a:b@127.0.0.1:{port}/d")
    assert "no name server knows the host nowhere.invalid" in said("postgresql://a:b@nowhere.invalid/d")  # fmt: skip
    assert "no server has a socket at /none:5432" in said("postgresql://a:b@%2Fnone/d", admin=True)


@pytest.mark.parametrize(
    ("offered", "options", "says"),
    [
        (False, "sslmode=require", "has no TLS, and the DSN wants it"),
        (False, "sslmode=verify-full&sslrootcert={ours}", "has no TLS, and the DSN wants it"),
        (True, "sslmode=verify-full", "sslrootcert of the DSN is `system`, or the path"),
        (True, "sslmode=verify-full&sslrootcert=/none/root.pem", "sslrootcert of the DSN is"),
        (True, "sslmode=verify-full&sslrootcert={other}", "is of none of the authorities in sslrootcert"),
        (True, "sslmode=verify-full&sslrootcert={ours}", "shows the certificate of another name"),
        (True, "sslmode=require&sslrootcert=system", "has lost its sslmode=verify-full"),
    ],
)  # fmt: skip
def test_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: bool, options: str, says: str
) -> None:
    """Would catch: advice to leave the check out, and 15 seconds of waiting for a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ours = trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("db.example.org").configure_cert(context)
    named = options.format(ours=tmp_path / "ours.pem", other=tmp_path / "other.pem")
    with server(error_response("28P01", "nein"), context if offered else None) as port:
        dsn = f"postgresql://a:b@127.0.0.1:{port}/d?{named}"
        assert says in said(dsn)
        with pytest.raises(Refused):
            Queue(dsn).register()
