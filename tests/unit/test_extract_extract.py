import gzip
import hashlib
import io
import json
from collections import Counter
from typing import Any

import pytest

from pairmill.schema.outcomes import DropReason
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.extract import Counts, LinkCounts, Pair, extract
from pairmill.workers.extract.link_kinds import LinkSelection
from support.shared_data import shared_file
from support.wats import anchor, image, packed, page, record, warcinfo

URL = "http://page.example/dir/"


def run(data: bytes, *kinds: str) -> tuple[list[Pair], Counts]:
    counts = Counts()
    pairs = list(extract(io.BytesIO(data), counts, LinkSelection(kinds or ["image"])))
    for name, kind in counts.kinds.items():
        assert kind.kept == sum(pair.kind == name for pair in pairs)
        assert kind.links == kind.kept + kind.duplicates + kind.dropped.total()
        assert kind.attributes.total() == (kind.kept if name == "image" else 0)
    return pairs, counts


def test_web_2008_gives_23_urls() -> None:
    pairs, counts = run(shared_file("wat/web-2008.wat.gz").read_bytes())
    assert len({pair.url for pair in pairs}) == len(pairs) == 23
    dropped = {DropReason.NO_TEXT: 192, DropReason.FILE_TYPE: 47, DropReason.TEXT_TOO_SHORT: 7}
    images = LinkCounts(858, 23, 589, Counter(dropped), Counter(src=23))
    assert counts == Counts(records=822, kinds={"image": images})  # with the warcinfo record


def test_common_crawl_pages() -> None:
    pairs, counts = run(shared_file("wat/commoncrawl-pages.wat.gz").read_bytes())
    assert (counts.links, len(pairs), counts.kinds["image"].duplicates) == (151, 16, 3)
    assert [pair.text for pair in pairs if len(pair.text) < 5] == ["微博", "微信", "首页"]


def test_a_pair_has_its_key_and_licence() -> None:
    alt = "Das Haus steht am Ufer eines kleinen Sees"
    by = "https://creativecommons.org/licenses/by/4.0/"
    (pair,), _ = run(packed([page(URL, [image("ä b.jpg", alt), anchor(by)])]))
    url = "http://page.example/dir/ä%20b.jpg"
    assert pair.url == url
    assert pair.url_key == hashlib.md5(url.encode("utf-8")).digest()
    assert (pair.text, pair.page.license) == (alt, by)


def test_the_licence_counts_wherever_it_stands_on_its_page_only() -> None:
    by, zero = (
        f"http://creativecommons.org/{x}/1.0/" for x in ("licenses/by", "publicdomain/zero")
    )
    one, two, three, four = (image(f"{n}.jpg", "An apple") for n in range(4))
    records = [
        page(URL, [anchor(by), one]),
        page(URL, [two, anchor(by)]),
        page(URL, [three, anchor(by)], Link=[anchor(zero)]),
        page(URL, [four]),
    ]
    assert [pair.page.license for pair in run(packed(records))[0]] == [by, by, zero, None]


def test_a_target_in_angle_brackets_is_the_pages_url() -> None:
    """Every relative link of the page was lost."""
    (pair,), _ = run(packed([page(f"<{URL}>", [image("a.jpg", "An apple")])]))
    assert pair.url == f"{URL}a.jpg"


def test_every_reason_in_its_order() -> None:
    many: list[Any] = [
        image("", ""),
        image("a.jpg"),
        image("a.gif", " \xa0\x00"),
        image("a.jpg", "four"),
        image("data:image/gif;x.gif", "<<"),
        image("http://[", "x" * 2001),
        image("", "An apple"),
        image("data:image/gif;x.gif", "An apple"),
        image("http://[", "An apple"),
        image("a" * 2048 + ".gif", "An apple"),
        image("a.gif", "An apple"),
        image("a.jpg", "fives"),
        image("a.jpg", "the same URL again"),
        image("b.jpg", "x" * 2000 + " \n"),
    ]
    pairs, counts = run(packed([page(URL, many)]))
    assert [len(pair.text) for pair in pairs] == [5, 2000]
    reasons = Counter({reason: 1 for reason in DropReason if reason is not DropReason.REMOVED})
    reasons |= {DropReason.NO_TEXT: 3, DropReason.TEXT_TOO_SHORT: 2}
    assert counts.kinds["image"] == LinkCounts(14, 2, 1, reasons, Counter(src=2))


