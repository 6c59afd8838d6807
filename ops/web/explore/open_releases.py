"""The releases that a page shows: folders looked at again and again, and their rows.

A release is a folder that somebody copies, builds or deletes while the page runs. What cannot be
served says why, and the others are served.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text
from pairmill.ops.release import folder as release_folder
from pairmill.ops.release.folder import ReleaseFolder, is_release, read_release
from pairmill.ops.release.statistics import Statistics
from pairmill.ops.web.explore import working_copy
from pairmill.ops.web.explore.copied_rows import CopiedRows
from pairmill.ops.web.explore.duck import MEMORY, THREADS, Duck, quoted
from pairmill.ops.web.explore.release_columns import ReleaseColumns, columns_of

LOOK_SECONDS = 60.0  # between two looks for folders that are new
CHANGED_SECONDS = 2.0  # between two looks for manifests that are others
PARTIAL_ROWS = 1_000_000  # that are searched while there is no working copy
Row = dict[str, Any]
Hidden = Callable[[Sequence[int]], set[int]]


def nothing_hidden(ids: Sequence[int]) -> set[int]:
    return set()


@dataclass(frozen=True)
class Place:
    """Where a release's rows are in a Duck. table: what is filtered; whole: the rows themselves,
    None where they are in ``copied``; host_table: of the numbers of hosts; files: what it reads."""

    duck: Duck
    table: str
    whole: str | None = None
    alias: str = ""
    copied: CopiedRows | None = None

    def named(self, table: str) -> str:
        """A further table of the working copy, as SQL."""
        return f"{quoted(self.alias)}.{quoted(table)}"

    def rows_of(self, table: str) -> int:
        count: int = self.duck.rows(f"select count(*) as n from {self.named(table)}")[0]["n"]
        return count


@dataclass(frozen=True)
class OpenRelease:
    """A release as it stands in its folder.

    trouble: why it is not served, a sentence; "" where it is. partial: there is no working copy of
    it yet, and filters and searches look at its first rows alone. copy_trouble: why there is none.
    Rows are dictionaries by the names of the release's columns.
    """

    name: str
    folder: Path
    trouble: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    manifest_sha256: str = ""
    copy_name: str = ""
    count: int = 0
    statistics: Statistics = field(default_factory=dict)
    card: str = ""
    schema: pa.Schema | None = None
    columns: ReleaseColumns | None = None
    parts: tuple[Path, ...] = ()
    copy: Path | None = None
    copy_trouble: str = ""
    place: Place | None = None

    @property
    def partial(self) -> bool:
        return not self.trouble and self.copy is None

    @property
    def searched(self) -> int:
        """Rows that filters look at."""
        if not self.partial:
            return self.count
        files = self.manifest["files"][: len(first_parts(self.parts, self.manifest))]
        return sum(each["rows"] for each in files)

    @property
    def shape(self) -> ReleaseColumns:
        """The columns of a release that is served. Raises UserError for another."""
        if self.columns is None or self.place is None:
            raise UserError(f"the release {self.name} cannot be shown: {self.trouble}")
        return self.columns

    @property
    def at(self) -> Place:
        if self.place is None:
            raise UserError(f"the release {self.name} cannot be shown: {self.trouble}")
        return self.place

    @property
    def relation(self) -> str:
        """What DuckDB filters, as SQL: ``_id``, ``_host`` and the narrow columns."""
        return self.at.table

    def row(self, sample_id: int) -> Row | None:
        return self.rows([sample_id]).get(sample_id)

    def rows(self, ids: Sequence[int]) -> dict[int, Row]:
        """The rows with these SAMPLE_IDs, those that there are."""
        place, shape = self.at, self.shape
        wanted = [number for number in dict.fromkeys(ids) if 0 <= number < 2**63]
        if place.copied is not None:
            return place.copied.by_id(wanted)
        if not wanted:
            return {}
        listed = ", ".join(str(int(number)) for number in wanted)
        if shape.hexadecimal_id:
            listed = ", ".join(f"'{number:032x}'" for number in wanted)
        query = f"select * from {place.whole} where {shape.sql('id')} in ({listed})"
        return {row.pop("_id"): _told(row) for row in place.duck.rows(query)}

    def at_positions(self, positions: Sequence[int]) -> list[tuple[int, Row]]:
        """(SAMPLE_ID, row) of positions of the working copy, in their order."""
        copied = self.at.copied
        assert copied is not None
        return copied.at(positions)

    def by_urls(self, urls: Sequence[str]) -> dict[int, Row]:
        """The rows with one of these URLs, character by character."""
        return self._by_values("url", urls)

    def by_hashes(self, *, md5: str = "", sha256: str = "") -> dict[int, Row]:
        """The rows whose image's file has this digest, hexadecimal; 1,000 of them at most."""
        found: dict[int, Row] = {}
        for role, value in (("md5", md5.lower()), ("sha256", sha256.lower())):
            if value and self.shape.get(role):
                found |= self._by_values(role, [value])
        return found

    def _by_values(self, role: str, values: Sequence[str]) -> dict[int, Row]:
        place, shape = self.at, self.shape
        column = shape.by_role[role]
        if place.copied is None:
            query = (
                f"select * from {place.whole} where {quoted(column)} in (select unnest($1))"
                " limit 1000"
            )
            return {row.pop("_id"): _told(row) for row in place.duck.rows(query, [list(values)])}
        query = (
            f"select position from {place.named(role + '_key')} where key in (select hash(value)"
            " from (select unnest($1::varchar[]) as value)) order by 1 limit 1000"
        )
        found = place.duck.rows(query, [list(values)])
        rows = place.copied.at([row["position"] for row in found])
        wanted = set(values)
        return {number: row for number, row in rows if row[column] in wanted}

    def by_host(
        self, host: str, *, limit: int = 50, after: int = -1, subdomains: bool = True
    ) -> tuple[int, list[tuple[int, Row]]]:
        """How many rows have URLs at a host or, with ``subdomains``, below it; and those of them
        whose SAMPLE_ID is greater than ``after``, (SAMPLE_ID, row) by it."""
        place = self.at
        condition, values = self.host_condition(host, subdomains=subdomains)
        table = place.table if place.copied else place.whole
        numbered = {f"h{n}": value for n, value in enumerate(values)}
        named = condition.format(*(f"${name}" for name in numbered))
        count = place.duck.rows(f"select count(*) as n from {table} where {named}", numbered)
        query = f"select _id from {table} where {named} and _id > $after order by _id limit $most"
        ids = place.duck.rows(query, numbered | {"after": after, "most": limit})
        rows = self.rows([row["_id"] for row in ids])
        return count[0]["n"], sorted(rows.items())

    def host_condition(self, host: str, *, subdomains: bool = True) -> tuple[str, list[Any]]:
        """A condition on ``_host`` with {} for each of the values."""
        place, host = self.at, host.lower()
        if place.copied is None:
            if not subdomains:
                return "_host = {}", [host]
            return "(_host = {} or ends_with(_host, {}))", [host, f".{host}"]
        backwards = ".".join(reversed(host.split(".")))
        query = query_text("web", "explore/host_codes").format(host=place.named("host"))
        [found] = place.duck.rows(query, {"host": backwards})
        own = -1 if found["own"] is None else found["own"]
        if not subdomains or found["first"] is None:
            return "_host = {}", [own]
        return "(_host = {} or _host between {} and {})", [own, found["first"], found["last"]]


def _told(row: Row) -> Row:
    del row["_host"]
    return row


def first_parts(parts: Sequence[Path], manifest: dict[str, Any]) -> list[Path]:
    """The first files, up to PARTIAL_ROWS rows, one at least."""
    found: list[Path] = []
    rows = 0
    for part, entry in zip(parts, manifest["files"], strict=True):
        rows += entry["rows"]
        if found and rows > PARTIAL_ROWS:
            break
        found.append(part)
    return found


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
