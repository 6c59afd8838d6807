"""The SQLSTATE of a connection that a server refused.

A failed connection has no result, so psycopg knows only the server's words, and those are in the
server's language. libpq tells the code where it is asked to, by PQsetErrorVerbosity, which psycopg
does not wrap.
"""

import ctypes
import re
import select
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from psycopg import pq

_SECONDS = 10.0
_ONLY_SQLSTATE = 3  # PQERRORS_SQLSTATE
_CODE = re.compile(r":  ([0-9A-Z]{5})\s*$")


@cache
def _libpq() -> Any:
    """The libpq that psycopg has loaded; None where it cannot be found (Linux names it)."""
    with suppress(OSError, AttributeError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            place = line.split(maxsplit=5)[-1]
            if re.search(r"/libpq[-.\w]*\.so[.\d]*$", place):
                found = ctypes.CDLL(place)
                found.PQsetErrorVerbosity.argtypes = [ctypes.c_void_p, ctypes.c_int]
                return found
    return None


def sqlstate_of(dsn: str) -> str | None:
    """The SQLSTATE with which a server refuses this DSN; None where it lets it in, does not answer
    within seconds, or libpq cannot be asked."""
    library = _libpq()
    if library is None:
        return None
    connection: Any = pq.PGconn.connect_start(dsn.encode())  # its type lacks pgconn_ptr
    try:
        library.PQsetErrorVerbosity(connection.pgconn_ptr, _ONLY_SQLSTATE)
        if not _is_refused(connection):
            return None
        found = _CODE.search(connection.error_message.decode(errors="replace"))
        return found[1] if found else None
    finally:
        connection.finish()


def _is_refused(connection: pq.abc.PGconn) -> bool:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        state = connection.connect_poll()
        if state in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
            return state == pq.PollingStatus.FAILED
        reads = [connection.socket] if state == pq.PollingStatus.READING else []
        writes = [] if reads else [connection.socket]
        select.select(reads, writes, [], max(0.0, end - time.monotonic()))
    return False
