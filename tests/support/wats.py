"""WAT files for tests: written with warcio, and where the shared real ones lie."""

import gzip
import io
import json
import re
from collections.abc import Iterable
from typing import Any

from warcio.warcwriter import WARCWriter

Json = dict[str, Any]


def image(url: object, alt: object = None, path: str = "IMG@/src") -> Json:
    """A link of a WAT; without ``alt`` where that is None."""
    return {"path": path, "url": url} | ({} if alt is None else {"alt": alt})


def anchor(url: object) -> Json:
    return {"path": "A@/href", "url": url}


def page(url: object, links: object, **head: object) -> Json:
    """A WAT record's JSON for a page; ``head`` holds Base, Link and so on."""
    html: Json = {"Links": links} | ({"Head": head} if head else {})
    return {
        "Container": {"Compressed": True, "Offset": "7"},
        "Envelope": {
            "Format": "WARC/1.0",
            "WARC-Header-Metadata": {"WARC-Type": "response", "WARC-Target-URI": url},
            "Payload-Metadata": {
                "HTTP-Response-Metadata": {
                    "Headers": {"Set-Cookie": ["a=1", "b=2"], "Server": "x"},
                    "HTML-Metadata": html,
                }
            },
        },
    }


def record(
    content: Json | str | bytes,
    *,
    kind: str = "metadata",
    media: str = "application/json",
) -> bytes:
    """One WARC record, not compressed, of JSON or of any bytes."""
    if isinstance(content, dict):
        content = json.dumps(content)
    payload = content.encode() if isinstance(content, str) else content
    out = io.BytesIO()
    writer = WARCWriter(out, gzip=False)
    writer.write_record(
        writer.create_warc_record(
            "http://page.example/", kind, payload=io.BytesIO(payload), warc_content_type=media
        )
    )
    return out.getvalue()


def warcinfo(*fields: str) -> bytes:
    """A warcinfo record, of today: so what follows counts as decoded but where fields say else."""
    lines = "".join(f"{field}\r\n" for field in ("software: test", *filter(None, fields)))
    return record(lines, kind="warcinfo", media="application/warc-fields")


def dated(one: bytes, date: str) -> bytes:
    """A record with another WARC-Date, without one where that is empty."""
    line = f"WARC-Date: {date}\r\n".encode() if date else b""
    return re.sub(rb"WARC-Date: [^\r]*\r\n", line, one, count=1)


def packed(records: Iterable[bytes | Json]) -> bytes:
    """A file as Common Crawl writes it: each record a gzip member of its own."""
    return b"".join(
        gzip.compress(one if isinstance(one, bytes) else record(one), mtime=0) for one in records
    )
