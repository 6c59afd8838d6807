import json

import pytest

from pairmill.workers.extract.links import (
    MAX_VALUES,
    BadRecord,
    Link,
    PageLinks,
    TextLink,
    link_reader,
)
from support.wats import Json, anchor, image, page

read_links = link_reader()

URL = "http://page.example/dir/"


def read(record: Json | str | bytes) -> PageLinks:
    body = json.dumps(record) if isinstance(record, dict) else record
    found = read_links(body.encode() if isinstance(body, str) else body)
    assert found is not None
    return found


def test_a_page_is_read() -> None:
    licence = {"path": "LINK@/href", "url": "https://l.example/", "rel": "license"}
    links = [
        anchor("x.html"),
        image("a.jpg", "An apple"),
        image("b.jpg"),
        image("c.jpg", "", "X@/y"),
    ]
    found = read(page(URL, links, Base="/b/", Link=[licence], Title="T"))
    assert (found.url, found.base) == (URL, "/b/")
    assert found.links == [
        Link("A@/href", "x.html"),
        Link("IMG@/src", "a.jpg", "An apple"),
        Link("IMG@/src", "b.jpg", None),
        Link("X@/y", "c.jpg", ""),
    ]
    assert found.urls() == ["https://l.example/", "x.html", "a.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    "written",
    [
        r'"IMG@/src"',
        r'"IMG@\/src"',
        r'"\u0049MG\u0040\u002fsrc"',
        r'"\u0049\u004D\u0047\u0040\u002F\u0073\u0072\u0063"',
    ],
)
def test_the_path_is_found_however_json_writes_it(written: str) -> None:
    body = json.dumps(page(URL, [image("a.jpg", "An apple")])).replace('"IMG@/src"', written)
    assert written in body
    assert [link.url for link in read(body).links] == ["a.jpg"]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"Envelope": None},
        {"Envelope": {"Payload-Metadata": {"HTTP-Request-Metadata": {}}}},
        page(URL, []),
        page(URL, None),
        page(URL, {"path": "IMG@/src"}),
        page(URL, ["IMG@/src", None, 5, [image("a.jpg")]]),
    ],
)
def test_a_record_without_links_has_no_page(record: Json) -> None:
    assert read_links(json.dumps(record).encode()) is None


@pytest.mark.parametrize("body", [b"[]", b"null", b'"IMG@/src"', b"7"])
def test_json_that_is_no_object_has_no_page(body: bytes) -> None:
    assert read_links(body) is None


@pytest.mark.parametrize(
    ("links", "read_as"),
    [
        ([image(None, "x")], (None, "x")),
        ([{"path": "IMG@/src"}], (None, None)),
        ([image(5, "x")], (None, "x")),
        ([image({"a": 1}, {"b": 2})], (None, None)),
        ([image("a.jpg", 5)], ("a.jpg", None)),
        ([image(["a.jpg", "b.jpg"], ["x", "y"])], ("a.jpg", "x")),
        ([image([7, [], "b.jpg"], [])], ("b.jpg", None)),
        (["junk", image("a.jpg", "x"), None], ("a.jpg", "x")),
        ([image("a.jpg", "\ud800 x"), anchor("\udfff")], ("a.jpg", "\ud800 x")),
    ],
)
def test_one_odd_link_does_not_cost_the_page(links: list[object], read_as: tuple[str, str]) -> None:
    (found,) = (link for link in read(page(URL, links)).links if link.path == "IMG@/src")
    assert (found.url, found.alt) == read_as


@pytest.mark.parametrize("odd", [[], [5], [{"path": ["x"]}]])
def test_texts_are_read_where_they_are_asked_for(odd: list[object]) -> None:
    link = {"path": "A@/href", "url": "a.mp3", "text": "A song", "title": "t"}
    found = link_reader({"text", "alt"})(json.dumps(page(URL, [link, *odd])).encode())
    assert found is not None
    assert found.links[0] == TextLink("A@/href", "a.mp3", None, "A song", "t")


@pytest.mark.parametrize(
    ("url", "base", "read_as"),
    [
        ([URL, "http://second.example/"], None, (URL, None)),
        (URL, ["/a/", "/b/"], (URL, "/a/")),
        (None, 5, ("", None)),
        ([], {}, ("", None)),
        ({"x": URL}, None, ("", None)),
        (f"<{URL}>", None, (URL, None)),  # wget 1.19 (wget's bug 47281)
        (f" <{URL}>\n", None, (URL, None)),
        ([f"<{URL}>"], None, (URL, None)),
        (f"<{URL}", None, (f"<{URL}", None)),
        ("<>", None, ("", None)),
    ],
)
def test_a_header_that_is_a_list_counts_by_its_first_string(
    url: object, base: object, read_as: tuple[str, str | None]
) -> None:
    found = read(page(url, [image("a.jpg", "x")], Base=base))
    assert (found.url, found.base) == read_as


@pytest.mark.parametrize("head", [None, [], "head", {"Link": "x"}, {"Link": [None, "x", 3]}])
def test_an_odd_head_does_not_cost_the_links(head: object) -> None:
    record = page(URL, [image("a.jpg", "x")])
    response = record["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
    response["HTML-Metadata"]["Head"] = head
    assert read(record).urls() == ["a.jpg"]


GOOD = json.dumps(page(URL, [image("a.jpg", "caf\u00e9")]), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"IMG@/src", "not_json"),
        (GOOD[:-1], "not_json"),
        (GOOD + b"}", "not_json"),
        (GOOD.replace(b'"Links"', b"Links"), "not_json"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (GOOD.decode().encode("latin-1"), "not_utf8"),
        (GOOD.replace(b'"x"', b'"\xff"'), "not_utf8"),  # in a member that is not read
        (b'{"a": "\xed\xa0\x80"}', "not_utf8"),
        (b"[" + b"[]," * MAX_VALUES + b"[]]", "too_large"),
        (b'["\\ud800"' + b",1" * (MAX_VALUES + 1) + b"]", "too_large"),
    ],
)
def test_a_record_that_cannot_be_used_is_named(body: bytes, name: str) -> None:
    with pytest.raises(BadRecord) as caught:
        read_links(body)
    assert caught.value.name == name
