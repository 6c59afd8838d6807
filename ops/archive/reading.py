"""The rows of one batch as facts have them: read from the database, with which of them count."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa

from pairmill.ops.archive import columns, packed
from pairmill.ops.archive.pages import PageUrls
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text

POSITIONS = 1 << 14  # of a batch, at most
# columns without nulls, by table: what is not named may be null
REQUIRED = {
    "pair": {"n", "url", "text", "language_probability", "wat_id", "submission_id"},
    "download": {"n", "attempt", "outcome", "submission_id"},
    "score": {"n", "attempt", "outcome", "submission_id"},
    "tag": {"n", "attempt", "submission_id"},
    "embedding": {"n", "attempt", "image", "text", "submission_id"},
    "opt_out": {"n", "attempt", "signal", "value", "source", "read_at", "submission_id"},
    "refetch": {"n", "attempt", "outcome", "submission_id"},
}
DERIVED = {"sample_id", "counts", "language_detector", "link_kind", "page_url"}
KEYS = ["n", "attempt", "submission_id"]
Flags = npt.NDArray[np.bool_]


@dataclass
class BatchReader:
    """One batch as facts have it. positions: only these; null: all."""

    connection: psycopg.Connection[Any]
    batch_id: int
    link_kind: str
    positions: list[int] | None
    page_urls: PageUrls
    _attempts: npt.NDArray[np.int16] | None = field(default=None)

    def read(self, table: str, model_id: int | None, dims: int) -> pa.Table:
        if table == "pair":
            return self._pairs()
        if table == "embedding":
            return self._embeddings(model_id, dims)
        made = self._rows(table, source_schema(table), model_id)
        if table == "download":
            counts = self._last(made)
        elif table == "refetch":
            counts = ~self._withdrawn(made)
        else:
            counts = self._of_current(made)
        return self._table(made, counts, getattr(columns, table.upper()))

    def _pairs(self) -> pa.Table:
        made = self._rows("pair", source_schema("pair"))
        counts = ~self._withdrawn(made)
        wat_ids = made["wat_id"].to_numpy()
        wats, place = np.unique(wat_ids, return_inverse=True)
        detectors = dict(
            self.connection.execute(
                "select wat_id, language_detector from mill.wat_file where wat_id = any (%s)",
                (wats.tolist(),),
            ).fetchall()
        )
        names = pa.array([detectors.get(int(wat)) for wat in wats], pa.string())
        made = made.append_column("language_detector", names.take(pa.array(place)))
        kinds = pa.array([self.link_kind], pa.string()).take(pa.array(np.zeros(len(made), np.int8)))
        made = made.append_column("link_kind", kinds)
        made = made.append_column("page_url", self.page_urls.of(made))
        return self._table(made, counts, columns.PAIR)

    def _embeddings(self, model_id: int | None, dims: int) -> pa.Table:
        made = self._rows("embedding", source_schema("embedding"), model_id)
        schema = columns.embedding(dims)
        counts = np.zeros(len(made), np.bool_)
        if len(made):
            # of the score that counts: of two scores of one image the newer may have failed
            scores = self._rows("score", source_schema("score", KEYS), model_id)
            current = scores.filter(pa.array(self._of_current(scores)))
            counts = _is_in(made, current)
        for name in ("image", "text"):
            vectors = _vectors(made[name].combine_chunks(), dims, schema.field(name).type)
            if vectors is None:
                raise UserError(
                    f"batch {self.batch_id} has an embedding by model {model_id} that is not"
                    f" {dims} float16 long: withdraw its submission (`pairmill worker quarantine`)"
                )
            made = made.set_column(made.schema.get_field_index(name), name, vectors)
        return self._table(made, counts, schema)

    def _rows(self, table: str, schema: pa.Schema, model_id: int | None = None) -> pa.Table:
        values = {"batch_id": self.batch_id, "positions": self.positions, "model_id": model_id}
        return packed.read(self.connection, query_text("archive", table), schema, values)

    def _table(self, made: pa.Table, counts: Flags, schema: pa.Schema) -> pa.Table:
        sample_ids = made["n"].to_numpy().astype(np.int64) | self.batch_id << 14
        have = {"sample_id": pa.array(sample_ids), "counts": pa.array(counts)}
        arrays = [have[f.name] if f.name in have else made[f.name] for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _withdrawn(self, made: pa.Table) -> Flags:
        """Of each row whether its submission is withdrawn."""
        submissions = made["submission_id"].to_numpy()
        found = self.connection.execute(
            "select submission_id from mill.withdrawn where submission_id = any (%s)",
            (np.unique(submissions).tolist(),),
        ).fetchall()
        return np.isin(submissions, np.array([row[0] for row in found], np.int64))

    def _last(self, made: pa.Table, valid: Flags | None = None) -> Flags:
        """Of each row whether it is the last of its sample that is valid: not withdrawn."""
        n = made["n"].to_numpy()
        at = np.flatnonzero(~self._withdrawn(made) if valid is None else valid)
        last = np.ones(len(at), np.bool_)
        last[:-1] = n[at[1:]] != n[at[:-1]]
        counts = np.zeros(len(n), np.bool_)
        counts[at[last]] = True
        return counts

    def _of_current(self, made: pa.Table) -> Flags:
        """Of each row whether it is of the download that counts, and of several the newest."""
        attempts = self._current_attempts()[made["n"].to_numpy()]
        valid = (made["attempt"].to_numpy() == attempts) & ~self._withdrawn(made)
        return self._last(made, valid)

    def _current_attempts(self) -> npt.NDArray[np.int16]:
        """The attempt of the download that counts, by position; 0: none."""
        if self._attempts is None:
            made = self._rows("download", source_schema("download", KEYS))
            counts = self._last(made)
            self._attempts = np.zeros(POSITIONS, np.int16)
            self._attempts[made["n"].to_numpy()[counts]] = made["attempt"].to_numpy()[counts]
        return self._attempts


def source_schema(table: str, names: Collection[str] | None = None) -> pa.Schema:
    """What is read of a table: the columns of its file that are not derived, and n. names: only
    these."""
    schema = columns.embedding(1) if table == "embedding" else getattr(columns, table.upper())
    fields = [pa.field("n", pa.int32()), *(f for f in schema if f.name not in DERIVED)]
    return pa.schema(
        [
            pa.field(
                f.name,
                pa.binary() if pa.types.is_fixed_size_list(f.type) else f.type,
                nullable=f.name not in REQUIRED[table],
            )
            for f in fields
            if names is None or f.name in names
        ]
    )


def _vectors(values: pa.Array, dims: int, kind: pa.DataType) -> pa.Array | None:
    """float16[dims] of each value's bytes; null where one has another length."""
    ends = np.frombuffer(values.buffers()[1], np.int32)[: len(values) + 1] if len(values) else [0]
    if (np.diff(ends) != 2 * dims).any():
        return None
    body = values.buffers()[2] if len(values) else pa.py_buffer(b"")
    halves = pa.Array.from_buffers(pa.float16(), len(values) * dims, [None, body])
    return pa.FixedSizeListArray.from_arrays(halves, type=kind)


def _is_in(rows_: pa.Table, others: pa.Table) -> Flags:
    """Of each row whether one of the others has its key."""
    key = np.dtype([(name, np.int64) for name in KEYS])

    def keys(table: pa.Table) -> npt.NDArray[Any]:
        made = np.empty(len(table), key)
        for name in KEYS:
            made[name] = table[name].to_numpy()
        return made

    return np.isin(keys(rows_), keys(others))
