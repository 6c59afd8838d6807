"""Where the marks of a chart's axes stand, and what they say."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

MARKS = 5  # of an axis at most: five dates fit into a phone's width
_STEPS = (
    *(timedelta(minutes=m) for m in (1, 2, 5, 10, 15, 30)),
    *(timedelta(hours=h) for h in (1, 2, 3, 6, 12)),
    *(timedelta(days=d) for d in (1, 2, 7, 14, 28, 91, 182, 364, 1820)),
)
_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)  # weeks begin on it
Mark = tuple[float, str]  # (value, label)


def figure(value: float) -> str:
    """A number in full: 1,234,567, or three digits of one below 1,000 that is not whole."""
    if not math.isfinite(value):
        return "–"
    if float(value).is_integer() or abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def compact(value: float) -> str:
    """A number in four characters or so: 1.2 M."""
    for limit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if name == 'k' else limit):.3g} {name}"
    return figure(value)


def nice_marks(low: float, high: float, most: int = MARKS) -> list[Mark]:
    """Round numbers between low and high, with equal steps of 1, 2 or 5 times a power of ten."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [(low, compact(low))] if math.isfinite(low) else []
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(n * step, compact(float(f"{n * step:.12g}"))) for n in range(first, last + 1)]


def top_of(values: Sequence[float]) -> float:
    """A round number at or above all values; 1 where none is above 0."""
    high = max((v for v in values if math.isfinite(v)), default=0.0)
    if high <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(high))
    return next(s * power for s in (1, 2, 5, 10) if s * power >= high * (1 - 1e-9))


def time_marks(low: datetime, high: datetime, most: int = MARKS) -> list[tuple[datetime, str]]:
    """Moments between low and high at whole minutes, hours, days or weeks of UTC."""
    step = next((s for s in _STEPS if (high - low) / s < most), _STEPS[-1])
    moment = _MONDAY + math.ceil((low - _MONDAY) / step) * step
    found: list[tuple[datetime, str]] = []
    while moment <= high and len(found) < most:
        found.append((moment, _moment(moment, step)))
        moment += step
    return found


def _moment(at: datetime, step: timedelta) -> str:
    if step < timedelta(days=1) and (at.hour or at.minute):
        return f"{at:%H:%M}"
    return f"{at.day} {at:%b}" if step < timedelta(days=182) else f"{at:%b %Y}"
