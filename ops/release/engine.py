"""Engines: what runs a release's queries over files, DuckDB or, for what one machine is too small
for, Spark. The queries are written once, in DuckDB's dialect."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

from pairmill.ops.archive.facts import Facts, file_system
from pairmill.ops.errors import UserError
from pairmill.ops.release.candidates import quoted

# Rows of a query's file: a hash table of 10^6 rows stays small, and the next build after a kill
# loses no more. 10^7 rows at once took a quarter more CPU.
CHUNK = 100  # batches, 10^6 pairs
Table = Sequence[str] | str  # Parquet files; or, without one, a SELECT of its columns without rows


@dataclass(frozen=True)
class Part:
    """Batches first..last of a folder of facts: what one query reads."""

    facts: Facts
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.first:010}-{self.last:010}"

    @property
    def samples(self) -> tuple[int, int]:
        """The SAMPLE_IDs that it may have, from and to."""
        return self.first << 14, (self.last + 1 << 14) - 1


class Engine(Protocol):
    """name: with its version."""

    name: str

    def parts(self, facts: Facts) -> list[Part]:
        """The folder in parts, in order, each as large as a query of this engine should read."""
        ...

    def copy(
        self, query: str, relations: Mapping[str, Table], out: Path, *, ordered: bool = True
    ) -> None:
        """Write a query's rows into ``out``, a Parquet file, or a folder of them: in the order of
        sample_id, where it is ``ordered``, and of the files' names. relations: by the name that
        the query has for each."""
        ...

    def rows(self, query: str, relations: Mapping[str, Table]) -> list[tuple[Any, ...]]: ...

    def close(self) -> None: ...


class DuckDb:
    """DuckDB in this process. ``db`` is its connection, for passes over the whole pool.

    memory: as DuckDB writes it, like "8GB"; beyond it, joins and sorts go to ``spill``.
    """

    def __init__(self, spill: Path, memory: str | None = None, threads: int | None = None) -> None:
        self.name = f"duckdb {duckdb.__version__}"
        self.db = duckdb.connect()
        self.db.execute(f"set temp_directory = {quoted(str(spill))}")
        self.db.execute("set enable_progress_bar = false")
        try:
            if memory:
                self.db.execute(f"set memory_limit = {quoted(memory)}")
            if threads:
                self.db.execute(f"set threads = {threads:d}")
        except duckdb.Error as error:
            self.db.close()
            raise UserError(f"--memory {memory} is no size like 8GB: {first_line(error)}") from None
        self._opened: set[str] = set()

    def parts(self, facts: Facts) -> list[Part]:
        firsts = range(facts.first, facts.last + 1, CHUNK)
        return [Part(facts, first, min(first + CHUNK - 1, facts.last)) for first in firsts]

    def copy(
        self, query: str, relations: Mapping[str, Table], out: Path, *, ordered: bool = True
    ) -> None:
        text = self._with(query, relations) + " order by sample_id" * ordered
        with failures("facts, or the folder of --work,"):
            self.db.cursor().execute(
                f"copy ({text}) to {quoted(str(out))} (format parquet, compression snappy)"
            )

    def rows(self, query: str, relations: Mapping[str, Table]) -> list[tuple[Any, ...]]:
        with failures("the facts"):
            return self.db.cursor().execute(self._with(query, relations)).fetchall()

    def _with(self, query: str, relations: Mapping[str, Table]) -> str:
        named = ", ".join(f"{name} as ({self._read(of)})" for name, of in relations.items())
        return f"with {named} select * from ({query}) rows_"

    def _read(self, of: Table) -> str:
        if isinstance(of, str):
            return of
        for path in of:
            self.open_url(path)
        return f"select * from {read_parquet(of)}"

    def open_url(self, path: str) -> None:
        """Let DuckDB read a file at one of fsspec's URLs."""
        protocol = path.partition("://")[0]
        if "://" in path and protocol not in self._opened:
            self.db.register_filesystem(file_system(path))
            self._opened.add(protocol)

    def close(self) -> None:
        self.db.close()


def read_parquet(paths: Sequence[str]) -> str:
    return f"read_parquet([{', '.join(quoted(path) for path in paths)}])"


@contextmanager
def failures(what: str) -> Iterator[None]:
    """What goes wrong with files and memory, in a sentence."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise UserError(
            f"out of memory or of disk for what memory does not hold: give more by --memory, or"
            f" another disk by --work ({first_line(error)})"
        ) from None
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        said = first_line(error)
        if "No space left" in said:
            raise UserError(f"the disk is full: make room, or name another by --work ({said})"
                            ) from None  # fmt: skip
        raise UserError(f"{what} cannot be read or written: {said}") from None


def first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
