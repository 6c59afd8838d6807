import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from pairmill.workers.directives import REFUSING_TAGS, page_refusal
from pairmill.workers.extract.extract import Counts, Pair, extract
from pairmill.workers.extract.links import link_reader
from pairmill.workers.extract.page_opt_out import PageOptOut, page_opt_out
from support.wats import Json, dated, image, packed, page, record

URL = "http://page.example/dir/"
READ = datetime(2024, 5, 18, 1, 58, 10, tzinfo=UTC)


def meta(name: str, content: object, attribute: str = "name") -> Json:
    return {attribute: name, "content": content}


USUAL = [
    meta("viewport", "width=device-width"),
    meta("robots", "index, follow, max-image-preview:large"),
    meta("og:title", "No robots", "property"),
    meta("Content-Type", "text/html", "http-equiv"),
]


def a_page(metas: object, url: object = URL, date: str | None = "2024-05-18T01:58:10Z") -> Json:
    found = page(url, [image("http://h/a.jpg", "An apple")], Metas=metas)
    if date is not None:
        found["Envelope"]["WARC-Header-Metadata"]["WARC-Date"] = date
    return found


def opt_out(metas: object, **more: Any) -> PageOptOut | None:
    (pair,) = run(record(a_page(metas, **more)))
    return pair.page.opt_out


def run(*records: bytes) -> list[Pair]:
    return list(extract(io.BytesIO(packed(records)), Counts()))


@pytest.mark.parametrize(
    "one",
    [
        *(meta("robots", tag) for tag in sorted(REFUSING_TAGS)),
        *(meta("pairmill", tag.upper()) for tag in sorted(REFUSING_TAGS)),
        meta("ROBOTS", "index, NoImageAI"),
        meta("googlebot, robots", "noai"),
        meta("robots", "noai", "http-equiv"),
        meta("robots", "noai", "property"),
        meta("X-Robots-Tag", "noai", "http-equiv"),
        meta("tdm-reservation", "1"),
        meta("TDM-Reservation", " 1 ", "property"),
        meta("tdm:reservation", "1"),
        meta("Content-Usage", "train-ai=n", "http-equiv"),
        meta("Content-Signal", "search=yes, ai-train=no", "http-equiv"),
        meta("*", "noai"),
    ],
)
def test_whatever_refuses_by_itself_refuses_in_its_page(one: Json) -> None:
    """The search of the JSON's bytes for a refusal passed over one that the directives know."""
    name = next(one[key] for key in ("name", "http-equiv", "property") if key in one)
    signal, value = page_refusal([(name, one["content"])]) or ("", "")
    assert signal
    expected = PageOptOut(signal, value)
    for metas in ([one], [*USUAL, one, *USUAL], [*USUAL, one | {"content": [one["content"], "x"]}]):
        for escaped in (True, False):
            body = json.dumps(a_page(metas), ensure_ascii=escaped).encode()
            assert run(record(body))[0].page.opt_out == expected
            spelt = body.replace(b"obots", b"\\u006Fbots").replace(b"dm", b"\\u0064m")
            assert run(record(spelt))[0].page.opt_out == expected


@pytest.mark.parametrize(
    "metas",
    [
        None, [], {}, "robots", 5, [None, 5, "noai", []], USUAL,
        [{"name": "robots"}, {"content": "noai"}, {}],
        [meta("description", "noai robots"), meta("robots", "all")],
        [meta("tdm-reservation", "0"), meta("tdm-policy", "https://h.example/p.json")],
        [meta("tdm-reservation", 0), meta("tdm-reservation", False), meta("tdm-reservation", 10)],
        [meta("robots", 5), meta("robots", {"a": "noai"}), {"name": 7, "content": "noai"}],
    ],
)  # fmt: skip
def test_a_page_that_refuses_nothing_has_no_opt_out(metas: object) -> None:
    assert opt_out(metas) is None


@pytest.mark.parametrize(
    "metas",
    [
        [meta("tdm-reservation", 1)], [meta("tdm-reservation", True)],
        [meta("tdm-reservation", 1.0)], [meta("robots", ["index", None, "noai"])],
        [{"name": ["description", "robots"], "content": "noai"}], meta("robots", "noai"),
        [None, 5, meta("robots", "noai")],
    ],
)  # fmt: skip
def test_a_refusal_of_an_odd_type_is_heard(metas: object) -> None:
    """A writer's 1 without quotes, a list of which the first was asked, one element for a list."""
    assert opt_out(metas) is not None


def with_headers(headers: object, links_of_head: object) -> PageOptOut | None:
    found = a_page(USUAL)
    response = found["Envelope"]["Payload-Metadata"]["HTTP-Response-Metadata"]
    response["Headers"] = headers
    response["HTML-Metadata"]["Head"]["Link"] = links_of_head
    (pair,) = run(record(found))
    return pair.page.opt_out


