"""The measurements of bench/on_device.py: their order, their shares of the time, and a row each."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Group = tuple[str, bool]  # a model, and whether it is compiled
LOAD_WEIGHT = 5.0  # of a model's coming to the device, beside the weights of steps
MOST_SECONDS = 5.0  # that a measurement aims at, once it is warm


@dataclass(frozen=True)
class Step:
    """A measurement. weight: its share of the time, beside the others'. label: of its row.
    options: what the process is asked."""

    model: str
    what: str
    weight: float
    label: str
    compiled: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> Group:
        """What is on the device at the time."""
        return self.model, self.compiled


def steps(models: Sequence[str], precisions: Sequence[str]) -> list[Step]:
    """The models as they are first, and compiled when all of them are measured: compiling takes
    longer than all else, and may take what is left. precisions: the scorer's own first."""
    base, *others = precisions
    found = []
    for model in models:
        found += [
            _towers(model, base),
            _line(model, base),
            *(
                Step(model, "decode", 1, f"decode in {name}", options={"processes": processes})
                for name, processes in (("threads", False), ("processes", True))
            ),
            *(_towers(model, each) for each in others),
        ]
    for model in models:
        found += [
            _towers(model, base, compiled=True),
            _line(model, base, compiled=True),
        ]
    return found


def _towers(model: str, precision: str, *, compiled: bool = False) -> Step:
    label = f"towers, {precision}{', compiled' * compiled}"
    return Step(model, "towers", 12 if compiled else 2, label, compiled, {"precision": precision})


def _line(model: str, precision: str, *, compiled: bool = False) -> Step:
    return Step(model, "line", 5, f"whole line, {precision}{', compiled' * compiled}", compiled)


def limit(left: float, weight: float, weights_left: float) -> float:
    """Seconds after which a step is ended: twice its share of the time that is left, since most
    take less than theirs."""
    return min(left, 2 * left * weight / weights_left)


def aim(step_limit: float, *, light: bool) -> float:
    """Seconds that a measurement is to last, beside what it takes to prepare."""
    return 0.1 if light else min(MOST_SECONDS, step_limit / 8)


@dataclass
class Row:
    """What became of a step: ``found`` of it, or the reason why there is no number."""

    model: str
    label: str
    found: dict[str, Any] = field(default_factory=dict)
    reason: str = ""

    def cells(self) -> list[str]:
        """model, measurement, rate, share of the matrix product, time with work, remarks."""
        if self.reason:
            return [self.model, self.label, "–", "–", "–", self.reason]
        share, busy = (_percent(self.found.get(key)) for key in ("share", "device_busy"))
        return [self.model, self.label, f"{self.found['rate']:,.0f}", share, busy, self._remarks()]

    def _remarks(self) -> str:
        f, said = self.found, list[str]()
        if waits := f.get("waits"):
            what = f["waits_for"]
            share = "" if what == "nothing" else f" ({_percent(waits[what])} of the time)"
            said.append(f"waits for {what}{share}")
        if stages := f.get("stages"):
            said.append("; ".join(f"{name} alone {rate:,.0f}" for name, rate in stages.items()))
        if change := f.get("change"):
            said.append(
                f"similarity off by {change['mean']:.1e}, most of {change['pairs']}"
                f" {change['max']:.1e}"
            )
        if compiled := f.get("compiled_s"):
            said.append(f"compiled in {compiled:.0f} s")
        if workers := f.get("workers"):
            said.append(f"{workers} of them")
        return "; ".join(said)


HEAD = ("model", "measurement", "pairs/s", "of the matrix product", "busy", "remarks")


def table(rows: Sequence[Row]) -> str:
    """Markdown; a reason from outside cannot break it."""
    lines = [HEAD, ("---", "---", "---:", "---:", "---:", "---"), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).replace("|", "/")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
