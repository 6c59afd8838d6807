"""Requests to a page as bytes on a socket: what no client library would send."""

import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

WAIT_SECONDS = 20.0  # for what has to happen; a test that waits as long has failed


def connect(base: str, receive_buffer: int = 0) -> socket.socket:
    """A connection to a base URL. receive_buffer: bytes that the kernel takes unread."""
    url = urlsplit(base)
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(WAIT_SECONDS)
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.connect((url.hostname, url.port))
    return made


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = bytearray()
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return bytes(found)


def talk(base: str, sent: bytes) -> bytes:
    """What comes back for these bytes, until the other side closes."""
    with connect(base) as connection:
        connection.sendall(sent)
        return rest(connection)


def statuses(received: bytes) -> list[int]:
    """The status codes of the responses in what was received."""
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
