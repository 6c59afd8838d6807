"""JSON as a source: an array of objects, an object of columns as pandas has it, or JSON lines."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.fetch.json_values import Item, json_values
from pairmill.ops.fetch.remarks import Remarks, clean
from pairmill.ops.fetch.source_columns import UnitedFiles, united_type
from pairmill.ops.fetch.source_files import SourceFile, reading, text

READ_ROWS = 10_000
READ_CHARACTERS = 16 << 20  # of a table, about
EXACT = 1 << 53  # up to it every whole number is a float64 too
NO_ROW = "is no JSON object"
ALL_NULL = "its row is all null, without a URL"


@dataclass(frozen=True)
class _Column:
    """A column as far as it was read. kind: None for text. large: it has whole numbers that are no
    float64."""

    kind: pa.DataType | None
    large: bool = False

    @classmethod
    def of(cls, values: list[Any]) -> "_Column":
        try:
            array = pa.array(values)
        except UnicodeEncodeError:
            array = pa.array(clean(values))
        except (pa.ArrowException, OverflowError):
            return cls(None)
        if not pa.types.is_integer(array.type):
            return cls(array.type)
        ends = pc.min_max(array).as_py().values()
        return cls(array.type, any(abs(end or 0) > EXACT for end in ends))

    def __or__(self, other: "_Column") -> "_Column":
        if self.kind is None or other.kind is None:
            return _Column(None)
        return _Column(united_type(self.kind, other.kind), self.large or other.large)

    @property
    def type(self) -> pa.DataType:
        """The type in the end; of a column without values, text."""
        if self.kind is None or pa.types.is_null(self.kind) or not _writable(self.kind):
            return pa.string()
        return pa.string() if self.large and pa.types.is_floating(self.kind) else self.kind


NOTHING = _Column(pa.null())


def _writable(kind: pa.DataType) -> bool:
    """Parquet has no struct without fields."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False
    return all(_writable(kind.field(i).type) for i in range(kind.num_fields))


class JsonSource(UnitedFiles):
    """Files of JSON, one after another. They are read twice, the first time for the columns and
    their types: a column of numbers and texts is one of text, with what is no text as JSON.
    kind: json or jsonl."""

    def __init__(self, name: str, files: list[SourceFile], kind: str) -> None:
        self._kind = kind
        self.remarks = Remarks()
        self._rows = 0
        found = [self._infer(file) for file in files]
        super().__init__(name, files, [[clean(key) for key in columns] for columns in found])
        self._own = [list(columns) for columns in found]  # as they stand in the file
        united = [NOTHING] * len(self.names)
        for columns, places in zip(found, self.places, strict=True):
            for at, column in zip(places, columns.values(), strict=True):
                united[at] |= column
        self._types = [column.type for column in united]

    def rows(self) -> int:
        return self._rows

    def read(self, start: int) -> Iterator[pa.Table]:
        for file, names, places in zip(self.files, self._own, self.places, strict=True):
            keys = dict(zip(places, names, strict=True))
            with reading(file):
                for items in self._pieces(file):
                    skipped = min(start, len(items))
                    start -= skipped
                    if skipped < len(items):
                        yield self._table(file, keys, items[skipped:])
        self.remarks.end()

    def _infer(self, file: SourceFile) -> dict[str, _Column]:
        """The columns of a file; its rows are counted."""
        columns: dict[str, _Column] = {}
        with reading(file):
            for items in self._pieces(file):
                self._rows += len(items)
                rows = [row for _, row, _ in items]
                for name in dict.fromkeys(name for row in rows for name in row):
                    column = _Column.of([row.get(name) for row in rows])
                    columns[name] = columns.get(name, NOTHING) | column
        return columns

    def _pieces(self, file: SourceFile) -> Iterator[list[Item]]:
        some: list[Item] = []
        characters = 0
        with text(file) as stream:
            for number, value, size in json_values(file.name, stream, self._kind):
                if not isinstance(value, dict):
                    self.remarks.add(file.name, number, NO_ROW, ALL_NULL)
                    value = {}
                some.append((number, value, size))
                characters += size
                if len(some) == READ_ROWS or characters > READ_CHARACTERS:
                    yield some
                    some, characters = [], 0
        if some:
            yield some

    def _table(self, file: SourceFile, keys: dict[int, str], items: list[Item]) -> pa.Table:
        """keys: of the columns that the file has, by their places."""
        numbers = [number for number, _, _ in items]
        columns = []
        for at, kind in enumerate(self._types):
            key = keys.get(at)
            values = [None if key is None else row.get(key) for _, row, _ in items]
            if pa.types.is_string(kind):
                values = [v if v is None or isinstance(v, str) else _as_text(v) for v in values]
            columns.append(self.remarks.array(file.name, numbers, values, kind))
        return pa.table(columns, self.names)


def _as_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
