"""One page of a WAT: its links of the selected kinds, and what its pairs have in common."""

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract import text
from pairmill.workers.extract.decoding import DECODED, Decoding, by_date, crawl_time, warc_date
from pairmill.workers.extract.image_links import ImageLink, ImageReader, ReadPage
from pairmill.workers.extract.images import is_placeholder, joined, may_be_lazy, others
from pairmill.workers.extract.license import find_license, may_name_license
from pairmill.workers.extract.link_kinds import BESIDE, IMAGE, LinkKind, LinkSelection
from pairmill.workers.extract.links import LAZY_FIELDS, BadRecord, Link, PageLinks, link_reader
from pairmill.workers.extract.page_opt_out import PageOptOut, page_opt_out
from pairmill.workers.extract.records import Record
from pairmill.workers.extract.references import Decode
from pairmill.workers.extract.urls import Base, page_url

# Links of a page, at most, that are read a second time: two lists of 250,000 took 400 MB. A page of
# 5 MiB, Common Crawl's limit, has as many if each takes 100 bytes.
MAX_TWICE = 50_000

_NO_TEXT = DropReason.NO_TEXT  # an enumeration's member takes as long to look up as a call

Found = list[tuple[Any, LinkKind]]  # links, each with its kind


class PageFacts(msgspec.Struct, frozen=True, gc=False):
    """What the pairs of one page have in common; all strings encode as UTF-8 without NUL.

    number: of the page's record in the file, from 0. url: see ``urls.page_url``. crawled_at: its
    WARC-Date, aware, UTC; None where no valid time is given. opt_out: what it says against the use
    of its images, None for nearly all; the database keeps that as evidence, and refuses the
    download. license: URL of the Creative Commons licence that it names.
    """

    number: int
    url: str | None
    crawled_at: datetime | None
    opt_out: PageOptOut | None
    license: str | None


class PageReader:
    """Reads the records of a WAT as pages, with the attributes that a selection of links needs."""

    def __init__(self, selection: LinkSelection) -> None:
        self._selected = selection.links
        self._attributes = selection.attributes
        self._plain = link_reader(selection.attributes)
        self._read: ReadPage = self._plain
        if selection.kinds == (IMAGE,):
            self._read = ImageReader(self._plain, IMAGE.beside)

    def read(self, record: Record, of_file: Decoding | None) -> "Page | None":
        """The page of a record's JSON; None without links of a selected kind. Raises BadRecord.

        of_file: the decoding that its warcinfo tells; None: that which the record tells.
        """
        page = self._read(record.body)
        if page is None:
            return None
        by = of_file or by_date(record.header)
        found: Found = [(link, IMAGE) for link in page.links if type(link) is ImageLink]
        if not found and isinstance(page.links[0], Link):
            found = self._selected(page.links, by.url)
            if [kind for _, kind in found if kind is BESIDE]:
                alone = [one for one in found if one[1] is not BESIDE]
                found = self.lazily(page, by.url, joined) or alone
        return Page(self, record, page, by, found) if found else None

    def urls(self, page: PageLinks) -> list[str]:
        """The URLs of all links of a page; none where it is of odd types and more than is read
        slowly."""
        if isinstance(page.links[0], Link):
            return page.urls()
        try:
            again = self._plain(page.body)
        except BadRecord:
            return []
        return again.urls() if again else []

    @cached_property
    def _read_lazily(self) -> ReadPage:
        return link_reader({*self._attributes, *LAZY_FIELDS})

    def lazily(
        self,
        page: PageLinks,
        decode: Decode | None,
        change: Callable[[list[Link]], list[Link]] = list,
    ) -> Found:
        """The selected links of a page again, with the attributes of ``LAZY_FIELDS``; none of a
        page of more than ``MAX_TWICE`` links."""
        if len(page.links) > MAX_TWICE:
            return []
        try:
            again = self._read_lazily(page.body)
        except BadRecord:  # of odd types, it is more than is read slowly
            return []
        return self._selected(change(again.links), decode) if again else []


