"""An index of an export, shard by shard, each in bounded memory."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pairmill import __version__
from pairmill.ops.errors import UserError
from pairmill.ops.files import require_free
from pairmill.ops.vectors import recall
from pairmill.ops.vectors.arrays import Npy
from pairmill.ops.vectors.duplicates import Duplicates, firsts, hashes
from pairmill.ops.vectors.export_reader import ExportReader
from pairmill.ops.vectors.hnsw import GRAPH_FILE, Graph, GraphBuilder
from pairmill.ops.vectors.index_info import (
    INFO_FILE,
    Halves,
    IndexInfo,
    Keys,
    ShardInfo,
    StepProgress,
    mean_recall,
    silent,
    write_info,
)
from pairmill.ops.vectors.index_plan import FEWEST, IndexPlan, half_of_memory, plan
from pairmill.ops.vectors.recall import Questions, unit
from pairmill.ops.vectors.shard_files import (
    EMBEDDINGS_FILE,
    PAIRS_FILE,
    PairsWriter,
    bytes_of,
    write_rows,
)

QUERIES = 200  # by images, and by texts, to measure recall
WANTED = 0.95
PLAN_FILE, SHARD_FILE = "plan.json", "shard.json"


def build(
    source: Path,
    out: Path,
    *,
    kind: str = "auto",
    memory: int | None = None,
    wanted: float = WANTED,
    queries: int = QUERIES,
    part: tuple[int, int] = (1, 1),
    progress: StepProgress = silent,
) -> IndexInfo:
    """Index the export in folder ``source`` (clip-retrieval's layout) in folder ``out``, which does
    not exist or is empty.

    kind: auto, hnsw or ivfpq. memory: bytes that a shard's build may take; half of the machine's by
    default. wanted: recall@10, met by as many candidates and lists a query as it takes. queries: by
    how many images, and texts, it is measured in each shard. part: (i, n) builds the i-th of n,
    from 1, as an index of its own. progress is called with (what, rows done, rows).

    Written beside ``out`` and renamed at the end; after an interruption finished shards stay
    there, and the same call goes on with them. Raises UserError if ``out`` holds something, the
    source is no such export, or another build of ``out`` is at work.
    """
    export = ExportReader(source)
    memory = half_of_memory() if memory is None else memory
    planned = plan(export.rows, export.dims, kind, memory, part)
    wish = {"export": export.identity, "kind": planned.kind, "shards": planned.shards,
            "wanted": wanted, "queries": queries, "part": part}  # fmt: skip
    with _unfinished(out, json.loads(json.dumps(wish))) as half:
        shards = []
        for n, (start, stop) in enumerate(planned.shards):
            name = f"shard-{(part[0] - 1):03}-{n:04}"
            of = f" of shard {n + 1} of {len(planned.shards)}" if len(planned.shards) > 1 else ""
            shards.append(
                _finished(half / name)
                or _ShardBuild(export, half / name, start, stop, progress, of).run(
                    planned.kind, wanted, queries
                )
            )
        info = _described(export, planned, wanted, shards)
        write_info(half, info)
    return info


def _described(
    export: ExportReader, planned: IndexPlan, wanted: float, shards: list[ShardInfo]
) -> IndexInfo:
    return IndexInfo(
        kind=planned.kind,
        why=planned.why,
        samples=sum(shard.samples for shard in shards),
        vectors=sum(shard.vectors for shard in shards),
        removed=0,
        dims=export.dims,
        release=export.release,
        model=export.model,
        wanted=wanted,
        recall_at_10=mean_recall(shards),
        written_by=written_by(),
        shards=shards,
    )


def written_by() -> dict[str, str]:
    versions = {"pairmill": __version__, "usearch": version("usearch")}
    try:
        return versions | {"faiss": version("faiss-cpu")}
    except PackageNotFoundError:
        return versions


def _finished(folder: Path) -> ShardInfo | None:
    """What an interrupted build has finished; anything else of that name is deleted."""
    try:
        return ShardInfo(**json.loads((folder / SHARD_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        shutil.rmtree(folder, ignore_errors=True)
        return None


@contextmanager
def _unfinished(out: Path, wish: object) -> Iterator[Path]:
    """A folder beside ``out``, renamed to it at the end. After an error or an interruption it is
    deleted, unless it has finished shards."""
    require_free(out)
    half = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    half.mkdir(parents=True, exist_ok=True)
    handle = os.open(half, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build of {out} is at work: wait for it, or end it") from None
        try:
            same = json.loads((half / PLAN_FILE).read_bytes()) == wish
        except (OSError, ValueError):
            same = False
        if not same:
            _emptied(half)
            (half / PLAN_FILE).write_text(json.dumps(wish), "utf-8")
        try:
            yield half
        except BaseException:
            if not any(half.glob(f"*/{SHARD_FILE}")):
                shutil.rmtree(half, ignore_errors=True)
            raise
        (half / PLAN_FILE).unlink()
        if out.exists():
            out.rmdir()
        half.rename(out)
    finally:
        os.close(handle)


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


class _ShardBuild:
    """One shard: rows start to stop of an export."""

    def __init__(
        self, export: ExportReader, folder: Path, start: int, stop: int,
        progress: StepProgress, of: str,
    ) -> None:  # fmt: skip
        self.export, self.folder = export, folder
        self._range, self._rows = (start, stop), stop - start
        self._progress, self._of = progress, of

    def _report(self, what: str, done: int, total: int) -> None:
        self._progress(what + self._of, done, total)

    def run(self, kind: str, wanted: float, queries: int) -> ShardInfo:
        self.folder.mkdir()
        keys, digests = self._keys_and_hashes()
        first = firsts(digests)
        distinct = first == np.arange(len(first))
        duplicates = Duplicates.of(keys[~distinct], keys[first[~distinct]])
        vectors = int(distinct.sum())
        kind = "hnsw" if vectors < FEWEST else kind
        write_rows(self.folder, keys[distinct], duplicates, digests[distinct, 0])
        self._write_pairs()
        if kind == "hnsw":
            builder = GraphBuilder(self.export.dims)
            for images in self._distinct(distinct):
                builder.add(images)
            builder.save(self.folder / GRAPH_FILE)
            del builder
        else:
            self._write_embeddings(distinct)
        questions = self._questions(distinct, queries)
        effort = _structured(self.folder, kind, questions, wanted, self._report)
        info = ShardInfo(
            name=self.folder.name, kind=kind, samples=self._rows, vectors=vectors,
            effort=effort.candidates, probes=effort.probes,
            recall_at_10=effort.recall.as_dict(), bytes=bytes_of(self.folder),
        )  # fmt: skip
        (self.folder / SHARD_FILE).write_text(json.dumps(asdict(info)), "utf-8")
        return info

    def _keys_and_hashes(self) -> tuple[Keys, Keys]:
        keys = np.empty(self._rows, np.uint64)
        digests = np.empty((self._rows, 2), np.uint64)
        for block in self.export.blocks(*self._range):
            self._report("reading", block.first, self._rows)
            rows = slice(block.first, block.first + len(block.keys))
            keys[rows], digests[rows] = block.keys, hashes(np.asarray(block.images))
        if not (keys[1:] > keys[:-1]).all():
            raise UserError(
                f"the rows of {self.export.folder} are not in the order of SAMPLE_ID, as"
                " `pairmill embeddings export` writes them: export them anew"
            )
        return keys, digests

    def _write_pairs(self) -> None:
        writer = PairsWriter(self.folder / PAIRS_FILE)
        try:
            for batch in self.export.pairs(*self._range):
                self._report("reading", 0, self._rows)
                writer.write(batch)
        finally:
            writer.close()

    def _distinct(self, distinct: npt.NDArray[np.bool_]) -> Iterator[Halves]:
        for block in self.export.blocks(*self._range):
            # a graph's pieces are small: an interruption is heard between them
            for at in range(0, len(block.keys), 2_000):
                self._report("indexing", block.first + at, self._rows)
                some = block.images[at : at + 2_000]
                low = block.first + at
                yield np.asarray(some[distinct[low : low + len(some)]])

    def _write_embeddings(self, distinct: npt.NDArray[np.bool_]) -> None:
        file = Npy(self.folder / EMBEDDINGS_FILE, self.export.dims)
        try:
            for images in self._distinct(distinct):
                file.write(images)
        finally:
            file.close()

    def _questions(self, distinct: npt.NDArray[np.bool_], queries: int) -> Questions:
        """Every so-manyth of the distinct rows, ``queries`` of them or a few more."""
        dims = self.export.dims
        rows = np.flatnonzero(distinct)
        wanted = rows[:: max(1, len(rows) // queries)] if queries else rows[:0]
        nothing = np.zeros((0, dims), np.float32)
        images, texts = [nothing], [nothing]
        for block in self.export.blocks(*self._range):
            inside = wanted[(wanted >= block.first) & (wanted < block.first + len(block.keys))]
            images.append(unit(block.images[inside - block.first]))
            texts.append(unit(block.texts[inside - block.first]))
        asked = np.concatenate([*images, *texts])
        own = np.concatenate([np.searchsorted(rows, wanted), np.full(len(wanted), -1)])
        return Questions(asked, own.astype(np.int64))


def _structured(
    folder: Path, kind: str, questions: Questions, wanted: float, progress: StepProgress
) -> recall.Effort:
    """The structure of a shard's vectors, made where it is not, and what a query reads of it."""
    if kind == "hnsw":
        return recall.of_graph(Graph(folder), questions, wanted, progress)
    from pairmill.ops.vectors import ivfpq

    ivfpq.build(folder, progress)
    lists = ivfpq.InvertedLists(folder, np.zeros(0, np.int64))
    return recall.of_lists(lists, questions, wanted, ivfpq.code_bytes(lists.dims), progress)


def is_unfinished(out: Path) -> bool:
    """Whether a build of ``out`` was interrupted, and has finished shards."""
    half = out.absolute().with_name(f".{out.absolute().name}.unfinished")
    return not (out / INFO_FILE).exists() and any(half.glob(f"*/{SHARD_FILE}"))
