"""Pages of a release's rows, with counts and histograms that follow the filter."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from pairmill.ops.web.explore.release_rows import OpenRelease, Row
from pairmill.ops.web.explore.row_filters import AskedRows, Condition, RowFilter, conditions, sorts
from pairmill.ops.web.explore.row_summaries import (
    RowSummary,
    positions_of,
    summary_of,
    values_of,
    where,
)

CACHED = 500  # summaries, some kB each
PLACES = 32  # filters whose rows' positions are kept, 0.4 MB each at most
Key = tuple[str, bool, RowFilter]
Found = list[tuple[float, int, int | None]]  # what is ordered by, SAMPLE_ID, position


@dataclass(frozen=True)
class RowPage:
    """rows: (SAMPLE_ID, row), without those that are hidden. after: the place of the next page;
    "": there is none. hidden: rows that were left out."""

    rows: list[tuple[int, Row]]
    after: str
    hidden: int
    summary: RowSummary


class Listing:
    """Lists rows of releases; remembers summaries, and the positions of the last filters' rows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: LRUCache[Key, RowSummary] = LRUCache(CACHED)
        self._places: LRUCache[Key, npt.NDArray[np.int32]] = LRUCache(PLACES)

    def page(self, release: OpenRelease, asked: AskedRows, hidden: Any) -> RowPage:
        wanted = conditions(asked.filter, release)
        summary, positions = self._looked_up(release, asked.filter, wanted)
        if positions is not None:
            found = _page_of(release, asked, positions)
        else:
            found = _page(release, asked, wanted) if summary.count != 0 else []
        more, found = found[asked.limit :], found[: asked.limit]
        gone = hidden([number for _, number, _ in found])
        rows = _rows_of(release, [each for each in found if each[1] not in gone])
        after = f"{found[-1][0]!r}_{found[-1][1]}" if more else ""
        if asked.sort.removeprefix("-") == "id" and more:
            after = f"_{found[-1][1]}"
        return RowPage(rows, after, len(gone), summary)

    def _looked_up(
        self, release: OpenRelease, wanted: RowFilter, parts: Sequence[Condition]
    ) -> tuple[RowSummary, npt.NDArray[np.int32] | None]:
        key = release.copy_name, release.partial, wanted
        with self._lock:
            summary, positions = self._known.get(key), self._places.get(key)
        if positions is None and (summary is None or summary.count is not None):
            positions = positions_of(release, parts)
        if summary is None:
            summary = summary_of(release, parts, positions)
        with self._lock:
            self._known[key] = summary
            if positions is not None:
                self._places[key] = positions
        return summary, positions


def _page_of(release: OpenRelease, asked: AskedRows, positions: npt.NDArray[np.int32]) -> Found:
    """The rows of a page, one more than are shown, out of all that a filter takes. Positions and
    SAMPLE_IDs have one order."""
    copied, name, down = release.at.copied, asked.sort.removeprefix("-"), asked.sort[0] == "-"
    assert copied is not None
    most = asked.limit + 1
    if name == "id":
        if asked.after:
            # the first row behind the one that was shown last, or before it
            at = np.searchsorted(positions, copied.rows_to(asked.after[1] - down))
            positions = positions[:at] if down else positions[at:]
        some = positions[::-1][:most] if down else positions[:most]
        keys = np.zeros(len(some))
    else:
        keys = _sort_keys(release, name, positions, down=down)
        if asked.after:
            key, number = asked.after
            further = keys < key if down else keys > key
            behind = (keys == key) & (positions >= copied.rows_to(number))
            keys, positions = keys[further | behind], positions[further | behind]
        order = np.argsort(-keys if down else keys, kind="stable")[:most]
        some, keys = positions[order], keys[order]
    ids = copied.ids(some)
    return list(zip(keys.tolist(), ids.tolist(), some.tolist(), strict=True))


def _sort_keys(
    release: OpenRelease, name: str, positions: npt.NDArray[np.int32], *, down: bool
) -> npt.NDArray[np.float64]:
    """float64[rows]; rows without a value stand last in either order."""
    shape, copied = release.shape, release.at.copied
    assert copied is not None
    columns = [shape.get("width"), shape.get("height")] if name == "pixels" else [shape.get(name)]
    names = [column or name for column in columns]
    table = copied.columns(positions, names)
    found = np.ones(len(positions))
    for column in names:
        found *= table[column].cast("double").to_numpy()
    return np.where(np.isnan(found), -np.inf if down else np.inf, found)


def _page(release: OpenRelease, asked: AskedRows, parts: Sequence[Condition]) -> Found:
    """The same, asked of DuckDB: of a filter that takes many rows, or without a working copy."""
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
        value = sorts(release)[name]
        # rows without a value stand last in either order; DuckDB leaves out what cannot be among
        # the first rows by the column itself alone: 15 ms of 10^6 rows, by the key 26
        key = f"coalesce(({value})::double, '{'-' * down}inf'::double)"
        order = f"{value} {'desc' if down else 'asc'} nulls last, _id"
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
