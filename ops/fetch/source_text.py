"""CSV, TSV and lists of lines as sources.

TSV has no quoting: text/tab-separated-values (IANA) knows none. CSV has RFC 4180's, and rows whose
quotes do not hold are read as if there were none: a quote that never closes is one row's fault, and
must not swallow those after it.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TextIO

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.remarks import Remarks, clean
from pairmill.ops.fetch.source_columns import UnitedFiles
from pairmill.ops.fetch.source_files import SourceFile, reading, text

READ_ROWS = 10_000
READ_CHARACTERS = 16 << 20  # of a table, about
LINE = 8 << 20  # characters of a line
RECORD = 1 << 20  # characters of a row of several lines
FIRST = 100  # rows by which a file is told to be what its name says
ALL_NULL = "its row is all null, without a URL"
HIDDEN = "\ud800"  # for a CR: a surrogate that no decoder gives
SCHEMES = ("http://", "https://")
Record = tuple[int, list[str]]  # number of its first line, fields


class TextSource(UnitedFiles):
    """Files of lines, one after another; every column is text. kind: csv or tsv, with a header in
    each file, or txt, of a URL a line."""

    def __init__(self, name: str, files: list[SourceFile], kind: str) -> None:
        self._kind = kind
        self.remarks = Remarks()
        headers = [self._header(file) for file in files]
        if not any(headers):
            raise UserError(f"cannot read {files[0].name}: it is empty, without a header")
        super().__init__(name, files, headers)

    def rows(self) -> None:
        return None

    def read(self, start: int) -> Iterator[pa.Table]:
        for file, places in zip(self.files, self.places, strict=True):
            with reading(file), self._records(file) as records:
                if self._kind != "txt":
                    next(records, None)  # the header
                for some in _pieces(records):
                    skipped = min(start, len(some))
                    start -= skipped
                    if skipped < len(some):
                        yield self._table(file, places, some[skipped:])
        self.remarks.end()

    def _header(self, file: SourceFile) -> list[str]:
        """The names of the columns; of an empty file none, as Spark writes some beside others.
        Raises UserError where most of the first rows have another number of columns: then it is no
        odd row, but the file is not what its name says."""
        with reading(file), self._records(file) as records:
            names = ["url"] if self._kind == "txt" else next(records, (0, []))[1]
            first = list(islice(records, FIRST))
        several = len(names) > 1  # the commas of a column alone are its own
        misfits = [record for record in first if several and not _fits(record[1], len(names))]
        if 2 * len(misfits) > len(first):
            number, fields = misfits[0]
            said = _misfit(fields, len(names))
            raise UserError(f"cannot read {file.name}: line {number} {said}; so have most others")
        return [clean(name) or f"column_{number}" for number, name in enumerate(names, 1)]

    @contextmanager
    def _records(self, file: SourceFile) -> Iterator[Iterator[Record]]:
        """The rows of a file, its header before them."""
        with text(file, any_newline=self._kind == "txt") as lines:
            numbered = _numbered(file, lines)
            if self._kind == "txt":
                stripped = ((n, line.strip().lstrip("\ufeff")) for n, line in numbered)
                yield ((n, [line]) for n, line in stripped if line)
                return
            records: Iterator[Record]
            if self._kind == "tsv":
                ended = ((n, line.rstrip("\r\n")) for n, line in numbered)
                records = ((n, line.split("\t")) for n, line in ended if line)
            else:
                records = CsvRecords(file.name, numbered, self.remarks)
            yield records

    def _table(self, file: SourceFile, places: list[int], records: list[Record]) -> pa.Table:
        numbers = [number for number, _ in records]
        rows = [self._row(file.name, number, fields, len(places)) for number, fields in records]
        columns = list(zip(*rows, strict=True))
        array = partial(self.remarks.array, file.name, numbers, kind=pa.string())
        of_file = {at: array(list(columns[i])) for i, at in enumerate(places)}
        absent = pa.nulls(len(records), pa.string())
        return pa.table([of_file.get(at, absent) for at in range(len(self.names))], self.names)

    def _row(self, name: str, number: int, fields: list[str], count: int) -> Sequence[str | None]:
        """As many fields as the header has."""
        if _fits(fields, count):
            return fields[:count]
        if len(fields) < count:
            self.remarks.add(name, number, _misfit(fields, count), "the others are null")
            return [*fields, *[None] * (count - len(fields))]
        if count == 1:
            return [",".join(fields)]
        # which of its commas belongs to a caption is anybody's guess
        self.remarks.add(name, number, _misfit(fields, count), ALL_NULL)
        return [None] * count


def _fits(fields: list[str], count: int) -> bool:
    """Further columns may be empty."""
    return len(fields) == count or (len(fields) > count and not any(fields[count:]))


def _misfit(fields: list[str], count: int) -> str:
    return f"has {len(fields)} column{'s' if len(fields) > 1 else ''}, and the header {count}"


def _pieces(records: Iterable[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    characters = 0
    for record in records:
        some.append(record)
        characters += sum(map(len, record[1]))
        if len(some) == READ_ROWS or characters > READ_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some


def _numbered(file: SourceFile, lines: TextIO) -> Iterator[tuple[int, str]]:
    number = 0
    while line := lines.readline(LINE):
        number += 1
        if len(line) == LINE and line[-1] not in "\r\n":
            raise UserError(f"cannot read {file.name}: line {number} is longer than 8 MB")
        yield number, line


def _hidden(line: str) -> str:
    """A line without the CRs that do not end it, which csv takes for the end of a row."""
    text = line.rstrip("\r\n")
    return text.replace("\r", HIDDEN) + line[len(text) :] if "\r" in text else line


def _shown(fields: list[str]) -> list[str]:
    return [field.replace(HIDDEN, "\r") if HIDDEN in field else field for field in fields]


class CsvRecords:
    """The rows of a CSV file. Every line is in one row, or one of a quoted field's.

    Where a quote does not hold (text follows the one that should close it, none closes it within
    RECORD characters, or lines within the quotes look like rows), the row's first line is a row
    without quoting, and the next line begins another.
    """

    def __init__(self, name: str, lines: Iterator[tuple[int, str]], remarks: Remarks) -> None:
        self._name, self._lines, self._remarks = name, lines, remarks
        self._again: deque[tuple[int, str]] = deque()
        self._columns: int | None = None  # the header's

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        number, line = self._next()
        while not line.rstrip("\r\n"):
            number, line = self._next()
        fields = self._quoted(number, line) if '"' in line else line.rstrip("\r\n").split(",")
        if self._columns is None:
            self._columns = len(fields)
        return number, fields

    def _next(self) -> tuple[int, str]:
        return self._again.popleft() if self._again else next(self._lines)

    def _quoted(self, number: int, line: str) -> list[str]:
        taken = [(number, line)]

        def feed() -> Iterator[str]:
            yield _hidden(line)
            characters = len(line)
            while characters < RECORD:
                try:
                    taken.append(self._next())
                except StopIteration:
                    return
                yield _hidden(taken[-1][1])
                characters += len(taken[-1][1])

        if csv.field_size_limit() < LINE:  # 128 KiB
            csv.field_size_limit(LINE)
        try:
            fields = _shown(next(csv.reader(feed(), strict=True)))
        except csv.Error:
            fields = []
        if fields and (len(taken) == 1 or self._holds(fields, [line for _, line in taken])):
            return fields
        self._again.extendleft(reversed(taken[1:]))
        what = "has a quote that does not hold"
        self._remarks.add(self._name, number, what, "it is read without quoting")
        plain = line.rstrip("\r\n").split(",")
        if self._columns not in (None, len(plain)):
            # text behind a closing quote, within one line
            within = _shown(next(csv.reader([_hidden(line).rstrip("\r\n")])))
            if len(within) == self._columns and line.count('"') % 2 == 0:
                return within
        return plain

    def _holds(self, fields: list[str], lines: list[str]) -> bool:
        """Whether a row of several lines is one, and no line in it is a row by itself: with as many
        columns, and a URL where the row has one, but for the line on which the row's own is."""
        if self._columns not in (None, len(fields)):
            return False
        newline = "\n" if lines[0].endswith("\n") else "\r"
        ends = [field.count(newline) for field in fields]
        urls = {at: sum(ends[:at]) for at, f in enumerate(fields) if f.startswith(SCHEMES)}
        if urls and all(ends[at] for at in urls):  # no URL has several lines
            return False
        for number, line in enumerate(lines):
            parts = line.rstrip("\r\n").split(",")
            if len(parts) != len(fields):
                continue
            inner = 0 < number < len(lines) - 1
            for at in urls or (range(len(parts)) if inner else ()):
                if urls.get(at) != number and parts[at].lstrip('" ').startswith(SCHEMES):
                    return False
        return True
