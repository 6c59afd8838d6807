"""The shards of a folder, and each without the rows that a keep-list lacks.

A shard is all files of the same rows: Parquet with ids, and beside it arrays (.npy, .npz), a tar or
a folder of images, and img2dataset's statistics; or a tar alone. Its new files are made in
``.NAME.keeping``, renamed ``.NAME.kept`` when all are there, and moved into place; so whatever is
killed in between, the next run throws away or ends.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.release import keep_list_tar as tars
from pairmill.ops.release.folder import NAME as RELEASE
from pairmill.ops.release.keep_list import KeepList
from pairmill.ops.release.keep_list_ids import id_column
from pairmill.ops.release.keep_list_rows import (
    Mask,
    filter_npy,
    filter_npz,
    filter_parquet,
    mask_of,
    recounted,
    synced,
)

HALF, WHOLE = ".keeping", ".kept"
UNFINISHED = (".half", ".whole", ".old")  # of `pairmill fetch`


@dataclass(frozen=True)
class KeptShard:
    """A shard in a folder; what it does not have is None, or empty."""

    name: str
    parquet: Path | None = None
    arrays: tuple[Path, ...] = ()
    tar: Path | None = None
    images: Path | None = None
    stats: Path | None = None

    @property
    def files(self) -> list[Path]:
        single = (self.parquet, self.tar, self.stats)
        return [path for path in (*single, *self.arrays) if path is not None]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.files)


@dataclass
class Dropped:
    """What goes from a shard: rows of its Parquet file by a mask, samples of its tar or folder by
    their keys. rows, dropped: counts, of rows, or of samples where there are no rows."""

    rows: int = 0
    dropped: int = 0
    mask: Mask | None = None
    gone: set[str] = field(default_factory=set)


def shards_of(folder: Path) -> list[KeptShard]:
    """The shards of a folder, in order. Raises UserError for arrays without their rows."""
    images, metadata = folder / "img_emb", folder / "metadata"
    if images.is_dir() or metadata.is_dir():
        return _of_embeddings(folder, metadata)
    parquet = {p.stem: p for p in sorted(folder.glob("[!._]*.parquet"))}
    tars_alone = {p.stem: p for p in sorted(folder.glob("[!.]*.tar")) if p.stem not in parquet}
    if alone := sorted(p for p in folder.glob("[!.]*.npz") if p.stem not in parquet):
        raise UserError(f"{alone[0]} has no Parquet file beside it, which would say of which rows")

    def there(path: Path) -> Path | None:
        return path if path.exists() else None

    rows = [
        KeptShard(
            name,
            path,
            tuple(p for p in (path.with_suffix(".npz"),) if p.exists()),
            there(path.with_suffix(".tar")),
            there(folder / name) if (folder / name).is_dir() else None,
            there(folder / f"{name}_stats.json"),
        )
        for name, path in parquet.items()
    ]
    return rows + [KeptShard(name, tar=path) for name, path in tars_alone.items()]


def _of_embeddings(folder: Path, metadata: Path) -> list[KeptShard]:
    """clip-retrieval's layout: metadata/metadata_N.parquet, img_emb/img_emb_N.npy and so on."""
    found = []
    known: set[Path] = set()
    for path in sorted(metadata.glob("*.parquet")):
        number = path.stem.removeprefix("metadata_")
        places = (folder / f"{kind}_emb" / f"{kind}_emb_{number}.npy" for kind in ("img", "text"))
        arrays = tuple(place for place in places if place.exists())
        known |= {*arrays}
        found.append(KeptShard(path.stem, path, arrays))
    for kind in ("img", "text"):
        if alone := sorted({*(folder / f"{kind}_emb").glob("*.npy")} - known):
            raise UserError(f"{alone[0]} has no Parquet file in {metadata} that says of which rows")
    return found


