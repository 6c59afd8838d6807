import io
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract.extract import Counts, LinkCounts, Pair, extract
from pairmill.workers.extract.images import MAX_SRCSET, is_placeholder, joined, largest
from pairmill.workers.extract.link_kinds import IMAGE, LinkSelection
from pairmill.workers.extract.links import LAZY_FIELDS, LazyLink, Link
from support.wats import Json, anchor, image, packed, page, record, warcinfo

URL = "http://page.example/dir/"
DATA = "data:image/gif;base64,R0lGODlhAQABAAAAACw="


def run(
    links: list[Any], *before: bytes, kinds: tuple[str, ...] = ("image",)
) -> tuple[list[Pair], LinkCounts]:
    counts = Counts()
    data = packed([*before, record(page(URL, links))])
    pairs = list(extract(io.BytesIO(data), counts, LinkSelection(kinds)))
    images = counts.kinds["image"]
    assert images.links == images.kept + images.duplicates + images.dropped.total()
    assert images.attributes.total() == images.kept
    return pairs, images


def late(src: str | None, alt: str = "An apple", **attributes: str) -> Json:
    """An IMG@/src link with further attributes as its members."""
    more = {name.replace("_", "-"): value for name, value in attributes.items()}
    return {"path": "IMG@/src", "alt": alt} | ({} if src is None else {"url": src}) | more


def test_each_attribute_has_a_field() -> None:
    assert set(LAZY_FIELDS.values()) <= set(LazyLink.__struct_fields__)
    assert list(LAZY_FIELDS) == list(LazyLink.__struct_encode_fields__[-len(LAZY_FIELDS) :])


@pytest.mark.parametrize("src", [DATA, None, "", "#", "about:blank", "javascript:void(0)", "http://[", "/img/blank.gif", "//cdn.example/1x1.png", "Placeholder.JPG", "ajax-loader.gif", "lazyload.svg", "x.gif", "SPACER.GIF?v=1", "transparent.png"])  # fmt: skip
@pytest.mark.parametrize("name", ["data-src", "data-original", "data-lazy-src", "data-uri"])
def test_what_a_placeholder_stands_for_is_taken(src: str | None, name: str) -> None:
    """Each image of a page that loads them late was lost, or was the same grey picture."""
    (pair,), counts = run([late(src, **{name: "a.jpg"})])
    assert (pair.url, pair.text) == (f"{URL}a.jpg", "An apple")
    assert counts == LinkCounts(1, 1, attributes=Counter({name: 1}))


@pytest.mark.parametrize(
    ("link", "attribute", "url"),
    [
        (late("a.jpg", data_src="b.jpg", srcset="c.jpg 2x"), "src", "a.jpg"),
        (late("apple.gif.jpg", data_src="b.jpg"), "src", "apple.gif.jpg"),
        (late(DATA, data_original="b.jpg", data_src="c.jpg"), "data-src", "c.jpg"),
        (late(DATA, data_src=DATA, data_original="c.jpg"), "data-original", "c.jpg"),
        (late(DATA, data_src="c.svg", srcset="c.jpg"), "srcset", "c.jpg"),
        (late(DATA, data_srcset="s.jpg 1x, l.jpg 2x", srcset=f"{DATA} 9w"), "data-srcset", "l.jpg"),
        (late(DATA, srcset="s.jpg 320w, l.jpg 1280w, m.jpg 640w"), "srcset", "l.jpg"),
        (late("blank.png"), "src", "blank.png"),  # no other: it is taken for what it is
        (late("blank.png", data_src=DATA, srcset=""), "src", "blank.png"),
        (late(DATA, data_src="  b.jpg\n"), "data-src", "b.jpg"),
    ],
)
def test_one_attribute_gives_the_url(link: Json, attribute: str, url: str) -> None:
    for written in ([link], [anchor("x"), link, image("other.jpg", "a pear")]):
        pairs, counts = run(written)
        assert pairs[0].url == URL + url
        assert counts.attributes[attribute] >= 1
        assert counts.links == len(pairs)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        (late(DATA), DropReason.SCHEME),
        (late(DATA, data_src=DATA), DropReason.SCHEME),
        (late(None, data_src="a.svg", srcset=DATA), DropReason.FILE_TYPE),
        (late("spacer.gif", data_src="ftp://h/a.jpg"), DropReason.FILE_TYPE),
        (late(DATA, "", data_src="a.jpg"), DropReason.NO_TEXT),
        ({"path": "IMG@/srcset", "url": " , ", "alt": "An apple"}, DropReason.NO_URL),
    ],
)
def test_without_a_url_the_reason_is_that_of_src(link: Json, reason: DropReason) -> None:
    assert run([link])[1] == LinkCounts(1, dropped=Counter({reason: 1}))


def beside(name: str, url: str, alt: str | None = None) -> Json:
    return image(url, alt, f"IMG@/{name}")


