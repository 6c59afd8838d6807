"""Header fields that every client here sends or reads alike."""

import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime

from pairmill import __version__

LONGEST_SECONDS = 86_400.0  # of a Retry-After; beyond a day it is no plan but a refusal


def user_agent(contact: str = "") -> str:
    """The User-Agent: product, version and a contact, as crawlers give it (``+`` before it).

    contact: a URL or address; white space is made one space and other than ASCII a question mark,
    since the value of a header is one line of ASCII.
    """
    contact = " ".join(contact.split()).encode("ascii", "replace").decode()
    return f"pairmill/{__version__}" + (f" (+{contact})" if contact else "")


def retry_after(value: str | None) -> float | None:
    """Seconds from now, 0 to ``LONGEST_SECONDS``, of a Retry-After: delay-seconds or an HTTP-date
    (RFC 9110, 10.2.3). None where the field is absent or neither, as is a year of six digits."""
    value = (value or "").strip()
    if re.fullmatch("[0-9]+", value):  # 9 digits: int() refuses 5,000 of them
        return min(float(value.lstrip("0")[:9] or 0), LONGEST_SECONDS)
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:  # asctime's format names no zone, and HTTP's dates are UTC
            when = when.replace(tzinfo=UTC)
        return min(max(0.0, when.timestamp() - time.time()), LONGEST_SECONDS)
    except (ValueError, OverflowError):
        return None