def left_alone(folder: Path, shards: list[KeptShard], known: tuple[str, ...]) -> list[str]:
    """The names of other files and folders directly in a folder: rows in them stay."""
    ours = {path for shard in shards for path in shard.files}
    ours |= {shard.images for shard in shards if shard.images}
    tops = {folder / path.relative_to(folder).parts[0] for path in ours}
    named = (path for path in folder.iterdir() if path not in tops and path.name not in known)
    return sorted(path.name for path in named if not path.name.startswith("."))


def examine(shard: KeptShard, keep: KeepList, *, keys_are_ids: bool) -> Dropped:
    """What a keep-list drops from a shard. Raises UserError for a row or sample without an id."""
    found = Dropped()
    by_key: dict[str, bool] = {}
    if shard.parquet is not None and (shard.tar or shard.images):
        by_key = tars.keys_of(shard.parquet, keep)
    if shard.tar is not None:
        samples, found.gone = tars.dropped_keys(shard.tar, keep, by_key, keys_are_ids=keys_are_ids)
        found.rows, found.dropped = samples, len(found.gone)
    if shard.images is not None:
        found.gone |= {key for key, stays in by_key.items() if not stays}
    if shard.parquet is not None:
        found.mask = _mask(shard, shard.parquet, keep, found.gone)
        found.rows = len(found.mask)
        found.dropped = max(found.rows - int(found.mask.sum()), found.dropped)
    return found


def _mask(shard: KeptShard, parquet: Path, keep: KeepList, gone: set[str]) -> Mask:
    """By the ids in the Parquet file; where they are in the tar alone, by its keys."""
    try:
        names = pq.read_schema(parquet).names
        if id_column(names) is None and shard.tar is not None and "key" in names:
            keys = pq.read_table(parquet, columns=["key"])["key"].to_pylist()
            bases = {key.rpartition("/")[2] for key in gone}
            return np.array([key not in bases for key in keys], bool)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {parquet}: {error}") from None
    return mask_of(parquet, keep)


def rewrite(folder: Path, shard: KeptShard, found: Dropped) -> None:
    """Make the files of a shard anew, without what goes, and move them into place."""
    half = folder / f".{shard.name}{HALF}"
    half.mkdir()

    def place(path: Path) -> Path:
        return half / path.relative_to(folder)

    if found.gone and shard.tar is not None:
        tars.filter_tar(shard.tar, place(shard.tar), found.gone)
    if found.mask is not None and not found.mask.all() and shard.parquet is not None:
        filter_parquet(shard.parquet, place(shard.parquet), found.mask)
        for array in shard.arrays:
            write = filter_npz if array.suffix == ".npz" else filter_npy
            write(array, place(array), found.mask)
        if shard.stats is not None and (text := recounted(shard.stats, place(shard.parquet))):
            with synced(place(shard.stats)) as file:
                file.write(text)
    if shard.images is not None:
        # before the rows that name them: a run that was killed here finds them once more
        tars.delete_files(shard.images, found.gone)
    whole = half.with_suffix(WHOLE)
    half.rename(whole)
    _move(folder, whole)


def _move(folder: Path, whole: Path) -> None:
    for path in sorted(p for p in whole.rglob("*") if p.is_file()):
        path.replace(folder / path.relative_to(whole))
    shutil.rmtree(whole)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder alone, and end or throw away what a killed run left. Raises UserError while a
    `pairmill fetch` is at it, or has left something."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        _refuse_fetch(folder)
        _recover(folder)
        try:
            yield
        finally:
            _recover(folder)
    finally:
        os.close(handle)


def _recover(folder: Path) -> None:
    for whole in folder.glob(f".*{WHOLE}"):
        _move(folder, whole)
    for half in folder.glob(f".*{HALF}"):
        shutil.rmtree(half)


def _refuse_fetch(folder: Path) -> None:
    lock = folder / ".lock"
    if lock.exists():
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"a `pairmill fetch` writes into {folder}: wait for it") from None
    if left := [p for end in UNFINISHED for p in folder.glob(f".*{end}")]:
        raise UserError(
            f"{left[0]} was left by a `pairmill fetch` that was killed: run that to its end first"
        )


KNOWN_FILES = (RELEASE, "manifest.json", "left_out.csv")
