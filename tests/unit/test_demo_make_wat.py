"""A WAT file that is made of pages that lie here."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from pairmill.ops.demo import make_wat
from pairmill.ops.demo.wat import WatWriter
from pairmill.workers.extract.links import PageLinks, link_reader
from support.shared_data import shared_file

PAGE = """<html><head><title>T</title><base href="/b/"><link rel="license" href="/l">
<script src="s.js"></script></head><body>
<p><a href="x.mp3" title="t">to <b>the
 sound</b></a> after
<IMG alt='Käse &amp; Brot' src=k.jpg alt=second><img src="n.png"><img alt="no source">
<map><area href="y" alt="z"></map></body></html>"""


def pages(wat: bytes) -> list[PageLinks]:
    read = link_reader(("alt", "text", "title"))
    found = [
        read(record.content_stream().read())
        for record in ArchiveIterator(io.BytesIO(wat))
        if record.rec_type == "metadata"
    ]
    return [page for page in found if page]


def envelopes(wat: bytes) -> list[dict[str, Any]]:
    return [json.load(r.content_stream())["Envelope"] for r in ArchiveIterator(io.BytesIO(wat))]


def write_warc(path: Path, *responses: tuple[str, str, bytes]) -> None:
    with path.open("wb") as out:
        writer = WARCWriter(out, gzip=True)
        for url, content_type, body in responses:
            headers = [("Content-Type", content_type), ("A", "1"), ("A", "2")]
            http = StatusAndHeaders("200 OK", headers, protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    url, "response", payload=io.BytesIO(body), http_headers=http
                )
            )


def test_html_responses_of_a_warc_become_records_with_their_links(tmp_path: Path) -> None:
    warc = tmp_path / "a.warc.gz"
    write_warc(
        warc,
        ("http://h.example/p", "text/html; charset=iso-8859-1", PAGE.encode("latin-1")),
        ("http://h.example/k.jpg", "image/jpeg", b"\xff\xd8"),
        ("http://h.example/q", "text/html", b"<a href=u>v</a>"),
    )
    out = tmp_path / "a.wat.gz"
    with out.open("wb") as stream:
        assert make_wat.of_warc(warc, WatWriter(stream, warc.name)) == 2
    wat = out.read_bytes()
    first, second = pages(wat)
    assert (first.url, first.base) == ("http://h.example/p", "/b/")
    assert first.urls()[:2] == ["/l", "s.js"]
    assert [
        (link.path, link.url, link.alt, link.text, link.title)  # type: ignore[attr-defined]
        for link in first.links
    ] == [
        ("A@/href", "x.mp3", None, "to the sound", "t"),
        ("IMG@/src", "k.jpg", "Käse & Brot", None, None),
        ("IMG@/src", "n.png", None, None, None),
        ("AREA@/href", "y", "z", None, None),
    ]
    assert [link.url for link in second.links] == ["u"]
    response = envelopes(wat)[0]["Payload-Metadata"]["HTTP-Response-Metadata"]
    assert response["Headers"]["A"] == ["1", "2"]
    assert response["HTML-Metadata"]["Head"]["Title"] == "T"
    assert wat.count(b"\x1f\x8b\x08") >= 2  # a gzip member a record
    gzip.decompress(wat)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("ä".encode(), "", "ä"),
        ("ä".encode("latin-1"), "", "ä"),
        ("д".encode("koi8-r"), "text/html; charset=KOI8-R", "д"),
        (b'<meta charset="koi8-r">' + "д".encode("koi8-r"), "", '<meta charset="koi8-r">д'),
        ("ä".encode(), "text/html; charset=nonsense", "ä"),
        ("ä".encode("latin-1"), "text/html; charset=utf-8", "\ufffd"),
    ],
)
def test_charset_of_a_page(body: bytes, content_type: str, expected: str) -> None:
    assert make_wat.text(body, content_type) == expected


def test_pages_of_a_folder_have_the_urls_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "sub dir").mkdir(parents=True)
    (folder / "sub dir" / "b.html").write_text("<img src=i.png alt=x>")
    (folder / "a.html").write_text("<img src=i.png alt=y>")
    (folder / "i.png").write_bytes(b"png")
    out = tmp_path / "site.wat.gz"
    with out.open("wb") as stream:
        made = make_wat.of_folder(folder, WatWriter(stream, "site"), "http://d.example/x/")
    assert made == 2
    assert [page.url for page in pages(out.read_bytes())] == [
        "http://d.example/x/a.html", "http://d.example/x/sub%20dir/b.html",
    ]  # fmt: skip


def test_real_pages_have_the_links_that_another_html_parser_finds(tmp_path: Path) -> None:
    """The file of the test data was made with lxml."""
    out = tmp_path / "web.wat.gz"
    with out.open("wb") as stream:
        made = make_wat.of_warc(shared_file("warc/web-2008.warc.gz"), WatWriter(stream, "web"))
    assert made == 140

    def images(wat: bytes) -> dict[str, tuple[str | None, list[tuple[str | None, str | None]]]]:
        return {
            page.url: (page.base, [(k.url, k.alt) for k in page.links if k.path == "IMG@/src"])
            for page in pages(wat)
        }

    theirs = images(shared_file("wat/web-2008.wat.gz").read_bytes())
    ours = images(out.read_bytes())
    assert sum(len(links) for _, links in theirs.values()) == 858
    assert {url: found for url, found in ours.items() if url in theirs} == theirs
    assert not any(links for url, (_, links) in ours.items() if url not in theirs)


def test_source_that_is_not_there_is_said(tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(make_wat.main)
    done = CliRunner().invoke(app, [str(tmp_path / "none"), str(tmp_path / "out.wat.gz")])
    assert "name a WARC file, or a folder of HTML files" in str(done.exception)
    assert not (tmp_path / "out.wat.gz").exists()
