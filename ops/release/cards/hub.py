"""The folder that a hub of data sets wants: cards and charts as files, beside the data."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder, sha256
from pairmill.ops.release.cards.card_charts import charts
from pairmill.ops.release.cards.croissant import croissant
from pairmill.ops.release.cards.publication import Publication
from pairmill.ops.release.cards.readme import readme
from pairmill.ops.release.cards.sums import sums
from pairmill.ops.release.folder import (
    NAME,
    json_page,
    manifest_text,
    read_release,
    release_schema,
    stored_statistics,
)
from pairmill.ops.release.statistics import Statistics, statistics

Data = Literal["link", "copy", "none"]
CHARTS = "statistics"  # the folder of the charts


def write_card(
    release: Path,
    out: Path,
    said: Publication,
    *,
    data: Data = "link",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Write README.md, manifest.json, croissant.json, statistics.json, SHA256SUMS and the charts of
    a release into ``out``, a folder that does not exist or is empty; returns the names.

    data: whether the Parquet files lie there too, as hard links or copies. ``sha256sum -c`` needs
    them. progress is called with (files, files in all). Raises UserError if the folder is no
    release, or a file cannot be linked.
    """
    if data not in get_args(Data):
        raise UserError(f"unknown way {data!r:.40}: it is {', '.join(get_args(Data))}")
    found = read_release(release)
    schema = release_schema(release)
    counted = statistics_of(release)
    pictures = {f"{CHARTS}/{name}": svg for name, svg in charts(counted).items()}
    texts = {
        "README.md": readme(found.manifest, schema, counted, charts=list(pictures), published=said),
        "manifest.json": manifest_text(release).decode(),
        "croissant.json": json_page(croissant(found.manifest, schema, published=said)),
        "statistics.json": json_page(counted),
        **pictures,
    }
    with atomic_folder(out) as half:
        for name, text in texts.items():
            path = half / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
        if data != "none":
            files = [*found.parts, release / NAME]
            for done, path in enumerate(files):
                progress(done, len(files))
                _bring(path, half / path.name, data)
        entries = [*_entries(half, texts), *found.manifest["files"], _entry(release, NAME)]
        (half / "SHA256SUMS").write_text(sums(sorted(entries, key=lambda e: str(e["name"]))))
    return [*texts, "SHA256SUMS"]


def statistics_of(release: Path) -> Statistics:
    """The statistics that were made with a release, or else those of its files now."""
    return stored_statistics(release) or counted_now(release)


def counted_now(release: Path) -> Statistics:
    """The statistics of a release's files; of its duplicates those of its manifest."""
    found = read_release(release)
    counted = statistics(found.parts)
    return counted | {"duplicates": found.manifest.get("duplicate_groups", [])}


def _entries(folder: Path, names: Any) -> Iterator[dict[str, str]]:
    return (_entry(folder, name) for name in names)


def _entry(folder: Path, name: str) -> dict[str, str]:
    return {"name": name, "sha256": sha256(folder / name)}


def _bring(source: Path, target: Path, data: Data) -> None:
    try:
        if data == "link":
            os.link(source.resolve(), target)
        else:
            shutil.copyfile(source, target)
    except OSError as error:
        hint = "; --data copy copies it" if data == "link" else ""
        raise UserError(f"{source} cannot be brought to {target.parent} ({error}){hint}") from None
