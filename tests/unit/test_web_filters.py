"""How pages write numbers, moments, links and texts of outside."""

from datetime import UTC, datetime, timedelta

import pytest

from pairmill.ops.web.render import ago, duration, environment, link, number, percent, size


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (number(1_234_567), "1,234,567"),
        (number(0.5), "0.5"),
        (number(None), "–"),
        (percent(0.1234), "12.3 %"),
        (percent(None), "–"),
        (size(0), "0 B"),
        (size(1_500), "1.5 kB"),
        (size(999_999), "1 MB"),
        (size(5e18), "5,000 PB"),
        (duration(45), "45 s"),
        (duration(120), "2 min"),
        (duration(7_200), "2 h"),
        (duration(259_200), "3 d"),
        (duration(None), "–"),
        (ago(None), "–"),
    ],
)
def test_numbers_have_units(made: str, text: str) -> None:
    assert made == text


def test_a_moment_says_how_long_ago_and_when() -> None:
    now = datetime.now(UTC)
    past = ago(now - timedelta(hours=3))
    assert ">3 h ago</time>" in past
    assert f'datetime="{(now - timedelta(hours=3)).isoformat(timespec="seconds")}"' in past
    assert ">in 3 h</time>" in ago(now + timedelta(hours=3, seconds=9))
    assert "UTC" in ago(datetime(2026, 1, 1))


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://a.example/x",
        "//a.example/x",
        "/x",
        "http:",
        "http://",
        "http://[",
        "http://a.example/\u202egpj.exe",
        "http://a.example/\nx",
        "",
    ],
)
def test_what_is_no_web_address_is_no_link(url: str) -> None:
    """Would catch: a URL of a crawl that runs a script when it is clicked."""
    made = link(url)
    assert "<a" not in made
    assert "<script" not in made
    assert "\u202e" not in made


def test_a_link_takes_nothing_along_and_stays_in_its_attribute() -> None:
    made = link('https://a.example/"><img src=x>?a=1&b=2', "<b>\u202e")
    assert made == (
        '<a href="https://a.example/&#34;&gt;&lt;img src=x&gt;?a=1&amp;b=2"'
        ' rel="noreferrer nofollow noopener">&lt;b&gt;\\u202e</a>'
    )


def test_a_name_that_is_missing_is_an_error() -> None:
    """Would catch: a template that shows nothing where a value was renamed."""
    with pytest.raises(Exception, match="undefined"):
        environment().from_string("{{ no.such }}").render()
    assert environment().from_string("{{ x|text }}").render(x="<\u202e>") == "&lt;\\u202e&gt;"
