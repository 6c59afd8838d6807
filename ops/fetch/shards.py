"""Shards as img2dataset writes them: NNNNN.tar, NNNNN.parquet and NNNNN_stats.json, or as `writers`
has them otherwise.

A shard is made in a hidden folder `.NNNNN.half`, which is renamed `.NNNNN.whole` when all of it is
there; its files are then moved into place, the statistics last. So a shard that has statistics is
whole, and a process that is killed at any instruction leaves a half, which the next one removes, or
a whole, which the next one moves. That holds as well where a shard takes an earlier one's place; an
earlier one's folder is `.NNNNN.old` first, since a folder cannot be replaced at once.
"""

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.keys import SAFE, counted_keys
from pairmill.ops.fetch.samples import (
    COUNTS,
    Images,
    Layout,
    SampleResult,
    ShardRows,
    stats_of,
)
from pairmill.ops.fetch.writers import WRITERS, synced


@contextmanager
def writing(where: Path) -> Iterator[None]:
    """For writes below ``where``: an OSError becomes a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise UserError(f"cannot write to {where}: {reason}") from None


class Spool:
    """A file of a shard's images in order of arrival. The tar wants them in order of rows, and
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
    """A folder of shards, which one process at a time writes. rows: of a shard. Raises UserError
    for a URL."""

    def __init__(self, path: Path, rows: int, layout: Layout) -> None:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):  # of s3://x pathlib makes s3:/x
            raise UserError(
                f"{path} is a URL: shards are written into a folder of this machine, from which"
                " they can be copied"
            )
        self.path, self.rows, self.layout = path, rows, layout
        self._writer = WRITERS[layout.output_format](layout)

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
            for left in (*self.path.glob(".*.half"), *self.path.glob(".*.old")):
                shutil.rmtree(left)

    def name(self, number: int) -> str:
        """A shard's number, as its files are named."""
        return f"{number:0{self.layout.digits}}"

    def keys(self, number: int, rows: int) -> list[str]:
        """The keys of a shard's samples where the source gives none."""
        digits = self.layout.digits, len(str(self.rows - 1))
        return counted_keys(number, rows, shard_digits=digits[0], row_digits=digits[1])

    def parquet(self, number: int) -> Path:
        return self.path / f"{self.name(number)}.parquet"

    def _stats(self, number: int) -> Path:
        return self.path / f"{self.name(number)}_stats.json"

    def done(self, number: int) -> bool:
        return self._stats(number).exists()

    def numbers(self) -> list[int]:
        """The numbers of the shards in the folder, ascending."""
        names = (path.name.removesuffix("_stats.json") for path in self.path.glob("*_stats.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def stats(self, number: int) -> dict[str, Any]:
        path = self._stats(number)
        try:
            stats: dict[str, Any] = json.loads(path.read_text("utf-8"))
            counts = [stats[name] for name in COUNTS] + [*stats["status_dict"].values()]
            if not all(isinstance(count, int) for count in counts):
                raise ValueError("a count is no number")
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read ({error}): remove it, and run again") from None
        return stats

    def begin(self, number: int) -> Spool:
        """Make the hidden folder of a shard; returns the spool for its images."""
        half = self._half(number)
        with writing(self.path):
            half.mkdir()
        return Spool(half / "spool")

    def _half(self, number: int) -> Path:
        return self.path / f".{self.name(number)}.half"

    def write(
        self,
        number: int,
        rows: ShardRows,
        image: Images,
        spool: Spool,
        times: tuple[float, float],
    ) -> dict[str, Any]:
        """Write a shard that was begun, and return its statistics. times: of its begin and end, in
        seconds since 1970."""
        half, name = self._half(number), self.name(number)
        stats = stats_of(rows.results, *times)
        with writing(self.path):
            self._writer.write(half, name, rows, image)
            with synced(half / f"{name}_stats.json") as file:
                file.write(json.dumps(stats, indent=4).encode() + b"\n")
            spool.remove()
            whole = half.with_suffix(".whole")
            half.rename(whole)
            self._place(whole)
        return stats

    def _place(self, whole: Path) -> None:
        """Move the files of a whole shard into place, except those moved before an interruption."""
        name = whole.stem.removeprefix(".")
        old = whole.with_suffix(".old")
        for ending in (*self._writer.endings, "_stats.json"):
            made, place = whole / f"{name}{ending}", self.path / f"{name}{ending}"
            if made.is_dir() and place.exists():
                place.rename(old)
            if made.exists():
                made.replace(place)
        whole.rmdir()
        if old.exists():
            shutil.rmtree(old)

    def read(self, number: int) -> ShardRows:
        """The rows of a shard that was written."""
        path = self.parquet(number)
        own = self.layout.results
        try:
            with pq.ParquetFile(path) as file:
                names = [n for n in file.schema_arrow.names if n not in self._image_column]
                table = file.read(names)
            results = [SampleResult(**row) for row in table.select(own).to_pylist()]
            keys: list[str | None] = table["key"].to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        if any(key is not None and not SAFE.fullmatch(key) for key in keys):
            raise UserError(f"cannot read {path}: it has a key that names no file")
        return ShardRows(table.drop_columns(["key", *own]), keys, results)

    @property
    def _image_column(self) -> tuple[str, ...]:
        return (self.layout.image,) if self.layout.output_format == "parquet" else ()

    def images(self, number: int, rows: ShardRows) -> AbstractContextManager[Images]:
        """The image of each successful row of a shard, best asked for in order of rows."""
        return self._writer.images(self.path, self.name(number), rows)
