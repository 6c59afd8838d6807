"""Releases: the pairs that a recipe keeps, as Parquet shards that anybody can check.

The same recipe on the same state of the database gives the same bytes: one snapshot,
ordered by SAMPLE_ID, nothing of the clock. The removals are applied, and the manifest says
which.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

import mmh3
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg.types.json import Jsonb

from pairmill import __version__
from pairmill.ops.connection import rows
from pairmill.ops.problem import Problem
from pairmill.ops.recipe import Recipe

SHARD_ROWS = 1_000_000
ROW_GROUP = 100_000  # rows; about 30 MB in memory, 10 MB in the file
FETCH = 10_000
# LAION's columns, with LANGUAGE as in LAION-5B, and the image's md5
SCHEMA = pa.schema(
    [
        ("SAMPLE_ID", pa.int64()), ("URL", pa.string()), ("TEXT", pa.string()),
        ("HEIGHT", pa.int32()), ("WIDTH", pa.int32()), ("LICENSE", pa.string()),
        ("LANGUAGE", pa.string()), ("NSFW", pa.string()), ("similarity", pa.float32()),
        ("hash", pa.int64()), ("md5", pa.string()),
    ]
)  # fmt: skip
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Manifest:
    """What a release is: manifest.json.

    recipe: every value, overrides applied. model: name, pretrained, digest. candidates: pairs
    looked at = kept + sum(excluded); excluded: by the first reason, see sql/release.sql.
    removals: count, highest id and sha256 of the list that was applied. files: name, rows,
    bytes and sha256 of each. written_by: versions; the bytes depend on pyarrow's.
    """

    recipe: dict[str, Any]
    model: dict[str, Any]
    candidates: int
    kept: int
    excluded: dict[str, int]
    kept_by_language: dict[str, int]
    removals: dict[str, Any]
    columns: dict[str, str]
    files: list[dict[str, Any]]
    written_by: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


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
    Raises Problem if ``out`` holds something, or the database lacks the recipe's model.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Problem(f"{out} is not empty: name a folder that does not exist yet")
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    try:
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            manifest = _write(connection, recipe, half, progress, shard_rows)
        if out.exists():
            out.rmdir()
        half.rename(out)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return manifest


def _write(
    connection: psycopg.Connection,
    recipe: Recipe,
    folder: Path,
    progress: Callable[[int, int], None],
    shard_rows: int,
) -> Manifest:
    model = _model(connection, recipe)
    base = (files("pairmill.ops") / "sql" / "release.sql").read_text("utf-8")
    values = {
        "model_id": model.pop("model_id"),
        "languages": recipe.languages,
        "min_text_length": recipe.min_text_length,
        "min_bytes": recipe.min_bytes,
        "min_similarity": recipe.min_similarity,
        "min_similarity_by_language": Jsonb(recipe.min_similarity_by_language),
    }
    excluded: Counter[str] = Counter()
    kept_by_language: Counter[str] = Counter()
    count = f"select excluded, language, count(*) from ({base}) pair group by 1, 2 order by 1, 2"
    for reason, language, number in connection.execute(count, values).fetchall():
        if reason is None:
            kept_by_language[language] += number
        else:
            excluded[reason] += number
    kept = kept_by_language.total()
    with connection.cursor("release") as cursor:
        cursor.itersize = FETCH
        cursor.execute(
            f"select * from ({base}) pair where excluded is null order by sample_id", values
        )
        shards = list(_shards(cursor, folder, kept, progress, shard_rows))
    manifest = Manifest(
        recipe=recipe.as_dict(),
        model=model,
        candidates=kept + excluded.total(),
        kept=kept,
        excluded=dict(sorted(excluded.items())),
        kept_by_language=dict(sorted(kept_by_language.items())),
        removals=removals_version(connection),
        columns={f.name: str(f.type) for f in SCHEMA},
        files=[_described(shard) for shard in shards],
        written_by={"pairmill": __version__, "pyarrow": pa.__version__},
    )
    text = json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", "utf-8")
    (folder / "README.md").write_text(_readme(manifest), "utf-8")
    return manifest


def _model(connection: psycopg.Connection, recipe: Recipe) -> dict[str, Any]:
    known = rows(
        connection, "select model_id, name, pretrained, digest from mill.model order by name"
    )
    found = [m for m in known if (m["name"], m["pretrained"]) == (recipe.model, recipe.pretrained)]
    if len(found) != 1:
        names = ", ".join(f"{m['name']} {m['pretrained']}".strip() for m in known) or "none"
        what = "has no model" if not found else "has several models"
        raise Problem(
            f"recipe {recipe.name}: the database {what} {recipe.model} {recipe.pretrained}".rstrip()
            + f"; it has: {names}"
        )
    return found[0]


def _shards(
    cursor: Iterator[Row],
    folder: Path,
    kept: int,
    progress: Callable[[int, int], None],
    shard_rows: int,
) -> Iterator[tuple[Path, int]]:
    """Write part-00000.parquet and so on, at least one; yields each with its rows."""
    done = 0
    for number in range(max(1, -(-kept // shard_rows))):
        path = folder / f"part-{number:05}.parquet"
        written = 0
        with pq.ParquetWriter(path, SCHEMA, compression="zstd", compression_level=3) as writer:
            while chunk := list(islice(cursor, min(ROW_GROUP, shard_rows - written))):
                writer.write_table(_table(chunk), row_group_size=ROW_GROUP)
                written += len(chunk)
                progress(done + written, kept)
        done += written
        yield path, written


def _table(chunk: list[Row]) -> pa.Table:
    ids, urls, texts, heights, widths, licenses, languages, similarities, md5s, _ = zip(
        *chunk, strict=True
    )
    hashes = [mmh3.hash64(url + text)[0] for url, text in zip(urls, texts, strict=True)]
    columns = [
        ids, urls, texts, heights, widths, licenses, languages, [None] * len(chunk),
        similarities, hashes, [md5.hex for md5 in md5s],
    ]  # fmt: skip
    arrays = [pa.array(values, f.type) for values, f in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _described(shard: tuple[Path, int]) -> dict[str, Any]:
    path, count = shard
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": path.name, "rows": count, "bytes": path.stat().st_size, "sha256": digest}


def removals_version(connection: psycopg.Connection) -> dict[str, Any]:
    """What tells one state of the removal list from another."""
    sources = [
        r["source"]
        for r in rows(connection, 'select source from mill.removal order by source collate "C"')
    ]
    (top,) = rows(connection, "select coalesce(max(removal_id), 0) as id from mill.removal")
    digest = hashlib.sha256("".join(f"{source}\n" for source in sources).encode()).hexdigest()
    return {"count": len(sources), "highest_id": top["id"], "sha256": digest}


def _readme(m: Manifest) -> str:
    excluded = "\n".join(f"| {reason} | {number:,} |" for reason, number in m.excluded.items())
    languages = "\n".join(
        f"| {language} | {number:,} |" for language, number in m.kept_by_language.items()
    )
    columns = "\n".join(f"| `{name}` | {kind} |" for name, kind in m.columns.items())
    return f"""# {m.recipe["name"]}, version {m.recipe["version"]}

{m.recipe["description"]}.

{m.kept:,} of {m.candidates:,} pairs; number of Parquet files: {len(m.files)}.

Licence of the metadata: {m.recipe["licence"]}. The images are not part of this release; they are
under their own copyright, whatever `LICENSE` says of the page that they stood on.

Removals applied: {m.removals["count"]}, list sha256 `{m.removals["sha256"]}`.

Similarity: {m.model["name"]} {m.model["pretrained"]}, weights sha256 `{m.model["digest"]}`.

| left out because | pairs |
|---|---|
{excluded}

| language kept | pairs |
|---|---|
{languages}

| column | type |
|---|---|
{columns}

`manifest.json` has every threshold and the sha256 of every file.
"""
