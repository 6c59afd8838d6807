"""The demo's site and its WAT file: the same every time, and what they claim to be."""

import functools
import gzip
import io
import json

from warcio.archiveiterator import ArchiveIterator

from pairmill.ops.demo import drawings
from pairmill.ops.demo.serve import site_answers
from pairmill.ops.demo.site import build as build_anew
from pairmill.ops.demo.wat import write_wat
from pairmill.schema.outcomes import DropReason, Outcome
from pairmill.workers.download.decode import decode
from pairmill.workers.extract.language import LanguageDetector

build = functools.cache(build_anew)


def test_same_bytes_every_time() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    a, b = build(), build_anew()
    write_wat(a.pages, first)
    write_wat(b.pages, second)
    assert first.getvalue() == second.getvalue()
    assert a.files == b.files
    pages = build_anew(drawn=False)
    assert (pages.pages, pages.links) == (a.pages, a.links)
    assert pages.files.items() < a.files.items()


def test_every_way_to_be_dropped_and_most_ways_to_end_are_there() -> None:
    fates = {link.fate for link in build().links}
    assert {f for f in fates if isinstance(f, DropReason)} == set(DropReason) - {
        DropReason.BAD_URL,
        DropReason.REMOVED,
    }
    assert {Outcome.SUCCESS, Outcome.HTTP_ERROR, Outcome.NOT_AN_IMAGE} < fates


def test_images_are_what_their_links_say() -> None:
    site = build()
    answer = site_answers(site)
    for link in site.links:
        if link.fate is not Outcome.SUCCESS or "odd.example" in link.url:
            continue
        host, _, path = link.url.removeprefix("http://").partition("/")
        file = answer(host, "/" + path)
        assert file is not None
        assert decode(file.body).outcome is Outcome.SUCCESS
        assert len(file.body) >= 5000  # what recipes ask for


def test_wat_has_common_crawls_shape() -> None:
    out = io.BytesIO()
    site = build()
    write_wat(site.pages, out)
    assert out.getvalue().count(b"\x1f\x8b\x08") >= len(site.pages)  # a gzip member a record
    gzip.decompress(out.getvalue())
    out.seek(0)
    links = 0
    for record, page in zip(ArchiveIterator(out), site.pages, strict=True):
        assert record.rec_type == "metadata"
        assert record.rec_headers.get_header("WARC-Target-URI") == page.url
        envelope = json.load(record.content_stream())["Envelope"]
        html = envelope["Payload-Metadata"]["HTTP-Response-Metadata"]["HTML-Metadata"]
        links += sum(link["path"] == "IMG@/src" for link in html["Links"])
        assert html["Head"]["Title"]
    assert links == len(site.links)


def test_captions_are_reliable_english_and_the_others_are_not() -> None:
    detector = LanguageDetector()
    seeds = range(300)
    found = [detector.detect(drawings.caption(s, drawings.attributes(s)))[0] for s in seeds]
    assert found.count("en") >= 0.9 * len(found)
    for language in ("de", "fr", "es"):
        texts = [drawings.caption_in(language, drawings.attributes(s)) for s in seeds]
        assert [detector.detect(text)[0] for text in texts].count(language) >= 0.9 * len(texts)


def test_drawings_show_what_their_captions_say() -> None:
    for seed in range(50):
        image, caption, what = drawings.draw(seed, (400, 300))
        assert image.size == (400, 300)
        assert what == drawings.attributes(seed)
        assert what.colour in caption
        assert what.ground in caption
        corner = image.getpixel((3, 3))
        assert isinstance(corner, tuple)
        ground = drawings.COLOURS[what.ground]
        # 12 % of grain, and no shape reaches the corner
        assert max(abs(a - b) for a, b in zip(corner, ground, strict=True)) < 40
