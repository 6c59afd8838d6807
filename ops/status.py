"""The state of the whole line, as one dictionary: where every link is."""

from collections import defaultdict
from typing import Any

import psycopg

from pairmill.ops.connection import rows


def gather(connection: psycopg.Connection) -> dict[str, Any]:
    """Counts along the funnel. Every link is in exactly one place:

    links = sum(dropped) + duplicates + sum(pairs);
    sum(pairs) = sum(fetched), of which "waiting" is not fetched yet;
    fetched["success"] = sum(scored[model]), of which "waiting" is not scored yet.

    Returns wat_files (by state), records, links, bad_records (by kind), dropped (by reason),
    duplicates, pairs (by language), fetched (by outcome), scored (by model, then outcome),
    tasks (by kind, then state), parked (task, kind, reason) and removals.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        for row in rows(connection, "select * from report.link_count order by count desc, name"):
            counts[row["stage"]][row["name"]] = row["count"]
        funnel = rows(
            connection, "select * from report.pair_count order by pairs desc, language, outcome"
        )
        scores = rows(connection, "select * from report.score_count order by model, outcome")
        tasks = rows(
            connection,
            "select kind, state, count(*) as count from report.task group by 1, 2 order by 1, 2",
        )
        parked = rows(
            connection,
            "select task_id, kind, reason from report.task where state = 'parked' order by task_id",
        )
        wats = rows(
            connection, "select state, count(*) as count from report.wat group by 1 order by 1"
        )
        (removals,) = rows(connection, "select count(*) as count from mill.removal")
    return {
        "wat_files": {row["state"]: row["count"] for row in wats},
        "records": counts["records"].get("", 0),
        "bad_records": counts["bad_record"],
        "ended_early": counts["ended_early"],
        "links": counts["links"].get("", 0),
        "dropped": counts["dropped"],
        "duplicates": counts["duplicate"].get("", 0),
        "pairs": _by(funnel, "language"),
        "fetched": _by(funnel, "outcome"),
        "scored": _nested(scores, "model", "outcome", "pairs"),
        "tasks": _nested(tasks, "kind", "state", "count"),
        "parked": parked,
        "removals": removals["count"],
    }


def _by(funnel: list[dict[str, Any]], column: str) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for row in funnel:
        sums[row[column]] += row["pairs"]
    return dict(sums)


def _nested(
    found: list[dict[str, Any]], outer: str, inner: str, value: str
) -> dict[str, dict[str, int]]:
    nested: dict[str, dict[str, int]] = defaultdict(dict)
    for row in found:
        counts = nested[row[outer]]
        counts[row[inner]] = counts.get(row[inner], 0) + row[value]
    return dict(nested)
