"""The Parquet files of a release: row groups and files are cut at fixed numbers of rows, so that
the bytes are the same however the rows came in."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.release.engine import failures

SHARD_ROWS = 1_000_000
ROW_GROUP = 100_000  # rows; about 30 MB in memory, 10 MB in the file


class Shards:
    """Writes part-00000.parquet and so on, at least one. files: those that are whole, with their
    rows. written is called with the rows written so far."""

    def __init__(
        self, folder: Path, schema: pa.Schema, shard_rows: int, written: Callable[[int], None]
    ) -> None:
        self.files: list[tuple[Path, int]] = []
        self._folder, self._schema, self._shard_rows = folder, schema, shard_rows
        self._written = written
        self._waiting = schema.empty_table()
        self._writer: pq.ParquetWriter | None = None
        self._path, self._rows, self._total = folder, 0, 0

    def add(self, rows: pa.Table) -> None:
        self._waiting = pa.concat_tables([self._waiting, rows])
        while len(self._waiting) >= self._room():
            self._write(self._room())

    def _room(self) -> int:
        return min(ROW_GROUP, self._shard_rows - self._rows)

    def _write(self, count: int) -> None:
        with failures(str(self._folder)):
            if self._writer is None:
                self._path = self._folder / f"part-{len(self.files):05}.parquet"
                self._writer = pq.ParquetWriter(
                    self._path, self._schema, compression="zstd", compression_level=3
                )
            # one chunk a column: where pages end must not depend on how the rows came in
            group = self._waiting.slice(0, count).combine_chunks()
            self._waiting = self._waiting.slice(count)
            if count:
                self._writer.write_table(group, row_group_size=ROW_GROUP)
            self._rows += count
            self._total += count
            if count:
                self._written(self._total)
            if self._rows == self._shard_rows:
                self._end_file()

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self.files.append((self._path, self._rows))
            self._writer, self._rows = None, 0

    def close(self) -> None:
        """Write what is left. Not called after an error: the folder is thrown away."""
        if len(self._waiting) or not (self.files or self._writer):
            self._write(len(self._waiting))
        with failures(str(self._folder)):
            self._end_file()

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
