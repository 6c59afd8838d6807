"""What extraction does at once for the usual, beside the long way, which takes anything: both must
give the same. A fault here would lose links of odd or damaged files without a word."""

import gzip
import io
import json
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract import image_links
from pairmill.workers.extract.extract import Counts, Pair, extract
from pairmill.workers.extract.gzip_members import GzipMembers
from pairmill.workers.extract.license import find_license, may_name_license
from pairmill.workers.extract.links import BadRecord, PageLinks, link_reader
from pairmill.workers.extract.page import Page, PageReader
from pairmill.workers.extract.records import WarcRecords
from pairmill.workers.extract.urls import Base
from support.shared_data import shared_file
from support.wats import Json, anchor, image, packed, page, record, warcinfo

URL = "http://page.example/dir/"
BY = "https://creativecommons.org/licenses/by/4.0/"

# ---- whole gzip members ------------------------------------------------------------------------

Found = tuple[list[tuple[bytes, bytes, str | None]], str | None]


def records_of(data: bytes) -> Found:
    records = WarcRecords(io.BytesIO(data))
    found = [(one.header, bytes(one.body), one.bad) for one in records]
    return found, records.ended_early


def both_ways(data: bytes) -> tuple[Found, Found]:
    """With libdeflate, and by ISA-L alone."""
    at_once = records_of(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GzipMembers, "whole", lambda _: None)
        return at_once, records_of(data)


def damaged(rng: random.Random, members: list[bytes]) -> bytes:
    chosen = [rng.choice(members) for _ in range(rng.randint(2, 6))]
    for n in range(len(chosen)):
        if rng.random() < 0.2:
            chosen[n] += bytes(rng.randint(1, 12))  # padding
        if rng.random() < 0.1:  # as a trailer, behind the trailer
            chosen[n] += rng.randbytes(rng.randint(0, 3)) + chosen[n][-8:]
    data = bytearray(b"".join(chosen))
    for _ in range(rng.randint(0, 3)):
        at = rng.randrange(len(data))
        match rng.randrange(4):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : min(at + rng.choice([1, 2, 8, 100, 5000]), len(data) - 1)]
            case 2:
                data[at:at] = rng.choice([b"\x1f\x8b\x08", bytes(8), data[at : at + 200]])
            case _:
                data[at : at + 8] = rng.choice([bytes(8), b"\xff" * 8, rng.randbytes(8)])
    return bytes(data)


def test_damaged_files_give_the_same_records_whichever_library_inflates() -> None:
    """Faults: padding is taken for an empty member and its record is lost; bytes behind a member
    are passed over; a lure within a member ends it."""
    rng = random.Random(1)
    plain = [record(json.dumps({"n": n, "x": rng.randbytes(n * 40).hex()})) for n in range(12)]
    members = [gzip.compress(one, mtime=0) for one in plain]
    members.append(gzip.compress(b"".join(plain[:3]), mtime=0))
    members.append(gzip.compress(b"", mtime=0))
    for number in range(800):
        data = damaged(rng, members)
        at_once, by_pieces = both_ways(data)
        assert at_once == by_pieces, f"file {number}"


@pytest.mark.parametrize("name", ["web-2008", "commoncrawl-pages", "commoncrawl-2024-22-one-page"])
def test_real_files_give_the_same_records(name: str) -> None:
    at_once, by_pieces = both_ways(shared_file(f"wat/{name}.wat.gz").read_bytes())
    assert at_once == by_pieces


