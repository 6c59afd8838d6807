"""Stored image embeddings, read from facts in the order of sample_id."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.archive.facts import Facts, file_system
from pairmill.ops.dedupe.tables import Longs
from pairmill.ops.errors import UserError

Halves = npt.NDArray[np.float16]
ROWS = 16_384  # read at a time: 25 MB at 768 dims


def stored(
    facts: Sequence[Facts], model_id: int, wanted: Longs | None = None
) -> Iterator[tuple[Longs, Halves]]:
    """The image embeddings that count: int64[n], sorted from batch to batch, and float16[n, dims].

    wanted: sample_ids, sorted: row groups without any are not read. Raises UserError for a file
    that is no Parquet file or has no embeddings.
    """
    for each in sorted(facts, key=lambda each: each.first):
        if each.has("embedding", model_id):
            yield from _of_file(each.path("embedding", model_id), wanted)


def _of_file(path: str, wanted: Longs | None) -> Iterator[tuple[Longs, Halves]]:
    try:
        with _opened(path) as file, pq.ParquetFile(file) as parquet:
            groups = [n for n in range(parquet.num_row_groups) if _has(parquet, n, wanted)]
            for batch in parquet.iter_batches(
                ROWS, row_groups=groups, columns=["sample_id", "counts", "image"]
            ):
                yield from _of_batch(batch, wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _opened(path: str) -> Any:
    return file_system(path).open(path, "rb") if "://" in path else Path(path).open("rb")


def _has(parquet: pq.ParquetFile, group: int, wanted: Longs | None) -> bool:
    statistics = parquet.metadata.row_group(group).column(0).statistics
    if wanted is None or statistics is None or not statistics.has_min_max:
        return True
    at = np.searchsorted(wanted, [statistics.min, statistics.max + 1])
    return bool(at[1] > at[0])


def _of_batch(batch: pa.RecordBatch, wanted: Longs | None) -> Iterator[tuple[Longs, Halves]]:
    ids = batch.column("sample_id").to_numpy()
    image = batch.column("image")
    keep = batch.column("counts").to_numpy(zero_copy_only=False) & image.is_valid().to_numpy(
        zero_copy_only=False
    )
    if wanted is not None:
        at = np.minimum(np.searchsorted(wanted, ids), max(0, len(wanted) - 1))
        keep &= wanted[at] == ids if len(wanted) else False
    if not keep.any():
        return
    dims = image.type.list_size
    values = image.values.slice(image.offset * dims, len(image) * dims)
    yield ids[keep], values.to_numpy(zero_copy_only=False).reshape(-1, dims)[keep]


@dataclass(frozen=True)
class Vectors:
    """Embeddings of some rows. ids: int64[n], sorted. values: float16[n, dims], on disk."""

    ids: Longs
    values: Halves

    def of(self, ids: Longs) -> tuple[Longs, npt.NDArray[np.bool_]]:
        """Where the rows of ids are, int64[n], and whether they are there."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return at, self.ids[at] == ids


def extracted(facts: Sequence[Facts], model_id: int, wanted: Longs, file: Path) -> Vectors:
    """Copy the embeddings of the rows ``wanted``, sorted, into a file, and map it: rows are then
    found by place in any order, and memory is the system's page cache."""
    found: list[Longs] = []
    dims = 0
    with file.open("wb") as out:
        for ids, values in stored(facts, model_id, wanted):
            if dims not in (0, values.shape[1]):
                raise UserError(
                    f"the embeddings of model {model_id} have {dims} dims in one folder of facts"
                    f" and {values.shape[1]} in another: archive those batches again"
                )
            dims = values.shape[1]
            found.append(ids)
            out.write(np.ascontiguousarray(values).data)
    ids = np.concatenate(found) if found else np.zeros(0, np.int64)
    if not len(ids):
        return Vectors(ids, np.zeros((0, 1), np.float16))
    return Vectors(ids, np.memmap(file, np.float16, "r", shape=(len(ids), dims)))
