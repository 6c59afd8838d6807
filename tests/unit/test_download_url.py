"""URLs are asked for as browsers ask (the WHATWG URL standard), of the same host as its robots.txt."""

import pytest
import trio

from pairmill.workers.download.budget import Room
from pairmill.workers.download.fetcher import Answer
from pairmill.workers.download.hosts import host_of
from pairmill.workers.download.permission import Permission
from pairmill.workers.download.url import Target, header_reference, parse, redirected


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        # the host: UTS 46, non-transitional; IDNA 2003 asked another host
        ("http://straße.example/a.jpg", "http://xn--strae-oqa.example/a.jpg"),
        ("http://faß.de", "http://xn--fa-hia.de/"),
        ("http://βόλος.com/", "http://xn--nxasmm1c.com/"),
        ("http://Bücher.EXAMPLE/", "http://xn--bcher-kva.example/"),
        ("http://XN--BCHER-KVA.example/", "http://xn--bcher-kva.example/"),
        ("http://b%C3%BCcher.example/", "http://xn--bcher-kva.example/"),
        ("http://\U0001f4a9.la/", "http://xn--ls8h.la/"),  # IDNA 2008 has no emoji
        ("http://☃.net/", "http://xn--n3h.net/"),
        ("http://日本。jp/", "http://xn--wgv71a.jp/"),
        ("http://ＥＸＡＭＰＬＥ.com/", "http://example.com/"),
        ("http://a\u00adb.example/", "http://ab.example/"),
        ("http://r3---sn-4g5e6nzl.example/", "http://r3---sn-4g5e6nzl.example/"),
        ("http://-a-.example/", "http://-a-.example/"),
        ("http://a_b.example/", "http://a_b.example/"),
        ("http://example.com./x", "http://example.com./x"),
        ("http://a..b/", "http://a..b/"),
        ("http://%65xample.com/", "http://example.com/"),
        # addresses
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://0177.0.0.01/", "http://127.0.0.1/"),
        ("http://127.0.0.1./", "http://127.0.0.1/"),
        ("http://１２７.1/", "http://127.0.0.1/"),
        ("http://[0:0::1]/", "http://[::1]/"),
        ("http://[2001:DB8::0:1]:8080/", "http://[2001:db8::1]:8080/"),
        ("http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        # ports and users
        ("http://h:80/", "http://h/"),
        ("https://h:443/", "https://h/"),
        ("http://h:443/", "http://h:443/"),
        ("http://h:0000080/", "http://h/"),
        ("http://h:/", "http://h/"),
        ("http://h:0/", "http://h:0/"),
        ("http://u:p@h/", "http://h/"),
        ("http://u@evil.example@h/", "http://h/"),
        ("http://h\\@evil.example/", "http://h/@evil.example/"),
        # slashes and white space
        ("http:\\\\h\\x\\y", "http://h/x/y"),
        ("http:/h/x", "http://h/x"),
        ("http:h/x", "http://h/x"),
        ("http://///h//x", "http://h//x"),
        (" \x00http://h/x\t\n ", "http://h/x"),
        ("ht\ntp://h/a\tb\r", "http://h/ab"),
        ("HTTP://h", "http://h/"),
        # path and query
        ("http://h/a b/ü.jpg?q=ä&r=%20#frag", "http://h/a%20b/%C3%BC.jpg?q=%C3%A4&r=%20"),
        ("http://h/a/../b/%2e%2E/./c", "http://h/c"),
        ("http://h/%zz%41", "http://h/%zz%41"),
        ('http://h/"<>`{}^|[]', "http://h/%22%3C%3E%60%7B%7D%5E|[]"),
        ("http://h/'?'\"<>`{}^", "http://h/'?%27%22%3C%3E`{}^"),
        ("http://h?x=\\y", "http://h/?x=\\y"),
        ("http://h/?", "http://h/?"),
        ("http://h/a;b=1,2!(*)", "http://h/a;b=1,2!(*)"),
        ("http://h/\ud800\U0001f4a9", "http://h/%EF%BF%BD%F0%9F%92%A9"),
    ],
)  # fmt: skip
def test_a_url_is_asked_for_as_browsers_ask(url: str, asked: str) -> None:
    target = parse(url)
    assert target.url == asked
    assert parse(target.url) == target  # robots.txt is matched against this
    assert host_of(url) == target.authority
    assert asked.isascii()


