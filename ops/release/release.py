"""Releases: the pairs that a recipe keeps, as Parquet shards that anybody can check.

The same recipe on the same state of the database gives the same bytes: one snapshot,
ordered by SAMPLE_ID, nothing of the clock. The removals are applied, and the manifest says
which.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import mmh3
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.types.json import Jsonb

from pairmill import __version__
from pairmill.ops.admin.connection import rows
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, file_entries
from pairmill.ops.release.folder import write_manifest
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.recipe import Recipe

SHARD_ROWS = 1_000_000
ROW_GROUP = 100_000  # rows; about 30 MB in memory, 10 MB in the file
FETCH = 10_000
# LAION-5B's columns, and the image's md5; null where the recipe names no tagger. Types are those of
# LAION-400M, -5B and -Aesthetics, so that tables of both can be concatenated: similarity is their
# float64, whatever the database has, and tags are their float32.
SCHEMA = pa.schema(
    [
        ("SAMPLE_ID", pa.int64()), ("URL", pa.string()), ("TEXT", pa.string()),
        ("HEIGHT", pa.int32()), ("WIDTH", pa.int32()), ("LICENSE", pa.string()),
        ("LANGUAGE", pa.string()), ("NSFW", pa.string()), ("similarity", pa.float64()),
        ("hash", pa.int64()), ("md5", pa.string()),
        ("punsafe", pa.float32()), ("pwatermark", pa.float32()), ("aesthetic", pa.float32()),
    ]
)  # fmt: skip
Row = tuple[Any, ...]


def build(
    connection: psycopg.Connection,
    recipe: Recipe,
    out: Path,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
    shard_rows: int = SHARD_ROWS,
) -> Manifest:
    """Write a release into ``out``, a folder that does not exist or is empty.

    progress is called with (rows written, rows to write). Everything is written beside
    ``out`` and renamed at the end, so that an interruption leaves nothing half done.
    Raises UserError if ``out`` holds something, or the database lacks the recipe's model.
    """
    with atomic_folder(out) as half, connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        return _write(connection, recipe, half, progress, shard_rows)


def _write(
    connection: psycopg.Connection,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[int, int], None],
    shard_rows: int,
) -> Manifest:
    model = _model(connection, recipe, recipe.model, recipe.pretrained)
    other = _multilingual(connection, recipe)
    taggers = [_tagger(connection, recipe, column) for column in recipe.tags]
    base = _query(recipe)
    values = {
        "model_id": model.pop("model_id"),
        "model_languages": recipe.model_languages,
        "languages": recipe.languages,
        "min_text_length": recipe.min_text_length,
        "min_bytes": recipe.min_bytes,
        "min_similarity": recipe.min_similarity,
        "min_similarity_by_language": Jsonb(recipe.min_similarity_by_language),
    }
    values["multilingual_id"] = other.pop("model_id") if other else values["model_id"]
    for i, (column, tagger) in enumerate(zip(recipe.tags, taggers, strict=True)):
        values |= _tag_values(recipe, i, column, tagger)
    excluded: Counter[str] = Counter()
    kept_by_language: Counter[str] = Counter()
    count = f"select excluded, language, count(*) from ({base}) pair group by 1, 2 order by 1, 2"
    for reason, language, number in connection.execute(count, values).fetchall():
        if reason is None:
            kept_by_language[language] += number
        else:
            excluded[reason] += number
    kept = kept_by_language.total()
    table = ReleaseColumns(recipe, taggers)
    with connection.cursor("release") as cursor:
        cursor.itersize = FETCH
        cursor.execute(
            f"select * from ({base}) pair where excluded is null order by sample_id", values
        )
        shards = list(_shards(cursor, folder, kept, progress, shard_rows, table))
    manifest = Manifest(
        recipe=recipe.as_dict(),
        model=model,
        multilingual_model=other,
        taggers={
            column: {key: tagger[key] for key in ("name", "digest", "kind", "licence")}
            for column, tagger in zip(recipe.tags, taggers, strict=True)
        },
        candidates=kept + excluded.total(),
        kept=kept,
        excluded=dict(sorted(excluded.items())),
        kept_by_language=dict(sorted(kept_by_language.items())),
        removals=removals_version(connection),
        columns={f.name: str(f.type) for f in table.schema},
        files=file_entries(folder, shards),
        written_by={"pairmill": __version__, "pyarrow": pa.__version__},
    )
    write_manifest(folder, manifest, table.schema)
    return manifest


def _query(recipe: Recipe) -> str:
    """release.sql with the columns, reasons and joins of each tagger."""
    folder = files("pairmill.ops.release") / "sql"
    parts = (folder / "release_tag.sql").read_text("utf-8").split("\n--\n")
    columns, reasons, joins = (
        "\n       ".join(part.format(i=i) for i in range(len(recipe.tags))) for part in parts[1:]
    )
    whole = (folder / "release.sql").read_text("utf-8")
    return whole.format(tag_columns=columns, tag_reasons=reasons, tag_joins=joins)


def _tag_values(recipe: Recipe, i: int, column: str, tagger: dict[str, Any]) -> dict[str, Any]:
    low, high = recipe.min_tag.get(column), recipe.max_tag.get(column)
    # inclusive is meant of the number as it is written, and 0.45 as a tag, a float32, is 0.4499…
    return {
        f"tagger_{i}": tagger["model_id"],
        f"column_{i}": column,
        f"has_threshold_{i}": low is not None or high is not None,
        f"min_{i}": -math.inf if low is None else float(np.float32(low)),
        f"max_{i}": math.inf if high is None else float(np.float32(high)),
    }


def _model(
    connection: psycopg.Connection, recipe: Recipe, name: str, pretrained: str
) -> dict[str, Any]:
    known = rows(
        connection,
        "select model_id, name, pretrained, digest from mill.model where kind = 'clip'"
        " order by name",
    )
    found = [m for m in known if (m["name"], m["pretrained"]) == (name, pretrained)]
    if len(found) != 1:
        names = ", ".join(f"{m['name']} {m['pretrained']}".strip() for m in known) or "none"
        what = "has no model" if not found else "has several models"
        raise UserError(
            f"recipe {recipe.name}: the database {what} {name} {pretrained}".rstrip()
            + f"; it has: {names}"
        )
    return found[0]


def _multilingual(connection: psycopg.Connection, recipe: Recipe) -> dict[str, Any] | None:
    if not recipe.multilingual_model:
        return None
    return _model(connection, recipe, recipe.multilingual_model, recipe.multilingual_pretrained)


def _tagger(connection: psycopg.Connection, recipe: Recipe, column: str) -> dict[str, Any]:
    known = rows(connection, "select * from mill.model where kind <> 'clip' order by name")
    found = [tagger for tagger in known if tagger["name"] == recipe.tags[column]]
    if not found:
        names = ", ".join(tagger["name"] for tagger in known) or "none"
        raise UserError(
            f"recipe {recipe.name}: the database has no tagger {recipe.tags[column]!r} for"
            f" {column}; it has: {names}"
        )
    if column == "NSFW" and not found[0]["labels"]:
        raise UserError(
            f"recipe {recipe.name}: NSFW is a label, and {recipe.tags[column]} gives numbers: name"
            " a zero-shot tagger, or another column"
        )
    return found[0]


class ReleaseColumns:
    """Makes Arrow tables of a release from rows of release.sql. schema: theirs."""

    def __init__(self, recipe: Recipe, taggers: list[dict[str, Any]]) -> None:
        self._tags = list(recipe.tags)
        self._labels = [tagger["labels"] for tagger in taggers]
        more = [(name, pa.float32()) for name in self._tags if name not in SCHEMA.names]
        self.schema = pa.schema([*SCHEMA, *more])

    def table(self, chunk: list[Row]) -> pa.Table:
        ids, urls, texts, heights, widths, licenses, languages, similarities, md5s, *tags, _ = zip(
            *chunk, strict=True
        )
        values: dict[str, Any] = {
            "SAMPLE_ID": ids, "URL": urls, "TEXT": texts, "HEIGHT": heights, "WIDTH": widths,
            "LICENSE": licenses, "LANGUAGE": languages, "similarity": similarities,
            "hash": [mmh3.hash64(url + text)[0] for url, text in zip(urls, texts, strict=True)],
            "md5": [md5.hex for md5 in md5s],
        }  # fmt: skip
        for i, column in enumerate(self._tags):
            numbers, labels = tags[2 * i : 2 * i + 2]
            values[column] = numbers
            if column == "NSFW":
                values[column] = [None if at is None else self._labels[i][at] for at in labels]
        nothing = [None] * len(chunk)
        arrays = [pa.array(values.get(f.name, nothing), f.type) for f in self.schema]
        return pa.Table.from_arrays(arrays, schema=self.schema)


def _shards(
    cursor: Iterator[Row],
    folder: Path,
    kept: int,
    progress: Callable[[int, int], None],
    shard_rows: int,
    columns: ReleaseColumns,
) -> Iterator[tuple[Path, int]]:
    """Write part-00000.parquet and so on, at least one; yields each with its rows."""
    done = 0
    for number in range(max(1, -(-kept // shard_rows))):
        path = folder / f"part-{number:05}.parquet"
        written = 0
        with pq.ParquetWriter(
            path, columns.schema, compression="zstd", compression_level=3
        ) as writer:
            while chunk := list(islice(cursor, min(ROW_GROUP, shard_rows - written))):
                writer.write_table(columns.table(chunk), row_group_size=ROW_GROUP)
                written += len(chunk)
                progress(done + written, kept)
        done += written
        yield path, written


def removals_version(connection: psycopg.Connection) -> dict[str, Any]:
    """The version of the removal list: its length, highest id and sha256."""
    sources = [
        r["source"]
        for r in rows(connection, 'select source from mill.removal order by source collate "C"')
    ]
    (top,) = rows(connection, "select coalesce(max(removal_id), 0) as id from mill.removal")
    digest = hashlib.sha256("".join(f"{source}\n" for source in sources).encode()).hexdigest()
    return {"count": len(sources), "highest_id": top["id"], "sha256": digest}