def test_nearly_all_members_are_inflated_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault: all go the long way, which gives the same, so that nothing but the clock would tell."""
    whole, given_at_once = GzipMembers.whole, 0

    def counted(self: GzipMembers) -> bytearray | None:
        nonlocal given_at_once
        member = whole(self)
        given_at_once += member is not None
        return member

    monkeypatch.setattr(GzipMembers, "whole", counted)
    assert len(records_of(packed([record("{}")] * 1000))[0]) == 1000
    assert given_at_once > 990


# ---- links by their path -----------------------------------------------------------------------

ODD: st.SearchStrategy[object] = st.sampled_from(
    [None, 5, "", "a.jpg", "An apple", ["b.jpg", "c.jpg"], {"a": 1}, "\ud800 x", "ä.png", "  "]
)
PATHS = st.sampled_from(
    ["IMG@/src", "A@/href", "X@/y", "Z@/\ud800", "Y@/" + "z" * 80, "", "IMG@/data-uri", None, 7]
)
LINKS = st.lists(
    st.fixed_dictionaries({}, optional={"path": PATHS, "url": ODD, "alt": ODD, "text": ODD})
    | st.sampled_from([5, None, "junk", image("d.jpg", "A pear"), anchor(BY), anchor(["x", BY])]),
    max_size=6,
)
# an object with a name twice is JSON too
TWICE = ['{"path": "A@/href", "path": "IMG@/src", "url": "t.jpg", "alt": "A twin"}',
         '{"path": "IMG@/src", "url": "t.jpg", "alt": "A twin", "path": "A@/href"}',
         '{"url": "u.jpg", "p\\u0061th": "IMG\\u0040/src", "alt": "An \\u00e9"}']  # fmt: skip


def result(data: bytes) -> tuple[list[Pair], Counts]:
    counts = Counts()
    return list(extract(io.BytesIO(data), counts)), counts


@settings(max_examples=200)
@given(st.lists(LINKS, min_size=1, max_size=4), st.sampled_from(["", *TWICE]), ODD)
def test_pages_give_the_same_pairs_whether_other_links_are_decoded(
    pages: list[list[object]], twice: str, head: object
) -> None:
    """Faults: a link of odd type, or a path not seen before, costs its page; a path that was
    learned hides the attribute that a late image needs; a licence is lost with its link."""
    written = [json.dumps(page(URL, links, Link=head, Base=None)) for links in pages]
    if twice:
        written = [one.replace('"Links": [', f'"Links": [{twice}, ', 1) for one in written]
        written = [one.replace(f"{twice}, ]", f"{twice}]") for one in written]
    data = packed([warcinfo(), *(record(one) for one in written)])
    passed_over = result(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pairmill.workers.extract.page.ImageReader", lambda plain, _: plain)
        assert result(data) == passed_over


# each part is most often usual
URLS = st.tuples(
    *(
        st.one_of(st.just(usual), st.just(usual), st.sampled_from(odd))
        for usual, odd in [
            ("https://img.example/", ["/", "/", "", "//img.example/", "HTTP://A.example:80/", "ftp://x/", "http:"]),
            ("photos/", ["./", "../", "/", "./", "", ".a/", "ä/", "a b/", "%20/", "x" * 990 + "/", "a&amp;b/", "@/"]),
            ("apple", ["1x1", "Blank", "spacer-2", "", ".", "..", "a&lt", "a;v=1", "\n", "\u200b"]),
            (".jpg", [".JPG", ".jpeg", ".png", ".svg", ".GIF", "", ".jpg/", ".jpgx", ".webp"]),
            ("", ["?w=1", "?w=1&amp;h=2", "?u=http://a.example/b", "#x", "?", " ", "?a=b.svg"]),
        ]
    )
).map("".join)  # fmt: skip
TEXTS = st.tuples(
    st.sampled_from(["An apple", "An apple", "x", "美しい", ""]),
    st.sampled_from(["", "", " ", "  ", "é", " &eacute;", "\t", "\xa0", "\u00ad"]),
    st.sampled_from(["", "", "red", " ", "\n"]),
).map("".join)


LATE = st.sampled_from([{}, {"data-src": "late.jpg"}])


@settings(max_examples=200)
@given(
    st.lists(st.tuples(URLS, TEXTS, LATE), max_size=8),
    st.sampled_from([URL, "http://page.example", "", "ftp://page.example/"]),
    st.sampled_from([None, "/base/", "https://other.example/x"]),
    st.sampled_from(["", "software-info: ia-web-commons.1.1.9-SNAPSHOT-20170225052401"]),
)
def test_links_give_the_same_pairs_by_the_short_way(
    links: list[tuple[str, str, Json]], url: str, base: str | None, software: str
) -> None:
    """Faults: a placeholder, an ending that is refused, a text to be cleaned, a reference to be
    decoded or a path to be resolved passes for what is usual."""
    images = [image(written, alt) | late for written, alt, late in links]
    data = packed([warcinfo(software), record(json.dumps(page(url, images, Base=base)))])
    short = result(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "usual", lambda *_: None)
        assert result(data) == short


def test_a_long_host_makes_a_short_path_too_long() -> None:
    """Fault: the inbox refuses one URL above 2,048 characters, and so the whole file."""
    url = f"http://{'a' * 1_900}.example/"
    links = [image(f"/{'b' * 900}.jpg", "An apple"), image("/c.jpg", "A pear")]
    (pair,), counts = result(packed([warcinfo(), page(url, links)]))
    assert pair.text == "A pear"
    assert counts.kinds["image"].dropped == {DropReason.URL_TOO_LONG: 1}


def test_a_path_is_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults: each page of a new path is read twice for ever; a file of very many paths, or of one
    that is no tag, has a decoder made for each page, or for as many paths as it likes."""
    monkeypatch.setattr(image_links, "MAX_LEARNED", len(image_links._KNOWN) + 5)
    plain, slowly, made = link_reader(), 0, 0

    def read_plainly(body: bytes | bytearray) -> PageLinks | None:
        nonlocal slowly
        slowly += 1
        return plain(body)

    def make(paths: Iterable[str]) -> image_links.Decoder:
        nonlocal made
        made += 1
        return decoder(paths)

    decoder = image_links._decoder
    monkeypatch.setattr(image_links, "_decoder", make)
    read = image_links.ImageReader(read_plainly, never=())

    def page_of(path: str) -> bytes:
        return json.dumps(page(URL, [image("a.jpg", "An apple"), image("b", None, path)])).encode()

    for path in ("X@/1", "A@/href") * 5:
        found = read(page_of(path))
        assert found is not None
        assert next(link.url for link in found.links if hasattr(link, "alt")) == "a.jpg"
    assert slowly == 1
    for n in range(60):
        read(page_of(f"Y@/{n}"))
        read(page_of("Z@/\ud800"))
    assert made < 10
    assert slowly > 100
    before = slowly
    read(page_of("Y@/0"))
    assert slowly == before
    read(page_of("Y@/59"))  # one too many
    assert slowly == before + 1