@pytest.mark.parametrize(
    "url",
    ["", "x.jpg", "//h/x", "ftp://h/x", "file:///etc/passwd", "javascript:1", "data:,x", "http://",
     "http:///", "http://:80/", "http://u@/", "http://[::1", "http://[::1]x/", "http://[g::]/",
     "http://a b/", "http://a%20b/", "http://a%00b/", "http://a<b/", "http://a^b/", "http://a%2Fb/",
     "http://a%/", "http://h:65536/", "http://h:-1/", "http://h:8a/", "http://1.2.3.4.5/",
     "http://256.1.1.1/", "http://1.2.3.08/", "http://0x100000000/", "http://\u00ad/",
     "http://xn--a-\u00fc/", "http://a\ud800/", "http://h/" + "x" * 5000],
)  # fmt: skip
def test_what_browsers_refuse_is_refused(url: str) -> None:
    """A URL that was asked for although no browser does: of which host is anybody's guess."""
    with pytest.raises(ValueError):
        parse(url)
    assert host_of(url) == ""


@pytest.mark.parametrize(
    ("base", "reference", "asked"),
    [
        ("http://h/a/b?q#f", "c", "http://h/a/c"),
        ("http://h/a/b?q#f", "?x", "http://h/a/b?x"),
        ("http://h/a/b?q#f", "#x", "http://h/a/b?q"),
        ("http://h/a/b?q#f", "", "http://h/a/b?q"),
        ("http://h/a/b", "//b/x", "http://b/x"),
        ("http://h/a/b", "///b/x", "http://b/x"),
        ("http://h/a/b", "\\\\b\\x", "http://b/x"),
        ("http://h/a/b", "\\x", "http://h/x"),
        ("http://h/a/b", "http:x", "http://h/a/x"),
        ("http://h/a/b", "http:/x", "http://h/x"),
        ("https://h/a/b", "http:x", "http://x/"),
        ("https://h/a/b", "http:///x/y", "http://x/y"),
        ("http://u:p@h/a", "/x", "http://h/x"),
        ("http://h/a", "中/é", "http://h/%E4%B8%AD/%C3%A9"),
        ("http://h/a/b", "../../../x", "http://h/x"),
        ("http://h/a", "x:y", None),
        ("http://h/a", "mailto:a@b", None),
        ("http://h/a", "//", None),
        ("http://h/a", "http://[", None),
    ],
)
def test_references_are_resolved_as_browsers_resolve_them(
    base: str, reference: str, asked: str | None
) -> None:
    if asked is None:
        with pytest.raises(ValueError):
            redirected(base, reference)
    else:
        assert redirected(base, reference) == asked


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (b"/caf\xc3\xa9.jpg", "/caf%C3%A9.jpg"),
        (b"/caf\xe9.jpg", "/caf%E9.jpg"),
        (b"/%C3%A9\xc3\xa9", "/%C3%A9%C3%A9"),
        (b"/\xf0\x9f\x92\xa9?\xff", "/%F0%9F%92%A9?%FF"),
        (b"/%", "/%"),
    ],
)
def test_raw_bytes_of_a_location_come_back_as_they_were(value: bytes, path: str) -> None:
    """UTF-8 was taken for Latin-1, and encoded once more."""
    assert parse(redirected("http://h/", header_reference(value.decode("latin-1")))).path == path


@pytest.mark.parametrize(
    "url", ["http://straße.example/a.jpg", "http:\\\\h:080\\a.jpg", "https://u:p@H:443//a/../b.jpg"]
)
def test_robots_txt_is_asked_for_where_the_image_is(url: str) -> None:
    """Another host's robots.txt was read where IDNA 2003 and a browser differ."""
    asked: list[Target] = []

    class Recording:
        async def get(self, target: Target, room: Room, *, at_most: int | None = None) -> Answer:
            asked.append(target)
            return Answer(404, ())

        async def close(self) -> None:
            pass

    trio.run(Permission(Recording()), url)
    image, (robots, *_) = parse(url), asked
    assert (robots.scheme, robots.authority) == (image.scheme, image.authority)
    assert robots.path == "/robots.txt"
