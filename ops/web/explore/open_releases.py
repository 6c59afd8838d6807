"""The releases that a page shows: folders that are looked at again and again.

A release is a folder that somebody copies, builds or deletes while the page runs. What cannot be
served says why, and the others are served.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pairmill.ops.errors import UserError
from pairmill.ops.release import folder as release_folder
from pairmill.ops.release.folder import ReleaseFolder, is_release, read_release
from pairmill.ops.web.explore import working_copy
from pairmill.ops.web.explore.copied_rows import CopiedRows
from pairmill.ops.web.explore.duck import MEMORY, THREADS, Duck
from pairmill.ops.web.explore.release_columns import columns_of
from pairmill.ops.web.explore.release_rows import OpenRelease, Place, first_parts

LOOK_SECONDS = 60.0  # between two looks for folders that are new
CHANGED_SECONDS = 2.0  # between two looks for manifests that are others
Hidden = Callable[[Sequence[int]], set[int]]


def nothing_hidden(ids: Sequence[int]) -> set[int]:
    return set()


class Releases:
    """The releases of some folders, each a release or a folder of releases.

    work: the folder of working copies; None: there are none. memory, threads: DuckDB's, of all
    queries together. hidden: of SAMPLE_IDs those that may not be shown any more.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        *,
        work: Path | None = None,
        memory: str = MEMORY,
        threads: int = THREADS,
        hidden: Hidden = nothing_hidden,
    ) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.work, self.hidden = work, hidden
        self._memory, self._threads = memory, threads
        self._lock = threading.Lock()
        self._seen: dict[Path, tuple[object, OpenRelease]] = {}
        self._open: dict[str, OpenRelease] = {}
        self._failed: dict[str, str] = {}
        self.progress: dict[str, tuple[int, int]] = {}  # of copies in the making: (done, steps)
        self._found: list[Path] = []
        self._looked = self._stamped = 0.0
        self.look()

    def all(self) -> list[OpenRelease]:
        """Every release, those that are not served with their trouble."""
        self._look_again()
        return list(self._open.values())

    def served(self) -> list[OpenRelease]:
        return [release for release in self.all() if not release.trouble]

    def get(self, name: str) -> OpenRelease | None:
        self._look_again()
        return self._open.get(name)

    def failed(self, copy: str, why: str) -> None:
        """Note that a working copy could not be made."""
        with self._lock:
            self._failed[copy] = why
        self.look()

    def _look_again(self) -> None:
        now = time.monotonic()
        if now - self._stamped < CHANGED_SECONDS or not self._lock.acquire(blocking=False):
            return  # another thread looks: what was seen last is served meanwhile
        try:
            self._look(folders=now - self._looked > LOOK_SECONDS)
        finally:
            self._lock.release()

    def look(self) -> None:
        """Look at all folders now."""
        with self._lock:
            self._look(folders=True)

    def _look(self, *, folders: bool) -> None:
        if folders:
            self._found = list(dict.fromkeys(_release_folders(self.folders)))
            self._looked = time.monotonic()
        before = [self._seen.get(path) for path in self._found]
        if all(self._same(path) for path in self._found) and len(self._seen) == len(before):
            self._stamped = time.monotonic()
            return
        names: set[str] = set()
        opened = []
        for path, known in zip(self._found, before, strict=True):
            stamp = _stamp(path)
            same = known is not None and known[0] == stamp
            release = known[1] if known and same else self._load(path)
            opened.append((path, stamp, _renamed(release, names)))
        placed = self._placed([release for _, _, release in opened])
        self._seen = {
            path: (stamp, release) for (path, stamp, _), release in zip(opened, placed, strict=True)
        }
        self._open = {release.name: release for release in placed}
        self._stamped = time.monotonic()

    def _same(self, folder: Path) -> bool:
        """Whether the folder, its working copy and what is said of it are as they were."""
        known = self._seen.get(folder)
        if known is None or known[0] != _stamp(folder):
            return False
        release = known[1]
        return release.copy == self._copy_of(release) and (
            release.copy_trouble == self._failed.get(release.copy_name, "")
        )

    def _copy_of(self, release: OpenRelease) -> Path | None:
        if self.work is None or release.trouble:
            return None
        folder = self.work / release.copy_name
        return folder if (folder / working_copy.NAME).is_file() else None

    def _load(self, folder: Path) -> OpenRelease:
        name = folder.absolute().name
        try:
            found = read_release(folder)
            require_whole(found)
            schema = release_folder.release_schema(folder)
            text = release_folder.manifest_text(folder)
            return OpenRelease(
                name, folder, manifest=found.manifest, count=found.rows,
                manifest_sha256=hashlib.sha256(text).hexdigest(),
                copy_name=working_copy.copy_name(folder), schema=schema, columns=columns_of(schema),
                statistics=release_folder.stored_statistics(folder) or {},
                card=release_folder.readme(folder), parts=tuple(found.parts),
            )  # fmt: skip
        except (UserError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return OpenRelease(name, folder, trouble=str(error))

    def _placed(self, releases: list[OpenRelease]) -> list[OpenRelease]:
        """The releases over a new Duck. The old one ends with the last request that has it."""
        copies = {n: copy for n, each in enumerate(releases) if (copy := self._copy_of(each))}
        attached = {f"c{n}": path / working_copy.NAME for n, path in copies.items()}
        views: dict[str, str] = {}
        files: list[Path] = []
        for n, each in enumerate(releases):
            if each.columns and n not in copies:
                first = first_parts(each.parts, each.manifest)
                views[f"first{n}"] = working_copy.view_sql(first, each.columns)
                views[f"whole{n}"] = working_copy.view_sql(list(each.parts), each.columns)
                files += each.parts
        duck = Duck(
            attached=attached, files=files, views=views, memory=self._memory, threads=self._threads
        )
        placed = []
        for n, each in enumerate(releases):
            if each.columns is None:
                placed.append(each)
            elif n in copies:
                copied = CopiedRows(copies[n] / working_copy.ROWS)
                place = Place(duck, f'"c{n}"."release"', alias=f"c{n}", copied=copied)
                placed.append(replace(each, copy=copies[n], copy_trouble="", place=place))
            else:
                place = Place(duck, f"first{n}", f"whole{n}")
                why = self._failed.get(each.copy_name, "")
                placed.append(replace(each, copy=None, copy_trouble=why, place=place))
        return placed


def require_whole(release: ReleaseFolder) -> None:
    """Raises UserError for a file that is outside of the folder, or has another size than its
    manifest says; its digest is `release check`'s to read."""
    for part, entry in zip(release.parts, release.manifest["files"], strict=True):
        if Path(entry["name"]).name != entry["name"]:
            raise UserError("its manifest names a file outside of the folder")
        if part.stat().st_size != entry.get("bytes", part.stat().st_size):
            raise UserError(
                f"{part.name} has {part.stat().st_size:,} bytes, and its manifest says"
                f" {entry['bytes']:,}: it is half there, or damaged: `pairmill release check"
                f" {release.folder}`"
            )


def _release_folders(folders: Sequence[Path]) -> Iterable[Path]:
    for folder in folders:
        if is_release(folder) or not folder.is_dir() or any(folder.glob("*.parquet")):
            yield folder
            continue
        for each in sorted(folder.iterdir()):
            if each.name.startswith(".") or not each.is_dir():
                continue  # one that is being written has a name with a dot
            if is_release(each) or any(each.glob("*.parquet")):
                yield each


def _stamp(folder: Path) -> object:
    """Another one wherever the release may be another."""
    try:
        files = sorted(folder.glob("*.parquet"))
        return [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    except OSError as error:
        return str(error)


def _renamed(release: OpenRelease, taken: set[str]) -> OpenRelease:
    """With a name of its own."""
    name, number = release.name, 2
    while name in taken:
        name, number = f"{release.name}-{number}", number + 1
    taken.add(name)
    return release if name == release.name else replace(release, name=name)
