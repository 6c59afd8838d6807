"""Pages from templates: everything that is shown is escaped, and text of outside is made safe."""

import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from pairmill.ops.web import charts
from pairmill.ops.web.assets import static, takes_gzip
from pairmill.workers.safe_text import safe

PACKED_FROM = 1_400  # bytes: less goes in one packet anyway


def number(value: float | None) -> str:
    """1,234,567; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def percent(value: float | None, digits: int = 1) -> str:
    """0.123 as 12.3 %; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def size(value: float | None) -> str:
    """Bytes as 1.5 MB."""
    if value is None:
        return "–"
    amount, units = float(value), ["B", "kB", "MB", "GB", "TB", "PB"]
    while abs(amount) >= 999.5 and len(units) > 1:
        amount /= 1000
        units.pop(0)
    whole = units[0] == "B" or abs(amount) >= 99.95
    return f"{amount:,.0f} {units[0]}" if whole else f"{amount:.3g} {units[0]}"


def duration(seconds: float | None) -> str:
    """Seconds as 45 s, 3 min, 2 h, 5 d."""
    if seconds is None:
        return "–"
    for limit, length, name in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if abs(seconds) < limit:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds / 86_400:,.0f} d"


def ago(moment: datetime | None) -> Markup:
    """A moment as <time>3 min ago</time>."""
    if moment is None:
        return Markup("–")
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    at = at.astimezone(UTC)
    past = (datetime.now(UTC) - at).total_seconds()
    said = f"{duration(past)} ago" if past >= 0 else f"in {duration(-past)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), f"{at:%Y-%m-%d %H:%M:%S} UTC", said
    )


def link(url: object, label: object = None) -> Markup:
    """A URL of outside as a link that takes no referrer along, where its scheme is http or https;
    else as text."""
    text = str(url)
    shown = escape(safe(text if label is None else label))
    try:
        parts = urlsplit(text)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and safe(text) == text
    except ValueError:
        plain = False
    if not plain:
        return shown
    return Markup('<a href="{}" rel="noreferrer nofollow noopener">{}</a>').format(text, shown)


@cache
def environment() -> Environment:
    """Jinja's environment of all templates."""
    made = Environment(
        loader=PackageLoader("pairmill.ops.web", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "ago": ago,
        "duration": duration,
        "link": link,
        "number": number,
        "percent": percent,
        "size": size,
        "text": safe,
    }
    made.globals |= {
        "static": static,
        "bars": charts.bars,
        "lines": charts.lines,
        "histogram": charts.histogram,
        "meter": charts.meter,
    }
    return made


def render(
    request: Request,
    template: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """A page of a template. It has ``request``, ``site`` and ``path`` beside the values."""
    shown = {"request": request, "site": request.app.state.site, "path": request.scope["path"]}
    text = environment().get_template(template).render(shown | values)
    body = text.encode("utf-8", "replace")  # a lone surrogate that came past the filter
    named = {"Vary": "Accept-Encoding"} | dict(headers or {})
    if len(body) >= PACKED_FROM and takes_gzip(request):
        # 0.2 ms for 20 kB. No page has a secret beside what its visitor sent (BREACH).
        body, named["Content-Encoding"] = gzip.compress(body, 4, mtime=0), "gzip"
    return HTMLResponse(body, status, named)
