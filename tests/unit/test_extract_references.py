import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.workers.extract.references import complete_only, in_attribute, in_text


@pytest.mark.parametrize(
    ("written", "attribute", "url", "text"),
    [
        ("Rules&regulations", "Rules&regulations", "Rules&regulations", "Rules®ulations"),
        ("?a=1&copy=2", "?a=1&copy=2", "?a=1&copy=2", "?a=1©=2"),
        ("?a=1&amp;b=2", "?a=1&b=2", "?a=1&b=2", "?a=1&b=2"),
        ("&amp", "&", "&amp", "&"),
        ("&lt ", "< ", "&lt ", "< "),
        ("&lt1", "&lt1", "&lt1", "<1"),
        ("&lté", "<é", "&lté", "<é"),  # only ASCII letters keep a name open
        ("&notit;", "&notit;", "&notit;", "¬it;"),
        ("&notin;", "∉", "∉", "∉"),
        ("&ampx;", "&ampx;", "&ampx;", "&x;"),
        ("&amp;lt;", "&lt;", "&lt;", "&lt;"),  # once
        ("&AMP;&Amp;", "&&Amp;", "&&Amp;", "&&Amp;"),
        ("&#38;&#x26;&#X26;", "&&&", "&&&", "&&&"),
        ("&#38b=1", "&b=1", "&#38b=1", "&b=1"),  # a number needs no ;
        ("&#x2F;&#47", "//", "/&#47", "//"),
        ("&#x80;&#150;&#129;", "€–\x81", "€–\x81", "€–\x81"),  # windows-1252, but for five
        ("&#0;&#xD800;&#x110000;", "\ufffd\ufffd\ufffd", "\ufffd\ufffd\ufffd", "\ufffd\ufffd\ufffd"),
        ("&#1;&#xFFFF;", "\x01\uffff", "\x01\uffff", "\x01\uffff"),
        ("&#;&#x;&;&", "&#;&#x;&;&", "&#;&#x;&;&", "&#;&#x;&;&"),
        ("&#٣;", "&#٣;", "&#٣;", "&#٣;"),  # only ASCII digits
        ("&frac12", "½", "&frac12", "½"),
        ("&NotEqualTilde;", "≂̸", "≂̸", "≂̸"),
        ("&CounterClockwiseContourIntegral;", "∳", "∳", "∳"),
        ("&" + "a" * 99, "&" + "a" * 99, "&" + "a" * 99, "&" + "a" * 99),
        ("&amp" + "a" * 99, "&amp" + "a" * 99, "&amp" + "a" * 99, "&" + "a" * 99),
    ],
)  # fmt: skip
def test_a_reference_is_decoded_by_where_it_stands(
    written: str, attribute: str, url: str, text: str
) -> None:
    """The rules of text in attributes: ``Rules&regulations`` became ``Rules®ulations``."""
    assert in_attribute(written) == attribute
    assert complete_only(written) == url
    assert in_text(written) == text


@pytest.mark.parametrize("digits", ["9" * 5_000, "0" * 5_000 + "38", "f" * 5_000])
def test_a_long_number_raises_nothing(digits: str) -> None:
    """int() refuses more than 4,300 digits, and html.unescape with it."""
    for prefix in ("&#", "&#x"):
        for decode in (in_attribute, complete_only, in_text):
            assert len(decode(f"{prefix}{digits};")) in (1, len(prefix) + len(digits) + 1)
    assert in_attribute("&#" + "0" * 5_000 + "38;") == "&"


names = st.sampled_from(
    ["amp", "AMP", "lt", "copy", "not", "notin", "acute", "x", "frac12", "#38", "#x26"]
)
pieces = st.lists(st.one_of(names.map("&{}".format), st.sampled_from(list("; =&#xa1é")))).map(
    "".join
)


@given(pieces)
def test_text_is_decoded_as_the_standard_library_does(written: str) -> None:
    assert in_text(written) == html.unescape(written)


@given(st.lists(names.map("&{};".format) | st.sampled_from(list("; =#xa1é")), max_size=8))
def test_what_is_complete_is_the_same_in_urls_and_attributes(written: list[str]) -> None:
    assert complete_only("".join(written)) == in_attribute("".join(written))
