"""The colours of the pages, by WCAG 2.2: text 4.5 : 1, lines and edges of controls 3 : 1."""

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).parents[2] / "ops" / "web" / "static" / "site.css").read_text("utf-8")
PAPERS = ("paper", "card", "sunk")
PAIRS = [
    *((ink, paper, 4.5) for ink in ("ink", "faint", "accent", "hover") for paper in PAPERS),
    *((ink, paper, 4.5) for ink in ("bad", "warn", "good") for paper in ("paper", "card")),
    *(("ink", f"{kind}-paper", 4.5) for kind in ("bad", "warn", "good", "info")),
    *(("accent", f"{kind}-paper", 4.5) for kind in ("bad", "warn", "good", "info")),
    ("on-accent", "accent", 4.5),
    ("on-accent", "hover", 4.5),
    ("paper", "bad", 4.5),
    *(("edge", paper, 3.0) for paper in PAPERS),
    *((f"s{n}", paper, 3.0) for n in range(1, 7) for paper in ("paper", "card")),
    *((f"s{n}", "track", 3.0) for n in range(1, 2)),
]


def colours(scheme: str) -> dict[str, tuple[float, ...]]:
    light, _, rest = CSS.partition("@media (prefers-color-scheme: dark)")
    block = light if scheme == "light" else rest.partition("\n}\n")[0]
    found = re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6})", block)
    return {name: tuple(int(code[n : n + 2], 16) / 255 for n in (0, 2, 4)) for name, code in found}


def luminance(colour: tuple[float, ...]) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_pair_of_colours_that_meets_is_read(scheme: str) -> None:
    """Would catch: grey on grey, by day or by night."""
    found = colours(scheme)
    weak = {
        f"{ink} on {paper}": round(ratio, 2)
        for ink, paper, least in PAIRS
        if (ratio := contrast(found[ink], found[paper])) < least
    }
    assert weak == {}
