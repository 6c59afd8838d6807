"""The extractor against a slow and obvious one: warcio, json, urljoin, a loop of ifs."""

import gzip
import io
import json
import string
import unicodedata
from collections import Counter
from html.entities import html5
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from pairmill.workers.extract.extract import Counts, Pair, extract
from support.shared_data import shared_file
from support.wats import Json, anchor, image, packed, page, record, warcinfo

URL = "http://page.example/dir/"


def run(data: bytes) -> tuple[list[Pair], Counts]:
    counts = Counts()
    pairs = list(extract(io.BytesIO(data), counts))
    images = counts.kinds["image"]
    assert images.kept == len(pairs)
    assert images.links == images.kept + images.duplicates + images.dropped.total()
    return pairs, counts


BIDI_AND_BLANK = "\u00ad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\ufeff"
BIDI_AND_BLANK += "\u2066\u2067\u2068\u2069"


def oracle_references(written: str, complete: bool) -> str:
    """Attributes as the HTML standard has them; complete: only references that end in ;."""
    done = ""
    while written:
        if written[0] != "&":
            done, written = done + written[0], written[1:]
            continue
        hexadecimal = written[1:3].lower() == "#x"
        digits = written[3 if hexadecimal else 2 :] if written[1:2] == "#" else ""
        number = ""
        while digits and digits[0] in (string.hexdigits if hexadecimal else string.digits):
            number, digits = number + digits[0], digits[1:]
        if number and (digits[:1] == ";" or not complete):
            code = int(number, 16 if hexadecimal else 10)
            if code in range(0x80, 0xA0):
                done += bytes([code]).decode("cp1252", "ignore") or chr(code)
            else:
                wrong = code == 0 or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF
                done += "\ufffd" if wrong else chr(code)
            written = digits.removeprefix(";")
            continue
        names = [name for name in html5 if written[1:].startswith(name)]
        name = max(names, key=len, default="")
        after = written[1 + len(name) :][:1]
        bare = complete or after in (*string.ascii_letters, *string.digits, "=")
        if not name or (not name.endswith(";") and bare):
            done, written = done + "&", written[1:]
        else:
            done, written = done + html5[name], written[1 + len(name) :]
    return done


def oracle_text(alt: str) -> str:
    kept = ""
    for c in alt:
        if c in "\t\n\f\r" or unicodedata.category(c) not in ("Cc", "Cs"):
            kept += "" if c in BIDI_AND_BLANK else c
    return " ".join(kept.split())


def oracle_clean(url: str) -> str:
    while url and url[0] <= " ":
        url = url[1:]
    while url and url[-1] <= " ":
        url = url[:-1]
    return "".join(c for c in url if c not in "\t\n\r")


def oracle_url(base: str, url: str) -> str:
    """The URL, or the reason's name."""
    url = oracle_clean(url)
    if not url:
        return "no_url"
    for prefix in ("//", "http://", "https://"):
        after = url[len(prefix) : len(prefix) + 1]
        if url.lower().startswith(prefix) and after in ("", "/", "?", "#"):
            return "bad_url"
    try:
        parts = urlsplit(urljoin(base, url))
        if parts.scheme and parts.scheme not in ("http", "https"):
            return "scheme"
        if not parts.scheme or not parts.hostname or parts.port == 0:
            return "bad_url"
    except ValueError:
        return "bad_url"
    user, at, host = parts.netloc.rpartition("@")
    if any(c.isspace() or oracle_hidden(c) or c in "#%/<>?@\\^|" for c in host):
        return "bad_url"
    whole = urlunsplit((parts.scheme, user + at + host.lower(), parts.path, parts.query, ""))
    if any("\ud800" <= c <= "\udfff" for c in whole):
        return "bad_url"
    return "".join(quote(c, "") if c == " " or oracle_hidden(c) else c for c in whole)


