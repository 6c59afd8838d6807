"""Servers on loopback that misbehave on purpose."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Script = Callable[[socket.socket], None]


@contextmanager
def misbehaving(script: Script, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that runs ``script`` on each connection; gives its port."""
    ending = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                script(tls.wrap_socket(connection, server_side=True) if tls else connection)
            except (OSError, ssl.SSLError):
                return

    def accept() -> None:
        while not ending.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=100) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            ending.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def request_of(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            break
        data += more
    return data


def saying(*pieces: bytes) -> Script:
    """Read the request, send the pieces, close."""

    def script(connection: socket.socket) -> None:
        request_of(connection)
        for piece in pieces:
            connection.sendall(piece)

    return script
