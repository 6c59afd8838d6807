"""Which of two decodings a WAT file gets: by its warcinfo, else by its records' dates."""

import io

import pytest

from pairmill.workers.extract.decoding import AS_WRITTEN, DECODED, UNKNOWN, Decoding, by_warcinfo
from pairmill.workers.extract.extract import Counts, Pair, extract
from pairmill.workers.extract.link_kinds import LinkSelection
from pairmill.workers.extract.records import WarcRecords
from support.wats import Json, anchor, dated, image, packed, page, record, warcinfo

URL = "http://page.example/dir/"
COMMONS = "Software-Info: ia-web-commons."


def run(*records: bytes, kinds: tuple[str, ...] = ("image",)) -> list[Pair]:
    return list(extract(io.BytesIO(packed(records)), Counts(), LinkSelection(kinds)))


def told(one: bytes) -> Decoding | None:
    (read,) = WarcRecords(io.BytesIO(one))
    return by_warcinfo(read.header, read.body)


OLD, NEW = "2018-05-27T15:39:42Z", "2020-05-27T15:39:42Z"


@pytest.mark.parametrize(
    ("fields", "date", "decoding"),
    [
        # as Common Crawl's files have them
        ([COMMONS + "1.0-SNAPSHOT-20140819100050", "Extracted-Date: Tue, 09 Sep 2014 10:14:59 GMT"], "2014-09-09T10:14:59Z", AS_WRITTEN),
        ([COMMONS + "1.1.9-SNAPSHOT-20190515084427", "Extracted-Date: Mon, 27 May 2019 15:39:42 GMT"], "2019-05-27T15:39:42Z", AS_WRITTEN),
        ([COMMONS + "1.1.9-SNAPSHOT-20190909091644", "Extracted-Date: Mon, 23 Sep 2019 21:43:59 GMT"], "2019-09-23T21:43:59Z", DECODED),
        ([COMMONS + "1.1.10-SNAPSHOT-20240513074037"], "2024-05-31T01:16:45Z", DECODED),
        # the program counts before the crawl: an old crawl extracted again
        ([COMMONS + "1.1.10-SNAPSHOT-20240513074037", "isPartOf: CC-MAIN-2018-22"], OLD, DECODED),
        ([COMMONS + "1.1.9-SNAPSHOT-20190709000000"], OLD, DECODED),
        ([COMMONS + "1.1.9-SNAPSHOT-20190708120000"], NEW, AS_WRITTEN),
        # a release is the IIPC's, which has not taken the change over
        ([COMMONS + "1.1.7-20160617000000"], NEW, AS_WRITTEN),
        ([COMMONS + "3.0.2-20251114093011"], NEW, AS_WRITTEN),
        # without a build: extraction, crawl, the file's name, the record's date
        ([COMMONS + "1.1.9-SNAPSHOT", "Extracted-Date: Wed, 31 Jul 2019 23:59:59 GMT"], NEW, AS_WRITTEN),
        (["Extracted-Date: Thu, 1 Aug 2019 00:00:00 GMT", "isPartOf: CC-MAIN-2019-30"], OLD, DECODED),
        (["extracted-date: 2019-07-31T00:00:00Z"], NEW, AS_WRITTEN),
        (["Extracted-Date: yesterday", "isPartOf: CC-MAIN-2019-30"], NEW, AS_WRITTEN),
        (["ISPARTOF: cc-main-2019-35"], OLD, DECODED),
        (["isPartOf: CC-MAIN-2013-20"], NEW, AS_WRITTEN),
        (["isPartOf: another crawl"], OLD, AS_WRITTEN),
        ([], OLD, AS_WRITTEN),
        ([], "2019-07-31T23:59:59Z", AS_WRITTEN),
        ([], "2019-08-01T00:00:00Z", DECODED),
        ([], NEW, DECODED),
        ([], "", None),
        ([], "soon", None),
    ],
)  # fmt: skip
def test_a_warcinfo_tells_the_decoding(
    fields: list[str], date: str, decoding: Decoding | None
) -> None:
    assert told(dated(warcinfo(*fields), date)) is decoding


@pytest.mark.parametrize(
    ("name", "decoding"),
    [
        ("CC-MAIN-20190519061520-20190519083520-00000.warc.wat.gz", AS_WRITTEN),
        ("CC-MAIN-20190817060303-20190817082303-00000.warc.wat.gz", DECODED),
        ("other.wat.gz", DECODED),  # by its date
    ],
)
def test_a_file_name_tells_the_decoding(name: str, decoding: Decoding) -> None:
    named = dated(warcinfo(), NEW).replace(
        b"WARC-Date", f"WARC-Filename: {name}\r\nWARC-Date".encode()
    )
    assert told(named) is decoding
    assert told(named.replace(b"\r\n", b"\n")) is decoding


