"""The DSN that a worker is given: the fault of one that was not pasted whole.

libpq's own words quote a wrong DSN, its password among it, so a DSN is read here before libpq has
it. A sentence of this module holds no part of it but a host, a file or an option's name.
"""

import ipaddress
import os
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pairmill.workers.errors import Refused

WORKER_DSN = "PAIRMILL_WORKER_DSN"
WEB_DSN = "PAIRMILL_WEB_DSN"
FORM = "postgresql://LOGIN:PASSWORD@HOST:PORT/DATABASE"
REMEDY = (
    f"copy the whole line that the admin sent, and put it in single quotes into {WORKER_DSN} or"
    " after --dsn"
)
MISSING = (
    f"there is no DSN: put the line that the admin sent, in single quotes, into {WORKER_DSN} or"
    " after --dsn"
)
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
# around a DSN that was copied from a mail: what nobody sees, and quotes, straight and curly
_UNSEEN = " \t\r\n\ufeff\u200b\u2060\xa0"
_QUOTES = "'\"`‘’“”„«»<>"
_ASSIGNED = re.compile(rf"(?:export\s+|set\s+)?(?:{WORKER_DSN}|{WEB_DSN}|DATABASE_URL)=")
_SCHEME = re.compile(r"postgres(?:ql)?://")
_URL = re.compile(r"[^/]+//(?P<authority>[^/?]*)(?:/(?P<name>[^?]*))?(?:\?(?P<options>.*))?")
_HOST = re.compile(r"\[[0-9A-Fa-f:.%]+\]|[\w.%-]+")
_HOME_NETWORKS = (".local", ".localdomain", ".internal", ".lan", ".home.arpa", ".test")


def cleaned(dsn: str) -> str:
    """A DSN without what a paste leaves around it: white space, quotes, the variable's name."""
    text = _ASSIGNED.sub("", dsn.strip(_UNSEEN), count=1)
    if text[:1] in _QUOTES or "://" in text:  # keyword=value may end in a quote of its own
        text = text.strip(_QUOTES + _UNSEEN)
    return text


def checked(dsn: str) -> str:
    """A worker's DSN, cleaned. Raises Refused: one sentence on what is missing, and where to put
    the whole of it."""
    text = cleaned(dsn)
    if not text:
        raise Refused(MISSING)
    for fault in chain(_faults(text), _faults_of_a_workers(text)):  # the first
        raise Refused(f"the DSN {fault}" if "not here" in fault else f"the DSN {fault}: {REMEDY}")
    return text


def checked_pages(dsn: str) -> str:
    """A page's DSN, as ``checked`` a worker's."""
    text = cleaned(dsn)
    for fault in chain(_faults(text), _faults_of_a_workers(text)):
        raise Refused(
            f"the DSN in {WEB_DSN} {fault}: put the whole line there that `pairmill web add-login`"
            " printed, in single quotes"
        )
    return text


def checked_admins(dsn: str) -> str:
    """DATABASE_URL, cleaned: only what no PostgreSQL understands is refused, since a host, a user
    and a password may come from elsewhere. Raises Refused."""
    text = cleaned(dsn).replace("postgresql+psycopg://", "postgresql://", 1)  # SQLAlchemy's
    for fault in _faults(text):
        raise Refused(f"DATABASE_URL {fault}; it is to be {FORM}, in single quotes")
    return text


def _faults(text: str) -> Iterator[str]:
    """What PostgreSQL's library would not understand."""
    if _SCHEME.match(text):
        yield from _faults_of_url(text)
    elif re.match(r"https?:", text):
        yield f"is a web address, and a DSN begins with {FORM.partition('LOGIN')[0]}"
    elif "=" not in text or "://" in text:
        yield f"is none: one looks like {FORM}"
    try:
        options = conninfo_to_dict(text)
    except psycopg.Error:  # whose words quote it
        yield "ends within its options, or has one that PostgreSQL does not know"
    else:
        yield from _faults_of_options({key: str(value) for key, value in options.items()})


