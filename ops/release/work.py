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
    if wanted is None:
        folder = out.with_name(f".{out.name}.work")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    if wanted.exists() and (not wanted.is_dir() or _others(wanted)):
        raise UserError(f"{wanted} holds other files: give --work a folder of its own")
    wanted.mkdir(parents=True, exist_ok=True)
    with (wanted / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another build is at work in {wanted}") from None
        yield wanted
        if not keep:
            shutil.rmtree(wanted)


def _others(folder: Path) -> bool:
    found = [path.name for path in folder.iterdir()]
    return bool(found) and LOCK not in found
