"""Files of rows without the rows that a mask leaves out: Parquet, .npy and .npz.

Each is read and written in pieces; a new file is on the disk when its function returns.
"""

import io
import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.release.keep_list import KeepList, ids_of_parts

Mask = npt.NDArray[np.bool_]
READ_ROWS = 10_000  # of arrays: 15 MB of 768 float16; of Parquet with images, 1,000
IMAGE_ROWS = 1000
GROUP_BYTES = 64 << 20  # of a row group, at which it is written


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """A new file, on the disk when the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def mask_of(parquet: Path, keep: KeepList) -> Mask:
    """bool[rows]: the rows of a Parquet file that a keep-list names."""
    masks = [keep.keeps(ids) for _, ids in ids_of_parts([parquet])]
    return np.concatenate(masks) if masks else np.zeros(0, bool)


def filter_parquet(source: Path, target: Path, mask: Mask) -> None:
    """Columns, types, metadata and codec stay; row groups are as large as before, or smaller."""
    with pq.ParquetFile(source) as file, synced(target) as out:
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        codec = groups[0].column(0).compression if groups else "ZSTD"
        rows = max((group.num_rows for group in groups), default=1)
        binary = any(pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)
                     for f in file.schema_arrow)  # fmt: skip
        writer = pq.ParquetWriter(
            out, file.schema_arrow, compression=None if codec == "UNCOMPRESSED" else codec,
            compression_level=3 if codec == "ZSTD" else None,
        )  # fmt: skip
        start = 0
        with writer:
            waiting: list[pa.RecordBatch] = []
            for batch in file.iter_batches(IMAGE_ROWS if binary else READ_ROWS):
                kept = batch.filter(pa.array(mask[start : start + len(batch)]))
                start += len(batch)
                waiting += [kept] if len(kept) else []
                if sum(map(len, waiting)) >= rows or sum(b.nbytes for b in waiting) >= GROUP_BYTES:
                    waiting = _write(writer, waiting, rows)
            while waiting:
                waiting = _write(writer, waiting, rows)


def _write(
    writer: pq.ParquetWriter, waiting: list[pa.RecordBatch], rows: int
) -> list[pa.RecordBatch]:
    """Write a row group, and return what is beyond its size."""
    table = pa.Table.from_batches(waiting)
    writer.write_table(table.slice(0, rows), row_group_size=rows)
    rest: list[pa.RecordBatch] = table.slice(rows).to_batches()
    return rest


def filter_npy(source: Path, target: Path, mask: Mask) -> None:
    with source.open("rb") as file, synced(target) as out:
        _filter_array(file, out, mask, source)


def filter_npz(source: Path, target: Path, mask: Mask) -> None:
    """Every array of an .npz; entries keep their compression, and their time is 1980."""
    with (
        zipfile.ZipFile(source) as archive,
        synced(target) as out,
        zipfile.ZipFile(out, "w") as filtered,
    ):
        for entry in archive.infolist():
            fresh = zipfile.ZipInfo(entry.filename)
            fresh.compress_type = entry.compress_type
            with (
                archive.open(entry) as file,
                filtered.open(fresh, "w", force_zip64=True) as inner,
            ):
                _filter_array(file, inner, mask, source)


def _filter_array(file: IO[bytes], out: IO[bytes], mask: Mask, source: Path) -> None:
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0
    }.get(version)  # fmt: skip
    if read is None:
        raise UserError(f"{source} has an array of a version that is not read here: {version}")
    shape, fortran, kind = read(file)
    if not shape or shape[0] != len(mask) or fortran or kind.hasobject:
        raise UserError(
            f"{source} does not go with its Parquet file: an array of {shape}, {len(mask):,} rows"
        )
    kept = (int(mask.sum()), *shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": kept}
    np.lib.format.write_array_header_1_0(out, header)
    width = int(np.prod(shape[1:], dtype=np.int64)) * kind.itemsize
    for start in range(0, len(mask), READ_ROWS):
        some = mask[start : start + READ_ROWS]
        body = _exactly(file, len(some) * width, source)
        rows = np.frombuffer(body, np.uint8).reshape(len(some), width)
        out.write(rows[some].tobytes())


def _exactly(file: IO[bytes], size: int, source: Path) -> bytes:
    body = file.read(size)
    if len(body) != size:
        raise UserError(f"{source} ends early")
    return body


def recounted(stats: Path, parquet: Path) -> bytes | None:
    """img2dataset's statistics of a shard, for the rows that its Parquet file still has; None
    where that has no status."""
    try:
        found: dict[str, Any] = json.loads(stats.read_bytes())
        with pq.ParquetFile(parquet) as file:
            names = [n for n in ("status", "error_message") if n in file.schema_arrow.names]
            table = file.read(names)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"cannot read {stats}: {error}") from None
    if "status" not in names:
        return None
    statuses = Counter(table["status"].to_pylist())
    found["count"] = table.num_rows
    found["successes"] = statuses["success"]
    for name in ("failed_to_download", "failed_to_resize"):
        found[name] = statuses[name]
    if "error_message" in names:
        messages = Counter(m or "success" for m in table["error_message"].to_pylist())
        found["status_dict"] = dict(sorted(messages.items()))
    text = io.StringIO()
    json.dump(found, text, indent=4)
    return text.getvalue().encode() + b"\n"
