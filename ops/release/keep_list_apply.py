"""Dropping what a keep-list does not name from a folder: a release, embeddings, or images.

No database is needed. Each shard is replaced in one step, and the manifest at the end: what was
interrupted is ended by the same call again, and a further call does nothing.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import file_entries
from pairmill.ops.release import update_manifest
from pairmill.ops.release.folder import is_release, read_release
from pairmill.ops.release.keep_list import KeepList, ListedRelease, lineage, unseen
from pairmill.ops.release.keep_list_shards import (
    KNOWN_FILES,
    examine,
    held,
    left_alone,
    rewrite,
    shards_of,
)

INDEX = "index.json"


@dataclass(frozen=True)
class Applied:
    """What was dropped from a folder, or would be. kind: release, embeddings, index or images.
    rows: before. left_alone: files and folders that it has no ids of."""

    folder: str
    kind: str
    rows: int
    dropped: int
    left_alone: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kind_of(folder: Path) -> str:
    """Raises UserError for what is no folder."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    if is_release(folder):
        return "release"
    if (folder / INDEX).is_file():
        return "index"
    return "embeddings" if _export(folder) or (folder / "img_emb").is_dir() else "images"


def _export(folder: Path) -> dict[str, Any] | None:
    """The manifest of an export of embeddings, or None."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        known = manifest["format"], manifest["rows"], manifest["files"], manifest["release"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    assert known
    return dict(manifest)


def require_same_release(folder: Path, about: ListedRelease | None) -> None:
    """Raises UserError where a keep-list is of another release than a folder's, or of an older
    version. Of images nothing says what they are of."""
    if about is None:
        return
    own, name, version = _release_of(folder)
    if not own or set(own) & set(about.lineage):
        return
    if name != about.name:
        raise UserError(
            f"the keep-list is of {about.name}, and {folder} of {name}: all that only {name} has"
            " would go; --any-release means it"
        )
    if update_manifest.major(version) > update_manifest.major(about.version):
        raise UserError(
            f"the keep-list is of version {about.version} of {name}, and {folder} of version"
            f" {version}: what is new in that would go; --any-release means it"
        )


def _release_of(folder: Path) -> tuple[list[str], str, str]:
    """Manifests' sha256, name and version of the release that a folder is of, or is made of."""
    if is_release(folder):
        manifest = read_release(folder).manifest
        version = update_manifest.version_of(manifest)
        return lineage(folder), manifest["recipe"]["name"], version
    try:
        path = folder / (INDEX if (folder / INDEX).is_file() else "manifest.json")
        release = json.loads(path.read_bytes())["release"]
        return [release["manifest_sha256"]], str(release["name"]), str(release["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], "", ""


def apply(
    folder: Path,
    keep: KeepList,
    *,
    keys_are_ids: bool = False,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = unseen,
) -> Applied:
    """Drop from a folder, which is no index, every row that a keep-list does not name.

    progress is called with (bytes of shards done, bytes). Raises UserError for a folder without
    rows, a row without an id, or a damaged file; shards before it are done then, and those after it
    as they were.
    """
    kind = kind_of(folder)
    with held(folder):
        shards = shards_of(folder)
        if not shards and kind != "release":
            raise UserError(f"{folder} has no Parquet file and no tar")
        total, done = sum(shard.size for shard in shards), 0
        rows = dropped = 0
        for shard in shards:
            progress(done, total)
            done += shard.size
            try:
                found = examine(shard, keep, keys_are_ids=keys_are_ids)
                if found.dropped and not dry_run:
                    rewrite(folder, shard, found)
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{folder}, {shard.name}: {error}") from None
            rows, dropped = rows + found.rows, dropped + found.dropped
        if not dry_run:
            _finish(folder, kind, keep)
        rest = left_alone(folder, shards, KNOWN_FILES)
    return Applied(str(folder), kind, rows, dropped, rest)


def copied(folder: Path, out: Path) -> None:
    """A copy of a folder in ``out``, an empty one, whose files are links: ``apply`` replaces those
    that it changes, and ``unlinked`` copies the others."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    shutil.copytree(folder, out, copy_function=link, dirs_exist_ok=True)


def unlinked(out: Path) -> None:
    """Make every file that is a link of another one a file of its own."""
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        if path.stat().st_nlink > 1:
            beside = path.with_name(f".{path.name}.own")
            shutil.copy2(path, beside)
            beside.replace(path)


def _finish(folder: Path, kind: str, keep: KeepList) -> None:
    """Bring the manifest up to date, where rows are fewer than it says."""
    if kind == "release":
        found = read_release(folder)
        if _changed(found.parts, found.manifest["files"]):
            update_manifest.rewrite(folder, found, {"keep_list": _named(keep.about)})
    elif manifest := _export(folder):
        entries = manifest["files"]
        paths = [folder / entry["name"] for entry in entries]
        if _changed(paths, entries):
            _rewrite_export(folder, manifest, paths)


def _named(about: ListedRelease | None) -> dict[str, Any]:
    if about is None:
        return {}
    return {"name": about.name, "version": about.version, "sha256": about.sha256}


def _changed(paths: list[Path], entries: list[dict[str, Any]]) -> bool:
    return any(
        path.suffix == ".parquet" and pq.read_metadata(path).num_rows != entry["rows"]
        for path, entry in zip(paths, entries, strict=True)
    )


def _rewrite_export(folder: Path, manifest: dict[str, Any], paths: list[Path]) -> None:
    """Rows of arrays are those of the Parquet file of their shard, which stands after them."""
    rows: list[tuple[Path, int]] = []
    waiting: list[Path] = []
    for path in paths:
        waiting.append(path)
        if path.suffix == ".parquet":
            count = pq.read_metadata(path).num_rows
            rows += [(each, count) for each in waiting]
            waiting = []
    kept = sum(count for path, count in rows if path.suffix == ".parquet")
    left_out = dict(manifest.get("left_out", {}))
    left_out["not_in_keep_list"] = left_out.get("not_in_keep_list", 0) + manifest["rows"] - kept
    manifest |= {
        "rows": kept,
        "left_out": dict(sorted(left_out.items())),
        "files": file_entries(folder, rows),
    }
    beside = folder / ".manifest.json.unfinished"
    beside.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", "utf-8")
    beside.replace(folder / "manifest.json")
