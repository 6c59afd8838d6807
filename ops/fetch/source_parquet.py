"""Parquet files as a source."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.source_columns import UnitedFiles, united_type
from pairmill.ops.fetch.source_files import SourceFile, reading
from pairmill.ops.fetch.values import as_text, is_text

READ_ROWS = 10_000
BUFFER = 1 << 20  # bytes of a Parquet column that are read ahead; without it, a whole row group


class ParquetSource(UnitedFiles):
    """Parquet files, one after another: the columns of all, of types that hold the values of all,
    null where a file lacks one."""

    def __init__(self, name: str, files: list[SourceFile]) -> None:
        self._rows = 0
        schemas = []
        for file in files:
            with self._opened(file) as parquet:
                schemas.append(parquet.schema_arrow)
                self._rows += parquet.metadata.num_rows
        super().__init__(name, files, [schema.names for schema in schemas])
        self._types = self._united(schemas)

    def _united(self, schemas: list[pa.Schema]) -> list[pa.DataType]:
        types: list[pa.DataType | None] = [None] * len(self.names)
        for file, schema, places in zip(self.files, schemas, self.places, strict=True):
            for at, kind in zip(places, schema.types, strict=True):
                known = types[at]
                united = united_type(kind if known is None else known, kind)
                if united is None and not any(map(pa.types.is_nested, (known, kind))):
                    united = pa.string()
                if united is None:
                    raise UserError(
                        f"column {self.names[at]} is {kind} in {file.name}, and {known} in files"
                        " before it"
                    )
                types[at] = united
        for file, schema, places in zip(self.files, schemas, self.places, strict=True):
            for at, own in zip(places, schema, strict=True):
                if not self._holds(types[at], file, own):
                    types[at] = pa.string()
        return types

    def _holds(self, united: pa.DataType | None, file: SourceFile, own: pa.Field) -> bool:
        """Whether the united type has all whole numbers of a file's column, by the statistics in
        the file: a float64 has none above 2^53, such as hashes, an int64 none above 2^63."""
        large = own.type == pa.uint64() != united
        if not pa.types.is_integer(own.type) or not (pa.types.is_floating(united) or large):
            return True
        with self._opened(file) as parquet:
            ends = pa.array(_ends(parquet, own.name), own.type)
        try:
            ends.cast(united)
        except pa.ArrowInvalid:
            return False
        return True

    def rows(self) -> int:
        return self._rows

    def read(self, start: int) -> Iterator[pa.Table]:
        for file, places in zip(self.files, self.places, strict=True):
            with self._opened(file) as parquet:
                sizes = [
                    parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)
                ]
                first = 0  # row groups that are skipped are not read
                while first < len(sizes) and start >= sizes[first]:
                    start -= sizes[first]
                    first += 1
                if first == len(sizes):
                    continue
                for batch in parquet.iter_batches(READ_ROWS, row_groups=range(first, len(sizes))):
                    skipped = min(start, batch.num_rows)
                    start -= skipped
                    yield self._as_all(batch.slice(skipped), places)

    @contextmanager
    def _opened(self, file: SourceFile) -> Iterator[pq.ParquetFile]:
        with (
            reading(file),
            file.open() as opened,
            pq.ParquetFile(opened, pre_buffer=False, buffer_size=BUFFER) as parquet,
        ):
            yield parquet

    def _as_all(self, batch: pa.RecordBatch, places: list[int]) -> pa.Table:
        own = {at: batch.column(i) for i, at in enumerate(places)}
        # what pandas adds to a schema is not carried on: it would not be true of the shards
        columns = [
            _cast(own[at], kind) if at in own else pa.nulls(batch.num_rows, kind)
            for at, kind in enumerate(self._types)
        ]
        return pa.table(columns, self.names)


def _ends(parquet: pq.ParquetFile, name: str) -> list[int]:
    """The least and the largest number of a column, of each row group that tells them."""
    ends = []
    for group in map(parquet.metadata.row_group, range(parquet.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            told = column.statistics if column.path_in_schema == name else None
            if told is not None and told.has_min_max:
                ends += [told.min, told.max]
    return ends


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if column.type != kind and is_text(kind):
        return as_text(pa.chunked_array([column])).cast(kind)
    return column.cast(kind)