def oracle_hidden(c: str) -> bool:
    """Controls, separators of lines and paragraphs, and what turns the direction of writing."""
    turns = unicodedata.bidirectional(c) in ("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI")
    marks = c in "\u061c\u200e\u200f"
    return unicodedata.category(c) in ("Cc", "Zl", "Zp") or turns or c == "\u2069" or marks


def oracle_image(base: str, url: str) -> str:
    whole = oracle_url(base, url)
    if ":" not in whole:
        return whole
    if len(whole) > 2048:
        return "url_too_long"
    path = whole.split("?")[0].lower()
    return "file_type" if path[-4:] in (".svg", ".gif", ".ico") else whole


def oracle_base(url: str, head: str | None) -> str:
    def joined(base: str, url: str) -> str | None:
        try:
            urlsplit(urljoin(base, url))
        except ValueError:
            return None
        return urljoin(base, url)

    base = joined("", oracle_clean(url)) or ""
    own = joined(base, oracle_clean(head)) if head is not None else None
    return own if own and own.split(":")[0].lower() not in ("data", "javascript") else base


def oracle_license(base: str, links: list[Json]) -> str | None:
    for url in (link.get("url") for link in links):
        start = url.lstrip().lower() if isinstance(url, str) else ""
        for host in ("//creativecommons.org", "//www.creativecommons.org"):
            for folder in ("/licenses/", "/publicdomain/"):
                for scheme in ("", "http:", "https:"):
                    prefix = scheme + host + folder
                    if start.startswith(prefix) and start[len(prefix) :][:1] not in "/?#":
                        whole = oracle_url(base, url or "")
                        if ":" in whole and len(whole) <= 2048:
                            return whole
    return None


def oracle_page(url: str) -> str | None:
    whole = oracle_url("", url)
    if ":" not in whole:
        return None
    parts = urlsplit(whole)
    return urlunsplit(parts._replace(netloc=parts.netloc.split("@")[-1]))[:2048]


Row = tuple[str, str, str | None, str | None]
WEIGHTS = {
    "CJK": 3,
    "HANGUL": 1.75,
    "KATAKANA": 1.5,
    "HIRAGANA": 1.25,
    "HEBREW": 1.25,
    "ETHIOPIC": 1.25,
}


def oracle_weight(text: str) -> float:
    names = [unicodedata.name(c, "?").replace("HALFWIDTH ", "").split() for c in text]
    is_letter = ("LETTER", "IDEOGRAPH", "SYLLABLE", "ITERATION", "PROLONGED")
    return sum(
        WEIGHTS.get(name[0], 1) if any(part.startswith(is_letter) for part in name) else 1
        for name in names
    )


def oracle(data: bytes, decoded: bool = True) -> tuple[list[Row], Counter[str]]:
    rows: list[Row] = []

    def attribute(written: str | None, complete: bool = True) -> str:
        return oracle_references(written or "", complete) if not decoded else written or ""

    counts: Counter[str] = Counter()
    for one in ArchiveIterator(io.BytesIO(data)):
        body = one.content_stream().read()
        if one.rec_type != "metadata" or one.rec_headers["Content-Type"] != "application/json":
            continue
        envelope = json.loads(body)["Envelope"]
        response = envelope["Payload-Metadata"].get("HTTP-Response-Metadata") or {}
        metadata = response.get("HTML-Metadata") or {}
        links, head = metadata.get("Links") or [], metadata.get("Head") or {}
        page_url = envelope["WARC-Header-Metadata"].get("WARC-Target-URI") or ""
        base = oracle_base(page_url, attribute(head["Base"]) if "Base" in head else None)
        all_links = [
            link | {"url": attribute(link.get("url"))} for link in (head.get("Link") or []) + links
        ]
        license_url = oracle_license(base, all_links)
        for link in links:
            if link.get("path") != "IMG@/src":
                continue
            counts["links"] += 1
            url = oracle_image(base, attribute(link.get("url")))
            text = oracle_text(attribute(link.get("alt"), complete=False))
            earlier = [len(row[1]) for row in rows if row[0] == url]
            if oracle_weight(text) < 5 or len(text) > 2000:
                reason = "text_too_long" if text[5:] else "text_too_short" if text else "no_text"
                counts[reason] += 1
            elif ":" not in url:
                counts[url] += 1
            elif earlier and (len(text) < 5 or max(earlier) >= 5):
                counts["duplicates"] += 1
            else:
                rows.append((url, text, license_url, oracle_page(page_url)))
    return rows, counts


