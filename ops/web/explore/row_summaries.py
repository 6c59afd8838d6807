"""What rows a filter takes: how many, their histograms and their commonest values.

Up to BOUND rows are counted exactly, in one scan that gives their positions. Histograms are of
DRAWN of them at most: 10^5 rows took ten times as long to draw as to find. Of more than BOUND rows
the copy's sample has both the histograms and the estimate.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.web.explore.duck import quoted
from pairmill.ops.web.explore.release_rows import OpenRelease
from pairmill.ops.web.explore.row_filters import Condition

BOUND = 100_000
DRAWN = 25_000  # rows of histograms: a bin of 1 % of them is known to 6 % of itself
TOP = 12
SCALES: dict[str, tuple[float, float, int]] = {
    "similarity": (-1, 0.02, 100), "punsafe": (0, 0.05, 20), "pwatermark": (0, 0.05, 20),
    "aesthetic": (0, 0.5, 20),
}  # fmt: skip
SIDES = [2**i for i in range(15)]
ASPECTS = [2 ** (i / 2) for i in range(-6, 7)]


@dataclass(frozen=True)
class RowHistogram:
    """counts: of the bins between ``edges``. missing: rows without a value."""

    name: str
    edges: list[float]
    counts: list[int]
    missing: int


@dataclass(frozen=True)
class Values:
    """The commonest values of a column; filter: the parameter that chooses one."""

    name: str
    filter: str
    rows: list[tuple[str, int]]


@dataclass(frozen=True)
class RowSummary:
    """Of the rows that a filter takes. count: how many; None: more than BOUND, of which ``about``
    is what the sample says. sampled: one row in so many is in histograms and values; 1: all are.
    loosen: where there are none: (condition, rows without it, BOUND + 1 for more)."""

    count: int | None
    about: int
    sampled: float
    histograms: list[RowHistogram]
    values: list[Values]
    loosen: list[tuple[str, str, int]]


def where(parts: Sequence[Condition]) -> str:
    return " and ".join(["true", *(part.sql for part in parts)])


def values_of(parts: Sequence[Condition]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.values.items()}


def positions_of(release: OpenRelease, parts: Sequence[Condition]) -> npt.NDArray[np.int32] | None:
    """int32[rows], ascending: where the rows that a filter takes stand in the working copy. None:
    there are more than BOUND, or there is no copy."""
    place = release.at
    if place.copied is None or (not parts and release.count > BOUND):
        return None
    query = f"select _position from {place.table} where {where(parts)}"
    if len(parts) == 1 and parts[0].positions:  # of 10^7 rows 8 ms, and 0.2 s by a scan
        query = f"select * from ({parts[0].positions})"
    query += f" limit {BOUND + 1}"
    found: npt.NDArray[np.int32] = place.duck.table(query, values_of(parts))[0].to_numpy()
    return np.sort(found) if len(found) <= BOUND else None


def summary_of(
    release: OpenRelease, parts: Sequence[Condition], positions: npt.NDArray[np.int32] | None
) -> RowSummary:
    """The summary of a filter's rows, whose ``positions_of`` are known."""
    place = release.at
    if place.copied is None:
        return _of_first(release, parts)
    names = ["_host", *release.shape.narrow()]
    if positions is not None:
        count, step = len(positions), _step(len(positions))
        drawn = place.copied.columns(positions[::step], names)
        loosen = [] if count else _loosen(release, parts)
        return _summed(release, drawn, count, count, count / max(1, len(drawn)), loosen)
    columns = ", ".join(map(quoted, names))
    query = f"select {columns} from {place.named('sample')} where {where(parts)}"
    some = place.duck.table(query, values_of(parts))
    about = release.count
    if parts:
        about = round(len(some) * release.count / max(1, place.rows_of("sample")))
        about = max(about, BOUND + 1)
    drawn = some.take(pa.array(np.arange(0, len(some), _step(len(some)))))
    known = None if parts else about
    return _summed(release, drawn, known, about, about / max(1, len(drawn)), [])


