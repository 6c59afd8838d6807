"""Releases straight from tables, and copies of what is made of a release."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.files import file_entries, sha256
from pairmill.ops.release.folder import read_release, write_manifest
from pairmill.ops.release.manifest import Manifest

MODEL = {"name": "ViT-L-14", "pretrained": "made up", "digest": "d1"}
DIMS = 4


def rows_of(ids: list[int], **columns: list[Any]) -> pa.Table:
    """A table of these SAMPLE_IDs in Pairmill's layout, as far as anybody asks for it."""
    values: dict[str, Any] = {
        "SAMPLE_ID": pa.array(ids, pa.int64()),
        "URL": [f"http://h{i % 7}.example/{i}.jpg" for i in ids],
        "TEXT": [f"text {i}" for i in ids],
        "WIDTH": pa.array([640] * len(ids), pa.int32()),
        "HEIGHT": pa.array([480] * len(ids), pa.int32()),
        "LANGUAGE": ["en"] * len(ids),
        "punsafe": pa.array([0.1] * len(ids), pa.float32()),
        "similarity": pa.array([0.3] * len(ids), pa.float64()),
    }
    return pa.table(values | columns)


def datacomp(table: pa.Table) -> pa.Table:
    uids = [f"{i:032x}" for i in table["SAMPLE_ID"].to_pylist()]
    return pa.table({"uid": uids, "url": table["URL"], "text": table["TEXT"]})


def made_release(
    folder: Path, table: pa.Table, shard_rows: int = 4, name: str = "test", **manifest: Any
) -> Path:
    """A release of a table's rows, in parts of shard_rows."""
    shards = (
        table.slice(start, shard_rows) for start in range(0, max(1, table.num_rows), shard_rows)
    )
    return made_parts(folder, shards, name, **manifest)


def made_parts(folder: Path, shards: Iterable[pa.Table], name: str, **manifest: Any) -> Path:
    """A release of tables, each a part; one of them is in memory at a time."""
    folder.mkdir(parents=True)
    parts, schema = [], pa.schema([])
    for number, some in enumerate(shards):
        path = folder / f"part-{number:05}.parquet"
        pq.write_table(some, path, compression="zstd")
        parts.append((path, some.num_rows))
        schema = some.schema
    rows = sum(count for _, count in parts)
    known: dict[str, Any] = {
        "recipe": {"name": name, "version": 1, "description": "A test", "licence": "CC0-1.0",
                   "model_languages": ["en"]},
        "model": MODEL, "multilingual_model": None, "taggers": {},
        "candidates": rows + 5, "kept": rows, "excluded": {"similarity": 5},
        "kept_by_language": {"en": rows}, "removals": {"count": 0, "sha256": ""},
        "unfinished": {}, "columns": {f.name: str(f.type) for f in schema},
        "files": file_entries(folder, parts), "written_by": {},
    }  # fmt: skip
    write_manifest(folder, Manifest(**(known | manifest)), schema)
    return folder


def whole(folder: Path) -> int:
    """The rows of a release, whose files are those of its manifest."""
    found = read_release(folder)
    for path, entry in zip(found.parts, found.manifest["files"], strict=True):
        assert entry["sha256"] == sha256(path)
        assert entry["rows"] == pq.read_metadata(path).num_rows
    return found.rows


def vectors(ids: list[int]) -> "np.ndarray[Any, np.dtype[np.float16]]":
    """float16[n, DIMS]: each row tells its id, below 2,048."""
    return np.array([[i, 1, i % 3, i % 5] for i in ids], np.float16).reshape(-1, DIMS)


def made_tar(path: Path, samples: list[tuple[str, dict[str, Any]]]) -> None:
    """A tar for webdataset: KEY.jpg (the key's bytes), KEY.json and KEY.txt of each sample."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for key, meta in samples:
            for ending, body in (("jpg", key), ("json", json.dumps(meta)), ("txt", "text")):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(body.encode())
                tar.addfile(member, io.BytesIO(body.encode()))


def keys_in_tar(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [m.name.removesuffix(".jpg") for m in tar if m.name.endswith(".jpg")]
