"""Embeddings that count, of positions of a batch: from the archive's files, or the database."""

from typing import Any

import psycopg
import pyarrow as pa
from psycopg import ClientCursor

from pairmill.ops.archive.catalogue import current
from pairmill.ops.archive.facts import Facts
from pairmill.ops.archive.stored import Cursor
from pairmill.ops.queries import query_text

POSITIONS = 1 << 14  # of a batch, at most
# n, whether a removal names it, and in bytes, or None where there is none: md5 and sha256 of the
# image that counts, the embeddings of image and text
Row = tuple[Any, ...]


class StoredVectors:
    """The embeddings of one model. Of batches that are archived as they are now, the files are read
    and not the database. Raises UserError where files alone have rows, and are out of date."""

    def __init__(self, connection: psycopg.Connection[Any], model_id: int) -> None:
        self._connection = connection
        self._model_id = model_id
        self._facts = current(connection)
        self._cursors: tuple[Facts, Cursor, Cursor, Cursor] | None = None

    def read(self, batch_id: int, positions: list[int]) -> list[Row]:
        """Those of positions, in order, that are a pair that counts. Batches are asked for in
        order. Raises UserError where a file cannot be read."""
        for facts in self._facts:
            if facts.first <= batch_id <= facts.last:
                return self._of_files(facts, batch_id, positions)
        return self._of_database(batch_id, positions)

    def _of_database(self, batch_id: int, positions: list[int]) -> list[Row]:
        # COPY takes no parameters, and a batch's number as a literal opens one partition, not all
        values = {"model_id": self._model_id, "batch_id": batch_id, "positions": positions}
        literal = ClientCursor(self._connection).mogrify(
            query_text("vectors", "embeddings"), values
        )
        with (
            self._connection.cursor() as cursor,
            cursor.copy(f"copy (\n{literal}\n) to stdout (format binary)".encode()) as copy,
        ):
            # a uuid's bytes, as those of a digest
            copy.set_types(["int4", "bool", "bytea", "bytea", "bytea", "bytea"])
            return list(copy.rows())

    def _of_files(self, facts: Facts, batch_id: int, positions: list[int]) -> list[Row]:
        if self._cursors is None or self._cursors[0] != facts:
            self._cursors = (
                facts,
                Cursor(facts, "pair", None, []),
                Cursor(facts, "download", None, ["md5", "sha256"]),
                Cursor(facts, "embedding", self._model_id, ["image", "text"]),
            )
        _, pairs, downloads, embeddings = self._cursors
        query = query_text("vectors", "removed")
        values = {"batch_id": batch_id, "positions": positions}
        removed = {n for (n,) in self._connection.execute(query, values)}
        known = {n for (n,) in _by_position(pairs.rows(batch_id), [])}
        images = {n: rest for n, *rest in _by_position(downloads.rows(batch_id), ["md5", "sha256"])}
        vectors = {
            n: rest for n, *rest in _by_position(embeddings.rows(batch_id), ["image", "text"])
        }
        none = [None, None]
        return [
            (
                n,
                n in removed,
                *images.get(n, none),
                *(none if n in removed else vectors.get(n, none)),
            )
            for n in positions
            if n in known
        ]


def _by_position(made: pa.Table | None, names: list[str]) -> list[tuple[Any, ...]]:
    """(n, values of names) of each row; a vector as its bytes."""
    if made is None:
        return []
    positions = [sample_id % POSITIONS for sample_id in made["sample_id"].to_pylist()]
    return list(
        zip(positions, *(_values(made[name].combine_chunks()) for name in names), strict=True)
    )


def _values(column: pa.Array) -> list[bytes | None]:
    if not pa.types.is_fixed_size_list(column.type):
        return list(column.to_pylist())
    halves, size = column.flatten(), column.type.list_size * 2
    body = halves.buffers()[1].to_pybytes()
    first = halves.offset * 2
    return [body[first + i * size : first + (i + 1) * size] for i in range(len(column))]
