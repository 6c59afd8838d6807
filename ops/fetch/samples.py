"""The rows of a shard with their results: as a table, and as the samples of a tar file."""

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, BinaryIO

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.sources import SourceColumns

SUCCESS, NOT_DOWNLOADED, NOT_RESIZED = "success", "failed_to_download", "failed_to_resize"
JSON_ROWS = 1000  # of the source, as Python objects at once


@dataclass(frozen=True)
class SampleResult:
    """The result of one row's fetch; a field that does not apply is None. error_message: the
    outcome's name, or "changed". width, height: of the thumbnail. md5, sha256: of the body,
    hexadecimal. md5_matches: whether the md5 equals the source's."""

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


RESULT_COLUMNS = tuple(field.name for field in fields(SampleResult))
SCHEMA = pa.schema(
    [
        ("status", pa.string()), ("error_message", pa.string()), ("http_status", pa.int32()),
        ("width", pa.int32()), ("height", pa.int32()), ("original_width", pa.int32()),
        ("original_height", pa.int32()), ("md5", pa.string()), ("sha256", pa.string()),
        ("md5_matches", pa.bool_()),
    ]
)  # fmt: skip
OURS = ("url", "caption", "key", *RESULT_COLUMNS)


def as_rows(table: pa.Table, columns: SourceColumns) -> pa.Table:
    """The rows of a shard from a table of the source: url, caption, and all other columns. A column
    with a name of the shard's own, in any case, gets the prefix `source_`: DuckDB and Spark ignore
    case."""
    captions = pa.nulls(table.num_rows, pa.string())
    if columns.caption:
        captions = _text(table, columns.caption)
    named = {"url": _text(table, columns.url), "caption": captions}
    taken = {name.lower() for name in (*OURS, *table.column_names)}
    for name in table.column_names:
        if name in (columns.url, columns.caption):
            continue
        ours = name
        if name.lower() in OURS:
            ours = f"source_{name}"
            while ours.lower() in taken:
                ours = f"source_{ours}"
        named[ours] = table[name]
    return pa.table(named)


def _text(table: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return table[name].cast(pa.string())
    except pa.ArrowException:
        kind = table.schema.field(name).type
        raise UserError(f"column {name} is of type {kind}, and no text") from None


def expected_md5s(table: pa.Table) -> list[str | None]:
    """The md5 of each row that the source names; all None where it has no such column."""
    # of several, "source_source_md5" is the source's, and what is shorter was there before
    names = [n for n in table.column_names if re.fullmatch("(source_)+md5", n, re.IGNORECASE)]
    if not names:
        return [None] * table.num_rows
    values: list[str | None] = _text(table, max(names, key=len)).to_pylist()
    return [value.strip().lower() or None if value else None for value in values]


def stats_of(results: list[SampleResult], began: float, ended: float) -> dict[str, Any]:
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


def with_results(table: pa.Table, keys: list[str], results: list[SampleResult]) -> pa.Table:
    ended = pa.Table.from_pylist([asdict(result) for result in results], SCHEMA)
    named = {"url": table["url"], "caption": table["caption"], "key": pa.array(keys, pa.string())}
    named |= {name: ended[name] for name in RESULT_COLUMNS}
    named |= {name: table[name] for name in table.column_names if name not in named}
    return pa.table(named)


def write_tar(
    file: BinaryIO,
    table: pa.Table,
    keys: list[str],
    results: list[SampleResult],
    image: Callable[[int], bytes],
) -> None:
    """Write the successful rows as .jpg, .json and .txt, in order of key; the bytes depend neither
    on the clock nor on the user."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for index, row in enumerate(_rows(table)):
            result = results[index]
            if result.status != SUCCESS:
                continue
            meta = {"url": row.pop("url"), "caption": row.pop("caption"), "key": keys[index]}
            text = json.dumps(meta | asdict(result) | row, indent=4, default=str)
            members = {"jpg": image(index), "json": text.encode()}
            if meta["caption"]:
                members["txt"] = meta["caption"].encode()
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{keys[index]}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(JSON_ROWS):
        yield from batch.to_pylist()
