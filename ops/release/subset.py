"""Files of subsets, as DataComp has them: ids as ``u8,u8``, sorted, each once, in an .npy.

A uid's 32 hexadecimal digits are two uint64, of a SAMPLE_ID the first is 0. Such a file names rows
of a data set without a copy of it: DFN is nothing else.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.folder import is_release, read_release
from pairmill.ops.release.keep_list import READ, KeepList, RowsDone, ids_of_parts, unseen
from pairmill.ops.release.keep_list_ids import IDS, Ids
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.recipe_checks import file_of

ENDINGS = (".npy", ".parquet", ".txt")


@dataclass(frozen=True)
class Subset:
    """What was written. read: ids of the source; repeated: those that it had already; ids: of the
    file. sha256: the file's, which `release apply` asks for."""

    file: str
    read: int
    repeated: int
    ids: int
    sha256: str


def write(
    source: Path,
    out: Path,
    *,
    within: Sequence[Path] = (),
    without: Sequence[Path] = (),
    progress: RowsDone = unseen,
) -> Subset:
    """Write the ids of ``source`` that all files of ``within`` name and none of ``without``.

    source: a release, a Parquet file or a folder of some, with a column SAMPLE_ID or uid; or an
    .npy of a subset, in any order. out: .npy; .parquet with SAMPLE_ID (int64), or with uid where
    an id is no SAMPLE_ID; .txt, a line an id. Sorting holds 32 bytes an id in memory; what is
    in order already stays on the disk. Raises UserError for what has no ids, or another ending;
    ``out`` is whole or not there.
    """
    if out.suffix not in ENDINGS:
        raise UserError(f"--out {out.name}: a file of a subset ends in {', '.join(ENDINGS)}")
    filters = [(read(path), True) for path in within]
    filters += [(read(path), False) for path in without]
    beside = out.with_name(f".{out.name}.unfinished")
    gathered = out.with_name(f".{out.name}.ids")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        count = _gather(source, gathered, filters, progress)
        ids = np.memmap(gathered, IDS, "r") if gathered.stat().st_size else np.zeros(0, IDS)
        ids, repeated = _sorted(ids)
        with beside.open("wb") as file:
            _WRITERS[out.suffix](ids, file)
        digest = sha256(beside)
        beside.replace(out)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
        gathered.unlink(missing_ok=True)
    return Subset(str(out), count, repeated, len(ids), digest)


def _gather(
    source: Path, out: Path, filters: Sequence[tuple[KeepList, bool]], progress: RowsDone
) -> int:
    """Write the ids of a source that the filters take, one after the other, and count all."""
    done = 0
    with out.open("wb") as file, _pieces(source) as (total, pieces):
        for ids in pieces:
            done += len(ids)
            for listed, wanted in filters:
                ids = ids[listed.keeps(ids) == wanted]
            file.write(ids.tobytes())
            progress(done, total)
    return done


@contextmanager
def _pieces(source: Path) -> Iterator[tuple[int, Iterator[Ids]]]:
    """Number of ids, and the ids in pieces."""
    if source.suffix == ".npy":
        ids = _array(source)
        yield len(ids), (np.asarray(ids[i : i + READ]) for i in range(0, len(ids), READ))
        return
    if is_release(source):
        parts = read_release(source).parts
    elif source.is_dir():
        parts = sorted(source.rglob("*.parquet"))
    else:
        parts = [source]
    if not parts or not all(part.is_file() for part in parts):
        raise UserError(f"{source} is no release, no Parquet file, no folder of some, and no .npy")
    try:
        total = sum(pq.read_metadata(part).num_rows for part in parts)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot read {source}: {error}") from None
    yield total, (ids for _, ids in ids_of_parts(parts))


def _array(path: Path) -> Ids:
    try:
        # an empty array cannot be mapped
        ids: Ids = np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if ids.dtype != IDS or ids.ndim != 1:
        raise UserError(f"{path} is no file of a subset: its type is {ids.dtype}, and not u8,u8")
    return ids


def read(path: Path) -> KeepList:
    """The ids of an .npy. Raises UserError for one of another type, or out of order."""
    ids = _array(path)
    if not _ascends(ids):
        raise UserError(
            f"{path} is not sorted, or has an id twice: `pairmill release subset {path} --out NEW`"
        )
    return KeepList(ids)


def _sorted(ids: Ids) -> tuple[Ids, int]:
    """The ids in order, each once, and how many repeat another."""
    if _ascends(ids):
        return ids, 0
    upper, lower = ids["f0"], ids["f1"]
    order = np.lexsort((lower, upper)) if upper.any() else np.argsort(lower, kind="stable")
    ids = np.asarray(ids)[order]
    first = np.ones(len(ids), bool)
    first[1:] = (ids["f0"][1:] != ids["f0"][:-1]) | (ids["f1"][1:] != ids["f1"][:-1])
    return ids[first], int((~first).sum())


def _ascends(ids: Ids) -> bool:
    for start in range(0, len(ids), READ):
        part = np.asarray(ids[max(0, start - 1) : start + READ])
        upper, lower = part["f0"], part["f1"]
        same = upper[:-1] == upper[1:]
        if not np.all((upper[:-1] < upper[1:]) | (same & (lower[:-1] < lower[1:]))):
            return False
    return True


def _write_npy(ids: Ids, file: BinaryIO) -> None:
    header = {"descr": IDS.descr, "fortran_order": False, "shape": (len(ids),)}
    np.lib.format.write_array_header_1_0(file, header)
    for start in range(0, len(ids), READ):
        file.write(ids[start : start + READ].tobytes())


def _write_parquet(ids: Ids, file: BinaryIO) -> None:
    own = _are_samples(ids)
    schema = pa.schema([("SAMPLE_ID", pa.int64()) if own else ("uid", pa.string())])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, len(ids), READ):
            names = pa.array(_names(ids[start : start + READ], own), schema.field(0).type)
            writer.write_table(pa.Table.from_arrays([names], schema=schema))


def _write_lines(ids: Ids, file: BinaryIO) -> None:
    own = _are_samples(ids)
    for start in range(0, len(ids), READ):
        lines = (f"{name}\n" for name in _names(ids[start : start + READ], own))
        file.write("".join(lines).encode())


def _are_samples(ids: Ids) -> bool:
    return not np.any(ids["f0"]) and not np.any(ids["f1"] >> np.uint64(63))


def _names(ids: Ids, own: bool) -> list[int] | list[str]:
    lower: list[int] = ids["f1"].tolist()
    if own:
        return lower
    return [f"{a:016x}{b:016x}" for a, b in zip(ids["f0"].tolist(), lower, strict=True)]


_WRITERS = {".npy": _write_npy, ".parquet": _write_parquet, ".txt": _write_lines}


class Listed:
    """An annotator: whether a file of a subset names the pair."""

    column = "listed"
    kind = pa.bool_()
    needs: tuple[str, ...] = ("sample_id",)

    def __init__(self, ids: KeepList) -> None:
        self._ids = ids

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        ids = np.zeros(len(rows), IDS)
        ids["f1"] = rows["sample_id"].to_numpy()
        return pa.array(self._ids.keeps(ids), self.kind)


def of_recipe(recipe: Recipe) -> Listed | None:
    """Raises UserError for a file that is absent, unsorted, or of another type."""
    if recipe.subset is None:
        return None
    return Listed(read(file_of(recipe, "subset", recipe.subset)))
