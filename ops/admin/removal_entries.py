"""What a line of a removal list names: a URL with its spellings, a host, or a hash."""

import hashlib
import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit
from uuid import UUID

from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract.urls import MAX_LENGTH, Base

FORMS = (
    "no http(s) URL, no host (example.org, or *.example.org for all below it, too),"
    " no md5 (32 hex digits) and no sha256 (64)"
)
_PORTS = {"http": 80, "https": 443}
# a list or an image that is not there would else be a host to remove; none of these is a top-level
# domain
_FILES = frozenset(
    ("txt", "csv", "tsv", "json", "jsonl", "ndjson", "parquet", "gz", "bz2", "xz", "zst", "list",
     "log", "jpg", "jpeg", "png", "gif", "webp", "svg", "bmp", "htm", "html", "pdf")
)  # fmt: skip
_LABEL = re.compile(r"[\w-]{1,63}")


@dataclass(frozen=True)
class Entry:
    """A removal as it is kept. source: the URL, host or hash in its main spelling. One of md5,
    sha256 and host is set. spellings: the other URLs or hosts that mean the same."""

    source: str
    md5: UUID | None = None
    sha256: bytes | None = None
    host: str | None = None
    subdomains: bool = False
    spellings: tuple["Entry", ...] = ()

    @property
    def sources(self) -> list[str]:
        """All its spellings, the main one first."""
        return [self.source, *(spelling.source for spelling in self.spellings)]

    @property
    def kind(self) -> str:
        """url, host or image; an md5 may be of either, and counts as an image's."""
        return "host" if self.host is not None else "url" if "://" in self.source else "image"


def read_entries(path: Path) -> list[str]:
    """One entry a line; empty lines and lines that begin with # are passed over.

    Raises UserError, naming the line, if one is neither a URL nor a host nor a hash.
    """
    try:
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return entries_in(text, str(path))


def entries_in(text: str, name: str) -> list[str]:
    """``read_entries`` of a text of this name."""
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            try:
                parse(entry)
            except UserError as problem:
                raise UserError(f"{name}, line {number}: {problem}; nothing was changed") from None
            entries.append(entry)
    return entries


def parse(entry: str) -> Entry:
    """The removal that an entry names. Raises UserError where it is none."""
    if re.fullmatch(r"[0-9a-fA-F]{32}", entry):
        return Entry(entry.lower(), md5=UUID(entry))
    if re.fullmatch(r"[0-9a-fA-F]{64}", entry):
        return Entry(entry.lower(), sha256=bytes.fromhex(entry))
    if "://" in entry:
        return _url(entry)
    return _host(entry)


def _url(entry: str) -> Entry:
    main = Base("").resolve(entry)
    if isinstance(main, DropReason):
        raise UserError(f"{entry[:200]!r} is {FORMS} ({main.value})")
    if len(main) > MAX_LENGTH:
        raise UserError(
            f"{entry[:200]!r} … has more than {MAX_LENGTH:,} characters, and no pair does"
        )
    others = [url for url in _url_spellings(entry, main) if url != main]
    return Entry(main, _key(main), spellings=tuple(Entry(url, _key(url)) for url in others))


def _key(url: str) -> UUID:
    return UUID(bytes=hashlib.md5(url.encode("utf-8"), usedforsecurity=False).digest())


def _url_spellings(entry: str, main: str) -> list[str]:
    """The URL as given and as the extractor writes it; its host in Unicode and in ASCII; the port
    left out where it is the scheme's; dot segments resolved; characters beyond ASCII as they are
    and percent-encoded, in either case of the digits. Requests for them are the same."""
    found = dict.fromkeys(url for url in (entry.partition("#")[0], main) if _encodes(url))
    parts = urlsplit(main)
    user, at, place = parts.netloc.rpartition("@")
    host, colon, port = place.rpartition(":") if re.search(r":\d*$", place) else (place, "", "")
    ports = [colon + port]
    if colon and port in ("", str(_PORTS[parts.scheme])):
        ports.append("")
    path = parts._replace(scheme="", netloc="")
    paths = {urlunsplit(path): None, urljoin("/", urlunsplit(path)) if parts.path else "/": None}
    for written in list(paths):
        readable = _readable(written)
        upper = quote(readable, safe=_AS_IS)
        paths |= {readable: None, upper: None}
        paths[re.sub(r"%[89A-Fa-f][0-9A-Fa-f]", lambda c: c[0].lower(), upper)] = None
    for name in _host_spellings(host):
        for ending in ports:
            for written in paths:
                url = f"{parts.scheme}://{user}{at}{name}{ending}{written}"
                if _encodes(url):
                    found[url] = None
    return list(found)


_AS_IS = "".join(map(chr, range(0x21, 0x7F)))


def _readable(path: str) -> str:
    """Percent-encoded UTF-8 beyond ASCII as characters."""

    def decoded(run: re.Match[str]) -> str:
        try:
            return unquote(run[0], errors="strict")
        except UnicodeDecodeError:
            return run[0]

    return re.sub(r"(?:%[89A-Fa-f][0-9A-Fa-f])+", decoded, path)


def _encodes(url: str) -> bool:
    """Whether it may be a pair's: a database's text can hold it."""
    return len(url) <= MAX_LENGTH and "\x00" not in url and not re.search("[\ud800-\udfff]", url)


def _host(entry: str) -> Entry:
    below = entry.startswith("*.")
    host = entry.removeprefix("*.").rstrip(".").lower()
    if "/" in host or "@" in host or re.search(r"[^\]]:\d+$", host):
        raise UserError(
            f"{entry[:200]!r} is {FORMS}: a URL begins with http:// or https://, a host has no port"
        )
    if not _is_host(host, below):
        raise UserError(f"{entry[:200]!r} is {FORMS}")
    names = _host_spellings(host)
    first, *others = (
        Entry(f"*.{name}" if below else name, host=name, subdomains=below) for name in names
    )
    return Entry(first.source, host=first.host, subdomains=below, spellings=tuple(others))


def _is_host(host: str, below: bool) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
        return not below and (":" not in host or host.startswith("["))
    except ValueError:
        labels = host.split(".")
        named = len(labels) > 1 and all(map(_LABEL.fullmatch, labels))
        return named and len(host) <= 253 and labels[-1] not in _FILES and labels[-1] != ""


def _host_spellings(host: str) -> list[str]:
    """A host as it is, and in Unicode and in ASCII (IDNA): pages use either."""
    labels = unicodedata.normalize("NFC", host).split(".")
    readable = [_decoded(label) for label in labels]
    ascii_only = [
        label if label.isascii() else "xn--" + label.encode("punycode").decode("ascii")
        for label in readable
    ]
    return list(dict.fromkeys((host, ".".join(readable), ".".join(ascii_only))))


def _decoded(label: str) -> str:
    try:
        readable = label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else ""
        return readable or label
    except UnicodeError:
        return label
