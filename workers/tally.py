"""Numbers of what was done, as words for a line."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


def counted(counts: Mapping[str, int], *, first: int = 8) -> str:
    """ "3 success, 1 http error", the most frequent first, the rest as a number of others."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    said = [f"{count:,} {name.replace('_', ' ')}" for name, count in ordered[:first]]
    if rest := sum(count for _, count in ordered[first:]):
        said.append(f"{rest:,} others")
    return ", ".join(said)


def many(count: int, one: str, more: str = "") -> str:
    """ "1 batch", "2,000 batches"; more: the plural, by default with an s."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def lasting(seconds: float) -> str:
    """A duration in the unit that fits: "9.3 s", "164 s", "12 min", "3 h 5 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 300:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class Tally:
    """Of one worker process, since its start: tasks by how they ended here, rows by outcome."""

    tasks: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)

    def sentence(self) -> str:
        """Empty where nothing was done."""
        tasks = [f"{many(count, 'task')} {how}" for how, count in self.tasks.most_common()]
        return "; ".join(part for part in (", ".join(tasks), counted(self.rows)) if part)
