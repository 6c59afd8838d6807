"""A release's folder: Parquet files and nothing else, so that it is one data set to every reader.

polars refuses a folder with a file of another ending anywhere below it, pyarrow, pandas and Spark
one whose name does not begin with `_` or `.`. So manifest and README are the metadata of a Parquet
file of their own, of the release's schema, as `_common_metadata` has it. It has no row group:
`datasets` fails on one without rows.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.manifest import Manifest

NAME = "_release.parquet"
MANIFEST, README = b"manifest.json", b"README.md"  # keys of its metadata


@dataclass(frozen=True)
class ReleaseFolder:
    """A release's folder: its manifest, its Parquet files in order, and its rows."""

    folder: Path
    manifest: dict[str, Any]
    parts: list[Path]
    rows: int


def write_manifest(folder: Path, manifest: Manifest, schema: pa.Schema) -> None:
    text = json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False) + "\n"
    metadata = {MANIFEST: text.encode(), README: manifest.readme().encode()}
    pq.ParquetWriter(folder / NAME, schema.with_metadata(metadata)).close()


def manifest_text(folder: Path) -> bytes:
    """The manifest, JSON in UTF-8. Raises UserError if the folder is no release."""
    return _written(folder, MANIFEST)


def readme(folder: Path) -> str:
    """The README, Markdown with a Hugging Face card's head. Raises UserError as above."""
    return _written(folder, README).decode()


def _written(folder: Path, key: bytes) -> bytes:
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder} is no release: it has no {NAME}")
    try:
        # a file object: a path that looks like one of Arrow's file systems would be taken for it
        with path.open("rb") as file:
            text: bytes = pq.read_metadata(file).metadata[key]
    except (pa.ArrowException, OSError, KeyError, TypeError):
        raise UserError(f"{path} has no release's {key.decode()}") from None
    return text


def read_release(folder: Path) -> ReleaseFolder:
    """Raises UserError if the folder is no release, or a file of it is missing."""
    text = manifest_text(folder)
    try:
        manifest = json.loads(text)
        parts = [folder / f["name"] for f in manifest["files"]]
        count = sum(f["rows"] for f in manifest["files"])
        model = manifest["model"]
        known = manifest["recipe"], model["digest"], model["name"], model["pretrained"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{folder / NAME} has no release's manifest") from None
    assert known
    if absent := [p.name for p in parts if not p.is_file()]:
        raise UserError(f"the release {folder} lacks {absent[0]}, which its manifest names")
    return ReleaseFolder(folder, manifest, parts, count)


def is_release(folder: Path) -> bool:
    """Whether a folder looks like a release, and not like an export."""
    return (folder / NAME).is_file()


def check(folder: Path) -> ReleaseFolder:
    """Compare a release's files with its manifest. Raises UserError for a file that is missing,
    changed, or not of the release, though a reader of the folder would take it for a part."""
    found = read_release(folder)
    for path, entry in zip(found.parts, found.manifest["files"], strict=True):
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            raise UserError(f"{path} is not the file that the release's manifest names")
    known = {*found.parts, folder / NAME}
    if others := sorted(path for path in folder.rglob("*.parquet") if path not in known):
        raise UserError(f"{others[0]} is not of the release")
    return found
