"""A folder that is there whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pairmill.ops.errors import Problem


@contextmanager
def folder_to_be(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its place at the end, or goes. Raises Problem if ``out``
    holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Problem(f"{out} is not empty: name a folder that does not exist yet")
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
