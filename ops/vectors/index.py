"""An index of nearest neighbours over the image embeddings of a release, changed: built, merged of
parts, and without what was removed.

Images and texts share one space, so both find images. ops/vectors/opened.py asks it,
ops/vectors/index_info.py says what is in its folder.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder
from pairmill.ops.vectors.arrays import Npy
from pairmill.ops.vectors.duplicates import hashes, is_in
from pairmill.ops.vectors.hnsw import GRAPH_FILE, GraphBuilder
from pairmill.ops.vectors.index_build import SHARD_FILE, build
from pairmill.ops.vectors.index_info import (
    IndexInfo,
    Keys,
    ShardInfo,
    StepProgress,
    mean_recall,
    put,
    read_info,
    silent,
    write_info,
)
from pairmill.ops.vectors.index_plan import FEWEST
from pairmill.ops.vectors.recall import BLOCK
from pairmill.ops.vectors.shard import IndexShard
from pairmill.ops.vectors.shard_files import (
    EMBEDDINGS_FILE,
    PAIRS_FILE,
    RowFiles,
    bytes_of,
    write_pairs_left,
    write_removed,
    write_rows,
)

__all__ = ["build", "ids_by_shard", "merge", "read_info", "remove", "sample_ids"]


def ids_by_shard(folder: Path) -> Iterator[Keys]:
    """The SAMPLE_IDs of each shard, in order: uint64[n]."""
    for shard in read_info(folder).shards:
        yield RowFiles(folder / shard.name).samples()


def sample_ids(folder: Path) -> list[int]:
    """The SAMPLE_IDs of an index, in order."""
    parts = list(ids_by_shard(folder))
    return [int(each) for each in np.sort(np.concatenate(parts))] if parts else []


def merge(parts: Sequence[Path], out: Path) -> IndexInfo:
    """One index of the shards of several, which are built elsewhere (``--shard``), in folder
    ``out``. Their files are linked where the disk is the same, else copied. Raises UserError where
    the parts are of other models, releases or dims, or have samples in common."""
    infos = [read_info(part) for part in parts]
    if not infos:
        raise UserError("no parts are named")
    first = infos[0]
    for part, info in zip(parts, infos, strict=True):
        if (info.model, info.release, info.dims) != (first.model, first.release, first.dims):
            raise UserError(f"{part} is of another model or release than {parts[0]}")
    with atomic_folder(out) as half:
        held: list[tuple[int, int, Path]] = []
        shards: list[ShardInfo] = []
        for part, info in zip(parts, infos, strict=True):
            for shard in info.shards:
                ids = RowFiles(part / shard.name).samples()
                held += [(int(ids[0]), int(ids[-1]), part)] if len(ids) else []
                shards.append(replace(shard, name=f"shard-{len(shards):04}"))
                _linked(part / shard.name, half / shards[-1].name)
        held.sort(key=lambda each: each[:2])
        for (_, last, one), (start, _, other) in pairwise(held):
            if start <= last:
                raise UserError(f"{one} and {other} have samples in common: merge parts once")
        info = replace(
            first,
            samples=sum(each.samples for each in infos),
            vectors=sum(each.vectors for each in infos),
            removed=sum(each.removed for each in infos),
            recall_at_10=mean_recall(shards),
            shards=shards,
        )
        write_info(half, info)
    return info


def _linked(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        if not path.name.startswith("."):
            try:
                os.link(path, target / path.name)
            except OSError:
                shutil.copyfile(path, target / path.name)


def remove(
    folder: Path,
    ids: Iterable[int],
    *,
    compact: bool = False,
    dry_run: bool = False,
    progress: StepProgress = silent,
) -> tuple[int, int]:
    """Delete samples from an index: no query finds them any more, and URL and text are gone.

    Their vectors stay in the files, out of reach, until ``compact``, which makes the shards anew
    that have removed ones. Returns (deleted, not in the index). Each file is replaced in one step,
    what says that a sample is gone before its URL and text, and what was interrupted is finished by
    the same call again.
    """
    with _locked(folder):
        info = read_info(folder)
        gone = np.unique(np.array([i for i in ids if i >= 0], np.uint64))
        deleted = again = 0
        before = {shard.name: RowFiles(folder / shard.name) for shard in info.shards}
        for rows in before.values():
            here = int(is_in(rows.samples(), gone).sum())
            deleted += here
            again += int(is_in(rows.removed, gone).sum())
            if here and not dry_run:
                held = np.union1d(rows.removed, gone[is_in(gone, rows.samples())])
                write_removed(rows.folder, held)
        if not dry_run and (deleted or again or compact):
            _finish(folder, info, gone, compact, progress)
    return deleted, len(gone) - deleted


def _finish(
    folder: Path, info: IndexInfo, gone: Keys, compact: bool, progress: StepProgress
) -> None:
    """After removed.npy: the counts, URLs and texts, and with ``compact`` the shards anew."""
    shards: list[ShardInfo] = []
    replaced: list[Path] = []
    samples = vectors = 0
    for shard in info.shards:
        rows = RowFiles(folder / shard.name)
        samples, vectors = samples + len(rows.samples()), vectors + rows.alive()
        if compact and len(rows.removed):
            name = _free_name(folder, info, shards)
            shards.append(_compacted(folder / shard.name, shard, folder / name, progress))
            replaced.append(folder / shard.name)
        else:
            shards.append(shard)
    removed = info.removed + info.samples - samples
    new = replace(info, samples=samples, vectors=vectors, removed=removed, shards=shards)
    write_info(folder, new)
    for old in replaced:
        shutil.rmtree(old)
    for shard in shards:
        rows = RowFiles(folder / shard.name)
        if is_in(rows.removed, gone).any():
            put(rows.folder / PAIRS_FILE, partial(write_pairs_left, rows.folder, rows.removed))


def _free_name(folder: Path, info: IndexInfo, shards: list[ShardInfo]) -> str:
    taken = {shard.name for shard in (*info.shards, *shards)}
    name = next(n for n in (f"shard-{i:04}" for i in range(10**6)) if n not in taken)
    shutil.rmtree(folder / name, ignore_errors=True)  # an interrupted one
    return name


def _compacted(source: Path, info: ShardInfo, target: Path, progress: StepProgress) -> ShardInfo:
    """A shard anew, of what is left of another. A structure of few vectors is a graph."""
    old = IndexShard(source, info)
    left = np.setdiff1d(np.arange(len(old.rows.keys)), old.rows.dead)
    kind = info.kind if len(left) >= FEWEST else "hnsw"
    target.mkdir()
    builder = GraphBuilder(old.structure.dims) if kind == "hnsw" else None
    file = None if builder else Npy(target / EMBEDDINGS_FILE, old.structure.dims)
    keys, digests = old.rows.keys_of(left), np.zeros(len(left), np.uint64)
    # heirs of removed samples are not in the order of the rows
    order = np.argsort(keys)
    left, keys = left[order], keys[order]
    for start in range(0, len(left), BLOCK):
        progress("indexing", start, len(left))
        some = old.structure.get(left[start : start + BLOCK])
        digests[start : start + BLOCK] = hashes(some)[:, 0]
        if builder:
            builder.add(some)
        elif file:
            file.write(some)
    if file:
        file.close()
        from pairmill.ops.vectors import ivfpq

        ivfpq.build(target, progress)
    elif builder:
        builder.save(target / GRAPH_FILE)
    write_rows(target, keys, old.rows.duplicates_left(), digests)
    write_pairs_left(source, old.rows.removed, target / PAIRS_FILE)
    made = replace(
        info, name=target.name, kind=kind, samples=len(old.rows.samples()),
        vectors=len(left), bytes=bytes_of(target),
    )  # fmt: skip
    (target / SHARD_FILE).write_text(json.dumps(asdict(made)), "utf-8")
    return made


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
