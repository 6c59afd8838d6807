"""What a line of a removal list names: no spelling of a URL or host may slip through."""

import hashlib
from pathlib import Path

import pytest

from pairmill.ops.admin.removal_entries import parse, read_entries
from pairmill.ops.errors import UserError


def test_a_plain_url_has_one_spelling() -> None:
    found = parse("http://a.example/x.jpg#top")
    assert (found.kind, found.source, found.spellings) == ("url", "http://a.example/x.jpg", ())
    assert found.md5 and found.md5.bytes == hashlib.md5(b"http://a.example/x.jpg").digest()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (" HTTP://A.Example/x y.jpg#f ", "http://a.example/x%20y.jpg"),
        ("http://a.example:80/x.jpg", "http://a.example/x.jpg"),
        ("https://a.example:443/x.jpg", "https://a.example/x.jpg"),
        ("http://a.example", "http://a.example/"),
        ("http://a.example/a/../b/./c.jpg", "http://a.example/b/c.jpg"),
        ("http://bücher.example/x.jpg", "http://xn--bcher-kva.example/x.jpg"),
        ("http://xn--bcher-kva.example/x.jpg", "http://bücher.example/x.jpg"),
        ("http://BÜCHER.example/x.jpg", "http://xn--bcher-kva.example/x.jpg"),
        ("http://a.example/é.jpg", "http://a.example/%C3%A9.jpg"),
        ("http://a.example/é.jpg", "http://a.example/%c3%a9.jpg"),  # as WordPress writes it
        ("http://a.example/%C3%A9.jpg", "http://a.example/é.jpg"),
        ("http://a.example/%c3%a9.jpg?q=%FF", "http://a.example/%C3%A9.jpg?q=%FF"),
        ("http://[2001:db8::1]:80/x.jpg", "http://[2001:db8::1]/x.jpg"),
        ("BÜCHER.example.", "xn--bcher-kva.example"),
        ("*.xn--bcher-kva.example", "*.bücher.example"),
        ("straße.example", "xn--strae-oqa.example"),
    ],
)
def test_spellings_of_one_address_are_one_removal(given: str, meant: str) -> None:
    found = parse(given)
    all_of_them = {found.source: found, **{s.source: s for s in found.spellings}}
    assert meant in all_of_them
    assert {e.subdomains for e in all_of_them.values()} == {given.startswith("*.")}
    assert len({e.md5 or e.host for e in all_of_them.values()}) == len(all_of_them)


@pytest.mark.parametrize(
    "given",
    [
        "nonsense", "ftp://a/", "http://", "http:///x", "http://\ud800.example/", "", "-", "*", "*.org",
        "*.*.a.example", "*.192.0.2.1", "a..example", ".example.org", "2001:db8::1", "javascript:alert(1)",
        # a slip, and not a host to remove
        "list.txt", "photo.jpg", "a.example/x.jpg", "a.example:8080", "me@a.example",
        "http://a.example/" + "x" * 2048,
    ],
)  # fmt: skip
def test_what_names_nothing_is_refused(given: str) -> None:
    with pytest.raises(UserError):
        parse(given)


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]", "a_b.example", "日本.jp"])
def test_hosts_of_every_form(host: str) -> None:
    assert (parse(host).kind, parse(host).host) == ("host", host)


def test_a_list_names_the_line_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_bytes(b"\xef\xbb\xbf# of a colleague\r\n\r\nhttp://a.example/x.jpg\r\nno\r\n")
    with pytest.raises(UserError, match=r"line 4: 'no' is no http\(s\) URL.*nothing was changed"):
        read_entries(path)
    path.write_bytes(path.read_bytes().replace(b"no\r\n", b"*.b.example"))
    assert read_entries(path) == ["http://a.example/x.jpg", "*.b.example"]