@pytest.mark.parametrize(
    ("links", "pairs"),
    [
        # after the src, as ia-web-commons writes longdesc; with the same alt or without
        ([image(DATA, "one"), beside("data-src", "1.jpg"), image(DATA, "two"), beside("data-src", "2.jpg")], "one 1 two 2"),
        ([image(DATA, "one"), beside("data-src", "1.jpg", "one"), image(DATA, "two"), beside("data-src", "2.jpg", "two")], "one 1 two 2"),
        ([image("1.jpg", "one"), beside("data-src", "x.jpg"), image("2.jpg", "two"), beside("srcset", "y.jpg 2x")], "one 1 two 2"),
        ([image("1.jpg", "one"), beside("data-src", "x.jpg"), image(DATA, "two"), beside("data-src", "2.jpg")], "one 1 two 2"),
        ([image(DATA, "one"), beside("longdesc", "l.html"), beside("data-src", "1.jpg"), beside("srcset", "x.jpg")], "one 1"),
        # before it, as ia-web-commons writes data-uri
        ([beside("data-uri", "1.jpg"), image(DATA, "one"), beside("data-uri", "2.jpg"), image(DATA, "two")], "one 1 two 2"),
        ([beside("data-src", "x.jpg"), beside("srcset", "y.jpg"), image("1.jpg", "one"), beside("data-src", "2.jpg"), image(DATA, "two")], "one 1 two 2"),
        ([anchor("x"), beside("data-uri", "1.jpg"), image(DATA, "one"), anchor("x"), image("2.jpg", "two")], "one 1 two 2"),
        # an <img> without a src
        ([beside("data-src", "1.jpg", "one"), beside("data-src", "2.jpg", "two")], "one 1 two 2"),
        ([beside("data-src", "1.jpg", "one"), beside("srcset", "x.jpg", "one")], "one 1"),
        ([image("1.jpg", "one"), anchor("x"), beside("srcset", "s.jpg 1x, 2.jpg 2x", "two")], "one 1 two 2"),
        # of another alt it is another's, and of none, with others between, nobody's
        ([image(DATA, "one"), beside("data-src", "2.jpg", "two")], "two 2"),
        ([image(DATA, "one"), anchor("x"), beside("data-src", "2.jpg")], ""),
        ([beside("data-src", "0.jpg"), image(DATA, "one"), beside("data-src", "1.jpg"), image(DATA, "two"), beside("data-src", "2.jpg")], "one 1 two 2"),
    ],
)  # fmt: skip
def test_an_attribute_as_a_link_of_its_own_is_the_images_beside_it(
    links: list[Json], pairs: str
) -> None:
    """One image as two pairs, or an image with the words of another."""
    long = [link | {"alt": f"image {link['alt']}"} if "alt" in link else link for link in links]
    found, _ = run(long)
    words = iter(pairs.split())
    assert [(pair.text, pair.url) for pair in found] == [
        (f"image {word}", f"{URL}{number}.jpg") for word, number in zip(words, words, strict=True)
    ]


def test_links_of_other_kinds_are_left_as_they_are() -> None:
    links = [late(DATA, data_src="a.jpg"), beside("data-src", "b.jpg", "A pear"), {"path": "A@/href", "url": "a.mp3", "text": "A song"}]  # fmt: skip
    pairs, counts = run(links, kinds=("image", "audio"))
    assert [pair.url[len(URL) :] for pair in pairs] == ["a.jpg", "b.jpg", "a.mp3"]
    assert counts.attributes == Counter({"data-src": 2})


def test_in_an_undecoded_file_they_are_decoded_too() -> None:
    old = warcinfo("isPartOf: CC-MAIN-2018-16")
    pairs, _ = run([late(DATA, data_src="a.jpg?b&amp;c"), late(DATA, srcset="s.jpg&#32;1x,&#32;b.jpg?b&amp;c 2x")], old)  # fmt: skip
    assert [pair.url for pair in pairs] == [f"{URL}a.jpg?b&c", f"{URL}b.jpg?b&c"]


@pytest.mark.parametrize("odd", [5, None, ["b.jpg", 7], {"a": 1}])
def test_an_odd_attribute_costs_itself(odd: object) -> None:
    pairs, _ = run(
        [late(DATA) | {"data-src": odd, "data-original": "a.jpg"}, image("c.jpg", "A pear")]
    )
    assert pairs[0].url == URL + ("b.jpg" if isinstance(odd, list) else "a.jpg")
    assert pairs[1].url == f"{URL}c.jpg"


def test_an_odd_attribute_in_a_record_too_large_to_read_slowly_costs_the_page_nothing() -> None:
    links = [
        beside("data-src", "x.jpg"),
        late("a.jpg") | {"srcset": 5},
        late(DATA, data_src="b.jpg"),
    ]
    body = json.dumps(page(URL, links)).replace(
        '"Container"', '"X": [1' + ",1" * 1_000_001 + '], "Container"'
    )
    pairs = list(extract(io.BytesIO(packed([record(body)])), Counts()))
    assert [pair.url for pair in pairs] == [f"{URL}a.jpg"]


