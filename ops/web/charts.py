"""Charts as SVG that the server draws. Colours are classes of site.css; beside each chart its
caller shows the same numbers as a table (the macro chart_with_table does both)."""

from collections.abc import Sequence

from markupsafe import Markup

from pairmill.workers.safe_text import safe

WIDTH = 640
ROW = 26
LABEL = 180


def _svg(title: str, desc: str, height: float, body: Markup) -> Markup:
    return Markup(
        '<svg class="chart" role="img" viewBox="0 0 {w} {h}" width="{w}" height="{h}"'
        ' aria-label="{title}"><title>{title}</title><desc>{desc}</desc>{body}</svg>'
    ).format(w=WIDTH, h=f"{height:g}", title=title, desc=desc, body=body)


def _short(label: object, limit: int = 26) -> str:
    return safe(label, limit)


def bars(rows: Sequence[tuple[str, float]], title: str, *, total: float | None = None) -> Markup:
    """Horizontal bars, one a row of (label, value); the longest, or total, is the whole width."""
    top = total or max((value for _, value in rows), default=0) or 1
    room = WIDTH - LABEL - 110
    body = Markup("")
    for n, (label, value) in enumerate(rows):
        y = n * ROW
        wide = max(0.0, min(1.0, value / top)) * room
        body += Markup(
            '<text class="label" x="{lx}" y="{ty}" text-anchor="end">{label}</text>'
            '<rect class="s1" x="{x}" y="{y}" width="{wide}" height="{high}" rx="2"/>'
            '<text class="value" x="{vx}" y="{ty}">{value}</text>'
        ).format(
            lx=LABEL - 8, ty=y + 17, label=_short(label), x=LABEL, y=y + 4, wide=f"{wide:.1f}",
            high=ROW - 8, vx=f"{LABEL + wide + 6:.1f}", value=_figure(value),
        )  # fmt: skip
    return _svg(title, _described(rows), max(1, len(rows)) * ROW, body)


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str, *, x_label: str = ""
) -> Markup:
    """Lines of (name, [(x, y), …]), from y = 0."""
    points = [point for _, each in series for point in each]
    if not points:
        return _svg(title, "no data", ROW, Markup(""))
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    top = max(y for _, y in points) or 1
    tall, left = 160, 60
    body = Markup('<line class="axis" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>').format(
        left, WIDTH, tall
    )
    for n, (name, each) in enumerate(series):
        path = " ".join(
            f"{left + (x - low) / ((high - low) or 1) * (WIDTH - left - 10):.1f},"
            f"{tall - y / top * (tall - 14):.1f}"
            for x, y in each
        )
        body += Markup('<polyline class="line s{}" points="{}"/>').format(n % 6 + 1, path)
        body += Markup('<text class="label key k{}" x="{}" y="{}">{}</text>').format(
            n % 6 + 1, left + n * 140, tall + 36, _short(name, 20)
        )
    body += Markup('<text class="value" x="4" y="14">{}</text>').format(_figure(top))
    body += Markup('<text class="value" x="4" y="{}">0</text>').format(tall)
    body += Markup('<text class="label" x="{}" y="{}">{}</text>').format(left, tall + 16, x_label)
    return _svg(title, ", ".join(name for name, _ in series), tall + 44, body)


def histogram(edges: Sequence[float], counts: Sequence[int], title: str) -> Markup:
    """Counts of the bins between edges; one edge more than counts."""
    top = max(counts, default=0) or 1
    tall = 120
    wide = WIDTH / max(1, len(counts))
    body = Markup("")
    for n, count in enumerate(counts):
        high = count / top * tall
        body += Markup(
            '<rect class="s1" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
        ).format(
            f"{n * wide + 1:.1f}", f"{tall - high:.1f}", f"{wide - 2:.1f}", f"{high:.1f}",
            f"{_figure(edges[n])} to {_figure(edges[n + 1])}: {count:,}",
        )  # fmt: skip
    if len(edges) > 1:
        body += Markup(
            '<text class="label" x="2" y="{y}">{a}</text>'
            '<text class="label" x="{x}" y="{y}" text-anchor="end">{b}</text>'
        ).format(y=tall + 16, x=WIDTH - 2, a=_figure(edges[0]), b=_figure(edges[-1]))
    return _svg(title, f"{len(counts)} bins, at most {top:,}", tall + 22, body)


def meter(value: float, title: str) -> Markup:
    """A share from 0 to 1 as a small bar."""
    part = max(0.0, min(1.0, value))
    return Markup(
        '<svg class="meter" role="img" viewBox="0 0 100 8" width="100" height="8"'
        ' aria-label="{title}"><title>{title}</title>'
        '<rect class="track" width="100" height="8" rx="2"/>'
        '<rect class="s1" width="{part}" height="8" rx="2"/></svg>'
    ).format(title=title, part=f"{100 * part:.1f}")


def _figure(value: float) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.3g}"


def _described(rows: Sequence[tuple[str, float]]) -> str:
    return "; ".join(f"{_short(label)}: {_figure(value)}" for label, value in rows[:20])