@pytest.mark.parametrize(
    ("headers", "signal"),
    [
        ({"Server": "x", "X-Robots-Tag": "noai, noimageai"}, "X-Robots-Tag"),
        ({"x-robots-tag": ["index", "NOAI"]}, "X-Robots-Tag"),
        ({"TDM-Reservation": "1"}, "tdm-reservation"),
        ({"tdm-reservation": 1}, "tdm-reservation"),
        ({"Content-Usage": ["search=y", "train-ai=n"]}, "Content-Usage"),
        ({"Content-Signal": "ai-train=no"}, "Content-Signal"),
        ({"X-Robots-Tag": "googlebot: noai", "X-Frame-Options": "noai"}, None),
        ({"Content-Usage": ["train-ai=n", "train-ai=y"]}, None),
        ({"X-Robots-Tag": {"a": "noai"}}, None),
        (["X-Robots-Tag", "noai"], None),
        ("X-Robots-Tag: noai", None),
        (None, None),
    ],
)
def test_headers_that_a_page_came_with_are_heard(headers: object, signal: str | None) -> None:
    """A server that says noai of its pages by a header, and has its images elsewhere."""
    for links_of_head in ([], 5):  # the second is read the slow way
        found = with_headers(headers, links_of_head)
        assert (found and found.signal) == signal


def test_a_page_that_refuses_gives_its_pairs_all_the_same() -> None:
    refusing = page(
        URL, [image(f"{n}.jpg", "An apple") for n in range(3)], Metas=[meta("robots", "noai")]
    )
    other = page(URL, [image("b.jpg", "A pear"), image("0.jpg", "again")], Metas=USUAL)
    pairs = run(*map(record, (refusing, other)))
    assert [pair.page.opt_out and pair.page.opt_out.value for pair in pairs] == ["noai"] * 3 + [
        None
    ]


def test_of_one_url_on_two_pages_the_first_counts() -> None:
    first, later = (record(a_page(metas)) for metas in (USUAL, [meta("robots", "noai")]))
    assert [pair.page.opt_out for pair in run(first, later)] == [None]
    assert [pair.page.opt_out is None for pair in run(later, first)] == [False]


@pytest.mark.parametrize(
    ("own", "recorded", "read_at"),
    [
        ("2024-05-18T01:58:10Z", "2025-01-01T00:00:00Z", READ),  # when the page was crawled
        ("2024-05-18T03:58:10.25+02:00", "", READ.replace(microsecond=250_000)),
        ("2024-05-18", "", datetime(2024, 5, 18, tzinfo=UTC)),
        (None, "2024-05-18T01:58:10Z", READ),
        ("never", "2024-05-18T01:58:10Z", READ),
        ("0001-01-01T00:00:00+14:00", "", None),  # no such time in UTC
        ("9999-12-31T23:59:59-14:00", "", None),
        ("", "", None),
        ("9" * 9_999, "x" * 999, None),
    ],
)
def test_the_time_is_that_of_the_crawl(
    own: str | None, recorded: str, read_at: datetime | None
) -> None:
    one = dated(record(a_page(USUAL, date=own)), recorded)
    (pair,) = run(one)
    assert pair.page.crawled_at == read_at
    if read_at:
        assert pair.page.crawled_at.tzinfo is UTC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        (URL, URL),
        (f"<{URL}>", URL),  # as wget writes it
        (f"{URL}ä b\x00#top", f"{URL}ä%20b%00"),
        ("HTTP://Page.Example:8080?q=a@b", "http://page.example:8080?q=a@b"),
        ("http://ada:secret@page.example/", "http://page.example/"),
        ("http://ada@b:se@cret@page.example/a@b", "http://page.example/a@b"),
        (f"{URL}\ud800", None),
        ("", None),
        ("dns:host.example", None),
        (URL + "a" * 9_999, (URL + "a" * 9_999)[:2_048]),
        (URL + "a" * 99_999, None),
    ],
)
def test_the_facts_of_a_page_can_be_stored(url: str, stored: str | None) -> None:
    """Faults: a string that the database refuses would cost the whole file; a crawler's password
    is kept."""
    content = "noai, \x00\ud800" + "x" * 9_999
    (pair,) = run(record(a_page([meta("robots", content)], url=url)))
    assert pair.page.url == stored
    assert pair.page.opt_out is not None
    for text, most in zip(pair.page.opt_out, (50, 500), strict=True):
        assert "\0" not in text
        assert len(text) <= most
        text.encode()


@pytest.mark.parametrize(
    "metas",
    [
        [meta("robots", "index")] * 50_000 + [{}],
        [meta("robots" + "," * 99_999, "noai," * 99_999)],
        [meta("robots", "noindex:" * 99_999)],
        [meta("content-usage", "(" * 99_999)],
        [meta("robots", 5)] * 50_000,
        [meta("tdm-reservation", 10**4_000), meta("tdm-reservation", ["1"] * 50_000)],
        [[]] * 50_000 + ["noai"],
    ],
)
def test_any_metas_are_read_in_bounds(metas: object) -> None:
    body = json.dumps(a_page(metas)).encode()
    found = link_reader()(body)
    assert found is not None
    page_opt_out(found)


def test_a_page_whose_other_members_are_odd_is_heard_too() -> None:
    odd = a_page([meta("robots", "noai")], url=[URL, URL])
    facts = run(record(odd))[0].page
    assert (facts.opt_out, facts.url) == (PageOptOut("meta robots", "noai"), URL)
    assert facts.crawled_at == READ
