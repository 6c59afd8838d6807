"""What is not as it should be in a source's rows, said on standard error."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pairmill.workers.safe_text import say

NOT_CHARACTERS = "U+FFFD stands for what is no character"


@dataclass
class _Seen:
    count: int = 0
    last: int = -1


class Remarks:
    """Of each kind and file the first is said at once, and at the end how many more there are.

    A row that cannot be read keeps its place, without a URL; so no row is lost in silence.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], _Seen] = {}

    def add(self, name: str, number: int, what: str, then: str) -> None:
        """name: of the file. number: of the line, ascending; a line that was read before counts
        once. then: what becomes of it, one of few."""
        seen = self._seen.setdefault((name, then), _Seen())
        if number <= seen.last:
            return
        if not seen.count:
            say(f"{name}: line {number} {what}: {then}", err=True)
        seen.count, seen.last = seen.count + 1, number

    def end(self) -> None:
        """Say the numbers, once."""
        for (name, then), seen in self._seen.items():
            if seen.count > 1:
                say(f"{name}: {seen.count:,} lines in all: {then}", err=True)
            seen.count = min(seen.count, 1)

    def array(
        self, name: str, numbers: list[int], values: list[Any], kind: pa.DataType | None = None
    ) -> pa.Array:
        """An array; see ``clean``. numbers: of the values' lines."""
        try:
            return pa.array(values, kind)
        except UnicodeEncodeError:
            pairs = zip(numbers, values, strict=True)
            return pa.array([self._clean(name, *pair) for pair in pairs], kind)

    def _clean(self, name: str, number: int, value: Any) -> Any:
        cleaned = clean(value)
        if cleaned != value:
            self.add(name, number, "is not all text", NOT_CHARACTERS)
        return cleaned


def clean(value: Any) -> Any:
    """A value with U+FFFD for each lone surrogate: an octet that is not UTF-8, or of a JSON
    escape."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [clean(inner) for inner in value]
    if isinstance(value, dict):
        return {clean(name): clean(inner) for name, inner in value.items()}
    return value
