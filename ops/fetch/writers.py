"""The three layouts of a shard's images, as img2dataset's: in a tar, in a folder, in a column."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.samples import SUCCESS, Images, Layout, Sample, ShardRows

# bytes of images, and rows, of one row group: what a reader, and a retry, holds at once
GROUP_BYTES, GROUP_ROWS = 32 << 20, 1000


class Writer(Protocol):
    """One layout. endings: of a shard's files and folders, in the order in which they are moved
    into place."""

    endings: tuple[str, ...]

    def __init__(self, layout: Layout) -> None: ...

    def write(self, where: Path, name: str, rows: ShardRows, image: Images) -> None:
        """Write a shard of this name into a folder, so that a power cut does not lose it. The bytes
        depend neither on the clock nor on the user."""

    def images(self, where: Path, name: str, rows: ShardRows) -> AbstractContextManager[Images]:
        """The images of a shard that was written there, best asked for in order of rows. Raises
        UserError, also while they are read, if one is not there."""


class TarWriter:
    """NNNNN.tar for webdataset: KEY.jpg, KEY.json and KEY.txt of each sample, in order."""

    endings: tuple[str, ...] = (".tar", ".parquet")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write(self, where: Path, name: str, rows: ShardRows, image: Images) -> None:
        with (
            synced(where / f"{name}.tar") as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for sample in rows.samples(image, self._layout):
                for ending, data in _members(sample, self._layout):
                    member = tarfile.TarInfo(f"{sample.key}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        _write_table(where / f"{name}.parquet", rows.with_results(self._layout))

    @contextmanager
    def images(self, where: Path, name: str, rows: ShardRows) -> Iterator[Images]:
        path = where / f"{name}.tar"
        try:
            tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed below
        except (tarfile.TarError, OSError):
            raise _damaged(path, name) from None

        def image(index: int) -> bytes:
            try:
                found = tar.extractfile(f"{rows.keys[index]}.{self._layout.image}")
                return found.read() if found else b""
            except (tarfile.TarError, KeyError):
                raise _damaged(path, name) from None

        with tar:
            yield image


class FilesWriter:
    """A folder NNNNN with KEY.jpg, KEY.json and KEY.txt of each sample."""

    endings: tuple[str, ...] = ("", ".parquet")

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write(self, where: Path, name: str, rows: ShardRows, image: Images) -> None:
        folder = where / name
        folder.mkdir()
        for sample in rows.samples(image, self._layout):
            for ending, data in _members(sample, self._layout):
                with (folder / f"{sample.key}.{ending}").open("xb") as file:
                    file.write(data)
        _write_table(where / f"{name}.parquet", rows.with_results(self._layout))
        os.sync()  # of 30,000 small files each by itself would take minutes

    @contextmanager
    def images(self, where: Path, name: str, rows: ShardRows) -> Iterator[Images]:
        def image(index: int) -> bytes:
            path = where / name / f"{rows.keys[index]}.{self._layout.image}"
            try:
                return path.read_bytes()
            except OSError:
                raise _damaged(path, name) from None

        yield image


class ColumnWriter:
    """NNNNN.parquet, with a column of images beside the others; null where there is none."""

    endings: tuple[str, ...] = (".parquet",)

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def write(self, where: Path, name: str, rows: ShardRows, image: Images) -> None:
        table = rows.with_results(self._layout)
        schema = table.schema.append(pa.field(self._layout.image, pa.binary()))
        with (
            synced(where / f"{name}.parquet") as file,
            pq.ParquetWriter(file, schema, compression="zstd") as writer,
        ):
            start = 0
            for some in _grouped(rows, image):
                group = table.slice(start, len(some))
                writer.write_table(
                    group.append_column(schema.field(-1), pa.array(some, pa.binary())),
                    row_group_size=len(some),
                )
                start += len(some)

    @contextmanager
    def images(self, where: Path, name: str, rows: ShardRows) -> Iterator[Images]:
        path = where / f"{name}.parquet"
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError):
            raise _damaged(path, name) from None
        group, first, end = -1, 0, 0  # the row group that is held, and its rows
        held: pa.ChunkedArray | None = None

        def image(index: int) -> bytes:
            nonlocal group, first, end, held
            if index < first:
                group, first, end, held = -1, 0, 0, None
            try:
                while held is None or index >= end:
                    group += 1
                    held = file.read_row_group(group, [self._layout.image])[0]
                    first, end = end, end + len(held)
                found = held[index - first].as_py()
            except (pa.ArrowException, OSError, IndexError, KeyError):
                raise _damaged(path, name) from None
            if not found:
                raise _damaged(path, name)
            return bytes(found)

        with file:
            yield image


WRITERS: dict[str, Callable[[Layout], Writer]] = {
    "webdataset": TarWriter,
    "files": FilesWriter,
    "parquet": ColumnWriter,
}


def _members(sample: Sample, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Endings and contents of a sample's files."""
    yield layout.image, sample.image
    yield "json", sample.json.encode()
    if sample.caption is not None:
        yield "txt", sample.caption.encode()


def _grouped(rows: ShardRows, image: Images) -> Iterator[list[bytes | None]]:
    """The images of all rows, in groups of bounded size; of no rows no group."""
    some: list[bytes | None] = []
    size = 0
    for index, result in enumerate(rows.results):
        found = image(index) if result.status == SUCCESS else None
        some.append(found)
        size += len(found or b"")
        if size >= GROUP_BYTES or len(some) >= GROUP_ROWS:
            yield some
            some, size = [], 0
    if some:
        yield some


def _write_table(path: Path, table: pa.Table) -> None:
    with synced(path) as file:
        pq.write_table(table, file, compression="zstd")


def _damaged(path: Path, name: str) -> UserError:
    return UserError(f"{path} is damaged: remove {name}_stats.json to have the shard fetched anew")


@contextmanager
def synced(path: Path) -> Iterator[BinaryIO]:
    """A new file, on the disk when the block ends."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
