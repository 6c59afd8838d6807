"""Retry-After and the User-Agent, as every client here reads and sends them."""

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill import __version__
from pairmill.workers.http.headers import LONGEST_SECONDS, retry_after, user_agent


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("0000000000005", 5.0),
        ("9" * 5000, LONGEST_SECONDS),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_SECONDS),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thursday, 01-Jan-70 00:00:00 GMT", 0.0),
        ("Thu Jan  1 00:00:00 1970", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


@pytest.mark.parametrize(
    "form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y"]
)
def test_dates_are_utc_in_each_of_their_three_formats(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        found = retry_after(time.strftime(form, time.gmtime(time.time() + 600)))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found is not None
    assert 590 < found <= 600


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-1",
        "1.5",
        "\u0665",  # a digit, and not of ASCII
        "Fri, 31 Dec 999999 23:59:59 GMT",
        "Fri, 31 Dec 99999999999999999999999999 23:59:59 GMT",
        "Fri, 31 Dec 2020 23:59:59 +99999999999999",
    ],
)
def test_a_retry_after_that_is_neither_is_none(value: str | None) -> None:
    assert retry_after(value) is None


@given(
    st.text(max_size=60)
    | st.builds(email.utils.formatdate, st.integers(-(2**34), 2**34), usegmt=st.just(True))
    | st.from_regex(r"Fri, [0-9]{1,3} Dec [0-9]{1,30} [0-9]{1,9}:[0-9]{1,3}:[0-9]{1,20} [-+][0-9]+")
)
def test_whatever_a_server_sends_is_a_bounded_wait_or_none(value: str) -> None:
    seconds = retry_after(value)
    assert seconds is None or 0 <= seconds <= LONGEST_SECONDS


def test_the_user_agent_is_one_line_of_ascii() -> None:
    assert user_agent() == f"pairmill/{__version__}"
    assert user_agent(" a@b.example\r\nX-Evil: 1, Zoë ") == (
        f"pairmill/{__version__} (+a@b.example X-Evil: 1, Zo?)"
    )
