"""The folder of what is between a release's passes: one that is cut off leaves it to the next."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pairmill.ops.errors import UserError

LOCK = "release-work.lock"  # in a folder that is one, and locked by the build that is at it


@contextmanager
def work_folder(wanted: Path | None, out: Path, *, keep: bool = False) -> Iterator[Path]:
    """The folder ``wanted``, which is kept after an error and emptied at the end, unless it is to
    be kept; or, where none is wanted, one beside ``out``, which is always deleted.

    Raises UserError for a folder with other files, and for one that another build is at.
    """
    folder = wanted or out.with_name(f".{out.name}.work")
    if folder.exists() and (not folder.is_dir() or _others(folder)):
        raise UserError(f"{folder} holds other files: give --work a folder of its own")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another build is at work in {folder}") from None
        if wanted is None:
            _empty(folder)  # of a build that was killed
        done = False
        try:
            yield folder
            done = not keep
        finally:
            if done or wanted is None:
                shutil.rmtree(folder, ignore_errors=wanted is None)


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _others(folder: Path) -> bool:
    found = [path.name for path in folder.iterdir()]
    return bool(found) and LOCK not in found
