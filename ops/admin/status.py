"""The state of the whole pipeline as one dictionary: the stage of every link."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import psycopg

from pairmill.ops.admin import standstill
from pairmill.ops.queries import query_text, rows

QUEUE = ("live_tasks", "ring", "workers")


def gather(connection: psycopg.Connection) -> dict[str, Any]:
    """Counts along the funnel. Every link is in exactly one place:

    links = sum(dropped) + duplicates + sum(pairs);
    sum(pairs) = sum(fetched), of which "waiting" is not fetched yet;
    fetched["success"] = sum(scored[model]) of a model that is not retired, of which "waiting" is
    not scored yet, and "not_queued" has no task that would.

    Reads counters and the tasks that are not done, and no pair.

    Returns wat_files (by state), records, links, bad_records (by kind), ended_early (by
    reason), dropped (by reason), duplicates, pairs (by language), fetched (by outcome), scored
    (by model, then outcome), other_links (by link kind: links, dropped, duplicates, pairs, of
    what is not an image), crawls (rows of report.crawl), tasks (by kind, then state), live_tasks
    (by kind, purpose, model and state, those that are not done), waiting (rows of report.waiting),
    open_batches (a summary of report.open_batch), ring (slots, used, batches, is_full), workers
    (those that may work, the last seen first), discarded and parked (rows of report.stopped), and
    removals.
    """
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        links = rows(connection, "select * from report.link_count order by count desc, name")
        funnel = rows(connection, _sql("funnel"))
        scores = rows(connection, "select * from mill.scored order by model, outcome")
        crawls = rows(connection, "select * from report.crawl order by crawl")
        tasks = rows(connection, _sql("tasks"))
        queue = {name: rows(connection, _sql(name)) for name in QUEUE}
        still = standstill.gather(connection)
        (removals,) = rows(
            connection, "select count(*) as count from mill.removal where spelling_of is null"
        )
    return funnel_of(links, funnel, scores, crawls) | {
        "crawls": crawls,
        "tasks": _nested(tasks, "kind", "state", "count"),
        "live_tasks": queue["live_tasks"],
        "waiting": still["waiting"],
        "open_batches": still["open_batches"][0],
        "ring": queue["ring"][0],
        "workers": queue["workers"],
        "discarded": [row for row in still["stopped"] if row["state"] == "discarded"],
        "parked": [row for row in still["stopped"] if row["state"] == "parked"],
        "removals": removals["count"],
    }


Rows = list[dict[str, Any]]


def funnel_of(links: Rows, pairs: Rows, scores: Rows, crawls: Rows) -> dict[str, Any]:
    """The stages that every link is in one of, as ``gather`` has them, from rows of
    report.link_count, of sql/status/funnel.sql, mill.scored and report.crawl."""
    of_records, of_images, other = _counts(links)
    return {
        "wat_files": _summed(crawl["wat_files"] for crawl in crawls),
        "records": of_records["records"].get("", 0),
        "bad_records": of_records["bad_record"],
        "ended_early": of_records["ended_early"],
        "links": of_images["links"].get("", 0),
        "dropped": of_images["dropped"],
        "duplicates": of_images["duplicate"].get("", 0),
        "pairs": _by(pairs, "language"),
        "fetched": _by(pairs, "outcome"),
        "scored": _nested(scores, "model", "outcome", "pairs"),
        "other_links": {
            kind: {
                "links": sum(stages["links"].values()),
                "dropped": sum(stages["dropped"].values()),
                "duplicates": sum(stages["duplicate"].values()),
                "pairs": sum(stages["pair"].values()),
            }
            for kind, stages in other.items()
        },
    }


def _sql(name: str) -> str:
    return query_text("admin", f"status/{name}")


Stages = dict[str, dict[str, int]]


def _counts(links: list[dict[str, Any]]) -> tuple[Stages, Stages, dict[str, Stages]]:
    """By stage and name: the counts of records, of images, and of each other link kind."""
    kinds: dict[str, Stages] = defaultdict(lambda: defaultdict(dict))
    for row in links:
        kinds[row["link_kind"]][row["stage"]][row["name"]] = row["count"]
    return kinds.pop("", defaultdict(dict)), kinds.pop("image", defaultdict(dict)), dict(kinds)


def _summed(many: Iterable[dict[str, int]]) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for counts in many:
        for name, count in counts.items():
            sums[name] += count
    return dict(sorted(sums.items()))


def _by(funnel: list[dict[str, Any]], column: str) -> dict[str, int]:
    sums: dict[str, int] = defaultdict(int)
    for row in funnel:
        if row[column] is not None:
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
