"""Pages of a release's rows, with counts and histograms that follow the filter.

Up to BOUND rows are counted, and their histograms made, exactly; of more the page says so, and has
the histograms of a sample: at 10^7 rows all of it in a fraction of a second.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmill.ops.web.explore.duck import quoted
from pairmill.ops.web.explore.open_releases import OpenRelease, Row
from pairmill.ops.web.explore.row_filters import AskedRows, Condition, RowFilter, conditions, sorts

BOUND = 100_000
CACHED = 500  # summaries, some kB each
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


@dataclass(frozen=True)
class RowPage:
    """rows: (SAMPLE_ID, row), without those that are hidden. after: the place of the next page;
    "": there is none. hidden: rows that were left out."""

    rows: list[tuple[int, Row]]
    after: str
    hidden: int
    summary: RowSummary


class Listing:
    """Lists rows of releases; remembers summaries."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, bool, RowFilter], RowSummary] = OrderedDict()

    def page(self, release: OpenRelease, asked: AskedRows, hidden: Any) -> RowPage:
        wanted = conditions(asked.filter, release)
        summary = self.summary(release, asked.filter, wanted)
        found = _page(release, asked, wanted) if summary.count != 0 else []
        more, found = found[asked.limit :], found[: asked.limit]
        gone = hidden([number for _, number, _ in found])
        rows = _rows_of(release, [each for each in found if each[1] not in gone])
        after = f"{found[-1][0]!r}_{found[-1][1]}" if more else ""
        if asked.sort.removeprefix("-") == "id" and more:
            after = f"_{found[-1][1]}"
        return RowPage(rows, after, len(gone), summary)

    def summary(
        self, release: OpenRelease, wanted: RowFilter, parts: Sequence[Condition]
    ) -> RowSummary:
        key = release.copy_name, release.partial, wanted
        with self._lock:
            if known := self._known.get(key):
                self._known.move_to_end(key)
                return known
        found = _summary(release, parts)
        with self._lock:
            self._known[key] = found
            if len(self._known) > CACHED:
                self._known.popitem(last=False)
        return found


def where(parts: Sequence[Condition]) -> str:
    return " and ".join(["true", *(part.sql for part in parts)])


def values_of(parts: Sequence[Condition]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.values.items()}


def _page(
    release: OpenRelease, asked: AskedRows, parts: Sequence[Condition]
) -> list[tuple[float, int, int | None]]:
    """(value that is ordered by, SAMPLE_ID, position) of the rows, one more than are shown."""
    place, values = release.at, values_of(parts)
    name, down = asked.sort.removeprefix("-"), asked.sort.startswith("-")
    position = "_position" if place.copied else "null"
    condition = where(parts)
    if name == "id":
        key, order = "0.0", f"_id {'desc' if down else ''}"
        if asked.after:
            condition += f" and _id {'<' if down else '>'} $after_id"
            values["after_id"] = asked.after[1]
    else:
        # rows without a value stand last in either order
        key = f"coalesce(({sorts(release)[name]})::double, '{'-' * down}inf'::double)"
        order = f"key {'desc' if down else ''}, _id"
        if asked.after:
            sign = "<" if down else ">"
            condition += (
                f" and ({key} {sign} $after_key or ({key} = $after_key and _id > $after_id))"
            )
            values |= {"after_key": asked.after[0], "after_id": asked.after[1]}
    query = (
        f"select {key} as key, _id, {position} as position from {place.table}"
        f" where {condition} order by {order} limit {asked.limit + 1}"
    )
    return [(row["key"], row["_id"], row["position"]) for row in place.duck.rows(query, values)]


def _rows_of(
    release: OpenRelease, found: Sequence[tuple[float, int, int | None]]
) -> list[tuple[int, Row]]:
    positions = [position for _, _, position in found if position is not None]
    if len(positions) == len(found):
        return release.at_positions(positions) if positions else []
    rows = release.rows([number for _, number, _ in found])
    return [(number, rows[number]) for _, number, _ in found if number in rows]


def _summary(release: OpenRelease, parts: Sequence[Condition]) -> RowSummary:
    place, shape, values = release.at, release.shape, values_of(parts)
    columns = ", ".join(["_host", *map(quoted, shape.narrow())])
    query = f"select {columns} from {{}} where {where(parts)}"
    first = f"{query.format(place.table)} limit {BOUND + 1}"
    # of a whole release the number is known
    table = place.duck.table(first, values) if parts or release.count <= BOUND else None
    if table is not None and len(table) <= BOUND:
        loosen = _loosen(release, parts) if not len(table) else []
        return _summed(release, table, len(table), len(table), 1.0, loosen)
    if place.copied is None:
        table = place.duck.table(first, values) if table is None else table
        return _summed(release, table.slice(0, BOUND), None, len(table), 1.0, [])
    share = release.count / max(1, place.rows_of("sample"))
    some = place.duck.table(query.format(place.named("sample")), values)
    if not parts:
        return _summed(release, some, release.count, release.count, share, [])
    return _summed(release, some, None, round(len(some) * share), share, [])


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
            found.append(Values(title, role, [(str(v or "none"), n) for v, n in counted[:TOP]]))
    counted = [(value, n) for value, n in _counted(table["_host"]) if value is not None][:TOP]
    names = {value: value for value, _ in counted}
    if place.copied is not None and counted:
        query = (
            f"select code, name from {place.named('host')} where code in (select unnest($codes))"
        )
        codes = {"codes": [value for value, _ in counted]}
        names = {row["code"]: row["name"] for row in place.duck.rows(query, codes)}
    return [*found, Values("Hosts", "host", [(names[v], n) for v, n in counted if names.get(v)])]


def _counted(column: pa.ChunkedArray) -> list[tuple[Any, int]]:
    counts = [(each["values"], each["counts"]) for each in column.value_counts().to_pylist()]
    return sorted(counts, key=lambda each: (-each[1], str(each[0])))


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
