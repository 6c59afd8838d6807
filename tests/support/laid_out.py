"""Releases of made-up rows in any layout, as a build writes them."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.files import file_entries
from pairmill.ops.release.folder import write_manifest
from pairmill.ops.release.layouts import LAYOUTS
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.recipe import Recipe

TAGS = {"NSFW": "n", "aesthetic": "a", "punsafe": "p", "pwatermark": "w"}
LABELS = (("UNLIKELY", "NSFW"), None, None, None)
MODEL = {"name": "ViT-B-32", "pretrained": "openai", "digest": "d" * 64}


def recipe_of(layout: str = "pairmill", **values: Any) -> Recipe:
    known: dict[str, Any] = {
        "name": "made-up", "version": 1, "description": "Rows that nobody collected",
        "licence": "CC0-1.0", "model": "ViT-B-32", "pretrained": "openai", "min_similarity": 0.2,
        "tags": TAGS, "layout": layout,
    }  # fmt: skip
    return Recipe(**(known | values))


def candidates(count: int) -> pa.Table:
    """So many kept rows of ``candidate``, of which the first SAMPLE_ID is 16384."""
    digests = [hashlib.sha256(str(n // 2).encode()).digest() for n in range(count)]
    tags = {f"tag_{i}": pa.array([0.25] * count, pa.float32()) for i in range(len(TAGS))}
    return pa.table(
        {
            "sample_id": pa.array(range(16384, 16384 + count), pa.int64()),
            "url": [f"http://www.h{n % 3}.example/{n}.jpg" for n in range(count)],
            "text": [f"text {n}" for n in range(count)],
            "language": pa.array((["en", "de", "nolang"] * count)[:count], pa.string()),
            "license": pa.nulls(count, pa.string()),
            "width": pa.array([640] * count, pa.int32()),
            "height": pa.array([480] * count, pa.int32()),
            "md5": pa.array([digest[:16] for digest in digests], pa.binary()),
            "sha256": pa.array(digests, pa.binary()),
            "similarity": pa.array([0.3] * count, pa.float32()),
            "label_0": pa.array([0] * count, pa.int16()),
            **tags,
        }
    )


def laid_out(
    folder: Path,
    count: int = 5,
    layout: str = "pairmill",
    shard_rows: int = 2,
    change: Callable[[pa.Table], pa.Table] = lambda table: table,
    **manifest: Any,
) -> Path:
    """A release of so many rows in parts of shard_rows. change: of the table before it is written.
    manifest: other values for that."""
    recipe = recipe_of(layout)
    table = change(LAYOUTS[layout].table(candidates(count), recipe, LABELS))
    folder.mkdir(parents=True)
    parts = []
    for number, start in enumerate(range(0, max(1, len(table)), shard_rows)):
        path = folder / f"part-{number:05}.parquet"
        some = table.slice(start, shard_rows)
        with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
            if len(some):  # else no row group: `datasets` fails on one without rows
                writer.write_table(some)
        parts.append((path, some.num_rows))
    languages = candidates(count)["language"].to_pylist()
    known: dict[str, Any] = {
        "recipe": recipe.as_dict(), "model": MODEL, "multilingual_model": None, "taggers": {},
        "candidates": count + 2, "kept": count, "excluded": {"similarity": 2},
        "kept_by_language": {code: languages.count(code) for code in ("de", "en", "nolang")},
        "removals": {"version": "abc"}, "unfinished": {}, "written_by": {}, "layout": layout,
        "columns": {f.name: str(f.type) for f in table.schema},
        "files": file_entries(folder, parts),
    }  # fmt: skip
    write_manifest(folder, Manifest(**(known | manifest)), table.schema)
    return folder