def _step(rows: int) -> int:
    """One row in so many is drawn."""
    return max(1, -(-rows // DRAWN))


def _of_first(release: OpenRelease, parts: Sequence[Condition]) -> RowSummary:
    """Without a working copy: of BOUND rows at most, in the order of the files."""
    columns = ", ".join(map(quoted, ["_host", *release.shape.narrow()]))
    query = f"select {columns} from {release.at.table} where {where(parts)} limit {BOUND + 1}"
    table = release.at.duck.table(query, values_of(parts))
    loosen = [] if len(table) else _loosen(release, parts)
    count = len(table) if len(table) <= BOUND else None
    return _summed(release, table.slice(0, BOUND), count, len(table), 1.0, loosen)


def _summed(
    release: OpenRelease, table: pa.Table, count: int | None, about: int, sampled: float,
    loosen: list[tuple[str, str, int]],
) -> RowSummary:  # fmt: skip
    return RowSummary(
        count, about, sampled, _histograms(release, table), _tops(release, table), loosen
    )


def _histograms(release: OpenRelease, table: pa.Table) -> list[RowHistogram]:
    shape = release.shape
    found = []
    for role, (low, step, bins) in SCALES.items():
        if name := shape.get(role):
            edges = [round(low + i * step, 6) for i in range(bins + 1)]
            found.append(_histogram(name, _numbers(table, name), edges))
    width, height = shape.get("width"), shape.get("height")
    if width and height:
        wide, high = _numbers(table, width), _numbers(table, height)
        found.append(_histogram(width, wide, SIDES))
        found.append(_histogram(height, high, SIDES))
        with np.errstate(divide="ignore", invalid="ignore"):
            aspect = np.where(high > 0, wide / high, np.nan)
        found.append(_histogram("width / height", aspect, [round(each, 3) for each in ASPECTS]))
    for tag in shape.tags:
        numbers = _numbers(table, tag)
        known = release.statistics.get("columns", {}).get(tag, {})
        if known.get("min") is not None and known["max"] > known["min"]:
            edges = np.linspace(known["min"], known["max"], 21).tolist()
            found.append(_histogram(tag, numbers, edges))
    return found


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = table[name].cast(pa.float64()).to_numpy()
    return found


def _histogram(name: str, values: npt.NDArray[np.float64], edges: Sequence[float]) -> RowHistogram:
    """Bins are trimmed to those that have rows."""
    finite = values[np.isfinite(values)]
    counts = np.histogram(np.clip(finite, edges[0], edges[-1]), edges)[0]
    filled = np.flatnonzero(counts)
    first, last = (filled[0], filled[-1] + 1) if len(filled) else (0, 1)
    return RowHistogram(
        name, [float(each) for each in edges[first : last + 1]],
        counts[first:last].tolist(), len(values) - len(finite),
    )  # fmt: skip


def _tops(release: OpenRelease, table: pa.Table) -> list[Values]:
    shape, place = release.shape, release.at
    found = []
    for role, title in (("language", "Languages"), ("licence", "Licences"), ("nsfw", "NSFW")):
        if name := shape.get(role):
            counted = _counted(table[name])
            found.append(Values(title, role, [(str(v or "none"), n) for v, n in counted]))
    counted = _counted(table["_host"].drop_null())
    names = {value: value for value, _ in counted}
    if place.copied is not None and counted:
        # codes stand in order, so that a range of them is read and not all
        query = f"select code, name from {place.named('host')} where code in ({{}})"
        listed = ", ".join(str(int(value)) for value, _ in counted)
        names = {row["code"]: row["name"] for row in place.duck.rows(query.format(listed))}
    return [*found, Values("Hosts", "host", [(names[v], n) for v, n in counted if names.get(v)])]


def _counted(column: pa.ChunkedArray) -> list[tuple[Any, int]]:
    """The TOP commonest values, of equally common ones the smaller. Not all of them become
    objects: of 10^5 rows at 10^4 hosts that took 0.15 s."""
    counts = column.value_counts()
    by = [("counts", "descending"), ("values", "ascending")]
    table = pa.Table.from_arrays(list(counts.flatten()), ["values", "counts"])
    some = table.take(pc.select_k_unstable(table, TOP, by)).to_pylist()
    return [(each["values"], each["counts"]) for each in some]


def _loosen(release: OpenRelease, parts: Sequence[Condition]) -> list[tuple[str, str, int]]:
    """Of each condition how many rows there are without it, the most first."""
    if not parts:
        return []
    names = list(dict.fromkeys(part.name for part in parts))
    if len(names) == 1:
        counts = [release.searched]
    else:
        without = [where([p for p in parts if p.name != name]) for name in names]
        counted = ", ".join(f"count(*) filter (where {each})" for each in without)
        query = f"select [{counted}] as counts from {release.at.table}"
        counts = release.at.duck.rows(query, values_of(parts))[0]["counts"]
    found = []
    for name, count in zip(names, counts, strict=True):
        said = " and ".join(part.said for part in parts if part.name == name)
        found.append((name, said, count))
    return sorted((each for each in found if each[2]), key=lambda each: -each[2])
