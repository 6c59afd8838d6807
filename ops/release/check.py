"""The proof of a release without a database: its files against its manifest, and their rows
against what a row can be.

LAION-400M was published with similarities up to 6016 and sizes of 0, LAION-5B with a part that
nobody could read: their users found that out.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.cards.sums import sums
from pairmill.ops.release.check_rows import RowChecks
from pairmill.ops.release.folder import (
    NAME,
    ReleaseFolder,
    manifest_text,
    named_release,
    release_schema,
    stored_sums,
)
from pairmill.ops.release.layouts import LAYOUTS
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.statistics import repeated

ROWS = 65_536  # read at once, about 20 MB
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fault:
    """What is wrong. file: of the folder. row: the first that is, from 0; None: the whole file is.
    rows: how many of the file are."""

    file: str
    what: str
    row: int | None = None
    rows: int = 0

    def sentence(self) -> str:
        at = "" if self.row is None else f", row {self.row:,}"
        more = f", and in {self.rows - 1:,} more of it" if self.rows > 1 else ""
        return f"{self.file}{at}: {self.what}{more}"


@dataclass
class Checked:
    """The faults of a release, file by file; none: it is whole. manifest_sha256: to compare with
    that which its publisher names; nothing in the folder itself can vouch for its manifest."""

    manifest_sha256: str
    files: int
    rows: int = 0
    faults: list[Fault] = field(default_factory=list)

    def as_dict(self, most: int | None = None) -> dict[str, Any]:
        """JSON, with the first faults alone if there are more than ``most``."""
        told = [asdict(fault) for fault in self.faults[:most]]
        return asdict(self) | {
            "whole": not self.faults, "fault_count": len(self.faults), "faults": told,
        }  # fmt: skip


def check(folder: Path, progress: Progress = lambda done, total: None) -> Checked:
    """Read all of a release and tell its faults.

    progress is called with (rows read, rows that the manifest names). Raises UserError if the
    folder is no release: it has no manifest, or one that says nothing.
    """
    release = named_release(folder)
    found = Checked(hashlib.sha256(manifest_text(folder)).hexdigest(), len(release.parts))
    schema = release_schema(folder)
    found.faults += [*_of_manifest(release), *_of_folder(release), *_of_schema(release, schema)]
    rules = RowChecks(schema, release.manifest)
    for path, entry in zip(release.parts, release.manifest["files"], strict=True):
        if path.is_file():
            found.faults += _of_file(path, entry)
            found.faults += _of_rows(path, entry, schema, rules, found, progress, release.rows)
    found.faults += _of_all(release, rules)
    return found


def _of_manifest(release: ReleaseFolder) -> Iterator[Fault]:
    manifest = release.manifest
    if release.rows != manifest["kept"]:
        yield Fault(
            NAME, f"its files have {release.rows:,} rows, and {manifest['kept']:,} are kept"
        )
    left_out = sum(manifest["excluded"].values())
    if manifest["kept"] + left_out != manifest["candidates"]:
        yield Fault(
            NAME,
            f"{manifest['candidates']:,} candidates are not {manifest['kept']:,} kept and"
            f" {left_out:,} left out",
        )
    names = [each["name"] for each in manifest["files"]]
    if len(set(names)) != len(names) or any(Path(name).name != name for name in names):
        yield Fault(NAME, "it names a file twice, or one outside of the folder")
    try:
        same = stored_sums(release.folder) == sums(manifest["files"])
    except UserError:
        same = False
    if not same:
        yield Fault(NAME, "its SHA256SUMS are not those of its manifest")


def _of_folder(release: ReleaseFolder) -> Iterator[Fault]:
    for path in release.parts:
        if not path.is_file():
            yield Fault(path.name, "it is missing, and the manifest names it")
    known = {*release.parts, release.folder / NAME}
    for path in sorted(release.folder.rglob("*.parquet")):
        if path not in known:
            name = str(path.relative_to(release.folder))
            yield Fault(
                name, "it is not of the release, and a reader of the folder takes it for it"
            )


def _of_schema(release: ReleaseFolder, schema: pa.Schema) -> Iterator[Fault]:
    """The columns against the manifest, and against the layout that it names."""
    manifest = release.manifest
    said = {
        name: kind.replace("<item: ", "<element: ") for name, kind in manifest["columns"].items()
    }
    # Parquet calls a list's items so, whatever Arrow called them before
    if {f.name: str(f.type).replace("<item: ", "<element: ") for f in schema} != said:
        yield Fault(NAME, "its columns are not those of its manifest")
    name = manifest.get("layout", "")
    if name not in LAYOUTS:
        yield Fault(NAME, f"it has the layout {name!r:.40}, and known are {', '.join(LAYOUTS)}")
        return
    try:
        recipe = msgspec.convert(manifest["recipe"], Recipe)
    except msgspec.ValidationError as error:
        yield Fault(NAME, f"its recipe is none of this version of Pairmill ({error})")
        return
    wanted = LAYOUTS[name].schema(recipe)
    for column in wanted:
        if column.name not in schema.names:
            yield Fault(NAME, f"it lacks the column {column.name} of the layout {name}")
        elif schema.field(column.name).type != column.type:
            kind = schema.field(column.name).type
            yield Fault(NAME, f"{column.name} is {kind}, and {column.type} in the layout {name}")
    if set(wanted.names) == set(schema.names) and wanted.names != schema.names:
        yield Fault(NAME, f"its columns are not in the order of the layout {name}")
    for column in schema:
        if column.name not in wanted.names:
            yield Fault(NAME, f"it has the column {column.name}, which the layout {name} has not")


def _of_file(path: Path, entry: dict[str, Any]) -> Iterator[Fault]:
    try:
        same = path.stat().st_size == entry["bytes"] and sha256(path) == entry["sha256"]
    except OSError as error:
        yield Fault(path.name, f"it cannot be read: {error}")
        return
    if not same:
        yield Fault(path.name, "it is not the file that the manifest names: its sha256 is another")


def _of_rows(
    path: Path,
    entry: dict[str, Any],
    schema: pa.Schema,
    rules: RowChecks,
    found: Checked,
    progress: Progress,
    total: int,
) -> Iterator[Fault]:
    """What is wrong with the rows of a file, each rule once with its first row."""
    broken: dict[str, tuple[int, int]] = {}
    read = 0
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            if not file.schema_arrow.equals(schema):
                yield Fault(path.name, f"its columns are not those of {NAME}")
            for rows in file.iter_batches(batch_size=ROWS):
                rows.validate(full=True)  # text that is no UTF-8 is read without an error
                for what, first, count in rules.broken(rows):
                    at, before = broken.get(what, (read + first, 0))
                    broken[what] = at, before + count
                read += len(rows)
                found.rows += len(rows)
                progress(found.rows, total)
    except (pa.ArrowException, OSError) as error:
        yield Fault(path.name, f"it cannot be read after row {read:,}: {error}")
    else:
        if read != entry["rows"]:
            yield Fault(path.name, f"it has {read:,} rows, and the manifest says {entry['rows']:,}")
    for what, (at, count) in broken.items():
        yield Fault(path.name, what, at, count)


def _of_all(release: ReleaseFolder, rules: RowChecks) -> Iterator[Fault]:
    """What no file tells alone: rows by language, and, where no id is in order, rows twice."""
    said = {name: count for name, count in release.manifest["kept_by_language"].items() if count}
    if rules.language_column and dict(rules.languages) != said:
        names = sorted(said.keys() | rules.languages.keys())
        name = next(name for name in names if rules.languages[name] != said.get(name, 0))
        yield Fault(
            NAME,
            f"{rules.languages[name]:,} rows have the language {name}, and the manifest says"
            f" {said.get(name, 0):,}",
        )
    parts = [path for path in release.parts if path.is_file()]
    if rules.id_column is None and rules.url_column and parts:
        try:
            twice = repeated(parts, rules.url_column)
        except UserError as error:
            yield Fault(NAME, str(error))
            return
        if twice:
            url, rows = twice
            yield Fault(NAME, f"{rows:,} rows repeat the {rules.url_column} of another, as {url}")
