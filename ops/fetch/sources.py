"""Sources of URLs: Parquet, CSV, TSV, text or JSON, here or behind fsspec, read in pieces."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.source_files import SourceFile, find_files, reading
from pairmill.ops.fetch.source_json import JsonSource
from pairmill.ops.fetch.source_parquet import ParquetSource
from pairmill.ops.fetch.source_text import TextSource

EDGE = 1 << 16  # bytes at each end of a file that tell it from another
CAPTIONS = ("TEXT", "caption")
LISTED = 50  # columns; an object of rows by their ids has a column for each
SEPARATORS = ",;\t|"  # a header with these, and of one column, is of another kind of file


class Source(Protocol):
    """A table of URLs, its rows in a fixed order. name: its path as given. names: its columns."""

    name: str
    files: list[SourceFile]
    names: list[str]

    def rows(self) -> int | None:
        """The number of rows; None where only reading all of them would tell."""

    def lacking(self, name: str) -> str | None:
        """The name of the first file without a column, of several."""

    def read(self, start: int) -> Iterator[pa.Table]:
        """The rows from number ``start`` on, in tables of any length. Raises UserError if a file is
        unreadable."""


def open_source(given: str | os.PathLike[str]) -> Source:
    """The source at a path or URL: a file, or a folder of files of one kind. Raises UserError where
    there are no URLs."""
    name = os.fspath(given)
    kind, files = find_files(name)
    if kind == "parquet":
        return ParquetSource(name, files)
    if kind in ("json", "jsonl"):
        return JsonSource(name, files, kind)
    return TextSource(name, files, kind)


def fingerprint(source: Source) -> str:
    """A sha256 that tells a source from another, wherever it lies: of its files' names, sizes and
    both ends."""
    digest = hashlib.sha256()
    for file in source.files:
        with reading(file), file.open() as opened:
            size = file.size()
            digest.update(f"{file.own_name} {size}\n".encode())
            digest.update(opened.read(EDGE))
            if size is not None and opened.seekable():
                opened.seek(max(0, size - EDGE))
                digest.update(opened.read(EDGE))
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
            has = listed(source.names)
            if not has:
                raise UserError(f"{source.name} has no columns: it is empty, or has no objects")
            if any("://" in name for name in source.names):
                raise UserError(f"{source.name} has no header, but a row as its first line: {has}")
            if len(source.names) == 1 and any(mark in has for mark in SEPARATORS):
                raise UserError(
                    f"{source.name} has one column, {has!r}: those of a .csv are separated by"
                    " commas, of a .tsv by tabs"
                )
            raise UserError(f"{source.name} has no column {wanted}, name one by {option}: {has}")
        if file := source.lacking(found):
            raise UserError(f"{file} has no column {found}, and other files of {source.name} have")
        captions = (_found(source, name) for name in ([caption] if caption else CAPTIONS))
        return cls(found, next((name for name in captions if name), None))


def listed(names: list[str]) -> str:
    """Names of columns in a sentence, of very many the first."""
    return ", ".join([*names[:LISTED], *(["…"] if len(names) > LISTED else [])])


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
