"""The links of one WAT record, with the URLs that they are resolved against.

A WAT record is JSON as Common Crawl's ia-web-commons writes it. Read are
``WARC-Target-URI`` and ``WARC-Date`` of ``Envelope.WARC-Header-Metadata`` and, below
``Envelope.Payload-Metadata.HTTP-Response-Metadata``, ``Headers`` and of ``HTML-Metadata``
``Head.Base``, ``Head.Link``, ``Head.Metas`` and ``Links``.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from pairmill.workers.extract.link_kinds import IMAGE

# Objects and arrays in a record. A page of 5 MiB, Common Crawl's limit, has a tenth of
# them; parsed, a million take about 100 MB.
MAX_VALUES = 1_000_000


class BadRecord(Exception):
    """A record that cannot be used; ``name`` is the short name that it is counted under.

    ``not_utf8``; ``not_json`` (also JSON that is nested too deeply); ``too_large``.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Link(msgspec.Struct, gc=False):
    """A link as the page has it; the rest of its attributes is not read."""

    path: str | None = None
    url: str | None = None
    alt: str | None = None


class TextLink(Link, gc=False):
    """A link with all attributes that may describe its target."""

    text: str | None = None
    title: str | None = None


class LazyLink(TextLink, gc=False):
    """A link with the attributes, too, that may name an image in place of ``src``: see ``images``.

    A record's decoding with these takes a seventh longer, so few pages are read with them.
    """

    data_src: str | None = msgspec.field(default=None, name="data-src")
    data_original: str | None = msgspec.field(default=None, name="data-original")
    data_lazy_src: str | None = msgspec.field(default=None, name="data-lazy-src")
    data_uri: str | None = msgspec.field(default=None, name="data-uri")
    data_srcset: str | None = msgspec.field(default=None, name="data-srcset")
    data_lazy_srcset: str | None = msgspec.field(default=None, name="data-lazy-srcset")
    srcset: str | None = None


LAZY_FIELDS = {name: name.replace("-", "_") for name in IMAGE.lazy}
"""Each such attribute, in the order in which they count, with its field."""

AnyLink = TypeVar("AnyLink", bound=Link)


@dataclass(slots=True)
class PageLinks:
    """url: the page's, ``""`` if not given. base: the href of its ``<base>``. links: its ``Links``
    in the page's order. date: when it was crawled (WARC-Date), as written. head, metas, headers:
    its ``Head.Link``, ``Head.Metas`` and the ``Headers`` that it came with, as JSON not decoded
    yet, or of any type; None without. body: the record that all this is from."""

    url: str
    base: str | None
    links: list[Any]  # of Link, or of another type with a URL and texts
    date: str | None = None
    head: Any = None
    metas: Any = None
    headers: Any = None
    body: bytes | bytearray = field(default=b"", repr=False, compare=False)

    def urls(self) -> list[str]:
        """The URLs of all links as written, the head's first."""
        urls = [url for link in _head_links(self.head) if (url := link.url)]
        urls += [url for link in self.links if (url := link.url)]
        return urls


_decode_head = msgspec.json.Decoder(list[Link] | None).decode


class _Head(msgspec.Struct, gc=False):
    base: str | None = msgspec.field(default=None, name="Base")
    link: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Link")
    metas: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Metas")


class _Html(msgspec.Struct, Generic[AnyLink], gc=False):
    head: _Head | None = msgspec.field(default=None, name="Head")
    links: list[AnyLink] | None = msgspec.field(default=None, name="Links")


class _Response(msgspec.Struct, Generic[AnyLink], gc=False):
    html: _Html[AnyLink] | None = msgspec.field(default=None, name="HTML-Metadata")
    headers: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Headers")


class _Payload(msgspec.Struct, Generic[AnyLink], gc=False):
    response: _Response[AnyLink] | None = msgspec.field(default=None, name="HTTP-Response-Metadata")


class _Headers(msgspec.Struct, gc=False):
    url: str | None = msgspec.field(default=None, name="WARC-Target-URI")
    date: str | None = msgspec.field(default=None, name="WARC-Date")


class _Envelope(msgspec.Struct, Generic[AnyLink], gc=False):
    headers: _Headers | None = msgspec.field(default=None, name="WARC-Header-Metadata")
    payload: _Payload[AnyLink] | None = msgspec.field(default=None, name="Payload-Metadata")


class _Wat(msgspec.Struct, Generic[AnyLink], gc=False):
    envelope: _Envelope[AnyLink] | None = msgspec.field(default=None, name="Envelope")


