"""From a WAT file's bytes to pairs of image URL and alt text, every dropped link counted."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pairmill.schema.outcomes import DropReason
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract import text
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.license import find_license
from pairmill.workers.extract.links import BadRecord, Link, Page, read_links
from pairmill.workers.extract.records import Readable, WarcRecords
from pairmill.workers.extract.urls import Base

_METADATA = re.compile(rb"\r\nwarc-type:[ \t]*metadata[ \t]*\r\n", re.I)
_JSON = re.compile(rb"\r\ncontent-type:[ \t]*application/json\b", re.I)


@dataclass(frozen=True, slots=True)
class Pair:
    """An image's URL with its alt text; all strings encode as UTF-8 and hold no NUL.

    url: absolute http or https, at most 2,048 characters, no fragment. url_key: md5 of the
    URL in UTF-8, 16 bytes. text: 5 to 2,000 characters. language, probability: see
    ``LanguageDetector.detect``. license: URL of the Creative Commons licence the page names.
    """

    url: str
    url_key: bytes
    text: str
    language: str | None
    probability: float
    license: str | None


@dataclass
class Counts:
    """What was read of a WAT file; grows while it is read.

    records: WARC records of all types, broken ones too. links: those with path
    ``IMG@/src``, always ``kept`` + the sum of ``dropped``. bad_records: records that were
    lost, by the reasons of ``records.Record`` and ``links.BadRecord``. ended_early: None, or
    why the rest of the file was not read.
    """

    records: int = 0
    links: int = 0
    kept: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    bad_records: Counter[str] = field(default_factory=Counter)
    ended_early: str | None = None


def extract(stream: Readable, counts: Counts) -> Iterator[Pair]:
    """The pairs of a WAT file (gzipped or plain), in its order, duplicates included.

    A broken record, or the rest of a file that cannot be read on, is lost and stands in
    ``counts``; nothing else is lost by it. Memory stays below 300 MB whatever the file.
    Raises TaskFailed (no retry) where not one record of a WAT was found: an empty file, an
    error page, a WARC of another kind. Errors of the stream pass through.
    """
    detect = LanguageDetector().detect
    records = WarcRecords(stream)
    found = False
    for record in records:
        counts.records += 1
        if record.bad is not None:
            counts.bad_records[record.bad] += 1
        elif _METADATA.search(record.header) and _JSON.search(record.header):
            found = True
            try:
                page = read_links(record.body)
            except BadRecord as error:
                counts.bad_records[error.name] += 1
                continue
            if page is not None:
                yield from _pairs(page, counts, detect)
    if records.ended_early is not None:
        counts.ended_early = f"after {counts.records} records: {records.ended_early}"
    if not found:
        raise TaskFailed(_why_no_wat(records, counts), retry=False)


def _why_no_wat(records: WarcRecords, counts: Counts) -> str:
    if not records.beginning:
        return "the file is empty"
    ended = f", ended {counts.ended_early}" if counts.ended_early else ""
    return (
        f"this is not a WAT file: no JSON metadata among {counts.records} WARC records{ended};"
        f" it begins with {records.beginning!r}"
    )


def _pairs(
    page: Page, counts: Counts, detect: Callable[[str], tuple[str | None, float]]
) -> Iterator[Pair]:
    base = Base(page.url, page.base)
    license_url = find_license(page.urls(), base)
    for link in page.images():
        counts.links += 1
        kept = _check(link, base)
        if isinstance(kept, DropReason):
            counts.dropped[kept] += 1
            continue
        url, alt = kept
        key = hashlib.md5(url.encode(), usedforsecurity=False).digest()
        counts.kept += 1
        yield Pair(url, key, alt, *detect(alt), license_url)


def _check(link: Link, base: Base) -> tuple[str, str] | DropReason:
    """URL and text of a link, or the first reason, in DropReason's order, to drop it."""
    if not link.url:
        return DropReason.NO_URL
    url = base.resolve_image(link.url)
    if isinstance(url, DropReason):
        return url
    alt = text.clean_text(link.alt or "")
    if not alt:
        return DropReason.NO_TEXT
    if len(alt) < text.MIN_LENGTH:
        return DropReason.TEXT_TOO_SHORT
    if len(alt) > text.MAX_LENGTH:
        return DropReason.TEXT_TOO_LONG
    return url, alt
