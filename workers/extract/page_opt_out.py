"""The opt-out of a page, in its own <meta> elements or in the header fields that it came with, as a
WAT's ``Head.Metas`` and ``Headers`` hold them."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from pairmill.workers.directives import (
    AGENT,
    MAX_VALUE,
    REFUSING_TAGS,
    header_refusal,
    page_refusal,
)
from pairmill.workers.extract.links import PageLinks, parsed
from pairmill.workers.safe_text import plain

MAX_METAS = 1_000  # of a page that are looked at, of those that may refuse
MAX_CONTENT = 4_096  # characters of each content
MAX_SIGNAL = 50  # characters, as the database holds

# What a page's metas hold, in lower case, if they refuse: this saves decoding nearly all. It is a
# name of a statement of use, or a tag: ``robots`` alone stands on half of all pages.
_STATEMENT = re.compile(rb"content-(?:usage|signal)")
_TAG = re.compile(rb"no(?:%b)" % b"|".join(tag[2:].encode() for tag in sorted(REFUSING_TAGS)))
_FIELD = re.compile(rb"robots-tag|tdm-reservation|content-(?:usage|signal)")
_NAMES = ("robots", AGENT, "tdm", "content-usage", "content-signal", "*")


class PageOptOut(NamedTuple):
    """What a page says against the use of its images; all strings encode as UTF-8 without NUL.

    signal: the element, as ``meta robots``, or the header, at most 50 characters. value: what it
    says, at most 500.
    """

    signal: str
    value: str


class _Meta(msgspec.Struct, gc=False):
    name: str | None = None
    property: str | None = None
    http_equiv: str | None = msgspec.field(default=None, name="http-equiv")
    content: str | None = None


_decode = msgspec.json.Decoder(list[_Meta]).decode


def page_opt_out(page: PageLinks) -> PageOptOut | None:
    """The first refusal of a page's own (``directives``), of its elements before its headers, or
    None."""
    found = None
    if not isinstance(page.metas, msgspec.Raw) or _may_refuse(bytes(page.metas)):
        found = page_refusal(_named(page.metas))
    if found is None:
        found = header_refusal(islice(_lines(page.headers), MAX_METAS))
    if found is None:
        return None
    return PageOptOut(plain(found[0])[:MAX_SIGNAL], plain(found[1])[:MAX_VALUE])


def _may_refuse(metas: bytes) -> bool:
    if b"\\" in metas and b"\\u" in metas:  # any word may be written so
        return True
    metas = metas.lower()
    return bool(_TAG.search(metas) or b"tdm" in metas or _STATEMENT.search(metas))


def _lines(headers: Any) -> Iterator[tuple[str, str]]:
    """(name in lower case, value) of the header fields that may refuse."""
    if isinstance(headers, msgspec.Raw):
        raw = bytes(headers)
        headers = parsed(raw) if _FIELD.search(raw.lower()) else None
    for name, value in headers.items() if isinstance(headers, dict) else ():
        if _FIELD.search(name.lower().encode("utf-8", "replace")):
            for one in value if isinstance(value, list) else [value]:
                yield name.strip().lower(), _words(one)[:MAX_CONTENT]


def _named(metas: Any) -> Iterator[tuple[str, str]]:
    """(name, content) of the elements whose name may refuse."""
    left = MAX_METAS
    for name, content in _elements(metas):
        if name and content and left and any(word in name.lower() for word in _NAMES):
            left -= 1
            yield name[:MAX_CONTENT], content[:MAX_CONTENT]


def _elements(metas: Any) -> Iterator[tuple[str | None, str | None]]:
    """Each element's content, with each of its names."""
    if isinstance(metas, msgspec.Raw):
        try:
            typed = _decode(metas)
        except msgspec.MsgspecError:
            metas = parsed(bytes(metas))
        else:
            for meta in typed:
                yield meta.name, meta.content
                yield meta.http_equiv, meta.content
                yield meta.property, meta.content
            return
    for odd in metas if isinstance(metas, list) else [metas]:
        if isinstance(odd, dict):
            content = _words(odd.get("content"))
            for attribute in ("name", "http-equiv", "property"):
                yield _words(odd.get(attribute)), content


def _words(value: Any) -> str:
    """An attribute of any type as text: what repeats is a list, and a 1 may be a number."""
    several = value if isinstance(value, list) else [value]
    return ", ".join(
        one if isinstance(one, str) else str(int(one))
        for one in several
        if isinstance(one, str) or (isinstance(one, int | float) and one in (0, 1))
    )
