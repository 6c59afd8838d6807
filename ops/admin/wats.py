"""WAT files taken back: which are meant, what goes with them, and the removal."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from pairmill.ops.admin import wat_locations
from pairmill.ops.queries import query_text, rows

NONE = "^$"  # matches no location


def unknown(connection: psycopg.Connection, locations: Sequence[str]) -> list[str]:
    """The locations of files that are not there under another name."""
    others = [other for location in locations if (other := wat_locations.same_file(location))]
    query = "select location from mill.wat_file where removed_at is null and location = any(%s)"
    known = {location for (location,) in connection.execute(query, (others,))}
    new: dict[str, None] = {}
    for location in locations:
        if (other := wat_locations.same_file(location)) not in known and other not in new:
            new[location] = None
    return list(new)


def named(
    connection: psycopg.Connection, given: Sequence[str], crawl: str | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """The files that numbers, ranges (3-9), paths, patterns of them and URLs mean, or those of a
    crawl; and what means none."""
    if crawl is not None:
        return _rows(connection, crawl=crawl), []
    found: dict[int, dict[str, Any]] = {}
    missing = []
    for one in given:
        span = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", one)
        if span:
            first, last = int(span[1]), int(span[2] or span[1])
            (ids,) = connection.execute(
                "select array_agg(wat_id) from mill.wat_file where wat_id between %s and %s",
                (first, last),
            ).fetchall()
            these = _rows(connection, ids=ids[0])
        else:
            these = _rows(connection, locations=_pattern(one))
        missing += [] if these else [one]
        found.update((row["wat_id"], row) for row in these)
    return list(found.values()), missing


def _rows(
    connection: psycopg.Connection,
    *,
    ids: Sequence[int] | None = None,
    locations: str = NONE,
    crawl: str | None = None,
) -> list[dict[str, Any]]:
    return rows(connection, query_text("admin", "wats"), ids=ids, locations=locations, crawl=crawl)


def _pattern(given: str) -> str:
    """A regular expression of the locations that a path, URL or pattern of these means."""
    names = {given, wat_locations.same_file(given)} - {""}
    if not wat_locations.is_remote(given):
        names |= {str(Path(given).absolute()), str(Path(given).resolve())}
    escaped = (re.escape(name).replace(r"\*", ".*").replace(r"\?", ".") for name in names)
    return f"^({'|'.join(sorted(escaped))})$"


def plan(found: Sequence[dict[str, Any]]) -> dict[str, int]:
    """What the removal of these files would do, as ``remove`` counts it."""
    return {
        "files": len(found),
        "leases": sum(row["state"] == "leased" for row in found),
        "submissions": sum(row["submissions"] for row in found),
        "extractions": sum(row["pairs"] > 0 for row in found),
        "pairs": sum(row["pairs"] for row in found),
    }


def remove(
    connection: psycopg.Connection,
    found: Sequence[dict[str, Any]],
    reason: str,
    progress: Callable[[int, int], None],
) -> dict[str, int]:
    """Remove the files: those that nobody has begun at once; each other in a transaction of its
    own, since merges wait for it. The counts of mill.remove_wats. progress is called with (parts
    done, parts)."""
    fresh = [row["wat_id"] for row in found if not row["begun"]]
    parts = [[row["wat_id"]] for row in found if row["begun"]] + ([fresh] if fresh else [])
    done: Counter[str] = Counter(plan([]))
    for count, part in enumerate(parts):
        progress(count, len(parts))
        done.update(rows(connection, "select * from mill.remove_wats(%s, %s)", part, reason)[0])
    return dict(done)
