"""Shards as img2dataset writes them, NNNNN.tar, NNNNN.parquet and NNNNN_stats.json.

A shard is made in a hidden folder `.NNNNN.half`, which is renamed `.NNNNN.whole` when all of it is
there; its files are then moved into place, the statistics last. So a shard that has statistics is
whole, and a process that is killed at any instruction leaves a half, which the next one removes, or
a whole, which the next one moves. That holds as well where a shard takes an earlier one's place.
"""

import fcntl
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.samples import (
    RESULT_COLUMNS,
    SampleResult,
    stats_of,
    with_results,
    write_tar,
)


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """For writes below ``where``: an OSError becomes a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"cannot write to {where}: {reason}") from None


class Spool:
    """A file of a shard's thumbnails in order of arrival. The tar wants them in order of key, and
    100 MB of them would have to wait in memory; so each is written twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path.parent.parent
        with writing(self._folder):
            self._file = path.open("w+b")
        self._places: dict[int, tuple[int, int]] = {}
        self._end = 0

    def __contains__(self, index: int) -> bool:
        return index in self._places

    def add(self, index: int, image: bytes) -> None:
        with writing(self._folder):
            self._file.write(image)
        self._places[index] = self._end, len(image)
        self._end += len(image)

    def image(self, index: int) -> bytes:
        start, size = self._places[index]
        self._file.seek(start)
        return self._file.read(size)

    def remove(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


class Folder:
    """A folder of shards, which one process at a time writes. rows: of a shard."""

    def __init__(self, path: Path, rows: int) -> None:
        self.path, self.rows = path, rows
        self._digits = len(str(rows - 1))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, and finish or remove the shards that a killed process left."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another process is fetching into {self.path}") from None
            self._recover()
            try:
                yield
            finally:
                self._recover()

    def _recover(self) -> None:
        with writing(self.path):
            for whole in self.path.glob(".*.whole"):
                self._place(whole)
            for half in self.path.glob(".*.half"):
                shutil.rmtree(half)

    def key(self, number: int, index: int) -> str:
        """A sample's key, as img2dataset's: the shard's number, then the row's."""
        return f"{number:05}{index:0{self._digits}}"

    def tar(self, number: int) -> Path:
        return self.path / f"{number:05}.tar"

    def parquet(self, number: int) -> Path:
        return self.path / f"{number:05}.parquet"

    def done(self, number: int) -> bool:
        return (self.path / f"{number:05}_stats.json").exists()

    def numbers(self) -> list[int]:
        """The numbers of the shards in the folder, ascending."""
        names = (path.name.removesuffix("_stats.json") for path in self.path.glob("*_stats.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def stats(self, number: int) -> dict[str, Any]:
        path = self.path / f"{number:05}_stats.json"
        try:
            stats: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): remove it, and run again") from None
        return stats

    def begin(self, number: int) -> Spool:
        """Make the hidden folder of a shard; returns the spool for its thumbnails."""
        half = self._half(number)
        with writing(self.path):
            half.mkdir()
        return Spool(half / "spool")

    def _half(self, number: int) -> Path:
        return self.path / f".{number:05}.half"

    def write(
        self,
        number: int,
        table: pa.Table,
        results: list[SampleResult],
        image: Callable[[int], bytes],
        spool: Spool,
        times: tuple[float, float],
    ) -> dict[str, Any]:
        """Write a shard that was begun, and return its statistics. table: see ``as_rows``, a row
        for each of ``results``. image: a successful row's JPEG."""
        half = self._half(number)
        keys = [self.key(number, index) for index in range(table.num_rows)]
        stats = stats_of(results, *times)
        with writing(self.path):
            with _synced(half / f"{number:05}.tar") as file:
                write_tar(file, table, keys, results, image)
            with _synced(half / f"{number:05}.parquet") as file:
                pq.write_table(with_results(table, keys, results), file, compression="zstd")
            with _synced(half / f"{number:05}_stats.json") as file:
                file.write(json.dumps(stats, indent=4).encode() + b"\n")
            spool.remove()
            whole = half.with_suffix(".whole")
            half.rename(whole)
            self._place(whole)
        return stats

    def _place(self, whole: Path) -> None:
        """Move the files of a whole shard into place, except those moved before an interruption."""
        name = whole.stem.removeprefix(".")
        for ending in (".tar", ".parquet", "_stats.json"):
            if (made := whole / f"{name}{ending}").exists():
                made.replace(self.path / made.name)
        whole.rmdir()

    def read(self, number: int) -> tuple[pa.Table, list[SampleResult]]:
        """The rows of a shard, as ``as_rows`` made them, and their results."""
        path = self.parquet(number)
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        results = [SampleResult(**row) for row in table.select(RESULT_COLUMNS).to_pylist()]
        return table.drop_columns(["key", *RESULT_COLUMNS]), results

    @contextmanager
    def images(self, number: int) -> Iterator[Callable[[int], bytes]]:
        """The JPEG of each successful row of a shard."""
        path = self.tar(number)
        damaged = UserError(
            f"{path} is damaged: remove {number:05}_stats.json to have the shard fetched anew"
        )
        try:
            tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed below
        except (tarfile.TarError, OSError):
            raise damaged from None

        def image(index: int) -> bytes:
            try:
                found = tar.extractfile(f"{self.key(number, index)}.jpg")
                return found.read() if found else b""
            except (tarfile.TarError, KeyError):
                raise damaged from None

        with tar:
            yield image


@contextmanager
def _synced(path: Path) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
