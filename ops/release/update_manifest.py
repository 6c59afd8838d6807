"""The manifest of a release that is another one without some of its rows."""

import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmill import __version__
from pairmill.ops.errors import UserError
from pairmill.ops.files import file_entries
from pairmill.ops.release.folder import NAME, ReleaseFolder, release_schema, write_manifest
from pairmill.ops.release.keep_list import lineage
from pairmill.ops.release.manifest import Manifest

REMOVED = "removed"  # one reason for what goes later: counts by reason would tell who was removed


def version_of(manifest: dict[str, Any]) -> str:
    """MAJOR.MINOR.PATCH of a release's data."""
    return manifest.get("version") or f"{manifest['recipe']['version']}.0.0"


def major(version: object) -> int:
    """The first number of a version, of a recipe or of data; 0 where there is none."""
    found = re.match(r"\d+", str(version))
    return int(found[0]) if found else 0


def derived(
    old: ReleaseFolder, parts: Sequence[Path], how: dict[str, Any], removals: dict[str, Any] | None
) -> Manifest:
    """The manifest of the release in the folder of ``parts``, which are those of an old one
    without some rows.

    Its version is the next MAJOR one, as Croissant wants where rows go. Rows that went count as
    removed, so that candidates = kept + excluded holds. derived_from: manifest_sha256, name,
    version and rows of the old release, its lineage (that sha256, and those of the ones before it),
    and ``how``. removals: the version of the list; None: it is the old one's.
    """
    before = old.manifest
    counts = [pq.read_metadata(path).num_rows for path in parts]
    kept = sum(counts)
    excluded = Counter({**before["excluded"], REMOVED: before["excluded"].get(REMOVED, 0)})
    excluded[REMOVED] += before["kept"] - kept
    known = {f.name: before[f.name] for f in fields(Manifest) if f.name in before}
    ancestors = lineage(old.folder)
    known |= {
        "version": f"{major(version_of(before)) + 1}.0.0",
        "kept": kept,
        "excluded": {name: count for name, count in sorted(excluded.items()) if count},
        "kept_by_language": _by_language(parts, before["kept_by_language"], kept),
        "files": file_entries(parts[0].parent, zip(parts, counts, strict=True)) if parts else [],
        "written_by": {"pairmill": __version__, "pyarrow": pa.__version__},
        "derived_from": {
            "manifest_sha256": ancestors[0],
            "name": before["recipe"]["name"],
            "version": version_of(before),
            "rows": old.rows,
            "lineage": ancestors,
            **how,
        },
    }
    # the old one's date is no date of this one: `release card` is told its own
    said = known.get("published", {}).items()
    known["published"] = {key: value for key, value in said if key != "date_published"}
    if removals is not None:
        known["removals"] = removals
    return Manifest(**known)


def _by_language(parts: Sequence[Path], before: dict[str, int], kept: int) -> dict[str, int]:
    """Rows by language, counted where the layout has it; else of one language all, and of several
    unknown."""
    names = pq.read_schema(parts[0]).names if parts else []
    column = next((name for name in names if name.lower() == "language"), None)
    if column is None:
        return {next(iter(before)) if len(before) == 1 else "unknown": kept} if kept else {}
    counts: Counter[str] = Counter()
    for part in parts:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(columns=[column]):
                for each in pc.value_counts(batch.column(0).cast(pa.string())).to_pylist():
                    counts[each["values"] or "nolang"] += each["counts"]
    return dict(sorted(counts.items()))


def rewrite(folder: Path, old: ReleaseFolder, how: dict[str, Any]) -> None:
    """Replace a release's manifest, after rows of its files are gone."""
    try:
        manifest = derived(old, old.parts, how, None)
        with tempfile.TemporaryDirectory(prefix=".", suffix=".unfinished", dir=folder) as beside:
            write_manifest(Path(beside), manifest, release_schema(folder), parts=folder)
            (Path(beside) / NAME).replace(folder / NAME)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"cannot write the manifest of {folder}: {error}") from None
