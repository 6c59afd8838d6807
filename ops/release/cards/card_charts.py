"""Charts of a release's statistics, as SVG that stands alone: no script, no font, no link.

Values are what sites wrote, so each is made safe to show and escaped. Colours have enough contrast
on a white page and on a black one.
"""

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pairmill.workers.safe_text import safe

WIDTH, HEIGHT, EDGE = 640, 240, 40
BAR, INK = "#4c8dd6", "#808080"
ROW, NAMES = 18, 240  # of a chart of values: pixels a row, and for its name
SHOWN = 20  # values of such a chart
VALUE = 32  # characters of a value


def charts(statistics: Mapping[str, Any]) -> dict[str, str]:
    """The charts by the names of their files, such as ``similarity.svg``."""
    found: dict[str, str] = {}
    for name, svg in _each(statistics):
        stem = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-") or "column"
        while f"{stem}.svg" in found:  # columns that differ in case or in signs
            stem += "-2"
        found[f"{stem}.svg"] = svg
    return found


def _each(statistics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, histogram in statistics["histograms"].items():
        if any(histogram["counts"]):
            yield name, _histogram(histogram)
    for name, top in statistics["top"].items():
        if top["values"]:
            rows = [(each["value"], each["rows"]) for each in top["values"][:SHOWN]]
            yield name, _values(f"{name}, rows", rows)
    for name, groups in statistics["repeats"].items():
        if groups:
            rows = [(_size(each["up_to"]), each["images"]) for each in groups]
            yield f"repeats {name}", _values(f"images by their rows in the release ({name})", rows)
    if groups := statistics.get("duplicates"):
        rows = [(_size(each["up_to"]), each["groups"]) for each in groups]
        yield "duplicates", _values("groups of duplicates by their rows, before they went", rows)


def _size(up_to: int) -> str:
    return str(up_to) if up_to <= 2 else f"{up_to // 2 + 1} to {up_to}"


def _histogram(histogram: Mapping[str, Any]) -> str:
    counts, edges = histogram["counts"], histogram["edges"]
    most, step = max(counts), (WIDTH - 2 * EDGE) / len(counts)
    tall = HEIGHT - 2 * EDGE
    parts = []
    for i, count in enumerate(counts):
        high = tall * count / most
        parts.append(
            f'<rect x="{EDGE + i * step:.1f}" y="{HEIGHT - EDGE - high:.1f}"'
            f' width="{max(step - 0.5, 0.5):.1f}" height="{high:.1f}" fill="{BAR}">'
            f"<title>{_number(edges[i])} to {_number(edges[i + 1])}: {count:,}</title></rect>"
        )
    every = max(1, len(counts) // 8)
    parts += [
        _text(EDGE + i * step, HEIGHT - EDGE + 16, _number(edges[i]), "middle")
        for i in range(0, len(edges), every)
    ]
    out = ", ".join(
        f"{histogram[key]:,} {word}"
        for key, word in (("below", "below"), ("above", "above"), ("missing", "without"))
        if histogram[key]
    )
    title = f"{histogram['title']}, rows a bin up to {most:,}" + (f" ({out})" if out else "")
    return _page(HEIGHT, title, parts)


def _number(edge: float) -> str:
    return f"{edge:.0f}" if abs(edge) >= 100 else f"{edge:.3g}"


def _values(title: str, rows: list[tuple[str, int]]) -> str:
    most = max(count for _, count in rows)
    parts = []
    for i, (value, count) in enumerate(rows):
        y = EDGE + i * ROW
        wide = (WIDTH - NAMES - 2 * EDGE) * count / most
        parts += [
            _text(NAMES - 6, y + 12, safe(value, VALUE), "end"),
            f'<rect x="{NAMES}" y="{y + 2}" width="{wide:.1f}" height="{ROW - 4}" fill="{BAR}"/>',
            _text(NAMES + wide + 4, y + 12, f"{count:,}", "start"),
        ]
    return _page(EDGE + len(rows) * ROW + 8, title, parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(height: int, title: str, parts: list[str]) -> str:
    named = escape(safe(title))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}"'
        f' height="{height}" role="img" aria-label="{named}" font-family="sans-serif"'
        f' font-size="12" fill="{INK}">\n<title>{named}</title>\n'
        f'<text x="{EDGE}" y="20" font-size="14">{named}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )
