from urllib.parse import urljoin, urlsplit, urlunsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pairmill.schema.outcomes import DropReason
from pairmill.workers.extract.link_kinds import IMAGE
from pairmill.workers.extract.urls import MAX_REFERENCE, Base

PAGE = "http://host.example/dir/page.html?q=/x/"


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("a.jpg", "http://host.example/dir/a.jpg"),
        ("/a.jpg?b=1&c=../d", "http://host.example/a.jpg?b=1&c=../d"),
        ("//Other.Example:8080/A.JPG", "http://other.example:8080/A.JPG"),
        ("HTTPS://Other.Example/Ä b.jpg#top", "https://other.example/Ä%20b.jpg"),
        ("../../../up.png", "http://host.example/up.png"),
        (" \n./a\tb\r\n.jpg\x00", "http://host.example/dir/ab.jpg"),
        ("a\x01b.jpg", "http://host.example/dir/a%01b.jpg"),
        ("a\x9bb\u202e\u2028.jpg", "http://host.example/dir/a%C2%9Bb%E2%80%AE%E2%80%A8.jpg"),
        ("http:a.jpg", "http://host.example/dir/a.jpg"),
        ("?only=query", "http://host.example/dir/page.html?only=query"),
        ("#", "http://host.example/dir/page.html?q=/x/"),
        ("a.jpg?#", "http://host.example/dir/a.jpg"),
        ("http://user@Host.example/", "http://user@host.example/"),
        ("http://[2001:DB8::1]/a.jpg", "http://[2001:db8::1]/a.jpg"),
        ("http://bücher.example/a.jpg", "http://bücher.example/a.jpg"),
    ],
)
def test_a_link_is_resolved(reference: str, url: str) -> None:
    assert Base(PAGE).resolve(reference) == url


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("http://o\x9b.example/a.jpg", DropReason.BAD_URL),
        ("", DropReason.NO_URL),
        (" \t\n\x00", DropReason.NO_URL),
        ("data:image/png;base64,AAAA", DropReason.SCHEME),
        ("data:image/png;base64," + "A" * MAX_REFERENCE, DropReason.SCHEME),
        ("JavaScript:void(0)", DropReason.SCHEME),
        ("file:///etc/passwd.jpg", DropReason.SCHEME),
        ("C:\\images\\a.jpg", DropReason.SCHEME),
        ("http://[::1/a.jpg", DropReason.BAD_URL),
        ("http://", DropReason.BAD_URL),
        ("http:///a.jpg", DropReason.BAD_URL),
        ("//?a.jpg", DropReason.BAD_URL),
        ("http://host.example:99999/a.jpg", DropReason.BAD_URL),
        ("http://host.example:port/a.jpg", DropReason.BAD_URL),
        ("http://ho st.example/a.jpg", DropReason.BAD_URL),
        ("http://host.example\\a.jpg", DropReason.BAD_URL),
        ("http://@/a.jpg", DropReason.BAD_URL),
        ("https:a.jpg", DropReason.BAD_URL),  # relative to no https page
        ("\ud800.jpg", DropReason.BAD_URL),
        ("a" * 2_048 + ".jpg", DropReason.URL_TOO_LONG),
        ("a" * (MAX_REFERENCE + 1), DropReason.URL_TOO_LONG),
        ("https://h.example/" + "a" * MAX_REFERENCE, DropReason.URL_TOO_LONG),
        ("a.svg", DropReason.FILE_TYPE),
        ("A.GIF?x=.jpg", DropReason.FILE_TYPE),
        ("/favicon.IcO#x", DropReason.FILE_TYPE),
        (" a.gif ", DropReason.FILE_TYPE),
    ],
)
def test_a_link_is_dropped_for_its_reason(reference: str, reason: DropReason) -> None:
    answer = Base(PAGE).resolve_file(reference, IMAGE.refused)
    assert isinstance(answer, DropReason)
    assert answer is reason


@pytest.mark.parametrize("reference", ["a.svg.jpg", "gif", "a.jpg?b=c.gif", "a.gif/", "a.gif;x"])
def test_only_the_end_of_the_path_is_a_file_type(reference: str) -> None:
    assert not isinstance(Base(PAGE).resolve_file(reference, IMAGE.refused), DropReason)


def test_the_length_is_that_of_the_resolved_url_without_fragment() -> None:
    base = Base("http://h.example/")
    longest = "a" * (2_048 - len("http://h.example/"))
    assert base.resolve_file(f"{longest}#{'f' * 99}", ()) == f"http://h.example/{longest}"
    assert base.resolve_file(f"{longest}a", ()) is DropReason.URL_TOO_LONG
    assert base.resolve_file("é" * len(longest), ()) == "http://h.example/" + "é" * len(longest)
    assert base.resolve_file("../" * 700 + "a.jpg", ()) == "http://h.example/a.jpg"


