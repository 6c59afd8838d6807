"""The archive's folders: written beside and renamed, or uploaded with the manifest last."""

import hashlib
import json
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pairmill.ops.archive.facts import file_system
from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, file_entries

MANIFEST = "manifest.json"
CHUNK = 1 << 20
Entry = dict[str, Any]


def folder_of(root: str, first: int, last: int, generation: int) -> str:
    base = root.rstrip("/") if "://" in root else str(Path(root).absolute())
    return posixpath.join(base, f"batches-{first}-{last}", f"g{generation:04}")


@contextmanager
def trouble(folder: str) -> Iterator[None]:
    """What the disk, or the far side of a URL, says against it becomes UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read or written: {error}; what is whole there stays, and the same"
            " command goes on from it"
        ) from None


@contextmanager
def new_folder(folder: str, database: str) -> Iterator[Path]:
    """A local folder to fill, which becomes ``folder`` at the end: all of it or nothing.

    What is there already is of no generation that the catalogue of this database knows, and goes.
    Raises UserError where it is another database's, which may have its rows nowhere else.
    """
    with trouble(folder):
        _require_own(folder, database)
        if "://" not in folder:
            shutil.rmtree(folder, ignore_errors=True)
            with atomic_folder(Path(folder)) as half:
                yield half
            return
        with tempfile.TemporaryDirectory(prefix="pairmill-archive-") as name:
            yield Path(name)
            _upload(Path(name), folder)


def _require_own(folder: str, database: str) -> None:
    files, manifest = file_system(folder), posixpath.join(folder, MANIFEST)
    if not files.exists(manifest):
        return
    try:
        other = json.loads(files.cat_file(manifest)).get("database")
    except ValueError:
        other = None
    if other != database:
        raise UserError(
            f"{folder} is the archive of another database: name a folder of its own by --to"
        )


def _upload(local: Path, folder: str) -> None:
    """The manifest last: a folder without one was interrupted."""
    files = file_system(folder)
    if files.exists(folder):
        files.rm(folder, recursive=True)
    files.makedirs(folder, exist_ok=True)
    for path in sorted(local.iterdir(), key=lambda path: (path.name == MANIFEST, path.name)):
        files.put_file(str(path), posixpath.join(folder, path.name))


def write_manifest(folder: Path, manifest: dict[str, Any], rows: dict[str, int]) -> dict[str, Any]:
    """Add the entries of the files, whose rows are given, and write manifest.json. Returns the
    manifest with its own ``sha256``, which is not in the file."""
    files = file_entries(folder, [(folder / name, rows[name]) for name in sorted(rows)])
    text = json.dumps(manifest | {"files": files}, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, "utf-8")
    return manifest | {"files": files, "sha256": hashlib.sha256(text.encode()).digest()}


def check(
    folder: str,
    entries: Iterable[Entry],
    manifest_sha256: bytes,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Read every file back and compare its digest with the catalogue's. progress is called with the
    bytes read. Raises UserError for the first that is missing or other."""
    named = [(MANIFEST, manifest_sha256.hex()), *((e["name"], e["sha256"]) for e in entries)]
    done = 0
    for name, expected in named:
        path = posixpath.join(folder, name)
        found = hashlib.sha256()
        try:
            with file_system(path).open(path, "rb") as file:
                while chunk := file.read(CHUNK):
                    found.update(chunk)
                    done += len(chunk)
                    progress(done)
        except FileNotFoundError:
            raise UserError(f"{path} is missing, and the catalogue has it") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        if found.hexdigest() != expected:
            raise UserError(
                f"{path} is damaged: its sha256 is {found.hexdigest()[:12]}…, and the catalogue's"
                f" {expected[:12]}…"
            )


def remove(folder: str) -> None:
    """Delete a generation's folder, the manifest first; one that is gone is no error."""
    with trouble(folder):
        files = file_system(folder)
        manifest = posixpath.join(folder, MANIFEST)
        if files.exists(manifest):
            files.rm(manifest)
        if files.exists(folder):
            files.rm(folder, recursive=True)
