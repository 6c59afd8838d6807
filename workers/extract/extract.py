"""From a WAT file's bytes to pairs of URL and text, every link that is dropped counted."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import msgspec

from pairmill.schema.outcomes import DropReason
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.decoding import Decoding, by_warcinfo
from pairmill.workers.extract.gzip_members import Readable
from pairmill.workers.extract.link_kinds import LinkKind, LinkSelection
from pairmill.workers.extract.links import BadRecord
from pairmill.workers.extract.page import Page, PageFacts, PageReader
from pairmill.workers.extract.records import WarcRecords
from pairmill.workers.extract.text import MIN_LENGTH

try:  # CPython's own: for a URL's few bytes OpenSSL's takes more than twice the time
    from _md5 import md5  # type: ignore[import-not-found]
except ImportError:
    md5 = partial(hashlib.md5, usedforsecurity=False)

_METADATA = re.compile(rb"\nwarc-type[ \t]*:[ \t]*metadata[ \t]*\r?\n")
_WARCINFO = re.compile(rb"\nwarc-type[ \t]*:[ \t]*warcinfo[ \t]*\r?\n")
_JSON = re.compile(rb"\ncontent-type[ \t]*:[ \t]*application/json\b")
# URLs of one file that are remembered, about 100 bytes each; a file of Common Crawl has about
# 400,000 with a text. What is not remembered is found out by the database.
REMEMBERED = 500_000


class Pair(msgspec.Struct, frozen=True, gc=False):
    """A link's URL with its text; all strings encode as UTF-8 and hold no NUL.

    url_key: md5 of the URL in UTF-8, 16 bytes. url: absolute http or https, at most 2,048
    characters, no fragment. text: 2,000 characters at most, and 5 at least or, of scripts that say
    more with each, so many that they weigh as much (``text.weight``). kind: name of its link kind.
    page: that of the link, one object for all pairs of the page, which come one after another.
    """

    url_key: bytes
    url: str
    text: str
    kind: str
    page: PageFacts


@dataclass
class LinkCounts:
    """The links of one kind: ``links`` = ``kept`` + ``duplicates`` + the sum of ``dropped``.

    duplicates: links that would have been kept, but for an earlier one with the same URL.
    attributes: kept ones by the attribute that gave the URL, of the kinds that look for others
    beside their own (images: ``src``, ``data-src``, …).
    """

    links: int = 0
    kept: int = 0
    duplicates: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    attributes: Counter[str] = field(default_factory=Counter)


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

    The first counts too where a later page refuses the use of its images, and where its own does.
    Where its text has fewer than 5 characters, the first of 5 or more is given as well, and the
    merge takes that one: of a recipe that counts characters the short one would cost the URL.
    How references in attributes are decoded hangs on what wrote the file: see ``decoding``.

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
    reader = PageReader(selection)
    pairs = _Pairs(counts)
    of_file: Decoding | None = None
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
                page = reader.read(record, of_file)
            except BadRecord as error:
                counts.bad_records[error.name] += 1
                continue
            if page is not None:
                yield from pairs.of(page, counts.records - 1)
        elif _WARCINFO.search(record.header):
            of_file = by_warcinfo(record.header, record.body)
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

    def __init__(self, counts: Counts) -> None:
        self._counts = counts.kinds
        self._seen: set[bytes] = set()
        self._short: set[bytes] = set()  # of those seen, the ones whose only text is short

    def of(self, page: Page, record: int) -> list[Pair]:
        """Those that are given, in the page's order. record: the number of the page's."""
        pairs: list[Pair] = []
        facts: PageFacts | None = None
        of_kind: LinkKind | None = None
        for number, (link, kind) in enumerate(page.found):
            if kind is not of_kind:
                of_kind, counts = kind, self._counts[kind.name]
            counts.links += 1
            kept = page.usual(link, kind) or page.pair(number, link, kind)
            if type(kept) is DropReason:
                counts.dropped[kept] += 1
                continue
            words, url, attribute = kept
            key = md5(url.encode()).digest()
            if self._is_known(key, words):
                counts.duplicates += 1
                continue
            facts = facts or page.facts(record)
            pairs.append(Pair(key, url, words, kind.name, facts))
            counts.kept += 1
            if attribute:
                counts.attributes[attribute] += 1
        return pairs

    def _is_known(self, key: bytes, words: str) -> bool:
        """Has the URL been given already, with a text that is no shorter than recipes want?"""
        if key not in self._seen:
            if len(self._seen) < REMEMBERED:
                self._seen.add(key)
                if len(words) < MIN_LENGTH:
                    self._short.add(key)
            return False
        if key in self._short and len(words) >= MIN_LENGTH:
            self._short.discard(key)
            return False
        return True
