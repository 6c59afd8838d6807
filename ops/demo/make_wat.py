"""Make a WAT file of pages that lie here: of a WARC or ARC file, or of a folder of HTML files.

    python -m pairmill.ops.demo.make_wat web.warc.gz web.wat.gz
    python -m pairmill.ops.demo.make_wat handbook/html handbook.wat.gz --base http://docs.example/

``make demo WAT=… SERVE=…`` runs the whole line on it, with the images of the same source.
"""

import re
from codecs import lookup
from pathlib import Path
from urllib.parse import quote, urljoin

import typer
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders

from pairmill.ops.cli import run
from pairmill.ops.demo.wat import WatWriter
from pairmill.ops.errors import UserError

_CHARSET = re.compile(rb"charset\s*=\s*[\"']?\s*([\w.:-]+)", re.I)
SNIFFED = 1024  # bytes in which HTML wants its charset to be declared


def text(body: bytes, content_type: str = "") -> str:
    """A page's text: by the charset of its Content-Type, else of its <meta>, else UTF-8 where it is
    valid, else windows-1252, as browsers do."""
    for declared in (content_type.encode("latin-1", "replace"), body[:SNIFFED]):
        if found := _CHARSET.search(declared):
            try:
                return body.decode(lookup(found[1].decode()).name, "replace")
            except LookupError:
                continue
    try:
        return body.decode()
    except UnicodeDecodeError:
        return body.decode("windows-1252", "replace")


def of_warc(source: Path, writer: WatWriter) -> int:
    """Add every HTML response of a WARC or ARC file; returns how many."""
    pages = 0
    with source.open("rb") as stream:
        records = ArchiveIterator(stream, arc2warc=True)
        for record in records:
            if record.rec_type != "response" or record.http_headers is None:
                continue
            headers = _headers(record.http_headers)
            content_type = record.http_headers.get_header("Content-Type") or ""
            if "html" not in content_type.lower():
                continue
            url = record.rec_headers.get_header("WARC-Target-URI")
            html = text(record.content_stream().read(), content_type)
            writer.add(url, html, headers, records.offset or 0)
            pages += 1
    return pages


def _headers(sent: StatusAndHeaders) -> dict[str, str | list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in sent.headers:
        values.setdefault(name, []).append(value)
    return {name: many if len(many) > 1 else many[0] for name, many in values.items()}


def of_folder(source: Path, writer: WatWriter, base: str) -> int:
    """Add every .html file below a folder as the page at base + its path; returns how many."""
    pages = sorted(source.rglob("*.html"))
    for page in pages:
        url = urljoin(base, quote(page.relative_to(source).as_posix()))
        writer.add(url, text(page.read_bytes()), {"Content-Type": "text/html"})
    return len(pages)


def main(
    source: Path = typer.Argument(help="A WARC or ARC file, or a folder of HTML files."),
    out: Path = typer.Argument(help="The WAT file, .wat.gz."),
    base: str = typer.Option("http://docs.example/", "--base", help="Where a folder's pages are."),
) -> None:
    """A WAT file of the pages of a WARC file or a folder."""
    if not source.exists():
        raise UserError(f"there is no {source}: name a WARC file, or a folder of HTML files")
    with out.open("wb") as stream:
        writer = WatWriter(stream, source.name)
        pages = of_folder(source, writer, base) if source.is_dir() else of_warc(source, writer)
    print(f"{out}: {pages:,} pages")


if __name__ == "__main__":
    run(lambda: typer.run(main))
