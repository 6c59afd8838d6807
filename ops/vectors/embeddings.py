"""The embeddings of a release's rows, as arrays that other tools read.

Two layouts. ``clip-retrieval``: what `clip-retrieval inference` writes and autofaiss and
embedding-reader read (https://github.com/rom1504/clip-retrieval): ``img_emb/img_emb_N.npy``,
``text_emb/text_emb_N.npy``, ``metadata/metadata_N.parquet``, row i of each is the same pair.
``npz``: DataComp's (https://github.com/mlfoundations/datacomp): for each shard ``part-N.npz`` with
``l14_img`` and ``l14_txt`` (or ``b32_…``), and ``part-N.parquet``, row-aligned, with ``uid``.

The same release, model and state of the database give the same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import ClientCursor

from pairmill import __version__
from pairmill.ops.admin.removal import require_found
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, file_entries
from pairmill.ops.queries import query_text, rows
from pairmill.ops.release.cover import public_version
from pairmill.ops.release.folder import ReleaseFolder, manifest_text, read_release
from pairmill.ops.release.layouts import as_pairmill
from pairmill.ops.vectors.arrays import ArrayWriter, ClipRetrieval, Npz, npz_prefix
from pairmill.ops.vectors.stored_vectors import StoredVectors

FORMATS = ("clip-retrieval", "npz")
READ_ROWS = 10_000  # of a release at once: 2 x 768 float16 of each are 31 MB
BATCH_BITS = 14  # SAMPLE_ID = batch_id << 14 | n
RowProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExportManifest:
    """The manifest of an export: manifest.json.

    rows: embeddings written, of release["rows"] = rows + sum(left_out). left_out: removed (a
    removal names it now, or it is a cover row), missing (the database has no embedding of it that
    counts), other_image (the image that counts now has another md5 than the release's), not_finite
    (an embedding has a NaN or an infinity: its scorer lied); left_out.csv names each.
    files: name, rows, bytes and sha256 of each.
    """

    release: dict[str, Any]
    model: dict[str, Any]
    format: str
    dims: int
    rows: int
    left_out: dict[str, int]
    removals: dict[str, Any]
    files: list[dict[str, Any]]
    written_by: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Chunk:
    """Rows of a release, and the database's answer for each."""

    table: pa.Table
    ids: list[int]
    images: list[bytes | None]
    texts: list[bytes | None]
    reasons: list[str | None]


def export(
    connection: psycopg.Connection,
    source: Path,
    out: Path,
    *,
    layout: str = FORMATS[0],
    prefix: str = "",
    progress: RowProgress = lambda done, total: None,
) -> ExportManifest:
    """Write the embeddings of the release in folder ``source`` into ``out``, a folder that does not
    exist or is empty.

    layout: one of FORMATS. prefix: the model's part of an npz's names (l14, b32); needed where
    the model is neither ViT-L-14 nor ViT-B-32. progress is called with (rows read, rows). Only
    READ_ROWS rows are in memory at once. Everything is written beside ``out`` and renamed at the
    end. Raises UserError if ``out`` holds something, the folder is no release, or the database
    lacks its model.
    """
    found = read_release(source)
    if layout not in FORMATS:
        raise UserError(f"unknown format {layout!r}: it is {' or '.join(FORMATS)}")
    key = (prefix or npz_prefix(found.manifest["model"]["name"])) if layout == "npz" else ""
    with atomic_folder(out) as half, connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        require_found(connection)
        model = _model(connection, found)
        shards: ArrayWriter
        if layout == "npz":
            shards = Npz(half, model["dims"], key)
        else:
            shards = ClipRetrieval(half, model["dims"], len(found.parts))
        return _write(connection, found, model, half, shards, progress)


def _model(connection: psycopg.Connection, found: ReleaseFolder) -> dict[str, Any]:
    wanted = found.manifest["model"]
    known = rows(connection, "select model_id, name, digest, dims from mill.model order by name")
    for model in known:
        if model["digest"] == wanted["digest"]:
            return model
    names = ", ".join(f"{m['name']} {m['digest'][:12]}" for m in known) or "none"
    raise UserError(
        f"the database has no model {wanted['name']} with the weights {wanted['digest'][:12]}… of"
        f" the release {found.folder}; it has: {names}"
    )


def _write(
    connection: psycopg.Connection,
    found: ReleaseFolder,
    model: dict[str, Any],
    folder: Path,
    shards: ArrayWriter,
    progress: RowProgress,
) -> ExportManifest:
    left_out: Counter[str] = Counter()
    written = done = 0
    vectors = StoredVectors(connection, model["model_id"])
    with (folder / "left_out.csv").open("w", newline="\n") as names:
        names.write("SAMPLE_ID,reason\n")
        for part in found.parts:
            with shards.shard():
                for chunk in _chunks(vectors, part, model):
                    kept = [reason is None for reason in chunk.reasons]
                    for sample, reason in zip(chunk.ids, chunk.reasons, strict=True):
                        if reason:
                            left_out[reason] += 1
                            names.write(f"{sample},{reason}\n")
                    shards.write(
                        chunk.table.filter(pa.array(kept, pa.bool_())),
                        _array(chunk.images, kept, model["dims"]),
                        _array(chunk.texts, kept, model["dims"]),
                    )
                    written += sum(kept)
                    done += len(kept)
                    progress(done, found.rows)
    recipe = found.manifest["recipe"]
    manifest = ExportManifest(
        release={
            "name": recipe["name"],
            "version": recipe["version"],
            "rows": done,
            "manifest_sha256": hashlib.sha256(manifest_text(found.folder)).hexdigest(),
        },
        model=found.manifest["model"],
        format=shards.name,
        dims=model["dims"],
        rows=written,
        left_out=dict(sorted(left_out.items())),
        removals=public_version(connection),
        files=file_entries(folder, shards.files),
        written_by={
            "pairmill": __version__, "pyarrow": pa.__version__, "numpy": np.__version__
        },
    )  # fmt: skip
    text = json.dumps(manifest.as_dict(), indent=2, ensure_ascii=False)
    (folder / "manifest.json").write_text(text + "\n", "utf-8")
    return manifest


def _chunks(vectors: StoredVectors, part: Path, model: dict[str, Any]) -> Iterator[_Chunk]:
    try:
        with pq.ParquetFile(part) as file:
            # of a file without rows too there is a chunk, for its columns
            yield _chunk(vectors, file.schema_arrow.empty_table(), model)
            for batch in file.iter_batches(READ_ROWS):
                yield _chunk(vectors, pa.Table.from_batches([batch]), model)
    except pa.ArrowException as error:
        raise UserError(f"cannot read {part}: {error}") from None


def _chunk(vectors: StoredVectors, table: pa.Table, model: dict[str, Any]) -> _Chunk:
    table = as_pairmill(table, model["name"])
    digest = next((name for name in ("md5", "sha256") if name in table.column_names), None)
    if digest is None:
        raise UserError(
            "a file of the release has neither md5 nor sha256, which tell whether an image is still"
            " the release's: build it with --set layout=pairmill or layout=datacomp"
        )
    ids, digests = table["SAMPLE_ID"].to_pylist(), table[digest].to_pylist()
    chunk = _Chunk(table, ids, [], [], [])
    for batch_id, positions in by_batch(ids):
        known = {row[0]: row[1:] for row in vectors.read(batch_id, positions)}
        for n in positions:
            i = len(chunk.reasons)
            removed, md5, sha256, image, text = known.get(n, (False, *(None,) * 4))
            if removed:
                reason: str | None = "removed"
            elif image is None:
                reason = "missing"
            elif (md5 if digest == "md5" else sha256).hex() != digests[i]:
                reason = "other_image"
            else:
                reason = None if _finite(image) and _finite(text) else "not_finite"
            chunk.images.append(image)
            chunk.texts.append(text)
            chunk.reasons.append(reason)
    return chunk


def by_batch(ids: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
    """SAMPLE_IDs in order as (batch_id, positions), batch by batch."""
    mask = (1 << BATCH_BITS) - 1
    for batch_id, some in groupby(ids, lambda sample: sample >> BATCH_BITS):
        yield batch_id, [sample & mask for sample in some]


def removed_of(connection: psycopg.Connection, ids: Iterable[int]) -> list[int]:
    """The SAMPLE_IDs among these (in order) that a removal names, and cover rows."""
    query = query_text("vectors", "removed")
    require_found(connection)
    found = []
    with ClientCursor(connection) as cursor:
        for batch_id, positions in by_batch(ids):
            cursor.execute(query, {"batch_id": batch_id, "positions": positions})
            found += [batch_id << BATCH_BITS | n for (n,) in cursor]
    return found


def _finite(vector: bytes) -> bool:
    return bool(np.isfinite(np.frombuffer(vector, "<f2")).all())


def _array(vectors: list[bytes | None], kept: list[bool], dims: int) -> npt.NDArray[np.float16]:
    joined = b"".join(v for v, keep in zip(vectors, kept, strict=True) if keep and v is not None)
    return np.frombuffer(joined, "<f2").reshape(-1, dims)