def test_a_record_that_neither_reads_is_named() -> None:
    for body, name in ((b'{"Envelope":', "not_json"), (b'{"a":"\xff"}', "not_utf8")):
        with pytest.raises(BadRecord, match=name):
            image_links.ImageReader(link_reader(), never=())(body)


# ---- licences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_written", [False, True])
@pytest.mark.parametrize(
    "url",
    [
        BY, BY.upper().replace("HTTPS", "https"), BY.replace("c", "&#99;"), BY.replace(".", "&period;"),
        BY.replace("creative", "CreatiVe"), "//www.creativecommons.org/publicdomain/zero/1.0/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("escaped", ["", "c", "."])
def test_no_licence_is_passed_over_because_its_name_is_not_in_the_bytes(
    url: str, escaped: str, as_written: bool
) -> None:
    """Fault: JSON or HTML writes a letter by its number, and the search in the bytes finds none."""
    body = json.dumps(page(URL, [anchor(url)]))
    if escaped:
        body = body.replace(escaped, f"\\u{ord(escaped):04x}")
    if as_written:
        from pairmill.workers.extract.references import complete_only

        url = complete_only(url)
    if find_license([url], Base(URL)):
        assert may_name_license(body.encode(), as_written)


def test_a_page_without_the_name_is_not_read_again() -> None:
    body = json.dumps(page(URL, [anchor('http://commons.example/ä\n"')]), ensure_ascii=False)
    assert not may_name_license(body.encode(), as_written=True)


def test_images_alone_are_read_by_path() -> None:
    """Fault: the selection is compared with something else, and every page goes the long way."""
    from pairmill.workers.extract.link_kinds import LinkSelection

    reader = PageReader(LinkSelection())
    assert isinstance(reader._read, image_links.ImageReader)
    assert not isinstance(
        PageReader(LinkSelection(["image", "audio"]))._read, image_links.ImageReader
    )
