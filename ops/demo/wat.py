"""Make a WAT file of pages, in the shape that Common Crawl writes.

A WARC file of metadata records, each JSON: Envelope / Payload-Metadata /
HTTP-Response-Metadata / HTML-Metadata, with Head and Links
(https://commoncrawl.org/get-started, "WAT").
"""

import io
import json
import uuid
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any, BinaryIO

from warcio.warcwriter import WARCWriter

from pairmill.ops.demo.site import SitePage

LINKS = {
    "a": "href", "area": "href", "embed": "src", "frame": "src", "iframe": "src", "img": "src",
    "link": "href", "script": "src",
}  # fmt: skip
HEAD = ("link", "script")  # their links stand in Head.Link
KEPT = {
    "a": ("title", "rel"), "area": ("alt",), "img": ("alt", "title"), "link": ("rel", "type"),
    "script": ("type",),
}  # fmt: skip
META = ("name", "property", "http-equiv", "charset", "content")
TEXT = 500  # most characters of an anchor's text


class _Collector(HTMLParser):
    """Collects title, base, metas and links of a page, as Common Crawl's parser names them."""

    def __init__(self) -> None:
        super().__init__()
        self.head: dict[str, Any] = {}
        self.links: list[dict[str, str]] = []
        self._in_title = False
        self._anchor: dict[str, str] | None = None  # the link whose text is being read

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in reversed(attrs)}  # the first one counts
        if tag == "base" and "href" in values:
            self.head.setdefault("Base", values["href"])
        if tag == "meta":
            meta = {k: values[k] for k in META if k in values}
            self.head.setdefault("Metas", []).append(meta)
        if tag == "title":
            self._in_title = True
        name = LINKS.get(tag)
        if name and name in values:
            link = {"path": f"{tag.upper()}@/{name}", "url": values[name]}
            link |= {k: values[k] for k in KEPT.get(tag, ()) if k in values}
            (self.head.setdefault("Link", []) if tag in HEAD else self.links).append(link)
            if tag == "a":
                self._anchor = link

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if tag == "a":
            self._anchor = None

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.head["Title"] = data
        if self._anchor is not None and (text := " ".join(data.split())):
            before = self._anchor.get("text", "")
            self._anchor["text"] = f"{before} {text}".lstrip()[:TEXT]


class WatWriter:
    """Writes records, each a gzip member. The same pages give the same bytes.

    source: the name of the WARC file that the pages are said to be from.
    """

    def __init__(self, out: BinaryIO, source: str) -> None:
        self._writer = WARCWriter(out, gzip=True)
        self._source = source

    def add(self, url: str, html: str, headers: Mapping[str, Any], offset: int = 0) -> None:
        """A page. headers: of the response; of one that was sent twice, a list. offset: of the
        response in the WARC file, bytes."""
        collector = _Collector()
        collector.feed(html)
        collector.close()
        envelope = {
            "Container": {"Filename": self._source, "Compressed": True, "Offset": str(offset)},
            "Envelope": {
                "Format": "WARC/1.0",
                "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": url},
                "Payload-Metadata": {
                    "Actual-Content-Type": "application/http; msgtype=response",
                    "HTTP-Response-Metadata": {
                        "Response-Message": {"Version": "HTTP/1.1", "Status": "200"},
                        "Headers": dict(headers),
                        "HTML-Metadata": {"Head": collector.head, "Links": collector.links},
                    },
                },
            },
        }  # fmt: skip
        name = uuid.uuid5(uuid.NAMESPACE_URL, url)
        record = self._writer.create_warc_record(
            url, "metadata", payload=io.BytesIO(json.dumps(envelope).encode()),
            warc_content_type="application/json",
            warc_headers_dict={
                "WARC-Record-ID": f"<urn:uuid:{name}>", "WARC-Date": "2026-01-01T00:00:00Z",
            },
        )  # fmt: skip
        self._writer.write_record(record)


def write_wat(pages: Iterable[SitePage], out: BinaryIO) -> None:
    """Write one record a page of the demo's site."""
    writer = WatWriter(out, "demo.warc.gz")
    for number, page in enumerate(pages):
        # since CC-MAIN-2024-51 a header that is sent twice is a list
        cookies: Any = ["a=1", "b=2"] if number % 2 else "a=1"
        writer.add(page.url, page.body, {"Content-Type": "text/html", "Set-Cookie": cookies})