@pytest.mark.parametrize(
    ("srcset", "url"),
    [
        ("", None),
        (" ,, ", None),
        ("a.jpg", "a.jpg"),
        ("a.jpg, b.jpg", "a.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 1.5x,b.jpg .5x", "a.jpg"),
        ("a.jpg 1e1x, b.jpg 9x", "a.jpg"),
        ("a.jpg 320w, b.jpg 1280w,\n\t c.jpg 640w", "b.jpg"),
        ("a.jpg 5x, b.jpg 10w", "b.jpg"),  # mixed is against the rules: a width says more
        ("a.jpg 320w 200h, b.jpg 640w 400h", "b.jpg"),
        ("a,b.jpg 1x, c,d.jpg 2x", "c,d.jpg"),  # commas in URLs
        ("a.jpg?w=1,2,b.jpg", "a.jpg?w=1,2,b.jpg"),  # no white space: it is one URL
        ("a.jpg, , b.jpg 2x,", "b.jpg"),
        ("/f_auto,q_auto/a.jpg 1x, /f_auto,q_auto,w_9/a.jpg 2x", "/f_auto,q_auto,w_9/a.jpg"),
        ("a.jpg,, b.jpg 2x", "b.jpg"),
        ("a.jpg 2x (b, c) , d.jpg", "d.jpg"),  # an unknown descriptor drops its candidate
        ("a.jpg 2q, b.jpg", "b.jpg"),
        ("a.jpg -2x, b.jpg 0x", "b.jpg"),
        ("a.jpg 9999999999w", None),
        (f"{DATA} 999w, a.jpg 1w", "a.jpg"),
        (f"{DATA}", None),
        ("a.jpg (", None),
    ],
)  # fmt: skip
def test_of_a_srcset_the_largest_counts(srcset: str, url: str | None) -> None:
    assert largest(srcset) == url


@pytest.mark.parametrize(
    "srcset", ["a (" * 99_999, ", " * 99_999, "a.jpg 1x," * 99_999, "(" * 999_999, "a" * 999_999]
)
def test_any_srcset_is_read_in_its_length(srcset: str) -> None:
    assert len(largest(srcset) or "") <= MAX_SRCSET


@given(
    st.lists(
        st.sampled_from(["a.jpg", ",", " ", "\t", "1x", "2x", "9w", "(", ")", "data:,", "q"])
    ).map("".join)
)
def test_a_srcset_gives_one_of_its_words(srcset: str) -> None:
    url = largest(srcset)
    assert url is None or (url in srcset and url.split() == [url] and not url.endswith(","))


paths = st.sampled_from(["IMG@/src", *IMAGE.beside, "IMG@/longdesc", "A@/href"])
lazy_links = st.builds(
    LazyLink, paths, st.sampled_from(["a", "b", "c"]), st.sampled_from([None, "x", "y"])
)


@given(st.lists(lazy_links, max_size=8))
def test_joining_loses_and_doubles_nothing(links: list[Link]) -> None:
    before = Counter((link.path, link.url) for link in links)
    after: Counter[tuple[str | None, str | None]] = Counter()
    for link in joined(links):
        assert link.path not in IMAGE.beside
        for name, field in LAZY_FIELDS.items():
            if value := getattr(link, field, None):
                after[f"IMG@/{name}", value] += 1
        if link.url is not None:
            after[link.path, link.url] += 1
    assert after == before


@pytest.mark.parametrize(
    "url",
    [
        "/a/b.jpg",
        "apple.jpg",
        "blink.jpg",
        "photo-of-a-pixel.jpg",
        "http://blank.example/a.jpg",
        "/1x1/a.jpg",
    ],
)
def test_a_usual_name_is_no_placeholder(url: str) -> None:
    assert not is_placeholder(url)


def test_a_page_of_very_many_links_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lists of a page's 250,000 links took 400 MB."""
    links = [late(DATA, data_src="a.jpg"), image("b.jpg", "A pear"), beside("data-src", "c.jpg")]
    monkeypatch.setattr("pairmill.workers.extract.page.MAX_TWICE", 3)
    assert len(run(links)[0]) == 2
    monkeypatch.setattr("pairmill.workers.extract.page.MAX_TWICE", 2)
    assert [pair.url for pair in run(links)[0]] == [f"{URL}b.jpg"]


def test_the_usual_page_is_not_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second decoding of each page that has a data: URI would double the time of those."""

    def refuse(*_: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr("pairmill.workers.extract.page.PageReader.lazily", refuse)
    assert (
        len(
            run([image(DATA, "An apple"), image("blank.gif", "A pear"), image("a.jpg", "A plum")])[
                0
            ]
        )
        == 1
    )