def link_reader(
    attributes: Collection[str] = ("alt",),
) -> Callable[[bytes | bytearray], PageLinks | None]:
    """A function that reads a WAT record's JSON with these attributes of each link.

    It gives the page, None where it has no links. A member that is missing, or not of its
    usual type, is as if it were not there: a record's other links are not lost by it. Where
    a string is usual and a list is given (headers that repeat), the list's first string
    counts. It raises BadRecord.

    Only the named attributes are decoded: an image's page has ten other links for each image,
    and their texts would take a third of the time again.
    """
    wanted = set(attributes)
    link: type[Link] = Link if wanted <= {"alt"} else TextLink
    if not wanted.isdisjoint(LAZY_FIELDS):
        link = LazyLink
    decode = msgspec.json.Decoder(wat_type(link)).decode

    def read(body: bytes | bytearray) -> PageLinks | None:
        wat = read_checked(body, decode)
        if wat is not None:
            return page_of(wat, body)
        page = _read_slowly(body, link)
        return page if page.links else None

    return read


def wat_type(link: Any) -> Any:
    """The type of a WAT record whose links are of this type, for msgspec."""
    return _Wat[link]


def read_checked(body: bytes | bytearray, decode: Callable[[bytes | bytearray], Any]) -> Any:
    """A record's JSON by a decoder; None where the decoder refuses it. Raises BadRecord."""
    if not body.isascii():
        try:  # msgspec does not check the strings that it skips
            body.decode()
        except UnicodeDecodeError:
            raise BadRecord("not_utf8") from None
    if len(body) > MAX_VALUES < body.count(b"{") + body.count(b"["):
        raise BadRecord("too_large")
    try:
        return decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def page_of(wat: Any, body: bytes | bytearray) -> PageLinks | None:
    """The page of a decoded record (of ``wat_type``); None without links."""
    envelope = wat.envelope
    response = envelope and envelope.payload and envelope.payload.response
    html = response and response.html
    if not envelope or not response or not html or not html.links:
        return None
    headers = envelope.headers or _Headers()
    head = html.head or _Head()
    return PageLinks(
        _target(headers.url),
        head.base,
        html.links,
        headers.date,
        head.link,
        head.metas,
        response.headers,
        body,
    )


def _target(url: str | None) -> str:
    """A page's URL; wget 1.19 writes it in angle brackets."""
    if url and (bare := url.strip()).startswith("<") and bare.endswith(">"):
        return bare[1:-1]
    return url or ""


def _read_slowly(body: bytes | bytearray, link: type[Link]) -> PageLinks:
    """Records that the typed decoder refuses: unusual types, and lone surrogates as ``\\ud800``."""
    if body.count(b",") > MAX_VALUES:  # here each value becomes an object
        raise BadRecord("too_large")
    try:
        envelope = _member(json.loads(body), "Envelope")
    except (ValueError, RecursionError):
        raise BadRecord("not_json") from None
    response = _member(envelope, "Payload-Metadata", "HTTP-Response-Metadata")
    html = _member(response, "HTML-Metadata")
    head = _member(html, "Head")
    headers = _member(envelope, "WARC-Header-Metadata")
    return PageLinks(
        _target(first_string(_member(headers, "WARC-Target-URI"))),
        first_string(_member(head, "Base")),
        list(_links(_member(html, "Links"), link)),
        first_string(_member(headers, "WARC-Date")),
        _member(head, "Link"),
        _member(head, "Metas"),
        _member(response, "Headers"),
        body,
    )


def _head_links(head: Any) -> Iterable[Link]:
    if isinstance(head, msgspec.Raw):
        raw = bytes(head)
        try:
            return (_decode_head(raw) if raw else None) or ()
        except msgspec.MsgspecError:
            head = parsed(raw)
    return _links(head, Link)


def parsed(raw: bytes) -> Any:
    """A part of a record that a typed decoder refuses for one member of another type; None where it
    is more than is read slowly."""
    if raw.count(b",") > MAX_VALUES:
        return None
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _member(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def first_string(value: Any) -> str | None:
    """A string, or the first one of a list."""
    several: Iterable[Any] = value if isinstance(value, list) else [value]
    return next((item for item in several if isinstance(item, str)), None)


def _links(value: Any, kind: type[Link]) -> Iterator[Link]:
    for link in value if isinstance(value, list) else []:
        if isinstance(link, dict):
            yield kind(*(first_string(link.get(name)) for name in kind.__struct_encode_fields__))
