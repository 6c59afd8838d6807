"""Why a connection to the database could not be had, in a sentence with its remedy.

A server's answer is known by its SQLSTATE, since its words are in its own language. libpq's own
words are English: no program of ours sets LC_MESSAGES.
"""

import re
from dataclasses import dataclass

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pairmill.workers.sqlstate import sqlstate_of

# SQLSTATEs by a server's English words: most servers need not be asked a second time
_ENGLISH = {
    "password authentication failed": "28P01",
    "is not permitted to log in": "28000",
    "pg_hba.conf": "28000",
    "requires a valid client certificate": "28000",
    "certificate authentication failed": "28000",
    "peer authentication failed": "28000",
    "too many connections for": "53300",
    "too many clients already": "53300",
    "remaining connection slots": "53300",
    "permission denied for database": "42501",
    "the database system is": "57P03",
}
_SERVER_SPOKE = re.compile(r"failed: [^\s:]+:  ")


@dataclass(frozen=True)
class Trouble:
    """sentence: what, and what to do. final: waiting does not help. ends: not even a worker that
    was at work before waits for it to pass."""

    sentence: str
    final: bool = False
    ends: bool = False


@dataclass(frozen=True)
class _Cause:
    """what: with {login}, {database}, {place}, {host}, {words}. Remedies for a worker and for an
    admin, whose DSN is DATABASE_URL."""

    what: str
    worker: str
    admin: str
    final: bool = False
    ends: bool = False

    def trouble(self, admin: bool, **known: str) -> Trouble:
        remedy = self.admin if admin else self.worker
        return Trouble(f"{self.what}: {remedy}".format(**known), self.final, self.ends)


