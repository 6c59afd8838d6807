"""Which decoding the strings of a WAT file need: that hangs on what wrote it.

Common Crawl's ia-web-commons decodes character references since 8 July 2019 (its issue 14; by
HTML's own rules since 28 August 2019, issue 19). Older files hold attributes and texts as the page
has them. A second decoding would make ``<b>`` of the ``&lt;b&gt;`` that a page shows, and without
the first ``?w=1&amp;h=2`` is asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pairmill.workers.extract import references
from pairmill.workers.extract.references import Decode

# Builds are stamped with their time, and Common Crawl makes one for each crawl.
_FIRST_BUILD = b"20190709"
_FIRST_CRAWL = (2019, 35)
_FIRST_DAY = b"2019-08-01"  # of extraction: CC-MAIN-2019-30 was in July, 2019-35 in August

_BUILD = re.compile(rb"ia-web-commons[. ]\d[\w.]*?(-snapshot)?-(20\d{6})\d{0,6}\b")
_CRAWL = re.compile(rb"\bcc-main-(20\d\d)-(\d\d)\b")
_FILE_DAY = re.compile(rb"\bcc-main-(20\d\d)(\d\d)(\d\d)\d{6}\b")
_DAY = re.compile(rb"\b((?:19|20)\d\d)-(\d\d)-(\d\d)")
_HTTP_DAY = re.compile(rb"\b(\d{1,2})[ -]([a-z]{3})[a-z]*[ -]((?:19|20)\d\d)\b")
_MONTHS = b"jan feb mar apr may jun jul aug sep oct nov dec".split()
_WARC_DATE = re.compile(rb"\nwarc-date[ \t]*:([^\r\n]*)")
_FIRST_YEAR, _LAST_YEAR = 1990, 2100  # of crawls; the database takes no year beyond
_READ = 64 * 1024  # bytes of a warcinfo record that are looked at; Common Crawl's have 300


@dataclass(frozen=True)
class Decoding:
    """What is done to each string of a page: to URLs, and to words by their attribute's name. None:
    nothing."""

    url: Decode | None
    words: Mapping[str, Decode | None]


_WORDS = {
    "alt": references.in_attribute,
    "title": references.in_attribute,
    "text": references.in_text,
}
DECODED = Decoding(None, dict.fromkeys(_WORDS))
"""The writer has decoded: nothing is decoded again."""
AS_WRITTEN = Decoding(references.complete_only, _WORDS)
"""The strings are the page's own."""
UNKNOWN = Decoding(None, _WORDS)
"""Nothing tells: words are decoded, and URLs, which may be meant as they stand, are not."""


def by_warcinfo(header: bytes, body: bytes | bytearray) -> Decoding | None:
    """What a file's warcinfo record tells; None where it tells nothing.

    header: as ``records.Record`` has it, in lower case. The first of these that is there counts:
    the build of ia-web-commons (a release, one without ``SNAPSHOT``, is the IIPC's
    webarchive-commons, which has never decoded); Extracted-Date; the crawl (isPartOf); the day in
    WARC-Filename; WARC-Date. The program and its time are what matters: an old crawl may be
    extracted again by a new program.
    """
    fields = _fields(bytes(body[:_READ]).lower())
    software = fields.get(b"software-info", b"") + b" " + fields.get(b"software", b"")
    if build := _BUILD.search(software):
        return _decoded(bool(build[1]) and build[2] >= _FIRST_BUILD)
    day = _http_day(fields.get(b"extracted-date", b""))
    if day is not None:
        return _decoded(day >= _FIRST_DAY)
    if crawl := _CRAWL.search(fields.get(b"ispartof", b"")):
        return _decoded((int(crawl[1]), int(crawl[2])) >= _FIRST_CRAWL)
    of_record = _fields(header)
    if file := _FILE_DAY.search(of_record.get(b"warc-filename", b"")):
        return _decoded(b"-".join(file.groups()) >= _FIRST_DAY)
    return _by_day(of_record.get(b"warc-date", b""))


def by_date(header: bytes) -> Decoding:
    """What a record of a file without such a warcinfo tells by its WARC-Date: ``UNKNOWN`` without.

    header: in lower case. Common Crawl's is the time of extraction, others' that of the crawl.
    """
    return _by_day(warc_date(header).encode("latin-1")) or UNKNOWN


def warc_date(header: bytes) -> str:
    """A record's WARC-Date as its header, in lower case, has it; ``""`` without."""
    found = _WARC_DATE.search(header)
    return found[1].decode("latin-1") if found else ""


def crawl_time(written: str | None) -> datetime | None:
    """A WARC-Date (``2024-05-18T01:58:10Z``, perhaps with a fraction) as aware UTC; None where it
    is no time of a crawl."""
    try:
        time = datetime.fromisoformat((written or "").strip().upper())
    except ValueError:
        return None
    if not _FIRST_YEAR <= time.year <= _LAST_YEAR:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _decoded(so: bool) -> Decoding:
    return DECODED if so else AS_WRITTEN


def _by_day(value: bytes) -> Decoding | None:
    day = _DAY.search(value)
    return _decoded(b"-".join(day.groups()) >= _FIRST_DAY) if day else None


def _http_day(value: bytes) -> bytes | None:
    """``Mon, 27 May 2019 15:39:42 GMT`` (or ISO 8601), in lower case, as ``2019-05-27``."""
    if day := _DAY.search(value):
        return b"-".join(day.groups())
    day = _HTTP_DAY.search(value)
    if day is None or day[2] not in _MONTHS:
        return None
    return b"%b-%02d-%02d" % (day[3], _MONTHS.index(day[2]) + 1, int(day[1]))


def _fields(lines: bytes) -> dict[bytes, bytes]:
    """``name: value`` lines; the first of each name counts."""
    fields: dict[bytes, bytes] = {}
    for line in lines.splitlines():
        name, colon, value = line.partition(b":")
        if colon:
            fields.setdefault(name.strip(), value.strip())
    return fields