BY = "http:&#x2F;&#x2F;creativecommons.org/licenses/by/4.0/?a&amp;b"
PAGE = page(
    URL,
    [
        image("http://h/a.jpg?w=1&amp;h=2", "Rules&regulations of the &lt;b&gt;"),
        image("b.jpg?w=3&#38;h=2", "&amp;lt; and &copy=1"),
        image("http:&#x2F;&#x2F;h&#x2F;c.jpg?a=1&copy=2&lt", "fünf &auml;pfel"),
        anchor(BY),
    ],
    Base="/x&amp;y/",
)  # fmt: skip
AS_PAGES_HAVE_IT = [
    ("http://h/a.jpg?w=1&h=2", "Rules&regulations of the <b>"),
    ("http://page.example/x&y/b.jpg?w=3&h=2", "&lt; and &copy=1"),
    ("http://h/c.jpg?a=1&copy=2&lt", "fünf äpfel"),
]
AS_THEY_STAND = [
    ("http://h/a.jpg?w=1&amp;h=2", "Rules&regulations of the &lt;b&gt;"),
    ("http://page.example/x&amp;y/b.jpg?w=3&", "&amp;lt; and &copy=1"),
    # "http:" alone is a path to RFC 3986, as today
    ("http://page.example/x&amp;y/&", "fünf &auml;pfel"),
]


def found(*before: bytes, date: str = "") -> list[tuple[str, str]]:
    one = record(PAGE)
    return [(pair.url, pair.text) for pair in run(*before, dated(one, date) if date else one)]


def test_a_file_before_the_change_is_decoded() -> None:
    """``&amp;`` was asked for as it stands, and a URL cut at the # of ``&#38;``."""
    old = warcinfo("isPartOf: CC-MAIN-2019-30")
    assert found(old) == AS_PAGES_HAVE_IT
    assert found(date=OLD) == AS_PAGES_HAVE_IT
    (pair, *_) = run(old, record(PAGE))
    assert pair.page.license == "http://creativecommons.org/licenses/by/4.0/?a&b"


def test_a_file_after_the_change_is_not_decoded_again() -> None:
    """``&lt;b&gt;`` that a page shows became ``<b>``."""
    new = warcinfo(COMMONS + "1.1.10-SNAPSHOT-20200316114430", "isPartOf: CC-MAIN-2020-16")
    assert found(new) == AS_THEY_STAND
    assert found(date=NEW) == AS_THEY_STAND
    assert found(new, date=OLD) == AS_THEY_STAND  # the warcinfo counts before
    assert run(new, record(PAGE))[0].page.license is None


def test_where_nothing_tells_words_are_decoded_and_urls_are_not() -> None:
    unknown = dated(record(PAGE), "")
    for before in ([], [dated(warcinfo(), "")]):
        pairs = run(*before, unknown)
        assert [pair.text for pair in pairs] == [text for _, text in AS_PAGES_HAVE_IT]
        assert [pair.url for pair in pairs] == [url for url, _ in AS_THEY_STAND]


def test_each_file_of_several_in_one_counts_for_itself() -> None:
    new, old = warcinfo("isPartOf: CC-MAIN-2020-16"), warcinfo("isPartOf: CC-MAIN-2018-16")
    links: list[Json] = [page(URL, [image(f"{n}.jpg", "a &amp; b")]) for n in range(3)]
    pairs = run(old, record(links[0]), new, record(links[1]), old, record(links[2]))
    assert [pair.text for pair in pairs] == ["a & b", "a &amp; b", "a & b"]


def test_an_anchors_text_is_decoded_by_the_rules_of_text() -> None:
    song = {"path": "A@/href", "url": "Tom&#38;Jerry.mp3?a=1&amp;b", "text": "R&B &copy2019"}
    titled = {"path": "A@/href", "url": "b&#46;ogg", "title": "R&B &copy2019"}
    pairs = run(
        warcinfo("isPartOf: CC-MAIN-2018-16"), record(page(URL, [song, titled])), kinds=("audio",)
    )
    assert [(pair.url, pair.text) for pair in pairs] == [
        (f"{URL}Tom&Jerry.mp3?a=1&b", "R&B ©2019"),
        (f"{URL}b.ogg", "R&B &copy2019"),
    ]


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\x00", b":" * 100_000, b"\n" * 100_000, b"a:b\n" * 50_000, b"Software-Info: " + b"ia-web-commons-" * 9_000],
)  # fmt: skip
def test_any_warcinfo_is_read(body: bytes) -> None:
    assert told(dated(record(body, kind="warcinfo", media="x"), "")) is None
    assert UNKNOWN.url is None
