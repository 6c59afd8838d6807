"""Make a WAT file of pages, in the shape that Common Crawl writes.

A WARC file of metadata records, each JSON: Envelope / Payload-Metadata /
HTTP-Response-Metadata / HTML-Metadata, with Head and Links
(https://commoncrawl.org/get-started, "WAT").
"""

import io
import json
import uuid
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any, BinaryIO

from warcio.warcwriter import WARCWriter

from pairmill.ops.demo.site import SitePage

LINKS = {"a": "href", "img": "src", "link": "href", "script": "src"}
KEPT = {"img": ("alt", "title"), "a": ("rel",), "link": ("rel",), "script": ("type",)}


class _Collector(HTMLParser):
    """Collects the title, the base and the links of a page, as Common Crawl's parser names them."""

    def __init__(self) -> None:
        super().__init__()
        self.head: dict[str, Any] = {}
        self.links: list[dict[str, str]] = []
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "base" and "href" in values:
            self.head.setdefault("Base", values["href"])
        if tag == "title":
            self._in_title = True
        name = LINKS.get(tag)
        if name and name in values:
            link = {"path": f"{tag.upper()}@/{name}", "url": values[name]}
            link |= {k: values[k] for k in KEPT[tag] if k in values}
            self.links.append(link)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.head["Title"] = data


def write_wat(pages: Iterable[SitePage], out: BinaryIO) -> None:
    """Write one record a page, each a gzip member. The same pages give the same bytes."""
    writer = WARCWriter(out, gzip=True)
    for number, page in enumerate(pages):
        collector = _Collector()
        collector.feed(page.body)
        # since CC-MAIN-2024-51 a header that is sent twice is a list
        cookies: Any = ["a=1", "b=2"] if number % 2 else "a=1"
        envelope = {
            "Container": {"Filename": "demo.warc.gz", "Compressed": True, "Offset": "0"},
            "Envelope": {
                "Format": "WARC/1.0",
                "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": page.url},
                "Payload-Metadata": {
                    "Actual-Content-Type": "application/http; msgtype=response",
                    "HTTP-Response-Metadata": {
                        "Response-Message": {"Version": "HTTP/1.1", "Status": "200"},
                        "Headers": {"Content-Type": "text/html", "Set-Cookie": cookies},
                        "HTML-Metadata": {"Head": collector.head, "Links": collector.links},
                    },
                },
            },
        }  # fmt: skip
        name = uuid.uuid5(uuid.NAMESPACE_URL, page.url)
        headers = {"WARC-Record-ID": f"<urn:uuid:{name}>", "WARC-Date": "2026-01-01T00:00:00Z"}
        payload = io.BytesIO(json.dumps(envelope).encode())
        record = writer.create_warc_record(
            page.url, "metadata", payload=payload,
            warc_content_type="application/json", warc_headers_dict=headers,
        )  # fmt: skip
        writer.write_record(record)
