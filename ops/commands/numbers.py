"""Numbers of rows as a person writes them: 7, and 3-9 for all from 3 to 9."""

import re
from collections.abc import Iterable

from pairmill.ops.errors import UserError

LARGEST = 2**62
MOST = 1_000_000  # numbers of one range


def numbers(given: Iterable[str], what: str) -> list[int]:
    """The numbers, each once, in the order given. Raises UserError, which names ``what``."""
    found: dict[int, None] = {}
    for one in given:
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", one)
        if not match:
            raise UserError(f"{one!r} is no number of {what}, and no range like 3-9")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= MOST:
            raise UserError(f"{one!r} is no range of {what}: the first number comes first, and "
                            f"there are {MOST:,} at most")  # fmt: skip
        found.update(dict.fromkeys(range(first, last + 1)))
    return list(found)
