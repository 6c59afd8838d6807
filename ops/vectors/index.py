"""An index of nearest neighbours over the image embeddings of a release: HNSW, by usearch.

Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using Hierarchical
Navigable Small World graphs (2016). A folder holds ``images.usearch`` (vectors float16, keys are
SAMPLE_IDs, cosine), ``pairs.parquet`` (SAMPLE_ID, URL, TEXT), ``duplicates.parquet`` (SAMPLE_ID,
and the KEY that stands for it in the graph) and ``index.json``. Images and texts share one space,
so both find images.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from usearch.index import Index

from pairmill import __version__
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder
from pairmill.ops.vectors import recall
from pairmill.ops.vectors.duplicates import DuplicateFinder, Duplicates, Keys
from pairmill.ops.vectors.export_reader import PAIRS, ExportReader, ExportShard
from pairmill.ops.vectors.recall import Floats, K, StepProgress

ALONE = 10_000  # vectors that one thread inserts, before all do
ADD = 2_000  # vectors at once; between two of these an interruption is heard
QUERIES = 200  # by images, and by texts, to measure recall
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 128
GRAPH_FILE, PAIRS_FILE = "images.usearch", "pairs.parquet"
DUPLICATES_FILE, INFO_FILE = "duplicates.parquet", "index.json"
ROW_GROUP = 10_000  # so that an answer reads little of pairs.parquet


def silent(what: str, done: int, total: int) -> None:
    """A StepProgress that shows nothing."""


@dataclass(frozen=True)
class IndexInfo:
    """The description of an index: index.json.

    samples: their number. vectors: distinct ones among their embeddings. removed: samples
    deleted since it was built. release, model: as of the export. recall_at_10: as recall.Recall,
    when it was built. written_by: versions.
    """

    samples: int
    vectors: int
    removed: int
    dims: int
    release: dict[str, Any]
    model: dict[str, Any]
    recall_at_10: dict[str, Any]
    written_by: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Neighbour:
    """An answer. similarity: cosine, of the float16 embeddings. duplicates: the number of further
    samples with exactly this embedding."""

    sample_id: int
    similarity: float
    duplicates: int
    url: str | None
    text: str | None


def build(
    source: Path, out: Path, *, queries: int = QUERIES, progress: StepProgress = silent
) -> IndexInfo:
    """Index the export in folder ``source`` (clip-retrieval's layout) in folder ``out``, which does
    not exist or is empty.

    All vectors are in memory: about 2 * dims + 300 bytes of each. progress is called with (what,
    rows done, rows). Written beside ``out`` and renamed at the end. Raises UserError if ``out``
    holds something or the source is no such export.
    """
    export = ExportReader(source)
    with atomic_folder(out) as half:
        index, finder = _new(export.dims), DuplicateFinder()
        samples = 0
        with pq.ParquetWriter(half / PAIRS_FILE, PAIRS, compression="zstd") as pairs:
            for shard in export.shards():
                for start in range(0, len(shard.keys), ADD):
                    progress("indexing", samples + start, export.rows)
                    _add(index, finder, shard, slice(start, start + ADD))
                samples += len(shard.keys)
                if shard.pairs.num_rows:
                    pairs.write_table(shard.pairs, row_group_size=ROW_GROUP)
        info = IndexInfo(
            samples=samples,
            vectors=len(index),
            removed=0,
            dims=export.dims,
            release=export.release,
            model=export.model,
            recall_at_10=recall.measure(index, export, queries, progress).as_dict(),
            written_by={"pairmill": __version__, "usearch": version("usearch")},
        )
        index.save(half / GRAPH_FILE)
        finder.duplicates().write(half / DUPLICATES_FILE)
        (half / INFO_FILE).write_text(_text(info), "utf-8")
    return info


def _add(index: Index, finder: DuplicateFinder, shard: ExportShard, rows: slice) -> None:
    keys, images = shard.keys[rows], np.asarray(shard.images[rows])
    first = [finder.is_first(int(key), image) for key, image in zip(keys, images, strict=True)]
    if any(first):
        with recall.usearch_errors():
            _insert(index, keys[first], images[first])


def _insert(index: Index, keys: Keys, vectors: npt.NDArray[np.float16]) -> None:
    # threads that insert into a small graph do not see each other: of 200 vectors one or two could
    # not be found in 3 of 100 builds, and in none by one thread
    index.add(keys, vectors, threads=1 if len(index) < ALONE else 0)


def _new(dims: int) -> Index:
    return Index(
        ndim=dims, metric="cos", dtype="f16", connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD, expansion_search=EXPANSION_SEARCH,
    )  # fmt: skip


class NeighbourIndex:
    """An index, opened for queries. Raises UserError if the folder holds none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info = read_info(folder)
        self._index = _restored(folder, view=True)
        self._duplicates = Duplicates.read(folder / DUPLICATES_FILE)

    def vector(self, sample_id: int) -> Floats:
        """float32[dims] of an image. Raises UserError if it is not in the index."""
        key = self._duplicates.key(sample_id) if sample_id >= 0 else -1
        if key < 0 or not self._index.contains(key):
            raise UserError(f"{sample_id} is not in the index {self.folder}")
        vector: Floats = recall.vectors(self._index, np.array([key], np.uint64))[0]
        return vector

    def nearest(self, vector: Floats, k: int = K, *, but: int | None = None) -> list[Neighbour]:
        """The k distinct images nearest to a vector (float32[dims], of any length), nearest first.
        ``but``: a SAMPLE_ID whose image is no answer. Raises UserError for a vector of other dims,
        or of no direction."""
        length = float(np.linalg.norm(vector))
        if len(vector) != self.info.dims or not np.isfinite(length) or not length:
            raise UserError(f"the query is no vector of {self.info.dims} finite numbers")
        # HNSW keeps no more candidates than this
        candidates = max(EXPANSION_SEARCH, 2 * k)
        self._index.expansion_search = candidates  # type: ignore[misc]
        keys = np.asarray(self._index.search(vector, k + 1).keys, np.uint64)
        own = recall.NOTHING if but is None else self._duplicates.key(but)
        keys = keys[keys != own][:k]
        near = recall.vectors(self._index, keys) @ (vector / length)
        pairs = self._pairs(keys)
        answers = [
            Neighbour(
                int(key),
                float(similarity),
                self._duplicates.count(key),
                *pairs.get(int(key), (None, None)),
            )
            for key, similarity in zip(keys, near, strict=True)
        ]
        return sorted(answers, key=lambda a: (-a.similarity, a.sample_id))

    def _pairs(self, keys: Keys) -> dict[int, tuple[str, str]]:
        wanted = [("SAMPLE_ID", "in", keys.astype(np.int64).tolist())]
        table = pq.read_table(self.folder / PAIRS_FILE, filters=wanted)
        return {row["SAMPLE_ID"]: (row["URL"], row["TEXT"]) for row in table.to_pylist()}


def sample_ids(folder: Path) -> list[int]:
    """The SAMPLE_IDs of an index, in order."""
    read_info(folder)
    ids: list[int] = pq.read_table(folder / PAIRS_FILE, columns=["SAMPLE_ID"])[0].to_pylist()
    return ids


def remove(
    folder: Path,
    ids: Iterable[int],
    *,
    compact: bool = False,
    dry_run: bool = False,
    progress: StepProgress = silent,
) -> tuple[int, int]:
    """Delete samples from an index: no query finds them any more, and URL and text are gone.

    Their vectors stay in the file, out of reach, until ``compact``, which makes the graph anew
    of what is left. Returns (deleted, not in the index). Each file is replaced in one step, and
    what was interrupted is finished by the same call again.
    """
    with _locked(folder):
        info = read_info(folder)
        index = _restored(folder, view=dry_run)
        held = np.array(sample_ids(folder), np.uint64)
        gone = np.unique(np.array([i for i in ids if i >= 0], np.uint64))
        deleted = int(np.isin(held, gone).sum())
        if not dry_run and (len(gone) or compact):
            duplicates = Duplicates.read(folder / DUPLICATES_FILE).without(gone, index)
            index.remove(gone[np.atleast_1d(index.contains(gone))])
            kept = _rebuilt(index, progress) if compact else index
            _replace(folder / GRAPH_FILE, kept.save)
            _replace(folder / DUPLICATES_FILE, duplicates.write)
            _replace(folder / PAIRS_FILE, lambda path: _rest(folder / PAIRS_FILE, gone, path))
            info = replace(
                info,
                samples=len(held) - deleted,
                vectors=len(kept),
                removed=info.removed + deleted,
            )
            _replace(folder / INFO_FILE, lambda path: path.write_text(_text(info), "utf-8"))
    return deleted, len(gone) - deleted


def _rebuilt(old: Index, progress: StepProgress) -> Index:
    index = _new(old.ndim)
    keys = np.sort(np.array(list(old.keys), np.uint64))
    for start in range(0, len(keys), ADD):
        progress("indexing", start, len(keys))
        some = keys[start : start + ADD]
        with recall.usearch_errors():
            _insert(index, some, np.asarray(old.get(some)).reshape(len(some), -1))
    return index


def _rest(source: Path, removed: Keys, target: Path) -> None:
    """pairs.parquet without what was removed."""
    gone = pa.array(removed.astype(np.int64))
    with (
        pq.ParquetFile(source) as file,
        pq.ParquetWriter(target, PAIRS, compression="zstd") as writer,
    ):
        for batch in file.iter_batches(ROW_GROUP):
            kept = batch.filter(pc.invert(pc.is_in(batch["SAMPLE_ID"], gone)))
            if kept.num_rows:
                writer.write_batch(kept)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        write(beside)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One removal at a time: of two, the later would bring back what the earlier deleted."""
    read_info(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_info(folder: Path) -> IndexInfo:
    """Raises UserError if the folder holds no index."""
    try:
        return IndexInfo(**json.loads((folder / INFO_FILE).read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no index: make one with `pairmill index build`") from None
    except (OSError, ValueError, TypeError):
        raise UserError(f"{folder / INFO_FILE} is not what `pairmill index build` writes") from None


def _restored(folder: Path, *, view: bool) -> Index:
    try:
        index = Index.restore(folder / GRAPH_FILE, view=view)
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"the index {folder} is damaged: {error}") from None
    if index is None:
        raise UserError(f"the index {folder} lacks {GRAPH_FILE}")
    return index


def _text(info: IndexInfo) -> str:
    return json.dumps(info.as_dict(), indent=2, ensure_ascii=False) + "\n"