def assert_as_oracle(data: bytes, decoded: bool = True) -> None:
    pairs, counts = run(data)
    rows, expected = oracle(data, decoded)
    assert [(p.url, p.text, p.page.license, p.page.url) for p in pairs] == rows
    images = counts.kinds["image"]
    found = {r.value: n for r, n in images.dropped.items()}
    assert Counter(found) + Counter(links=images.links, duplicates=images.duplicates) == expected
    assert (counts.bad_records, counts.ended_early) == (Counter(), None)


REAL = ["web-2008.wat.gz", "commoncrawl-pages.wat.gz", "commoncrawl-2024-22-one-page.wat.gz"]


@pytest.mark.parametrize("name", REAL)
def test_real_files_give_what_the_oracle_gives(name: str) -> None:
    data = shared_file(f"wat/{name}").read_bytes()
    assert_as_oracle(data)
    assert run(gzip.decompress(data)) == run(data)  # not compressed, the same


schemes = ["http:", "HTTPS://", "data:", "javascript:", "ftp://h/", "C:\\", "http://H.example"]
segments = ["//", "..", "B.jpg", ".gif", ".SVG", "//n.example:80/", "%20", "x" * 500]
segments += ["&amp;", "&amp", "&#38;", "&#x2F;", "&#47", "&copy=", "&sol;", "&#0;", "&#9;", "../"]
pieces = st.sampled_from([*"/.a?#:; \t\né@\\[]\x00\x9b\u202e\ud800=", *schemes, *segments])
urls = st.lists(pieces, max_size=7).map("".join)
words = [
    "a",
    "red",
    " ",
    "\n",
    "&eacute;",
    "&amp;amp;",
    "&#x202e;",
    "&copy",
    "&notit;",
    "&lt",
    "=",
    "&#150;",
    "\u200d",
    "\ufeff",
    "字",
    "カメ",
    "한국",
    "\x07",
]
alts = st.lists(
    st.sampled_from([*words, "&#0;", "\ud83d", "\x85", "\xa0", "long " * 101]), max_size=9
)
licences = st.sampled_from(
    [
        "http://creativecommons.org/licenses/by/4.0/",
        "//WWW.creativecommons.org/publicdomain/x#y",
        "https://creativecommons.org/licenses/",
        "/licenses/by/",
        "x://creativecommons.org/licenses/b",
    ]
)
users = st.sampled_from(["", "ada@", "ada:pass@", "a@b:@"])
links = st.one_of(
    st.builds(image, urls | st.none(), alts.map("".join) | st.none()),
    st.builds(anchor, urls | licences),
)
pages = st.builds(
    lambda url, many, **head: page(url, many, **{k: v for k, v in head.items() if v is not None}),
    st.just(URL) | st.builds("http://{}h.example/{}".format, users, urls) | urls | st.none(),
    st.lists(links, max_size=6),
    Base=st.none() | urls,
    Link=st.none() | st.lists(st.builds(anchor, licences), max_size=2),
)


@given(st.lists(pages, min_size=1, max_size=3), st.booleans(), st.booleans())
def test_generated_files_give_what_the_oracle_gives(
    many: list[Json], escaped: bool, decoded: bool
) -> None:
    begin = warcinfo("" if decoded else "isPartOf: CC-MAIN-2019-30")
    data = packed([begin, *many])
    if escaped:  # as JSON may write it too
        slashed = [json.dumps(one).replace("/", "\\/") for one in many]
        data = packed([begin, *map(record, slashed)])
    assert_as_oracle(data, decoded)
