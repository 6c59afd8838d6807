"""What a line of a removal list names: a URL, prefix or host with its spellings, a hash, a pair."""

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

from pairmill.ops.admin.removal_spellings import host_spellings, url_spellings
from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract.urls import MAX_LENGTH, Base

FORMS = (
    "no http(s) URL (with * at its end: all that begin so), no host (example.org, or *.example.org"
    " for all below it, too), no md5 (32 hex digits), SHA-1 (40) or sha256 (64), and no"
    " pdq:HEX[/DISTANCE], dhash:NUMBER or sample:SAMPLE_ID"
)
# a list or an image that is not there would else be a host to remove; none of these is a top-level
# domain
_FILES = frozenset(
    ("txt", "csv", "tsv", "json", "jsonl", "ndjson", "parquet", "gz", "bz2", "xz", "zst", "list",
     "log", "jpg", "jpeg", "png", "gif", "webp", "svg", "bmp", "htm", "html", "pdf")
)  # fmt: skip
_LABEL = re.compile(r"[\w-]{1,63}")


# Of 256 bits, as PDQ's authors advise; beyond it strangers match: of random hashes 128 bits differ
PDQ_DISTANCE = 31
# A PDQ has a median for its threshold, so that about half of its bits are set; a dHash of an image
# has both brighter and darker neighbours. Others are of flat images, and would name all of these
PDQ_BITS = range(64, 193)
DHASH_BITS = range(8, 57)
_PREFIXED = re.compile(r"(md5|sha-?1|sha-?256|pdq|dhash|sample):(.*)", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]*", re.IGNORECASE)
_DIGITS = {"md5": 32, "sha1": 40, "sha256": 64}


@dataclass(frozen=True, slots=True)
class Entry:
    """A removal as it is kept. source: what was given, in its main spelling. One of md5 (a UUID),
    sha1, sha256, dhash (signed), pdq (with pdq_distance), sample_id and host is set; of a prefix
    its host. spellings: the other URLs, prefixes or hosts that mean the same."""

    source: str
    md5: UUID | None = None
    sha1: bytes | None = None
    sha256: bytes | None = None
    dhash: int | None = None
    pdq: bytes | None = None
    pdq_distance: int | None = None
    sample_id: int | None = None
    host: str | None = None
    prefix: str | None = None
    subdomains: bool = False
    spellings: tuple["Entry", ...] = ()

    @property
    def sources(self) -> list[str]:
        """All its spellings, the main one first."""
        return [self.source, *(spelling.source for spelling in self.spellings)]

    @property
    def kind(self) -> str:
        """url, prefix, host, sample or image; an md5 may be of a URL or of an image, and counts as
        an image's: ``mill.removal_kind``."""
        if self.prefix is not None:
            return "prefix"
        if self.host is not None:
            return "host"
        if self.sample_id is not None:
            return "sample"
        return "url" if "://" in self.source else "image"


def read_entries(path: Path) -> list[str]:
    """One entry a line; empty lines and lines that begin with # are passed over.

    Raises UserError, naming the line, if one is none.
    """
    return entries_in(read_text(path), str(path))


def read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def entries_in(text: str, name: str) -> list[str]:
    """``read_entries`` of a text of this name."""
    entries = []
    for number, entry in lines_of(text):
        try:
            parse(entry)
        except UserError as problem:
            raise UserError(f"{name}, line {number}: {problem}; nothing was changed") from None
        entries.append(entry)
    return entries


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty and no comments, with their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield number, entry


def parse(entry: str) -> Entry:
    """The removal that an entry names. Raises UserError where it is none, or would name what it
    was not meant for."""
    if _HEX.fullmatch(entry):
        for name, digits in _DIGITS.items():
            if len(entry) == digits:
                return hash_entry(name, entry)
    if "://" in entry:
        return _prefix(entry) if entry.endswith("*") else url_entry(entry)
    if named := _PREFIXED.fullmatch(entry):
        kind, value = named[1].lower().replace("-", ""), named[2].strip()
        if kind == "sample":
            return _sample(value)
        if kind == "pdq":
            return pdq_entry(value)
        return _dhash(value) if kind == "dhash" else hash_entry(kind, value)
    return _host(entry)


