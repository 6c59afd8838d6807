"""The rows of a shard with their results: as a table, and as samples."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.sources import SourceColumns
from pairmill.ops.fetch.values import as_text, is_binary, json_text, values_of

SUCCESS, NOT_DOWNLOADED, NOT_RESIZED = "success", "failed_to_download", "failed_to_resize"
COUNTS = ("count", "successes", NOT_DOWNLOADED, NOT_RESIZED)  # of a shard's statistics
JSON_ROWS = 1000  # of the source, as Python objects at once
HASHES = "md5", "sha256"  # that a source may name, in columns of these names in any case
Images = Callable[[int], bytes]  # the image of a successful row, by the row's index


@dataclass(frozen=True)
class Layout:
    """What every shard of a folder is made of. output_format: webdataset, files or parquet. image:
    the images' ending, or name of their column: jpg, png or webp. captions: whether the source has
    them. exif: whether there is a column of it. digits: of a shard's number, at least."""

    output_format: str = "webdataset"
    image: str = "jpg"
    captions: bool = True
    exif: bool = False
    digits: int = 5

    @property
    def reserved(self) -> tuple[str, ...]:
        """The names of the shard's own columns, which the source's columns may not have."""
        return (*OURS, self.image) if self.output_format == "parquet" else OURS

    @property
    def results(self) -> tuple[str, ...]:
        """The names of the columns of results."""
        return tuple(name for name in SCHEMA.names if self.exif or name != "exif")


@dataclass(frozen=True)
class SampleResult:
    """The result of one row's fetch; a field that does not apply is None. error_message: the
    outcome's name, or "changed", or the fault of the row's key or boxes. width, height: of the
    image that is written. md5, sha256: of the body, hexadecimal. md5_matches, sha256_matches:
    whether it equals the source's. exif: a JSON object of tag names to text."""

    status: str
    error_message: str | None = None
    http_status: int | None = None
    width: int | None = None
    height: int | None = None
    original_width: int | None = None
    original_height: int | None = None
    md5: str | None = None
    sha256: str | None = None
    md5_matches: bool | None = None
    sha256_matches: bool | None = None
    exif: str | None = None


SCHEMA = pa.schema(
    [
        ("status", pa.string()), ("error_message", pa.string()), ("http_status", pa.int32()),
        ("width", pa.int32()), ("height", pa.int32()), ("original_width", pa.int32()),
        ("original_height", pa.int32()), ("md5", pa.string()), ("sha256", pa.string()),
        ("md5_matches", pa.bool_()), ("sha256_matches", pa.bool_()), ("exif", pa.string()),
    ]
)  # fmt: skip
OURS = ("url", "caption", "key", *SCHEMA.names)
assert tuple(field.name for field in fields(SampleResult)) == tuple(SCHEMA.names)


@dataclass(frozen=True)
class Sample:
    """A successful row. caption: None where the source has no captions. json: all but the image,
    as text."""

    key: str
    image: bytes
    json: str
    caption: str | None


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard. table: see ``as_rows``. keys: None where a row has none. results: how
    each row's fetch ended."""

    table: pa.Table
    keys: Sequence[str | None]
    results: Sequence[SampleResult]

    def with_results(self, layout: Layout) -> pa.Table:
        ended = pa.Table.from_pylist([asdict(result) for result in self.results], SCHEMA)
        table = self.table
        named = {"url": table["url"], "caption": table["caption"]}
        named["key"] = pa.array(self.keys, pa.string())
        named |= {name: ended[name] for name in layout.results}
        named |= {name: table[name] for name in table.column_names if name not in named}
        return pa.table(named)

    def samples(self, image: Images, layout: Layout) -> Iterator[Sample]:
        """The successful rows, in order."""
        for index, row in enumerate(_rows(self.table)):
            key, result = self.keys[index], self.results[index]
            if result.status != SUCCESS or key is None:
                continue
            meta = {"url": row.pop("url"), "caption": row.pop("caption"), "key": key}
            meta |= {name: getattr(result, name) for name in layout.results}
            # a strict reader of webdataset wants the same endings of every key: no caption is an
            # empty one, as img2dataset has it
            caption = (meta["caption"] or "") if layout.captions else None
            yield Sample(key, image(index), json_text(meta | row), caption)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(JSON_ROWS):
        columns = [values_of(column) for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield dict(zip(batch.schema.names, row, strict=True))


def as_rows(table: pa.Table, columns: SourceColumns, reserved: Sequence[str] = OURS) -> pa.Table:
    """The rows of a shard from a table of the source: url, caption, and all other columns by
    ``names_of``."""
    names = names_of(table.column_names, columns, reserved)
    named = {ours: table[theirs] for theirs, ours in names}
    named["url"] = text_of(table, columns.url)
    captions = text_of(table, columns.caption) if columns.caption else None
    named["caption"] = pa.nulls(table.num_rows, pa.string()) if captions is None else captions
    first = ("url", "caption")
    return pa.table({name: named[name] for name in (*first, *(n for n in named if n not in first))})


def names_of(
    source: Iterable[str], columns: SourceColumns, reserved: Sequence[str] = OURS
) -> list[tuple[str, str]]:
    """Of each column of a source its name, and its name in a shard: url and caption, and else its
    own. One that is ``reserved``, in any case, gets the prefix `source_`: DuckDB and Spark ignore
    case."""
    source = list(source)
    taken = {name.lower() for name in (*reserved, *source)}
    names = []
    for name in source:
        ours = name
        if name in (columns.url, columns.caption):
            ours = "url" if name == columns.url else "caption"
        elif name.lower() in reserved:
            ours = f"source_{name}"
            while ours.lower() in taken:
                ours = f"source_{ours}"
        names.append((name, ours))
    return names


def text_of(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as text. Raises UserError for a type that is none."""
    try:
        return as_text(table[name])
    except pa.ArrowException:
        kind = table.schema.field(name).type
        raise UserError(f"column {name} is of type {kind}, and no text: name another") from None


def expected_hashes(table: pa.Table) -> list[dict[str, str]]:
    """The hashes that the source names for each row of ``as_rows``, hexadecimal, by their names
    in ``HASHES``."""
    expected: list[dict[str, str]] = [{} for _ in range(table.num_rows)]
    for kind in HASHES:
        for row, value in zip(expected, _hexadecimal(table, kind), strict=True):
            if value:
                row[kind] = value
    return expected


def _hexadecimal(table: pa.Table, kind: str) -> list[str | None]:
    # of several, "source_source_md5" is the source's, and what is shorter was there before
    names = [n for n in table.column_names if re.fullmatch(f"(source_)+{kind}", n, re.IGNORECASE)]
    if not names:
        return [None] * table.num_rows
    name = max(names, key=len)
    if is_binary(table[name].type):
        return [value.hex() if value else None for value in table[name].to_pylist()]
    values: list[str | None] = text_of(table, name).to_pylist()
    return [value.strip().lower() or None if value else None for value in values]


def stats_of(results: Sequence[SampleResult], began: float, ended: float) -> dict[str, Any]:
    by_status = Counter(result.status for result in results)
    outcomes = Counter(result.error_message or SUCCESS for result in results)
    return {
        "count": len(results),
        "successes": by_status[SUCCESS],
        NOT_DOWNLOADED: by_status[NOT_DOWNLOADED],
        NOT_RESIZED: by_status[NOT_RESIZED],
        "duration": ended - began,
        "start_time": began,
        "end_time": ended,
        "status_dict": dict(sorted(outcomes.items())),
    }
