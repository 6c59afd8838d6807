"""Keep-lists: the sorted ids of a release's rows, by which a user of an old copy drops the others.

``NAME.npy`` is DataComp's file of a subset: ``u8,u8``, the halves of each uid, sorted.
``NAME.npy.json`` says of which release it is, who made it, and its sha256. A keep-list names what
stays, and nothing that went: rows that were removed cannot be read out of it by those who never had
them.
"""

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill import __version__
from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.folder import ReleaseFolder, manifest_text, read_release
from pairmill.ops.release.keep_list_ids import IDS, Ids, id_column, ids_of

FORMAT = "pairmill keep-list 1"
READ = 100_000  # ids at once
HEADER = 128  # bytes of a .npy file without rows, which numpy does not map
RowsDone = Callable[[int, int], None]


def unseen(done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True)
class ListedRelease:
    """The side data of a keep-list, NAME.npy.json.

    lineage: manifests' sha256, of the release and of those that it was derived from, newest first:
    the list is for copies of these. made_by: in its maker's words. rows, sha256: of the .npy.
    """

    format: str
    name: str
    version: str
    lineage: list[str]
    made_by: str
    rows: int
    sha256: str
    written_by: dict[str, str]


class KeepList:
    """A keep-list, mapped from the disk. about: its side data, or None."""

    def __init__(self, ids: Ids, about: ListedRelease | None = None) -> None:
        self._ids, self.about = ids, about

    def __len__(self) -> int:
        return len(self._ids)

    def keeps(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """bool[n]: whether the list names each id. In order, a million take about half a second."""
        if not len(ids):
            return np.zeros(0, bool)
        order = np.lexsort((ids["f1"], ids["f0"]))
        ends = ids[order[0]].item(), ids[order[-1]].item()
        first = bisect_left(self._ids, ends[0], key=lambda row: row.item())
        last = bisect_right(self._ids, ends[1], key=lambda row: row.item())
        if first == last:
            return np.zeros(len(ids), bool)
        return self._search(ids, first, last)

    def _search(self, ids: Ids, first: int, last: int) -> npt.NDArray[np.bool_]:
        """A binary search for all at once: numpy's own would read the whole list into memory."""
        upper, lower = ids["f0"], ids["f1"]
        low = np.full(len(ids), first, np.int64)
        high = np.full(len(ids), last - 1, np.int64)
        while np.any(low < high):
            middle = (low + high) >> 1
            at = self._ids[middle]
            below = (at["f0"] < upper) | ((at["f0"] == upper) & (at["f1"] < lower))
            low = np.where(below, np.minimum(middle + 1, high), low)
            high = np.where(below, high, middle)
        at = self._ids[low]
        return np.asarray((at["f0"] == upper) & (at["f1"] == lower))


def side_data(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def write(
    source: Path, out: Path, *, made_by: str = "", progress: RowsDone = unseen
) -> ListedRelease:
    """Write the keep-list of the release in folder ``source`` as ``out`` and its side data.

    Raises UserError if the folder is no release, has no column of ids, or one out of order. Both
    files are written beside their places and renamed.
    """
    found = read_release(source)
    if out.suffix != ".npy":
        raise UserError(f"a keep-list is a .npy file: --out {out.with_suffix('.npy')}")
    beside = [path.with_name(f".{path.name}.unfinished") for path in (out, side_data(out))]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = _write_ids(found, beside[0], progress)
        recipe = found.manifest["recipe"]
        about = ListedRelease(
            format=FORMAT,
            name=recipe["name"],
            version=found.manifest.get("version") or f"{recipe['version']}.0.0",
            lineage=lineage(source),
            made_by=made_by,
            rows=rows,
            sha256=sha256(beside[0]),
            written_by={"pairmill": __version__},
        )
        text = json.dumps(asdict(about), indent=2, ensure_ascii=False) + "\n"
        beside[1].write_text(text, "utf-8")
        for path, place in zip(beside, (out, side_data(out)), strict=True):
            path.replace(place)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    finally:
        for path in beside:
            path.unlink(missing_ok=True)
    return about


def read(path: Path, digest: str = "", progress: RowsDone = unseen) -> KeepList:
    """The keep-list in a file, compared with the sha256 in its side data, or with ``digest``,
    hexadecimal, where it has none (DataComp's and DFN's have none).

    Raises UserError for one that is damaged or out of order, or if neither is there: of half a
    list, half of everything would be dropped.
    """
    about = _about(path)
    wanted = digest.lower() or (about.sha256 if about else "")
    if not wanted:
        raise UserError(
            f"{side_data(path)} is missing, which tells whether {path.name} is whole: get it from"
            " where the list came from, or give the list's --sha256"
        )
    try:
        if sha256(path) != wanted:
            raise UserError(f"{path} is damaged, or another's: its sha256 is not {wanted}")
        ids = np.load(path, mmap_mode="r" if path.stat().st_size > HEADER else None)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if ids.dtype != IDS or ids.ndim != 1:
        raise UserError(f"{path} is no keep-list: its type is {ids.dtype}, and not u8,u8")
    for start in range(0, len(ids), READ):
        if not _ascending(np.asarray(ids[max(0, start - 1) : start + READ])):
            raise UserError(f"{path} is not sorted, or has an id twice")
        progress(start, len(ids))
    return KeepList(ids, about)


def _about(path: Path) -> ListedRelease | None:
    try:
        text = side_data(path).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {side_data(path)}: {error.strerror}") from None
    try:
        about = ListedRelease(**json.loads(text))
        if about.format != FORMAT or not isinstance(about.lineage, list):
            raise ValueError(about.format)
    except (ValueError, TypeError):
        raise UserError(
            f"{side_data(path)} is not of a keep-list that this version reads"
        ) from None
    return about


def lineage(folder: Path) -> list[str]:
    """The sha256 of a release's manifest, and of those that it was derived from, newest first."""
    text = manifest_text(folder)
    before = (json.loads(text).get("derived_from") or {}).get("lineage", [])
    return [hashlib.sha256(text).hexdigest(), *before]


def _write_ids(found: ReleaseFolder, path: Path, progress: RowsDone) -> int:
    before = np.zeros(0, IDS)
    done = 0
    with path.open("wb") as file:
        # the manifest's count is in the header, and compared below
        header = {"descr": IDS.descr, "fortran_order": False, "shape": (found.rows,)}
        np.lib.format.write_array_header_1_0(file, header)
        for part, ids in ids_of_parts(found.parts):
            if not _ascending(np.concatenate([before, ids])):
                raise UserError(f"{part} is not in the order of ids: `pairmill release check` it")
            before = ids[-1:] if len(ids) else before
            file.write(ids.tobytes())
            done += len(ids)
            progress(done, found.rows)
    if done != found.rows:
        raise UserError(f"{found.folder} has {done:,} rows, and its manifest {found.rows:,}")
    return done


def _ascending(ids: Ids) -> bool:
    upper, lower = ids["f0"], ids["f1"]
    rises = (upper[:-1] < upper[1:]) | ((upper[:-1] == upper[1:]) & (lower[:-1] < lower[1:]))
    return bool(rises.all())


def ids_of_parts(parts: list[Path]) -> Iterator[tuple[Path, Ids]]:
    """The ids of Parquet files, READ rows at once. Raises UserError for a file that is damaged or
    has none."""
    for part in parts:
        try:
            with pq.ParquetFile(part) as file:
                name = id_column(file.schema_arrow.names)
                if name is None:
                    raise UserError(
                        f"{part} has no column SAMPLE_ID or uid (a release has it, in any layout,"
                        " if it is built with --set with_sample_id=true)"
                    )
                for batch in file.iter_batches(READ, columns=[name]):
                    yield part, ids_of(batch.column(0), str(part))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {part}: {error}") from None