def _faults_of_url(text: str) -> Iterator[str]:
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        yield "has a space or a line break in it, as a mail makes of a long line"
    if "\\" in text:
        yield "has a backslash in it, as some shells put before a ? or an &"
    if "&amp;" in text:
        yield "has &amp; in it, which is to be &"
    if re.search(r"://(?:pm_)?(?:…|\.\.\.)", text):
        yield "is the one of an example"
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        yield "has a % without two hexadecimal digits after it (a % itself is %25)"
    found = _URL.match(text)
    login, at, places = (found["authority"] if found else "").rpartition("@")
    rest = text.partition("://")[2].partition("?")[0]
    if (not at and "@" in rest) or "@" in login or "#" in rest:
        yield "has a character in its password that stands for something else (@ is %40, / is %2F)"
    for place in places.split(","):  # several hosts: libpq tries each
        host, colon, port = place.rpartition(":") if re.search(r":\w*$", place) else (place, "", "")
        port_is_wrong = bool(colon) and not (port.isdecimal() and 0 < int(port) < 65536)
        host_is_wrong = bool(host) and not _HOST.fullmatch(host)
        if not at and (port_is_wrong or host_is_wrong):
            yield "ends before the host"
        elif port_is_wrong:
            yield "has no number after its host's colon"
        elif host_is_wrong:
            yield "has no host that can be one"
    if found and any(each.endswith("=") for each in (found["options"] or "").split("&")):
        yield "ends within its options"


def _faults_of_options(options: dict[str, str]) -> Iterator[str]:
    mode = options.get("sslmode", "")
    if mode and mode not in SSL_MODES:
        yield "ends within its sslmode"
    for name in FILES:
        place = options.get(name, "")
        if place and not (name == "sslrootcert" and place == "system") and not _is_file(place):
            cut = "system".startswith(place) and name == "sslrootcert"
            yield (
                "ends within its sslrootcert"
                if cut
                else f"names a file as {name} that is not here, {place}: put the file that the"
                " admin sent there, or write its place into the DSN"
            )


def _faults_of_a_workers(text: str) -> Iterator[str]:
    """What each DSN has that `pairmill worker add` prints."""
    options = {key: str(value) for key, value in conninfo_to_dict(text).items()}
    if _SCHEME.match(text):
        found = _URL.match(text)
        if found is None or "@" not in found["authority"]:
            yield "ends before the host"
        for name, is_called in (
            ("user", "login"), ("host", "host"), ("dbname", "database"),
        ):  # fmt: skip
            if not options.get(name):
                yield f"has no {is_called}"
        if not options.get("password") and not _other_password(options):
            yield "has no password"
    verifies = options.get("sslmode", "").startswith("verify-")
    if verifies and not options.get("sslrootcert") and not _other_roots():
        yield (
            "asks for a verified server and names no roots: its &sslrootcert= is lost, as where a"
            " shell cuts a line without quotes at the &"
        )


def _is_file(place: str) -> bool:
    try:
        return Path(place).is_file()
    except (OSError, ValueError):
        return False


def _other_password(options: dict[str, str]) -> bool:
    """Whether a password, or what stands for one, may come from elsewhere."""
    named = any(options.get(name) for name in ("passfile", "sslcert", "service"))
    in_environment = any(os.environ.get(name) for name in ("PGPASSWORD", "PGPASSFILE", "PGSSLCERT"))
    return named or in_environment or _is_file(str(Path("~/.pgpass").expanduser()))


def _other_roots() -> bool:
    return bool(os.environ.get("PGSSLROOTCERT")) or _is_file(
        str(Path("~/.postgresql/root.crt").expanduser())
    )


def unverified(dsn: str) -> str | None:
    """A warning where a DSN leads through the internet to a server that nothing verifies; else
    None. Such a DSN may be one that was cut off at the ?."""
    options = conninfo_to_dict(dsn)
    mode = str(options.get("sslmode") or os.environ.get("PGSSLMODE", ""))
    host = str(options.get("host") or "")
    # libpq takes no weaker mode than verify-full with sslrootcert=system
    verified = mode.startswith("verify-") or options.get("sslrootcert") == "system"
    if verified or not _is_public(host):
        return None
    return (
        f"the DSN has no sslmode=verify-full, so that any machine between here and {host} could"
        " answer in the database's place: was the DSN cut off at the ? or the &?"
    )


def here_only(dsn: str) -> str | None:
    """The host of a DSN that leads nowhere from another machine: a socket's folder, or loopback;
    None where it leads somewhere."""
    host = str(conninfo_to_dict(dsn).get("host") or "the local socket")
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host.startswith(("/", "@")) or host in ("localhost", "the local socket")
    return host if is_here else None


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and "/" not in host and not host.endswith(_HOME_NETWORKS)
