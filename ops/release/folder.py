"""A release's folder: Parquet files and nothing else, so that it is one data set to every reader.

polars refuses a folder with a file of another ending anywhere below it, pyarrow, pandas and Spark
one whose name does not begin with `_` or `.`. So manifest, README, Croissant, checksums and
statistics are the metadata of a Parquet file of their own, of the release's schema, as
`_common_metadata` has it. It has no row group: `datasets` fails on one without rows.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.release.cards.croissant import croissant
from pairmill.ops.release.cards.readme import readme as card
from pairmill.ops.release.cards.sums import sums
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.statistics import Statistics, statistics

NAME = "_release.parquet"
# keys of its metadata
MANIFEST, README, CROISSANT = b"manifest.json", b"README.md", b"croissant.json"
SUMS, STATISTICS = b"SHA256SUMS", b"statistics.json"
MODEL = ("digest", "name", "pretrained")  # of the manifest's; a recipe of links has no model


@dataclass(frozen=True)
class ReleaseFolder:
    """A release's folder: its manifest, its Parquet files in order, and its rows."""

    folder: Path
    manifest: dict[str, Any]
    parts: list[Path]
    rows: int


def write_manifest(
    folder: Path,
    manifest: Manifest,
    schema: pa.Schema,
    *,
    parts: Path | None = None,
    memory: str | None = None,
    threads: int | None = None,
) -> None:
    """Write a release's manifest and cards into ``folder``, after its files.

    schema: of the files. parts: the folder in which they lie, if it is another one. memory,
    threads: of DuckDB, which reads the files once more for the statistics.
    """
    known = manifest.as_dict()
    files = [(parts or folder) / each["name"] for each in known["files"]]
    counted = None
    if files:
        counted = statistics(files, memory=memory, threads=threads, spill=folder)
        counted["duplicates"] = known["duplicate_groups"]
    texts = {
        MANIFEST: json_page(known),
        README: card(known, schema, counted),
        CROISSANT: json_page(croissant(known, schema)),
        SUMS: sums(known["files"]),
        STATISTICS: json_page(counted),
    }
    with pq.ParquetWriter(folder / NAME, schema.remove_metadata()) as writer:
        # not the schema's own metadata, which Arrow would write a second time, in base64
        writer.add_key_value_metadata({key: text.encode() for key, text in texts.items()})


def json_page(value: Any) -> str:
    """JSON as the files of a release have it."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def manifest_text(folder: Path) -> bytes:
    """The manifest, JSON in UTF-8. Raises UserError if the folder is no release."""
    return _written(folder, MANIFEST)


def readme(folder: Path) -> str:
    """The README, Markdown with a Hugging Face card's head. Raises UserError as above."""
    return _written(folder, README).decode()


def release_schema(folder: Path) -> pa.Schema:
    """The schema of a release's files, as it was when they were written. Raises UserError as
    above."""
    _opened(folder)
    with (folder / NAME).open("rb") as file:
        return pq.read_schema(file).remove_metadata()  # that of Arrow, which names a list's items


def stored_sums(folder: Path) -> str:
    """SHA256SUMS. Raises UserError as above."""
    return _written(folder, SUMS).decode()


def stored_statistics(folder: Path) -> Statistics | None:
    """What was counted when a release was written; None: nothing. Raises UserError as above."""
    text = (_opened(folder).metadata or {}).get(STATISTICS)
    found: Statistics | None = json.loads(text) if text else None
    return found


def _written(folder: Path, key: bytes) -> bytes:
    try:
        text: bytes = _opened(folder).metadata[key]
    except (KeyError, TypeError):
        raise UserError(f"{folder / NAME} has no release's {key.decode()}") from None
    return text


def _opened(folder: Path) -> pq.FileMetaData:
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} is no release: it has no {NAME}")
    try:
        # a file object: a path that looks like one of Arrow's file systems would be taken for it
        with path.open("rb") as file:
            return pq.read_metadata(file)
    except (pa.ArrowException, OSError):
        raise UserError(f"{path} has no release's manifest.json") from None


def read_release(folder: Path) -> ReleaseFolder:
    """Raises UserError if the folder is no release, or a file of it is missing."""
    found = named_release(folder)
    if absent := [p.name for p in found.parts if not p.is_file()]:
        raise UserError(f"the release {folder} lacks {absent[0]}, which its manifest names")
    return found


def named_release(folder: Path) -> ReleaseFolder:
    """As the manifest has it, whether its files are there or not. Raises UserError if the folder is
    no release."""
    text = manifest_text(folder)
    try:
        manifest = json.loads(text)
        parts = [folder / f["name"] for f in manifest["files"]]
        count = sum(f["rows"] for f in manifest["files"])
        model = manifest["model"]
        known = manifest["recipe"], [model[key] for key in MODEL if model]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / NAME} has no release's manifest") from None
    assert known
    return ReleaseFolder(folder, manifest, parts, count)


def is_release(folder: Path) -> bool:
    """Whether a folder looks like a release, and not like an export."""
    return (folder / NAME).is_file()
