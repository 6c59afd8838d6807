"""Folders of results, which exist whole or not at all, and their files in a manifest."""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pairmill.ops.errors import UserError


def require_free(out: Path) -> None:
    """Raises UserError if ``out`` exists and is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not empty: name a folder that does not exist yet")


@contextmanager
def atomic_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out``, renamed to it at the end, or deleted after an error. Raises
    UserError if ``out`` exists and is not empty."""
    require_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    half = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    try:
        yield half
        if out.exists():
            out.rmdir()
        half.rename(out)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise


def sha256(path: Path) -> str:
    """The sha256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_entries(folder: Path, files: Iterable[tuple[Path, int]]) -> list[dict[str, Any]]:
    """The manifest's entries of files, given with their rows: name within the folder, rows, bytes
    and sha256 of each."""
    return [
        {
            "name": str(path.relative_to(folder)),
            "rows": rows,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
        }
        for path, rows in files
    ]