def test_of_equal_urls_the_first_is_kept_over_all_pages() -> None:
    records = [page(URL, [image("a.jpg", f"text {n}"), image(f"{n}.jpg", "other")]) for n in "xyz"]
    pairs, counts = run(packed(records))
    assert [pair.text for pair in pairs] == ["text x", "other", "other", "other"]
    assert counts.kinds["image"].duplicates == 2


def test_a_short_text_of_a_script_that_says_more_is_kept_and_gives_way_to_a_longer_one() -> None:
    """Faults: Japanese links are dropped by a Latin minimum; or the short text of a URL costs
    recipes that count characters the pair that they had."""
    given = ["写真", "絵", "写真", "a text", "猫の写真だ", "写真", "another"]
    urls = ["a", "a", "b", "b", "b", "b", "c"]
    links = [image(f"{url}.jpg", alt) for url, alt in zip(urls, given, strict=True)]
    pairs, counts = run(packed([page(URL, links)]))
    assert [(pair.url[-5], pair.text) for pair in pairs] == [
        ("a", "写真"), ("b", "写真"), ("b", "a text"), ("c", "another"),
    ]  # fmt: skip
    dropped = Counter({DropReason.TEXT_TOO_SHORT: 1})
    assert counts.kinds["image"] == LinkCounts(7, 4, 2, dropped, Counter(src=4))


def test_more_urls_than_are_remembered_are_left_to_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pairmill.workers.extract.extract.REMEMBERED", 1)
    pairs, counts = run(packed([page(URL, [image(f"{n}.jpg", "a text") for n in "abab"])]))
    assert [pair.url[-5] for pair in pairs] == ["a", "b", "b"]
    assert counts.kinds["image"].duplicates == 1


def test_audio_and_video_are_found_by_their_endings() -> None:
    many = [
        {"path": "A@/href", "url": "talk.MP3?dl=1#t=3", "text": "", "title": "A long talk"},
        {"path": "A@/href", "url": "/song.ogg", "text": "A song of été"},
        {"path": "VIDEO@/src", "url": "//cdn.example/film.webm", "title": "A short film"},
        {"path": "A@/href", "url": "silent.mp4"},
        {"path": "A@/href", "url": "page.html", "text": "A page like any other"},
        {"path": "A@/href", "url": "mp3", "text": "no ending at all"},
        image("cover.jpg", "A record's cover"),
        image("not-a-song.mp3", "An image all the same"),
    ]
    data = packed([page(URL, many)])
    pairs, counts = run(data, "image", "audio", "video")
    assert [(pair.kind, pair.url, pair.text) for pair in pairs] == [
        ("audio", f"{URL}talk.MP3?dl=1", "A long talk"),
        ("audio", "http://page.example/song.ogg", "A song of été"),
        ("video", "http://cdn.example/film.webm", "A short film"),
        ("image", f"{URL}cover.jpg", "A record's cover"),
        ("image", f"{URL}not-a-song.mp3", "An image all the same"),
    ]
    assert counts.kinds["video"] == LinkCounts(2, 1, 0, Counter({DropReason.NO_TEXT: 1}))
    images, _ = run(data)
    assert images == [pair for pair in pairs if pair.kind == "image"]


def test_a_link_kind_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no link kind smell; there are: image, audio"):
        LinkSelection(["image", "smell"])


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
    assert [pair.url for pair in pairs] == [f"{URL}a.jpg"]
    assert counts == Counts(
        records=10,
        kinds={"image": LinkCounts(4, 1, 2, Counter({DropReason.NO_TEXT: 1}), Counter(src=1))},
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
        (gzip.compress(b"", mtime=0), "among 0 WARC records"),
        (b"<html>404</html>", "begins with b'<html>404</html>'"),
        (gzip.compress(b"<html>404</html>", mtime=0), "among 1 WARC records"),
        (packed([warcinfo(), record("<p>", kind="resource", media="text/html")]), "among 2 WARC"),
        (packed([APPLE])[:-9], "ended after 0 records: truncated"),
    ],
)
def test_a_file_that_is_no_wat_fails_for_good(data: bytes, says: str) -> None:
    with pytest.raises(TaskFailed) as caught:
        run(data)
    assert says in caught.value.reason
    assert not caught.value.retry
