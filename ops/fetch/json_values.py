"""The rows of a JSON file, one after another, read in pieces."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from pairmill.ops.errors import UserError

CHUNK = 1 << 20  # characters
ROW = 8 << 20  # characters of a row
COLUMNS = 256 << 20  # characters of an object of columns, which cannot be read in pieces
SPACE = re.compile(r"[ \t\r\n\ufeff]*")
# NaN and infinities, which Python's json writes and JSON does not know, are null
DECODER = json.JSONDecoder(parse_constant=lambda _: None)
Item = tuple[int, Any, int]  # number of its line, value, characters


def json_values(name: str, stream: TextIO, kind: str) -> Iterator[Item]:
    """The rows of a file: of JSON lines, of an array, of values that stand one behind the other, or
    of one object of columns, each a list or, as pandas writes it, an object by label.

    A line that is no JSON is a row of None. kind: json or jsonl. Raises UserError for what is no
    JSON in a file without lines, and for one that is cut.
    """
    values = _Values(name, stream)
    first = values.space()
    if first == "[":
        yield from _array(values)
    elif kind == "jsonl":
        yield from _lines(values)
    elif first:
        yield from _objects(values)


def _lines(values: "_Values") -> Iterator[Item]:
    for number, line in values.lines():
        try:
            value = DECODER.decode(line.strip(" \t\r\n\ufeff"))
        except (ValueError, RecursionError):  # ValueError also for a number of 5,000 digits
            value = None
        yield number, value, len(line)


def _array(values: "_Values") -> Iterator[Item]:
    values.skip()
    mark = values.space()
    while mark != "]":
        yield values.value(ROW)
        mark = values.space()
        if mark not in (",", "]"):
            raise values.error("an array is cut" if not mark else f"{mark!r} follows a value")
        if mark == ",":
            values.skip()
            values.space()
    values.skip()
    if mark := values.space():
        raise values.error(f"{mark!r} follows the array")


def _objects(values: "_Values") -> Iterator[Item]:
    first = values.value(COLUMNS)
    if values.space():
        yield first
        while values.space():
            yield values.value(ROW)
        return
    number, value, size = first
    columns = list(value.values()) if isinstance(value, dict) else []
    if columns and all(isinstance(column, dict) for column in columns):
        labels = list(dict.fromkeys(label for column in columns for label in column))
        rows = [{name: column.get(label) for name, column in value.items()} for label in labels]
    elif columns and all(isinstance(column, list) for column in columns):
        if len({len(column) for column in columns}) > 1:
            raise values.error("its columns have different lengths")
        rows = [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    elif value == {}:
        return
    else:
        yield first
        return
    for row in rows:
        yield number, row, size // len(rows)


class _Values:
    """JSON values of a stream."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self._name, self._stream = name, stream
        self._buffer, self._at = "", 0
        self._line, self._counted = 1, 0  # the number of the line at a place in the buffer

    def space(self) -> str:
        """Skip white space; returns the next character, or nothing at the end."""
        while True:
            self._at = SPACE.match(self._buffer, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def skip(self) -> None:
        """Pass over a character."""
        self._at += 1

    def value(self, limit: int) -> Item:
        """The value that begins here, of so many characters at most."""
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                said = str(error).partition(": line")[0]
                if len(self._buffer) - self._at > limit:
                    raise self.error(f"no value of {limit >> 20} MB or less: {said}") from None
                if not self._more():
                    raise self.error(said) from None
                continue
            # a number may go on
            if end == len(self._buffer) and self._buffer[end - 1] not in '}]"' and self._more():
                continue
            item = self._number(), value, end - self._at
            self._at = end
            return item

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines from here on that are not empty, each of ROW characters at most."""
        number = self._number()
        rest = self._buffer[self._at :]
        while True:
            start = 0
            while (end := rest.find("\n", start)) >= 0:
                if rest[start:end].strip():
                    yield number, rest[start:end]
                start, number = end + 1, number + 1
            more = self._stream.read(CHUNK)
            rest = rest[start:] + more
            if not more:
                break
            if len(rest) > ROW + CHUNK:
                raise UserError(f"cannot read {self._name}: line {number} is longer than 8 MB")
        if rest.strip():
            yield number, rest

    def error(self, what: str) -> UserError:
        return UserError(f"cannot read {self._name}: line {self._number()}: {what}")

    def _more(self) -> bool:
        """Read on, twice as much each time that a value is not whole."""
        self._number()
        rest = self._buffer[self._at :]
        more = self._stream.read(max(CHUNK, len(rest)))
        self._buffer, self._at, self._counted = rest + more, 0, 0
        return bool(more)

    def _number(self) -> int:
        self._line += self._buffer.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
