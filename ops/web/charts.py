"""Charts as SVG that the server draws. Colours are classes of site.css; beside each chart its
caller shows the same numbers as a table (the macro chart_with_table does both).

Lengths across are per cent of the page's width and text keeps its size, so a chart is read on a
phone as on a desk. Series differ in dashes as well as in colour.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from pairmill.ops.web.chart_axes import (
    Mark,
    compact,
    figure,
    nice_marks,
    time_marks,
    top_of,
)
from pairmill.workers.safe_text import safe

ROW = 42  # a bar and its label
PLOT = 168  # height of lines and histograms
ABOVE = 18  # room over them for the topmost number
SERIES = 6  # of site.css
LABEL = 26  # characters of a label, so that it and a number fit into 288 px

Point = tuple[float | datetime, float]


def _svg(title: str, desc: str, height: float, body: Markup) -> Markup:
    return Markup(
        '<svg class="chart" role="img" width="100%" height="{h}" aria-label="{title}">'
        "<title>{title}</title><desc>{desc}</desc>{body}</svg>"
    ).format(h=f"{height:g}", title=safe(title), desc=desc, body=body)


def _text(kind: str, x: str, y: float, said: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, x, f"{y:g}", anchor, said
    )


def _part(value: float, whole: float) -> float:
    """Per cent, 0 to 100."""
    if not (math.isfinite(value) and whole > 0):
        return 0.0
    return max(0.0, min(100.0, 100 * value / whole))


def bars(
    rows: Sequence[tuple[str, float | None]], title: str, *, total: float | None = None
) -> Markup:
    """Horizontal bars, one a row of (label, value); the longest, or total, is the whole width. A
    value of None is not known, and has no bar."""
    known = [value for _, value in rows if value is not None and math.isfinite(value)]
    top = total or max(known, default=0) or 1
    body = Markup("")
    for n, (label, value) in enumerate(rows):
        y = n * ROW
        said = "not known" if value is None else figure(value)
        body += _text("label", "0", y + 15, safe(label, LABEL))
        body += _text("value", "100%", y + 15, said, "end")
        body += Markup(
            '<rect class="track" x="0" y="{y}" width="100%" height="10" rx="2"/>'
            '<rect class="s1" x="0" y="{y}" width="{wide}%" height="10" rx="2"/>'
        ).format(y=y + 22, wide=f"{_part(value or 0, top):.2f}")
    desc = "; ".join(
        f"{safe(label)}: {'not known' if value is None else figure(value)}"
        for label, value in rows[:20]
    )
    return _svg(title, desc or "no data", max(1, len(rows)) * ROW, body)


def lines(
    series: Sequence[tuple[str, Sequence[Point]]], title: str, *, x_label: str = ""
) -> Markup:
    """Lines of (name, [(x, y), …]) over 0; x is a number, or a datetime for an axis of hours, days
    or weeks of UTC. x_label: what x is."""
    points = [(_place(x), y) for _, each in series for x, y in each if math.isfinite(y)]
    if not points:
        return _svg(title, "no data", ROW, _text("label", "0", 20, "No data yet"))
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    top = top_of([y for _, y in points])
    body = _levels(top)
    for value, label in _x_marks(series, low, high):
        body += _x_mark(100 * (value - low) / ((high - low) or 1), label)
    drawn = Markup("")
    for n, (_, each) in enumerate(series):
        path = " ".join(
            f"{1000 * (_place(x) - low) / ((high - low) or 1):.1f},{100 - _part(y, top):.2f}"
            for x, y in each
            if math.isfinite(y)
        )
        drawn += Markup('<polyline class="line s{}" points="{}"/>').format(n % SERIES + 1, path)
    body += Markup(
        '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 1000 100"'
        ' preserveAspectRatio="none" overflow="visible">{}</svg>'
    ).format(ABOVE, PLOT, drawn)
    y = ABOVE + PLOT + 38
    if x_label:
        body += _text("label", "100%", y, safe(x_label), "end")
        y += 22
    for n, (name, _) in enumerate(series):
        body += _key(n, safe(name, LABEL - 4), y + n // 2 * 22)
    y += (len(series) + 1) // 2 * 22
    desc = "; ".join(
        f"{safe(name)}: {figure(each[-1][1])} at the end" for name, each in series if each
    )
    return _svg(title, desc, y - 10, body)


def _place(x: float | datetime) -> float:
    if isinstance(x, datetime):
        return (x if x.tzinfo else x.replace(tzinfo=UTC)).timestamp()
    return float(x)


def _x_marks(
    series: Sequence[tuple[str, Sequence[Point]]], low: float, high: float
) -> Sequence[Mark]:
    if any(isinstance(x, datetime) for _, each in series for x, _ in each[:1]):
        ends = datetime.fromtimestamp(low, UTC), datetime.fromtimestamp(high, UTC)
        return [(moment.timestamp(), label) for moment, label in time_marks(*ends)]
    return nice_marks(low, high)


def _levels(top: float) -> Markup:
    """Lines across at round values, with their numbers."""
    body = Markup("")
    for part in (1.0, 0.5, 0.0):
        y = ABOVE + PLOT * (1 - part)
        body += Markup('<line class="axis" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(f"{y:g}")
        if part:
            body += _text("value", "0", y - 4, compact(top * part))
    return body


def _x_mark(place: float, label: str) -> Markup:
    anchor = "start" if place < 6 else "end" if place > 94 else "middle"
    x = f"{min(100.0, max(0.0, place)):.2f}%"
    mark = Markup('<line class="axis" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
        x, ABOVE + PLOT, ABOVE + PLOT + 5
    )
    return mark + _text("label", x, ABOVE + PLOT + 18, label, anchor)


def _key(number: int, name: str, y: float) -> Markup:
    x, kind = 50 * (number % 2), number % SERIES + 1
    return Markup(
        '<svg x="{x}%" y="{top}" width="50%" height="22"><line class="line s{kind}" x1="0" x2="22"'
        ' y1="11" y2="11"/><text class="label" x="28" y="15">{name}</text></svg>'
    ).format(x=x, top=f"{y - 15:g}", kind=kind, name=name)


def histogram(edges: Sequence[float], counts: Sequence[int], title: str) -> Markup:
    """Counts of the bins between edges, of which there is one more; bins are of equal width, even
    where their edges are not equally far apart. Raises ValueError where the numbers do not fit."""
    if len(edges) != len(counts) + 1:
        raise ValueError(f"{len(counts)} counts need {len(counts) + 1} edges, not {len(edges)}")
    top, wide = top_of(counts), 100 / max(1, len(counts))
    body = _levels(top)
    for n, count in enumerate(counts):
        high = PLOT * _part(count, top) / 100
        said = f"{figure(edges[n])} to {figure(edges[n + 1])}: {figure(count)}"
        body += Markup(
            '<rect class="s1" x="{x}%" y="{y}" width="{wide}%" height="{high}">'
            "<title>{said}</title></rect>"
        ).format(
            x=f"{n * wide + wide * 0.04:.3f}",
            y=f"{ABOVE + PLOT - high:.1f}",
            wide=f"{wide * 0.92:.3f}",
            high=f"{high:.1f}",
            said=said,
        )
    every = max(1, math.ceil(len(counts) / 4))
    for n in range(len(counts), -1, -every):
        body += _x_mark(n * wide, compact(edges[n]))
    desc = f"{len(counts)} bins, {figure(sum(counts))} in all"
    return _svg(title, desc, ABOVE + PLOT + 28, body)


def meter(value: float, title: str) -> Markup:
    """A share from 0 to 1 as a small bar."""
    return Markup(
        '<svg class="meter" role="img" width="100" height="8" aria-label="{title}">'
        '<title>{title}</title><rect class="track" width="100%" height="8" rx="2"/>'
        '<rect class="s1" width="{part}%" height="8" rx="2"/></svg>'
    ).format(title=safe(title), part=f"{_part(value, 1):.1f}")
