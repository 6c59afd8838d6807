"""Rates and ends of the stages, from how far the line had come at some moments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

WINDOWS = {"hour": 3_600, "day": 86_400, "week": 604_800}  # seconds
SHORTEST = 30.0  # seconds: less says nothing about a rate
# of each stage the column of api.live_progress_v1 that counts what it has done
DONE = {"extract": "files", "download": "fetched", "score": "scored"}
UNITS = {"extract": "WAT files", "download": "URLs", "score": "scores"}

Rates = dict[str, float | None]


@dataclass(frozen=True)
class StageNow:
    """A stage of the line. waiting: units that it could do now; to_come: an estimate of those that
    the stages before it will yet give it; rates: units an hour by window, None where the line is
    too young to tell."""

    name: str
    done: int
    waiting: int
    to_come: int
    rates: Rates

    @property
    def left(self) -> int:
        return self.waiting + self.to_come


@dataclass(frozen=True)
class Estimate:
    """When a stage ends. seconds: the soonest and the latest, by the rates of the windows; None:
    unknown, and why says so."""

    stage: StageNow
    seconds: tuple[float, float] | None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.stage.name,
            "unit": UNITS[self.stage.name],
            "done": self.stage.done,
            "waiting": self.stage.waiting,
            "to_come": self.stage.to_come,
            "per_hour": self.stage.rates,
            "eta_seconds": None if self.seconds is None else [round(s) for s in self.seconds],
            "eta_unknown_because": self.why or None,
        }


@dataclass(frozen=True)
class Forecast:
    """bottleneck: the name of the stage that the others wait for; None where nothing is left."""

    estimates: list[Estimate] = field(default_factory=list)
    bottleneck: str | None = None


def rates(samples: Sequence[Mapping[str, Any]], column: str, now: datetime) -> Rates:
    """Units an hour of a column, by window. samples: rows of api.live_progress_v1; that of now has
    seconds = 0. A window is told once the line is older than the window before it."""
    at = {row["seconds"]: row for row in samples}
    found: Rates = {}
    least = SHORTEST
    for name, seconds in WINDOWS.items():
        before = at.get(seconds)
        found[name] = None
        if before is not None:
            # before a gap no steward was there to note, nor to accept: all came in the window
            passed = min(seconds, (now - before["at"]).total_seconds())
            if passed >= least:
                gained = max(0, at[0][column] - before[column])  # a withdrawal is no speed
                found[name] = gained / passed * 3_600
        least = seconds
    return found


def forecast(stages: Sequence[StageNow], *, ring_is_full: bool = False) -> Forecast:
    """The end of each stage, in the order of the line: none ends before those ahead of it.

    ring_is_full: no download is claimed until thumbnails are scored.
    """
    estimates: list[Estimate] = []
    for stage in stages:
        estimates.append(_estimate(stage, estimates[-1] if estimates else None))
    return Forecast(estimates, _bottleneck(stages, ring_is_full))


def _estimate(stage: StageNow, before: Estimate | None) -> Estimate:
    if stage.left == 0:
        return Estimate(stage, (0.0, 0.0))
    known = [rate for rate in stage.rates.values() if rate is not None]
    if not known:
        return Estimate(stage, None, "the line has just begun")
    if known[0] == 0:
        return Estimate(stage, None, f"no {UNITS[stage.name]} were done within the hour")
    if before is not None and before.seconds is None:
        return Estimate(stage, None, f"the end of {before.stage.name} is unknown")
    own = [stage.left / rate * 3_600 for rate in known if rate]
    earlier = (before.seconds if before else None) or (0.0, 0.0)
    return Estimate(stage, (max(min(own), earlier[0]), max(max(own), earlier[1])))


def _bottleneck(stages: Sequence[StageNow], ring_is_full: bool) -> str | None:
    """A stage that stands still with work before it, else the one with most hours of it."""
    if ring_is_full:
        return "score"
    hours: dict[str, float] = {}
    for stage in stages:
        rate = next((rate for rate in stage.rates.values() if rate is not None), None)
        if rate == 0 and stage.waiting:
            return stage.name
        if rate and stage.left:
            hours[stage.name] = stage.left / rate
    return max(hours, key=lambda name: hours[name], default=None)