_CUT_OFF = "is the DSN whole? Else ask the admin"
# refinements of 28000, by English words; without them the last
_NOT_LET_IN = {
    "is not permitted to log in": _Cause(
        "the login {login} was closed", "ask the admin", "`pairmill worker enable`, or"
        " `alter role … login`", final=True, ends=True,
    ),
    "client certificate": _Cause(
        "the database wants a certificate of the login {login}",
        "add &sslcert=FILE&sslkey=FILE to the DSN, with the two files that the admin sent",
        "add sslcert= and sslkey= to DATABASE_URL", final=True, ends=True,
    ),
    "certificate authentication failed": _Cause(
        "the certificate is not the login {login}'s",
        "are sslcert and sslkey of the DSN the two files that the admin sent for it?",
        "are sslcert and sslkey of DATABASE_URL this user's?", final=True, ends=True,
    ),
    "eer authentication failed": _Cause(
        "the server takes the login {login} by its socket only from a user of that name",
        "an admin gives pg_hba.conf lines for workers (docs/admin.md, \"A database\")",
        "sign in as that user, or give pg_hba.conf a line for it", final=True, ends=True,
    ),
    "no encryption": _Cause(
        "the database takes no login {login} for {database} without TLS",
        "take sslmode=disable out of the DSN if it has that; else ask the admin",
        "say sslmode=verify-full in DATABASE_URL; else see the server's pg_hba.conf",
        final=True, ends=True,
    ),
    "": _Cause(
        "the database does not let the login {login} in from here, to {database}",
        "is the end of the DSN whole, the database's name and the options? Else ask the admin,"
        " whose pg_hba.conf says who may come from where",
        "see pg_hba.conf on the server (`select * from pg_hba_file_rules`), and its log",
        final=True, ends=True,
    ),
}  # fmt: skip
_BY_STATE = {
    "28P01": _Cause(
        "the database refuses the password of the login {login}",
        "was the DSN cut off, or is there a newer one? Else ask the admin",
        "is the password in DATABASE_URL right?", final=True, ends=True,
    ),
    "3D000": _Cause(
        "there is no database {database} at {place}", _CUT_OFF,
        "make it with `createdb`, or mend the end of DATABASE_URL", final=True,
    ),
    "42501": _Cause(
        "the login {login} has no right to connect to the database {database}",
        "is it the DSN of another database? Else ask the admin",
        "grant it CONNECT, or take the database's owner", final=True,
    ),
    "53300": _Cause(
        "the database has no connection left for the login {login}",
        "stop other workers of this DSN, which may have 8 connections together; if there are none"
        " the server is full: tell the admin",
        "raise max_connections, or put a pooler in front (docs/pooler.md)",
    ),
    "57P03": _Cause(
        "the database at {place} is starting up or shutting down", "try again in a minute",
        "try again in a minute",
    ),
    "08P01": _Cause(
        "the pooler in front of the database refuses: {words}",
        "try again in a minute, then tell the admin", "see PgBouncer's log (docs/pooler.md)",
    ),
}  # fmt: skip
_NO_POSTGRESQL = _Cause(
    "what listens at {place} is no PostgreSQL", "is the port whole in the DSN?",
    "is the port right in DATABASE_URL?", final=True,
)  # fmt: skip
_NO_HOST = _Cause(
    "no name server knows the host {host}",
    "is it whole in the DSN? Else is this machine's network up?", "is it right in DATABASE_URL?",
)  # fmt: skip
# libpq's own words; the first that fits
_BY_WORDS = {
    "failed to resolve host": _NO_HOST,  # psycopg's
    "could not translate host name": _NO_HOST,
    "no password supplied": _Cause(
        "the DSN has no password", _CUT_OFF, "DATABASE_URL has none, nor ~/.pgpass", final=True,
    ),
    "server does not support SSL": _Cause(
        "the server at {place} has no TLS, and the DSN wants it",
        "is the port right? Else tell the admin, and do not take sslmode out of the DSN",
        "set ssl = on there (docs/security.md, \"The line\"), or say sslmode=prefer on your own"
        " machine",
        final=True,
    ),
    "root certificate": _Cause(
        "the roots that verify the server are not to be had: {words}",
        "sslrootcert of the DSN is `system`, or the path of the file that the admin sent: is it"
        " whole?", "name them by sslrootcert=FILE, or sslrootcert=system", final=True,
    ),
    "weak sslmode": _Cause(
        "the DSN has lost its sslmode=verify-full", _CUT_OFF,
        "say sslmode=verify-full in DATABASE_URL", final=True,
    ),
    "does not match host name": _Cause(
        "the server at {host} shows the certificate of another name",
        "does the DSN name the host as the admin's mail does? Else tell the admin, and do not go"
        " on without the check",
        "name the host as its certificate does", final=True,
    ),
    "certificate verify failed": _Cause(
        "the certificate of the server at {place} is of none of the authorities in sslrootcert, or"
        " has expired",
        "is sslrootcert the file that the admin sent, and this machine's clock right? Else tell"
        " the admin, and do not go on without the check",
        "name its authority's file by sslrootcert", final=True,
    ),
    "private key": _Cause(
        "the key of the client's certificate cannot be used: {words}",
        "chmod 600 the file that sslkey of the DSN names", "chmod 600 it", final=True,
    ),
    "certificate file": _Cause(
        "the client's certificate cannot be used: {words}",
        "is sslcert of the DSN the file that the admin sent?", "is sslcert right?", final=True,
    ),
    "SSL error": _Cause(
        "TLS with the server at {place} failed: {words}", "tell the admin",
        "see the server's log", final=True,
    ),
    "received invalid response": _NO_POSTGRESQL,
    "expected authentication request": _NO_POSTGRESQL,
    "Connection refused": _Cause(
        "nothing listens at {place}",
        "is the port whole in the DSN? Else the database is down: tell the admin",
        "is the server running, and does it listen there (listen_addresses, port)?",
    ),
    "No such file or directory": _Cause(
        "no server has a socket at {place}", _CUT_OFF,
        "is it running on this machine? Else DATABASE_URL lacks the host",
    ),
    "imeout": _Cause(
        "{place} does not answer",
        "is the host whole in the DSN, and this machine's network up? Else tell the admin",
        "is a firewall between here and there?",
    ),
    "imed out": _Cause(
        "{place} does not answer",
        "is the host whole in the DSN, and this machine's network up? Else tell the admin",
        "is a firewall between here and there?",
    ),
    "nreachable": _Cause(
        "there is no way from here to {host}", "is this machine's network up?",
        "is this machine's network up?",
    ),
    "closed the connection": _Cause(
        "the server at {place} ended the connection: {words}",
        "is the port whole in the DSN? Else it is going down, or a pooler is full: try again later",
        "see its log",
    ),
}  # fmt: skip
_UNKNOWN = _Cause("{words}", "ask the admin", "see the server's log")


def trouble_of(error: psycopg.Error, dsn: str, *, admin: bool = False) -> Trouble:
    """What kept a connection from being made. dsn: as ``dsn.checked`` gives it. admin: whether the
    remedies are an admin's, for DATABASE_URL."""
    words = " ".join(str(error).split()).removeprefix("connection failed: ")
    options = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    host = options.get("host") or "the local socket"
    known = {
        "login": options.get("user", "of this machine's user"),
        "database": options.get("dbname", "of the login's name"),
        "host": host,
        "place": f"{host}:{options.get('port', '5432')}",
        "words": words,
    }
    return _cause(words, str(error), dsn).trouble(admin, **known)


def _cause(words: str, error: str, dsn: str) -> _Cause:
    state = next((code for said, code in _ENGLISH.items() if said in words), None)
    if state is None and _SERVER_SPOKE.search(error):
        state = sqlstate_of(dsn)
    if state is not None and state.startswith("28") and state != "28P01":
        return next(cause for said, cause in _NOT_LET_IN.items() if said in words)
    if state in _BY_STATE:
        return _BY_STATE[state]
    if state is not None:
        return _UNKNOWN
    return next((cause for said, cause in _BY_WORDS.items() if said in words), _UNKNOWN)
