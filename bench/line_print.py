"""Tables in Markdown of what bench/line.py measured and computed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from line_needs import Measured, Stage

STAGES = {
    "young": ("extraction, no URL known", "links"),
    "known": ("extraction, every URL known", "links"),
    "download": ("download", "URLs"),
    "score": ("scoring, the demo's model", "images"),
    "release": ("release", "pairs"),
}
ROWS = (
    ("WAT files", ("wat_files",)),
    ("pairs", ("pairs",)),
    ("images, each scored once", ("images",)),
    ("rows of a release", ("release_rows",)),
    ("core-hours: extraction, workers", ("core_hours", "extract", "client")),
    ("core-hours: extraction, server", ("core_hours", "extract", "server")),
    ("core-hours: download, workers", ("core_hours", "download", "client")),
    ("core-hours: download, server", ("core_hours", "download", "server")),
    ("core-hours: scoring, workers", ("core_hours", "score", "client")),
    ("core-hours: scoring, server", ("core_hours", "score", "server")),
    ("core-hours: release, client", ("core_hours", "release", "client")),
    ("core-hours: release, server", ("core_hours", "release", "server")),
    ("GPU-hours", ("gpu_hours",)),
    ("WAL, GB: extraction", ("wal_gb", "extract")),
    ("WAL, GB: whole pages of `seen_url`'s index", ("wal_gb", "seen_url")),
    ("WAL, GB: download", ("wal_gb", "download")),
    ("WAL, GB: scoring", ("wal_gb", "score")),
    ("disk, GB: `pair`", ("disk_gb", "pair")),
    ("disk, GB: `page`", ("disk_gb", "page")),
    ("disk, GB: `seen_url`", ("disk_gb", "seen_url")),
    ("disk, GB: `download`", ("disk_gb", "download")),
    ("disk, GB: `score`", ("disk_gb", "score")),
    ("disk, GB: `embedding`", ("disk_gb", "embedding")),
    ("disk, GB: the queue and its books", ("disk_gb", "others")),
    ("disk, GB: thumbnails, at most", ("ring_gb",)),
    ("network, TB: WAT files", ("network_tb", "wat_files")),
    ("network, TB: images", ("network_tb", "images")),
    ("network, TB: thumbnails, in and out", ("network_tb", "thumbnails")),
    ("days of downloads", ("download_days",)),
    ("hours of merges, every link staged", ("merge_hours", "all_links")),
    ("hours of merges, new links alone", ("merge_hours", "new_alone")),
)


def markdown(columns: Sequence[Mapping[str, Any]]) -> str:
    """A table with a column for each crawl, largest last; two significant digits."""
    head = " | ".join(f"{short(column['links'])} links" for column in columns)
    lines = [f"| | {head} |", "|---" * (len(columns) + 1) + "|"]
    for name, path in ROWS:
        cells = [short(_at(column, path)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def stages(m: Measured) -> str:
    """A table with a row for each stage, for each 1,000 pairs of the run's file."""
    lines = [
        "| stage | of | wall, s | worker, core-s a 1,000 pairs | server | WAL, bytes a pair"
        " | database grew by, bytes a pair |",
        "|---" * 7 + "|",
    ]
    for name, (words, unit) in STAGES.items():
        stage: Stage = getattr(m, name)
        cells = [
            words, f"{stage.units:,} {unit}", f"{stage.wall:,.0f}",
            f"{stage.client / m.pairs * 1000:.2f}", f"{stage.server / m.pairs * 1000:.2f}",
            f"{stage.wal / m.pairs:,.0f}", f"{stage.disk / m.pairs:,.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(m: Measured) -> str:
    """Bytes a pair of the run's file that each table grew by, largest first."""
    found = sorted(m.disk.items(), key=lambda each: -each[1])
    sizes = ((name, round(size / m.pairs)) for name, size in found)
    return ", ".join(f"{name} {size:,}" for name, size in sizes if size)


def _at(column: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = column
    for name in path:
        found = found[name]
    return found


def short(value: float | str) -> str:
    """Two significant digits, and a power of ten from 10^6 on."""
    if isinstance(value, str) or value == 0:
        return str(value)
    power = math.floor(math.log10(abs(value)))
    rounded = round(value, 1 - power)
    power = math.floor(math.log10(abs(rounded)))  # 99.6 is 100
    if power >= 6:
        digits = f"{rounded / 10**power:.1f}".removesuffix(".0")
        return f"10^{power}" if digits == "1" else f"{digits}·10^{power}"
    if power < 1:
        return f"{rounded:.{1 - power}f}" if power >= -3 else "< 0.001"
    return f"{rounded:,.0f}"
