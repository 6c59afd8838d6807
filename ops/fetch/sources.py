"""Sources of URLs: Parquet, CSV, TSV or text, read in pieces."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError

READ_ROWS = 10_000
BUFFER = 1 << 20  # bytes of a Parquet column that are read ahead; without it, a whole row group
CSV_BLOCK = 8 << 20  # no row may be longer
EDGE = 1 << 16  # bytes at each end of a file that tell it from another
CAPTIONS = ("TEXT", "caption")


class Source(Protocol):
    """A table of URLs, its rows in a fixed order. name: its path as given. names: its columns."""

    name: str
    files: list[Path]
    names: list[str]

    def rows(self) -> int | None:
        """The number of rows; None where only reading all of them would tell."""

    def read(self, start: int) -> Iterator[pa.Table]:
        """The rows from number ``start`` on, in tables of any length. Raises UserError if a file is
        unreadable."""


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from None


class ParquetSource:
    """Parquet files of the same columns, one after another."""

    def __init__(self, name: str, files: list[Path]) -> None:
        self.name, self.files = name, files
        with _reading(files[0]):
            self._schema = pq.read_schema(files[0])
        self.names = list(self._schema.names)

    def rows(self) -> int:
        return sum(self._file(path).metadata.num_rows for path in self.files)

    def read(self, start: int) -> Iterator[pa.Table]:
        for path in self.files:
            file = self._file(path)
            sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
            first = 0  # row groups that are skipped are not read
            while first < len(sizes) and start >= sizes[first]:
                start -= sizes[first]
                first += 1
            if first == len(sizes):
                continue
            with _reading(path):
                for batch in file.iter_batches(READ_ROWS, row_groups=range(first, len(sizes))):
                    skipped = min(start, batch.num_rows)
                    start -= skipped
                    yield self._as_first(path, pa.Table.from_batches([batch.slice(skipped)]))

    def _file(self, path: Path) -> pq.ParquetFile:
        with _reading(path):
            return pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER)

    def _as_first(self, path: Path, table: pa.Table) -> pa.Table:
        if missing := [name for name in self.names if name not in table.column_names]:
            raise UserError(f"{path} has no column {missing[0]}, and {self.files[0].name} has")
        # what pandas adds to a schema is not carried on: it would not be true of the shards
        return table.select(self.names).cast(self._schema.remove_metadata())


class CsvSource:
    """A CSV or TSV file with a header; every column is text."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self.name, self.files, self._path = str(path), [path], path
        # a caption in quotes may have several lines
        self._parse = pv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
        self.names = list(self._open([]).schema.names)

    def rows(self) -> None:
        return None

    def read(self, start: int) -> Iterator[pa.Table]:
        with _reading(self._path):
            for batch in self._open(self.names):
                skipped = min(start, batch.num_rows)
                start -= skipped
                yield pa.Table.from_batches([batch.slice(skipped)])

    def _open(self, names: list[str]) -> pv.CSVStreamingReader:
        with _reading(self._path):
            return pv.open_csv(
                str(self._path),
                read_options=pv.ReadOptions(block_size=CSV_BLOCK),
                parse_options=self._parse,
                # else a type is guessed from the first rows, and later ones may not be of it
                convert_options=pv.ConvertOptions(column_types={n: pa.string() for n in names}),
            )


class LinesSource:
    """A text file with a URL a line; empty lines are no rows."""

    names = ["url"]  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        self.name, self.files, self._path = str(path), [path], path

    def rows(self) -> None:
        return None

    def read(self, start: int) -> Iterator[pa.Table]:
        opened = gzip.open if self._path.suffix == ".gz" else open
        with _reading(self._path), opened(self._path, "rb") as file:
            lines = io.TextIOWrapper(file, "utf-8", errors="replace")
            urls = islice((u for line in lines if (u := line.strip())), start, None)
            while some := list(islice(urls, READ_ROWS)):
                yield pa.table({"url": pa.array(some, pa.string())})


def open_source(path: Path) -> Source:
    """The source at a path. Raises UserError for a path without URLs."""
    if not path.exists():
        raise UserError(f"there is no {path}")
    source = _opened(path)
    if twice := [name for name in source.names if source.names.count(name) > 1]:
        raise UserError(f"{path} has two columns named {twice[0]}")
    return source


def _opened(path: Path) -> Source:
    if path.is_dir():
        if files := sorted(path.glob("*.parquet")):
            return ParquetSource(str(path), files)
        raise UserError(f"{path} has no .parquet files in it")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if path.suffix == ".parquet":
        return ParquetSource(str(path), [path])
    if ending in (".csv", ".tsv"):
        return CsvSource(path, "," if ending == ".csv" else "\t")
    if ending == ".txt":
        return LinesSource(path)
    raise UserError(f"{path} is no folder, .parquet, .csv, .tsv or .txt (the last three also .gz)")


def fingerprint(source: Source) -> str:
    """A sha256 that tells a source from another, wherever it lies: of its files' names, sizes and
    both ends."""
    digest = hashlib.sha256()
    for path in source.files:
        with _reading(path), path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            digest.update(file.read(EDGE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return digest.hexdigest()


@dataclass(frozen=True)
class SourceColumns:
    """The names of a source's columns of URLs and captions. caption: None without captions."""

    url: str
    caption: str | None

    @classmethod
    def of(cls, source: Source, url: str | None, caption: str | None) -> "SourceColumns":
        """The columns of these names, or of the usual ones. Raises UserError if one is absent."""
        found = _found(source, url or "URL")
        if found is None or (caption and _found(source, caption) is None):
            wanted = url or "URL" if found is None else caption
            option = "--url-col" if found is None else "--caption-col"
            has = ", ".join(source.names)
            raise UserError(f"{source.name} has no column {wanted}, name one by {option}: {has}")
        captions = (_found(source, name) for name in ([caption] if caption else CAPTIONS))
        return cls(found, next((name for name in captions if name), None))


def _found(source: Source, wanted: str) -> str | None:
    """A column by its name, else by its name in any case."""
    if wanted in source.names:
        return wanted
    return next((name for name in source.names if name.lower() == wanted.lower()), None)


def shards(
    source: Source, rows: int, done: Callable[[int], bool]
) -> Iterator[tuple[int, pa.Table]]:
    """The source as (number, table) of ``rows`` rows each, the last of fewer, without the numbers
    that are ``done``."""
    number = 0
    while True:
        while done(number):
            number += 1
        for table in _of_length(source.read(number * rows), rows):
            yield number, table
            number += 1
            if done(number):
                break  # a gap: what is done is skipped, not read
        else:
            return


def _of_length(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows)
            waiting, count = [whole.slice(rows)], count - rows
    if count:
        yield pa.concat_tables(waiting)
