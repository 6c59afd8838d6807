"""DuckDB for pages: it reads the files that it was given and no others, and for a bounded time.

A page's filters become parameters of queries that stand in this project, never a visitor's SQL. The
bounds here hold where that should fail: no other file, no network, no setting, no extension.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairmill.ops.errors import UserError, extra

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SECONDS = 10.0  # of a query, before it is interrupted
MEMORY = "512MB"
THREADS = 2


class QueryTooLong(UserError):
    """A query took longer than it may."""


def quoted(name: str) -> str:
    """A column or a table as an identifier of SQL."""
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


def literal(value: object) -> str:
    """A value as a text of SQL, for statements that take no parameter."""
    doubled = str(value).replace("'", "''")
    return f"'{doubled}'"


class Duck:
    """A DuckDB in memory that is closed to the world.

    attached: DuckDB files, read-only, by alias. files: further files that views read. views: by
    name, their query over these. memory, threads: DuckDB's bounds for all queries together. Nothing
    is spilled to disk. Raises UserError where a file cannot be opened.
    """

    def __init__(
        self,
        *,
        attached: Mapping[str, Path] | None = None,
        files: Sequence[Path] = (),
        views: Mapping[str, str] | None = None,
        memory: str = MEMORY,
        threads: int = THREADS,
    ) -> None:
        with extra("ops"):
            import duckdb
        self._errors = duckdb
        attached = attached or {}
        paths = [path.absolute() for path in (*attached.values(), *files)]
        # read_parquet is checked once as it is written, and once as it is found
        names = {name for path in paths for name in (str(path), no_pattern(path))}
        allowed = ", ".join(map(literal, sorted(names)))
        try:
            self._db = duckdb.connect(
                config={
                    "memory_limit": memory, "threads": threads, "temp_directory": "",
                    "autoinstall_known_extensions": False, "autoload_known_extensions": False,
                    "python_enable_replacements": False,
                }
            )  # fmt: skip
            self._db.execute("set enable_progress_bar = false")
            for alias, path in attached.items():
                name = f"attach {literal(path.absolute())} as {quoted(alias)} (read_only)"
                self._db.execute(name)
            self._db.execute(f"set allowed_paths = [{allowed}]")
            self._db.execute("set enable_external_access = false")
            for view, query in (views or {}).items():
                self._db.execute(f"create view {quoted(view)} as {query}")
            self._db.execute("set lock_configuration = true")
        except duckdb.Error as error:
            raise UserError(f"the rows cannot be opened: {one_line(error)}") from None

    def rows(
        self, query: str, values: Mapping[str, Any] | Sequence[Any] = (), seconds: float = SECONDS
    ) -> list[dict[str, Any]]:
        """The rows of a query, by column name. Raises QueryTooLong after ``seconds``, UserError
        where a file is damaged or memory does not suffice."""
        with self.cursor(seconds) as cursor:
            cursor.execute(query, values or None)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def table(
        self, query: str, values: Mapping[str, Any] | Sequence[Any] = (), seconds: float = SECONDS
    ) -> "pa.Table":
        """The rows of a query as a table of Arrow's; errors as above."""
        with self.cursor(seconds) as cursor:
            # a relation is not made a second time, as the answer of `execute` would be
            return cursor.sql(query, params=values or None).to_arrow_table()

    def batches(
        self,
        query: str,
        values: Mapping[str, Any] | Sequence[Any] = (),
        *,
        rows: int,
        seconds: float,
    ) -> Iterator["pa.RecordBatch"]:
        """The rows of a query as Arrow has them, ``rows`` at a time; errors as above."""
        with self.cursor(seconds) as cursor:
            yield from cursor.sql(query, params=values or None).to_arrow_reader(rows)

    @contextmanager
    def cursor(self, seconds: float = SECONDS) -> Iterator["duckdb.DuckDBPyConnection"]:
        """A connection of this thread's own, interrupted after ``seconds``; errors as above."""
        errors = self._errors
        cursor = self._db.cursor()
        timer = threading.Timer(seconds, self._interrupt, (cursor,))
        timer.daemon = True
        timer.start()
        try:
            yield cursor
        except errors.InterruptException:
            raise QueryTooLong(
                f"the answer took longer than {seconds:g} s: narrow it down by a further filter"
            ) from None
        except errors.OutOfMemoryException:
            raise QueryTooLong(
                "the answer needs more memory than the page may take: narrow it down by a"
                " further filter"
            ) from None
        except errors.Error as error:
            raise UserError(f"the rows cannot be read: {one_line(error)}") from None
        finally:
            timer.cancel()
            cursor.close()

    def _interrupt(self, cursor: "duckdb.DuckDBPyConnection") -> None:
        with suppress(self._errors.Error):  # its query was over at the same moment
            cursor.interrupt()

    def close(self) -> None:
        """Close it; it closes by itself with the last reference."""
        self._db.close()


def no_pattern(path: Path) -> str:
    """A path in which DuckDB finds no pattern."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def one_line(error: Exception) -> str:
    """The first line of an error of DuckDB's: the others repeat the query."""
    return str(error).partition("\n")[0]
