"""What an update asks of batches whose rows are in the archive alone."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow as pa

from pairmill.ops.archive.catalogue import current, detached
from pairmill.ops.archive.facts import Facts, file_system
from pairmill.ops.errors import UserError, extra
from pairmill.ops.queries import query_text

if TYPE_CHECKING:
    import duckdb

BITS = 14  # SAMPLE_ID = batch_id << 14 | n
NO_SCORES = (
    "select null::bigint as sample_id, null::bigint as submission_id, null::float as similarity,"
    " null::bigint as model_id where false"
)


class DetachedRows:
    """The detached partitions. Raises UserError where the files of one are out of date: they are
    all that there is."""

    def __init__(
        self, connection: psycopg.Connection[Any], db: "duckdb.DuckDBPyConnection"
    ) -> None:
        self._connection, self._db = connection, db
        self._facts: list[Facts] = []
        if partitions := detached(connection):
            current(connection)
            self._facts = [each.facts() for each in partitions]
        for protocol in {each.folder for each in self._facts if "://" in each.folder}:
            system = file_system(protocol)
            if not db.filesystem_is_registered(system.protocol[0]):
                db.register_filesystem(system)

    def image_keys(self) -> Iterator[tuple[Any, ...]]:
        """md5 and sha256, hexadecimal, of the images of removed pairs."""
        query = (
            "select distinct mill.sample_id(batch_id, n) from mill.removed_pair"
            " where batch_id between %s and %s"
        )
        for facts in self._facts:
            found = self._connection.execute(query, (facts.first, facts.last)).fetchall()
            if found and facts.has("download"):
                self._name("named", "sample_id", [sample for (sample,) in found])
                text = query_text("release", "update_detached_images")
                yield from self._asked(facts, text.format(downloads=_file(facts, "download")))

    def withdrawn(self, first: int, last: int, digests: list[str]) -> Iterator[tuple[Any, ...]]:
        """SAMPLE_IDs of the batches first..last of which something was withdrawn."""
        chosen = [each for each in self._facts if each.last >= first and each.first <= last]
        if not chosen:
            return
        given = self._connection.execute("select submission_id from mill.withdrawn").fetchall()
        self._name("taken_back", "submission_id", [submission for (submission,) in given])
        query = "select model_id from mill.model where digest = any (%s) order by 1"
        models = [number for (number,) in self._connection.execute(query, (digests,))]
        for facts in chosen:
            if facts.has("pair") and facts.has("download"):
                scores = [
                    f"select sample_id, submission_id, similarity, {model} as model_id"
                    f" from {_file(facts, 'score', model)}"
                    for model in models
                    if facts.has("score", model)
                ]
                text = query_text("release", "update_detached_withdrawn").format(
                    pairs=_file(facts, "pair"),
                    downloads=_file(facts, "download"),
                    scores=" union all ".join(scores) or NO_SCORES,
                )
                yield from self._asked(facts, text)

    def _name(self, table: str, column: str, values: list[int]) -> None:
        self._db.register(table, pa.table({column: pa.array(values, pa.int64())}))

    def _asked(self, facts: Facts, query: str) -> list[tuple[Any, ...]]:
        with extra("release"):
            import duckdb
        try:
            return self._db.execute(query).fetchall()
        except (duckdb.Error, OSError) as error:
            raise UserError(
                f"{facts.folder} cannot be read, and alone says what of it must go: {error};"
                " `pairmill archive verify` tells what is wrong with it"
            ) from None


def _file(facts: Facts, table: str, model_id: int | None = None) -> str:
    return f"read_parquet('{facts.path(table, model_id).replace(chr(39), chr(39) * 2)}')"
