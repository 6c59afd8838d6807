"""Facts from the database: the rows of a range of batches, batch by batch, into Parquet files."""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.archive.columns import ARCHIVED, OF_A_MODEL, TABLES
from pairmill.ops.archive.facts import Facts, file_name
from pairmill.ops.archive.pages import PageUrls
from pairmill.ops.archive.reading import POSITIONS, BatchReader
from pairmill.ops.queries import rows

GROUP_BYTES = 64_000_000  # of a row group, as Arrow has it
GROUP_ROWS = 131_072
# values that repeat; a dictionary of the others would be made and thrown away
DICTIONARY = [
    "language", "language_detector", "license", "link_kind", "page_url", "signal", "source",
    "value",
]  # fmt: skip
Progress = Callable[[int, int], None]


def export(
    connection: psycopg.Connection[Any],
    folder: Path,
    first: int,
    last: int,
    *,
    tables: Collection[str] = TABLES,
    model_ids: Collection[int] | None = None,
    samples: Collection[int] | None = None,
    progress: Progress = lambda done, total: None,
) -> Facts:
    """Write the facts of the batches first..last into ``folder``, which is made where it is not
    there, and may hold others' files; those of the same names are written anew.

    In the caller's transaction, whose snapshot should be one (repeatable read). tables: of
    ARCHIVED; model_ids: models and taggers, null: all; samples: only these, null: all. progress is
    called with (batches done, batches to do). A table without rows makes no file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = rows(
        connection,
        "select batch_id, link_kind from mill.batch where batch_id between %s and %s"
        " order by batch_id",
        first,
        last,
    )
    chosen = None if samples is None else _positions(samples)
    if chosen is not None:
        found = [batch for batch in found if batch["batch_id"] in chosen]
    files = _files(connection, tables, model_ids)
    page_urls = PageUrls(connection)
    with _Writers(folder) as writers:
        for done, batch in enumerate(found):
            progress(done, len(found))
            positions = None if chosen is None else chosen[batch["batch_id"]]
            reader = BatchReader(
                connection, batch["batch_id"], batch["link_kind"], positions, page_urls
            )
            for table, model_id, dims in files:
                writers.write(table, model_id, reader.read(table, model_id, dims))
        progress(len(found), len(found))
    return Facts(str(folder), first, last, writers.names)


def _positions(samples: Collection[int]) -> dict[int, list[int]]:
    """The positions of each batch that samples are of."""
    found: dict[int, list[int]] = {}
    for sample_id in sorted(set(samples)):
        found.setdefault(sample_id >> 14, []).append(sample_id & (POSITIONS - 1))
    return found


def _files(
    connection: psycopg.Connection[Any],
    tables: Collection[str],
    model_ids: Collection[int] | None,
) -> list[tuple[str, int | None, int]]:
    """The files to write: table, model and its dims, in the order of ARCHIVED and of models."""
    models = [
        model
        for model in rows(connection, "select model_id, kind, dims from mill.model order by 1")
        if model_ids is None or model["model_id"] in model_ids
    ]
    files: list[tuple[str, int | None, int]] = []
    for table in (each for each in ARCHIVED if each in tables):
        if table not in OF_A_MODEL:
            files.append((table, None, 0))
            continue
        of_clip = table != "tag"
        files += [
            (table, m["model_id"], m["dims"]) for m in models if (m["kind"] == "clip") == of_clip
        ]
    return files


class _Writers:
    """The files of a folder, each begun at its first row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pa.Table]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "_Writers":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        with self._stack:
            if kind is None:
                for name in list(self._waiting):
                    self._flush(name)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._waiting)

    def write(self, table: str, model_id: int | None, made: pa.Table) -> None:
        if not len(made):
            return
        name = file_name(table, model_id)
        waiting = self._waiting.setdefault(name, [])
        waiting.append(made)
        if (
            sum(each.num_rows for each in waiting) >= GROUP_ROWS
            or sum(each.nbytes for each in waiting) >= GROUP_BYTES
        ):
            self._flush(name)

    def _flush(self, name: str) -> None:
        waiting, self._waiting[name] = self._waiting[name], []
        if not waiting:
            return
        made = pa.concat_tables(waiting)
        if name not in self._open:
            vectors = [f.name for f in made.schema if pa.types.is_fixed_size_list(f.type)]
            self._open[name] = self._stack.enter_context(
                pq.ParquetWriter(
                    self._folder / name,
                    made.schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=[each for each in DICTIONARY if each in made.schema.names],
                    # of vectors they say nothing, and took a quarter of the time
                    write_statistics=[f.name for f in made.schema if f.name not in vectors],
                )
            )
        self._open[name].write_table(made, row_group_size=GROUP_ROWS)
