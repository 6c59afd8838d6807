import gzip
import hashlib
import io
import json
from collections import Counter
from typing import Any

import pytest
from shared_data import shared_file
from wats import anchor, image, packed, page, record, warcinfo

from pairmill.schema.outcomes import DropReason
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.extract import Counts, Pair, extract

URL = "http://page.example/dir/"


def run(data: bytes) -> tuple[list[Pair], Counts]:
    counts = Counts()
    pairs = list(extract(io.BytesIO(data), counts))
    assert counts.kept == len(pairs)
    assert counts.links == counts.kept + counts.dropped.total()
    return pairs, counts


def test_web_2008_gives_23_urls() -> None:
    pairs, counts = run(shared_file("wat/web-2008.wat.gz").read_bytes())
    assert len({pair.url for pair in pairs}) == 23
    assert counts == Counts(
        records=822,  # with the warcinfo record
        links=858,
        kept=612,
        dropped=Counter(
            {DropReason.NO_TEXT: 171, DropReason.FILE_TYPE: 68, DropReason.TEXT_TOO_SHORT: 7}
        ),
    )


def test_common_crawl_pages() -> None:
    pairs, counts = run(shared_file("wat/commoncrawl-pages.wat.gz").read_bytes())
    assert (counts.links, len(pairs), len({pair.url for pair in pairs})) == (151, 16, 13)


def test_a_pair_has_its_key_language_and_licence() -> None:
    alt = "Das Haus steht am Ufer eines kleinen Sees"
    by = "https://creativecommons.org/licenses/by/4.0/"
    (pair,), _ = run(packed([page(URL, [image("ä b.jpg", alt), anchor(by)])]))
    url = "http://page.example/dir/ä%20b.jpg"
    assert pair.url == url
    assert pair.url_key == hashlib.md5(url.encode("utf-8")).digest()
    assert (pair.text, pair.language, pair.license) == (alt, "de", by)
    assert 0.7 <= pair.probability <= 1


def test_the_licence_counts_wherever_it_stands_on_its_page_only() -> None:
    by, zero = (
        f"http://creativecommons.org/{x}/1.0/" for x in ("licenses/by", "publicdomain/zero")
    )
    one = image("a.jpg", "An apple")
    records = [
        page(URL, [anchor(by), one]),
        page(URL, [one, anchor(by)]),
        page(URL, [one, anchor(by)], Link=[anchor(zero)]),
        page(URL, [one]),
    ]
    assert [pair.license for pair in run(packed(records))[0]] == [by, by, zero, None]


def test_every_reason_in_its_order() -> None:
    many: list[Any] = [
        image("", "An apple"),
        image("data:image/gif;x.gif", ""),
        image("http://[", ""),
        image("a" * 2048 + ".gif", ""),
        image("a.gif", ""),
        image("a.jpg"),
        image("a.jpg", " &nbsp;\x00"),
        image("a.jpg", "four"),
        image("a.jpg", "&lt;&lt;"),
        image("a.jpg", "x" * 2001),
        image("a.jpg", "fives"),
        image("a.jpg", "x" * 2000 + " \n"),
    ]
    pairs, counts = run(packed([page(URL, many)]))
    assert [len(pair.text) for pair in pairs] == [5, 2000]
    reasons = Counter({reason: 1 for reason in DropReason if reason is not DropReason.REMOVED})
    reasons[DropReason.NO_TEXT] = reasons[DropReason.TEXT_TOO_SHORT] = 2
    assert counts.dropped == reasons


APPLE = page(URL, [image("a.jpg", "An apple")])


def test_broken_records_are_counted_and_cost_nothing_else() -> None:
    good = json.dumps(APPLE)
    data = packed(
        [
            warcinfo(),
            APPLE,
            record(good[:-5]),
            record(good.replace("An apple", "Ein süßer Apfel").encode("latin-1")),
            record(APPLE).replace(b"Content-Length: ", b"Content-Length: 99999999999"),
            b"not a record",
            record(good, kind="resource"),
            record(good, media="text/plain"),
            page([URL, URL], [image("a.jpg", "An apple"), {"path": "IMG@/src", "url": 3}]),
            APPLE,
        ]
    )
    pairs, counts = run(data)
    assert [pair.url for pair in pairs] == [f"{URL}a.jpg"] * 3
    assert counts == Counts(
        records=10,
        links=4,
        kept=3,
        dropped=Counter({DropReason.NO_URL: 1}),
        bad_records=Counter({"not_json": 1, "not_utf8": 1, "content_length": 1, "header": 1}),
    )


def test_a_truncated_file_keeps_what_came_before_and_says_so() -> None:
    pairs, counts = run(packed([warcinfo(), APPLE, APPLE])[:-9])
    assert len(pairs) == 1
    assert counts.ended_early == ("after 2 records: truncated: the file ends inside a gzip member")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b""), "among 0 WARC records"),
        (b"<html>404</html>", "begins with b'<html>404</html>'"),
        (gzip.compress(b"<html>404</html>"), "among 1 WARC records"),
        (packed([warcinfo(), record("<p>", kind="resource", media="text/html")]), "among 2 WARC"),
        (packed([APPLE])[:-9], "ended after 0 records: truncated"),
    ],
)
def test_a_file_that_is_no_wat_fails_for_good(data: bytes, says: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        run(data)
    assert says in caught.value.reason
    assert not caught.value.retry
