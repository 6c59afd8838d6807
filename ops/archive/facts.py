"""A folder of facts: the rows of a range of batches as Parquet files, one a table."""

import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pairmill.ops.archive.columns import OF_A_MODEL
from pairmill.ops.errors import UserError, extra


@dataclass(frozen=True)
class Facts:
    """Facts of the batches first..last, inclusive, in one folder: a path, or a URL of fsspec.

    files: names of those that have rows, where they are known; a lost one is then an error to
    whoever reads it, where a folder alone cannot tell it from a table without rows. version:
    another one wherever the files of this folder may be others.
    """

    folder: str
    first: int
    last: int
    files: frozenset[str] | None = field(default=None, compare=False)
    version: str = field(default="", compare=False)

    def path(self, table: str, model_id: int | None = None) -> str:
        """Where the file of a table is, or would be. model_id: of a table of models."""
        return posixpath.join(self.folder, file_name(table, model_id))

    def has(self, table: str, model_id: int | None = None) -> bool:
        """Whether the table has a file: one without rows may have none. Raises UserError where the
        folder cannot be reached."""
        if self.files is not None:
            return file_name(table, model_id) in self.files
        path = self.path(table, model_id)
        if "://" not in path:
            return Path(path).is_file()
        try:
            return bool(file_system(path).exists(path))
        except OSError as error:
            raise UserError(f"{self.folder} cannot be reached: {error}") from None


def file_name(table: str, model_id: int | None = None) -> str:
    if (model_id is not None) != (table in OF_A_MODEL):
        raise ValueError(f"{table}, {model_id}: score, tag and embedding have a file a model")
    return f"{table}.parquet" if model_id is None else f"{table}-{model_id}.parquet"


def file_system(url: str) -> Any:
    """fsspec's file system of a path or a URL. Raises UserError where it is not installed, or
    knows no such protocol."""
    with extra("remote"):
        import fsspec
    try:
        return fsspec.core.url_to_fs(url)[0]
    except (ValueError, ImportError) as error:
        raise UserError(f"{url} cannot be opened: {error}") from None
