"""From a WAT file's bytes to pairs of URL and text, every link that is dropped counted."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from pairmill.schema.outcomes import DropReason
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract import text
from pairmill.workers.extract.language import LanguageDetector
from pairmill.workers.extract.license import find_license
from pairmill.workers.extract.link_kinds import LinkKind, LinkSelection
from pairmill.workers.extract.links import BadRecord, Link, PageLinks, link_reader
from pairmill.workers.extract.records import Readable, WarcRecords
from pairmill.workers.extract.urls import Base

_METADATA = re.compile(rb"\r\nwarc-type:[ \t]*metadata[ \t]*\r\n")
_JSON = re.compile(rb"\r\ncontent-type:[ \t]*application/json\b")
# URLs of one file that are remembered, about 100 bytes each; a file of Common Crawl has about
# 400,000 with a text. What is not remembered is found out by the database.
REMEMBERED = 500_000


class Pair(NamedTuple):
    """A link's URL with its text; all strings encode as UTF-8 and hold no NUL.

    url_key: md5 of the URL in UTF-8, 16 bytes. url: absolute http or https, at most 2,048
    characters, no fragment. text: 5 to 2,000 characters. language, probability: see
    ``LanguageDetector.detect``. license: URL of the Creative Commons licence the page names.
    kind: name of its link kind.
    """

    url_key: bytes
    url: str
    text: str
    language: str | None
    probability: float
    license: str | None
    kind: str


@dataclass
class LinkCounts:
    """The links of one kind: ``links`` = ``kept`` + ``duplicates`` + the sum of ``dropped``.

    duplicates: links that would have been kept, but for an earlier one with the same URL.
    """

    links: int = 0
    kept: int = 0
    duplicates: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)


@dataclass
class Counts:
    """What was read of a WAT file; grows while it is read.

    records: WARC records of all types, broken ones too. kinds: by link kind, the ends of
    its links. bad_records: records that were lost, by the reasons of ``records.Record`` and
    ``links.BadRecord``. ended_early: None, or why the rest of the file was not read.
    """

    records: int = 0
    kinds: dict[str, LinkCounts] = field(default_factory=dict)
    bad_records: Counter[str] = field(default_factory=Counter)
    ended_early: str | None = None

    @property
    def links(self) -> int:
        return sum(kind.links for kind in self.kinds.values())


def extract(
    stream: Readable, counts: Counts, selection: LinkSelection | None = None
) -> Iterator[Pair]:
    """The pairs of a WAT file (gzipped or plain), in its order, the first of each URL.

    selection: which kinds of links; images by default. A broken record, or the rest of a file
    that cannot be read on, is lost and stands in ``counts``; nothing else is lost by it.
    Memory stays below 300 MB whatever the file. Of a file with more than half a million URLs
    some duplicates may be given.

    Raises TaskFailed (no retry) where not one record of a WAT was found: an empty file, an
    error page, a WARC of another kind. Errors of the stream pass through.
    """
    selection = selection or LinkSelection()
    for kind in selection.kinds:
        counts.kinds.setdefault(kind.name, LinkCounts())
    read_links = link_reader(selection.attributes)
    pairs = _Pairs(selection, counts, LanguageDetector().detect)
    records = WarcRecords(stream)
    found = False
    for record in records:
        counts.records += 1
        if record.bad is not None:
            counts.bad_records[record.bad] += 1
            continue
        if _METADATA.search(record.header) and _JSON.search(record.header):
            found = True
            try:
                page = read_links(record.body)
            except BadRecord as error:
                counts.bad_records[error.name] += 1
                continue
            if page is not None:
                yield from pairs.of(page)
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


class _Pairs:
    """The pairs of one page after another."""

    def __init__(
        self,
        selection: LinkSelection,
        counts: Counts,
        detect: Callable[[str], tuple[str | None, float]],
    ) -> None:
        self._selected = selection.links
        self._counts = counts.kinds
        self._detect = detect
        self._seen: set[bytes] = set()

    def of(self, page: PageLinks) -> Iterator[Pair]:
        found = self._selected(page.links)
        if not found:
            return
        base = Base(page.url, page.base)
        license_url: str | None = None
        license_known = False
        for link, kind in found:
            counts = self._counts[kind.name]
            counts.links += 1
            kept = _check(link, kind, base)
            if isinstance(kept, DropReason):
                counts.dropped[kept] += 1
                continue
            url, words = kept
            key = hashlib.md5(url.encode(), usedforsecurity=False).digest()
            if key in self._seen:
                counts.duplicates += 1
                continue
            if len(self._seen) < REMEMBERED:
                self._seen.add(key)
            if not license_known:
                license_url, license_known = find_license(page.urls(), base), True
            counts.kept += 1
            language, probability = self._detect(words)
            yield Pair(key, url, words, language, probability, license_url, kind.name)


def _check(link: Link, kind: LinkKind, base: Base) -> tuple[str, str] | DropReason:
    """URL and text of a link, or the first reason, in DropReason's order, to drop it."""
    words = ""
    for name in kind.text:
        written = getattr(link, name)
        if written and (words := text.clean_text(written)):
            break
    if not words:
        return DropReason.NO_TEXT
    if len(words) < text.MIN_LENGTH:
        return DropReason.TEXT_TOO_SHORT
    if len(words) > text.MAX_LENGTH:
        return DropReason.TEXT_TOO_LONG
    if not link.url:
        return DropReason.NO_URL
    url = base.resolve_file(link.url, kind.refused)
    return url if isinstance(url, DropReason) else (url, words)
