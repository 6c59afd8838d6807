"""Fetches on a visitor's behalf: attacks on the network that the page stands in."""

import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.web.outside import check_outside, fetch_image
from support.misbehaving import misbehaving, saying

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(autouse=True)
def public_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALLOW_NETWORKS", "ALLOW_PORTS", "CONNECT_TO", "PROXY", "BACKEND"):
        monkeypatch.delenv(f"PAIRMILL_{name}", raising=False)
    monkeypatch.setenv("PAIRMILL_CONTACT", "https://example.org/crawler")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1/", "public address"),
        ("http://2130706433/", "public address"),
        ("http://0x7f.1/", "public address"),
        ("http://0/", "public address"),
        ("http://[::1]/", "public address"),
        ("http://[::ffff:127.0.0.1]/", "public address"),
        ("http://[64:ff9b::7f00:1]/", "public address"),
        ("http://169.254.169.254/latest/meta-data/", "public address"),
        ("http://localhost/", "public address"),
        ("http://user@127.0.0.1#@example.org/", "public address"),
        ("http://127.0.0.1:5432/", "port"),
        ("file:///etc/passwd", "no http"),
        ("gopher://127.0.0.1:70/", "no http"),
        ("data:image/png;base64,AA==", "no http"),
        ("//127.0.0.1/", "no http"),
        ("http://", "no http"),
        ("http://a\r\nHost: b/", "public address|does not exist|no http"),
    ],
)
def test_no_way_into_the_network(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fetch_image(url, seconds=5)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (b"http://169.254.169.254/latest/", "public address"),
        (b"http://[fd00::1]/", "public address"),
        (b"http://10.0.0.1/", "public address"),
        (b"file:///etc/passwd", "redirects to what is no"),
    ],
)
def test_a_redirect_is_checked_as_the_first(
    monkeypatch: pytest.MonkeyPatch, location: bytes, words: str
) -> None:
    """The host of the URL is allowed; the one that it leads to is not."""
    monkeypatch.setenv("PAIRMILL_ALLOW_NETWORKS", "127.0.0.1/32")
    moved = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    with (
        misbehaving(saying(moved)) as port,
        pytest.raises(UserError, match=words),
    ):
        fetch_image(f"http://127.0.0.1:{port}/x.jpg", seconds=5)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 9000, "more bytes"),
        (b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\nContent-Length: 5\r\n\r\nhello", "not to be"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"", "could not be fetched"),
    ],
)
def test_what_is_not_had_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str
) -> None:
    monkeypatch.setenv("PAIRMILL_ALLOW_NETWORKS", "127.0.0.1/32")
    with misbehaving(saying(answer)) as port, pytest.raises(UserError, match=words):
        fetch_image(f"http://127.0.0.1:{port}/x.jpg", limit_bytes=8000, seconds=5)


def test_an_allowed_host_gives_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every test above would pass with a fetch that never works."""
    monkeypatch.setenv("PAIRMILL_ALLOW_NETWORKS", "127.0.0.1/32")
    with misbehaving(saying(OK)) as port:
        assert fetch_image(f"http://127.0.0.1:{port}/x.jpg", seconds=5) == b"hello"


def test_without_a_contact_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAIRMILL_CONTACT")
    with pytest.raises(UserError, match="PAIRMILL_CONTACT"):
        check_outside()