def hash_entry(kind: str, digits: str) -> Entry:
    """An md5, SHA-1 or sha256 (kind: md5, sha1, sha256) of an image's bytes, in hexadecimal; an
    md5 may be of a URL, too."""
    if len(digits) != _DIGITS[kind] or not _HEX.fullmatch(digits):
        raise UserError(f"{digits[:200]!r} is no {kind}: that has {_DIGITS[kind]} hex digits")
    if len(set(digits)) == 1:
        raise UserError(f"{digits!r} is the {kind} of nothing: a list has it where it knows none")
    lower = digits.lower()
    if kind == "md5":
        return Entry(lower, md5=UUID(lower))
    if kind == "sha1":
        return Entry(lower, sha1=bytes.fromhex(lower))
    return Entry(lower, sha256=bytes.fromhex(lower))


def pdq_entry(value: str, quality: int = 100) -> Entry:
    """A PDQ, 64 hex digits, and after a slash in how many bits others may differ, 31 at most and
    by default. quality: of 100, as its list says."""
    digits, _, distance = value.partition("/")
    most = distance or str(PDQ_DISTANCE)
    if len(digits) != 64 or not _HEX.fullmatch(digits) or not re.fullmatch(r"\d{1,3}", most):
        raise UserError(f"{value[:200]!r} is no PDQ: 64 hex digits, or these, / and a distance")
    if int(most) > PDQ_DISTANCE:
        raise UserError(
            f"a distance of {most} would name strangers of {digits}: {PDQ_DISTANCE} is the most"
        )
    if quality < 50 or int(digits, 16).bit_count() not in PDQ_BITS:
        raise UserError(f"{digits} is the PDQ of a flat image, and would name other flat images")
    key = bytes.fromhex(digits)
    return Entry(f"pdq:{key.hex()}/{int(most)}", pdq=key, pdq_distance=int(most))


def _dhash(value: str) -> Entry:
    if not re.fullmatch(r"-?\d{1,20}|0x[0-9a-fA-F]{1,16}", value):
        raise UserError(f"{value[:200]!r} is no dHash: a number, or 0x and up to 16 hex digits")
    number = int(value, 0) if value.startswith("0x") else int(value)
    number -= 1 << 64 if number >> 63 > 0 else 0
    if not -(1 << 63) <= number < 1 << 63:
        raise UserError(f"{value[:200]!r} is no dHash: it has 64 bits")
    if (number & (1 << 64) - 1).bit_count() not in DHASH_BITS:
        raise UserError(f"{value} is the dHash of a flat image, and would name other flat images")
    return Entry(f"dhash:{number}", dhash=number)


def _sample(value: str) -> Entry:
    if not re.fullmatch(r"\d{1,18}", value):
        raise UserError(f"{value[:200]!r} is no SAMPLE_ID")
    return Entry(f"sample:{int(value)}", sample_id=int(value))


def _prefix(entry: str) -> Entry:
    """All URLs of a host that begin so."""
    begun = entry.rstrip("*")
    if not re.match(r"[^/?#]+://[^/?#]+/", begun) or "#" in begun:
        raise UserError(
            f"{entry[:200]!r} is too short a prefix, or has a fragment: it begins with a scheme, a"
            " whole host and a slash, as http://example.org/album/*"
        )
    url = url_entry(begun)

    def prefix_of(one: Entry) -> Entry:
        found = one.source
        host = urlsplit(found).netloc.rpartition("@")[2]
        host = re.sub(r":\d*$", "", host).rstrip(".").lower()
        return Entry(f"{found}*", host=host, prefix=found)

    main, *others = map(prefix_of, (url, *url.spellings))
    return replace(main, spellings=tuple(others))


def url_entry(entry: str) -> Entry:
    """A URL, with its spellings."""
    main = Base("").resolve(entry)
    if isinstance(main, DropReason):
        raise UserError(f"{entry[:200]!r} is {FORMS} ({main.value})")
    if len(main) > MAX_LENGTH:
        raise UserError(
            f"{entry[:200]!r} … has more than {MAX_LENGTH:,} characters, and no pair does"
        )
    others = [url for url in url_spellings(entry, main) if url != main]
    return Entry(main, _key(main), spellings=tuple(Entry(url, _key(url)) for url in others))


def _key(url: str) -> UUID:
    return UUID(bytes=hashlib.md5(url.encode("utf-8"), usedforsecurity=False).digest())


def _host(entry: str) -> Entry:
    below = entry.startswith("*.")
    host = entry.removeprefix("*.").rstrip(".").lower()
    if "/" in host or "@" in host or re.search(r"[^\]]:\d+$", host):
        raise UserError(
            f"{entry[:200]!r} is {FORMS}: a URL begins with http:// or https://, a host has no port"
        )
    if not _is_host(host, below):
        raise UserError(f"{entry[:200]!r} is {FORMS}")
    names = host_spellings(host)
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