class Page:
    """found: the selected links, each with its kind."""

    __slots__ = (
        "_base",
        "_decode",
        "_decode_words",
        "_lazy",
        "_page",
        "_reader",
        "_record",
        "_references",
        "found",
    )

    def __init__(
        self, reader: PageReader, record: Record, page: PageLinks, by: Decoding, found: Found
    ) -> None:
        self.found = found
        self._reader, self._record, self._page = reader, record, page
        self._decode, self._decode_words = by.url, by.words
        self._references = by is not DECODED
        head = page.base
        if head and self._decode:
            head = self._decode(head)
        self._base = Base(page.url, head)
        self._lazy: Found | None = None  # not looked for yet

    def usual(self, link: Any, kind: LinkKind) -> tuple[str, str, str] | DropReason | None:
        """What ``pair`` gives, for an image as nearly all are, in half of its time; else None."""
        if kind is not IMAGE:
            return None
        words, written = link.alt, link.url
        if not words:
            return _NO_TEXT
        if not written or not words.isprintable() or "  " in words:
            return None
        if self._references and ("&" in words or "&" in written):
            return None
        words = words.strip(" ")
        url = self._base.resolve_usual(written)
        if (
            not url
            or not text.MIN_LENGTH <= len(words) <= text.MAX_LENGTH
            or is_placeholder(written)
        ):
            return None
        return words, url, "src"

    def pair(self, number: int, link: Link, kind: LinkKind) -> tuple[str, str, str] | DropReason:
        """(text, URL, attribute that gave the URL) of ``found[number]``, or the first reason, in
        DropReason's order, to drop it.

        One URL, so that an image is never two pairs: that of ``src``, unless it is a placeholder
        (missing, no http URL, or named like one); then the first of the others that can be taken,
        else that of ``src`` all the same. Of kinds that look for no others the attribute is ``""``.
        """
        words = ""
        for name in kind.text:
            written = getattr(link, name)
            if written and (words := text.clean_text(written, self._decode_words[name])):
                break
        if not words:
            return DropReason.NO_TEXT
        # what some recipe may want: LAION's count characters
        if len(words) < text.MIN_LENGTH and text.weight(words) < text.MIN_LENGTH:
            return DropReason.TEXT_TOO_SHORT
        if len(words) > text.MAX_LENGTH:
            return DropReason.TEXT_TOO_LONG
        written = link.url
        if written and self._decode:
            written = self._decode(written)
        url = self._base.resolve_file(written, kind.refused) if written else DropReason.NO_URL
        attribute = ""
        if kind.lazy:
            attribute = "src"
            lost = type(url) is DropReason and url is not DropReason.FILE_TYPE
            if lost or is_placeholder(written):
                attribute, url = self._lazily(number, url)
        return url if type(url) is DropReason else (words, url, attribute)

    def _lazily(self, number: int, url: str | DropReason) -> tuple[str, str | DropReason]:
        if self._lazy is None:
            self._lazy = self._found_lazily()
        if not self._lazy:
            return "src", url
        link, kind = self._lazy[number]
        for name, other in others(link, self._decode):
            found = self._base.resolve_file(other, kind.refused)
            if not isinstance(found, DropReason):
                return name, found
            if url is DropReason.NO_URL:  # the reason of the first that is there
                url = found
        return "src", url

    def _found_lazily(self) -> Found:
        """``found`` with all attributes; empty where the record has no such attribute."""
        if not may_be_lazy(self._page.body):
            return []
        if any(hasattr(link, "srcset") for link, _ in self.found):
            return self.found
        again = self._reader.lazily(self._page, self._decode)
        return again if len(again) == len(self.found) else []

    def facts(self, number: int) -> PageFacts:
        """number: of its record in the file. A page without a date of its own was crawled when its
        WAT record says."""
        page = self._page
        crawled_at = crawl_time(page.date) or crawl_time(warc_date(self._record.header))
        return PageFacts(
            number, page_url(page.url), crawled_at, page_opt_out(page), self._license()
        )

    def _license(self) -> str | None:
        if not may_name_license(self._page.body, as_written=self._decode is not None):
            return None
        urls = self._reader.urls(self._page)
        if self._decode:
            urls = [self._decode(url) for url in urls]
        return find_license(urls, self._base)