@pytest.mark.parametrize(
    ("page", "head", "url"),
    [
        (PAGE, None, "http://host.example/dir/a.jpg"),
        (PAGE, "", "http://host.example/dir/a.jpg"),
        (PAGE, "/other/", "http://host.example/other/a.jpg"),
        (PAGE, "sub/x", "http://host.example/dir/sub/a.jpg"),
        (PAGE, "//cdn.example", "http://cdn.example/a.jpg"),
        (PAGE, " https://CDN.example/i/\n", "https://cdn.example/i/a.jpg"),
        (PAGE, "http://[bad", "http://host.example/dir/a.jpg"),
        (PAGE, "javascript:void(0)", "http://host.example/dir/a.jpg"),
        (PAGE, "data:,x", "http://host.example/dir/a.jpg"),
        (PAGE, "x" * (MAX_REFERENCE + 1), "http://host.example/dir/a.jpg"),
        (PAGE, "file:///C:/site/", DropReason.SCHEME),
        ("", None, DropReason.BAD_URL),
        ("", "https://cdn.example/i/", "https://cdn.example/i/a.jpg"),
        ("http://[bad", None, DropReason.BAD_URL),
        ("dns:host.example", None, DropReason.BAD_URL),
    ],
)
def test_the_base_of_a_page(page: str, head: str | None, url: str) -> None:
    assert Base(page, head).resolve("a.jpg") == url


def slow(base: str, reference: str) -> str | None:
    """What resolve gives for clean references, the long way; None for no http URL."""
    try:
        parts = urlsplit(urljoin(base, reference))
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user + at + host.lower(), fragment=""))


schemes = ["http:", "https://", "http://h.example", "//n.example:80", ":8080"]
segments = ["//", "..", "./", "../", "B.jpg", "%20", "x y"]
pieces = st.sampled_from([*"/.a?#:;=&é@-~", *schemes, *segments])
references = st.lists(pieces, max_size=8).map("".join)
bases = st.builds(
    "{}{}".format,
    st.sampled_from(["http://h.example", "https://H.example:81", "http://[::1]", "http://u@h"]),
    st.builds("/{}".format, references) | st.just("") | st.just("?a=/b/c"),
)


@given(bases, references)
@example("http://h.example", "a.jpg")
@example("http://h.example/a/b/c", "../d")
@example("http://h.example/a/b/c", "../../../../d/e?f=../g")
@example("http://h.example/a/b/c", "../.././d")
@example("http://h.example", "../d")
@example("http://h.example//a//b", "c")
@example("http://h.example/a/../b/c", "d")
@example("http://h.example/a/", "//b")
@example("http://h.example/a/", "/b//c")
@example("http://h.example/a;b/c;d", "e")
@example("http://h.example/a/", "https://h.example//b")
def test_joining_by_hand_gives_what_urljoin_gives(base: str, reference: str) -> None:
    answer = Base(base).resolve(reference)
    expected = slow(base, reference)
    if isinstance(answer, DropReason):
        # what is stricter than urljoin: hosts and ports are checked
        assert expected is None or answer in (DropReason.NO_URL, DropReason.BAD_URL)
    else:
        assert expected is not None
        assert answer == expected.replace(" ", "%20")


@given(st.text(st.characters() | st.characters(categories=["Cs", "Cc"])), st.text())
def test_any_reference_gives_a_storable_url_or_a_reason(reference: str, page: str) -> None:
    for base in (Base("http://h.example/a/b"), Base(page, reference)):
        answer = base.resolve_file(reference, IMAGE.refused)
        if not isinstance(answer, DropReason):
            assert answer.encode().startswith((b"http://", b"https://"))
            assert not any(c <= " " for c in answer)
            assert "#" not in answer


# Resolution is RFC 3986's. The WHATWG URL standard, which browsers follow, gives the third form;
# a downloader sends what both mean, but for the first four a browser asks for another file.
@pytest.mark.parametrize(
    ("reference", "ours", "whatwg"),
    [
        ("\\a\\b.jpg", "http://host.example/dir/\\a\\b.jpg", "http://host.example/a/b.jpg"),
        ("%2e%2e/a.jpg", "http://host.example/dir/%2e%2e/a.jpg", "http://host.example/a.jpg"),
        ("http:///o.example/a.jpg", DropReason.BAD_URL, "http://o.example/a.jpg"),
        ("http://0x7f.1/a.jpg", "http://0x7f.1/a.jpg", "http://127.0.0.1/a.jpg"),
        ("http://o%2eexample/a.jpg", DropReason.BAD_URL, "http://o.example/a.jpg"),
        ("http://o.example/a/../b.jpg", "http://o.example/a/../b.jpg", "http://o.example/b.jpg"),
        ("Ä.jpg", "http://host.example/dir/Ä.jpg", "http://host.example/dir/%C3%84.jpg"),
        (
            'a"<b>.jpg',
            'http://host.example/dir/a"<b>.jpg',
            "http://host.example/dir/a%22%3Cb%3E.jpg",
        ),
        ("http://bücher.example/", "http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://o.example:80/", "http://o.example:80/", "http://o.example/"),
        ("http://o.example", "http://o.example", "http://o.example/"),
    ],
)
def test_where_rfc_3986_and_the_url_standard_differ(
    reference: str, ours: str | DropReason, whatwg: str
) -> None:
    assert Base(PAGE).resolve(reference) == ours != whatwg
