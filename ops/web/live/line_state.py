"""The state of the line for the public page: what the database says in one moment, as one tree."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import psycopg

from pairmill.ops.admin.status import funnel_of
from pairmill.ops.queries import rows
from pairmill.ops.web.live.estimates import DONE, Forecast, StageNow, forecast, rates

VERSION = 1  # of live.json: raised where a field goes or changes its meaning, not where one comes
PARTS = ("links", "pairs", "scores", "models", "crawls", "queue", "ring", "progress", "hours",
         "opt_outs", "releases", "people", "anonymous")  # fmt: skip
NAMED = 100  # of the leaderboard, in live.json
WAITING = ("ready", "leased", "submitted")
HOURLY = ("pairs", "fetched", "succeeded", "scored")

Parts = Mapping[str, list[dict[str, Any]]]


def read(connection: psycopg.Connection) -> dict[str, list[dict[str, Any]]]:
    """Rows of each api.live_…_v1(), all of one moment."""
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        return {part: rows(connection, f"select * from api.live_{part}_v1()") for part in PARTS}


def tree(parts: Parts) -> dict[str, Any]:
    """What live.json has; times are datetimes still. docs: pages/live of the documentation."""
    funnel = funnel_of(parts["links"], parts["pairs"], parts["scores"], parts["crawls"])
    now = next(row["at"] for row in parts["progress"] if row["seconds"] == 0)
    ring = parts["ring"][0]
    foreseen = _foreseen(parts, funnel, now, is_full=ring["is_full"])
    downloaders = [row for row in parts["people"] if row["kind"] == "download"]
    return {
        "version": VERSION,
        "at": now,
        "funnel": funnel,
        "totals": _totals(funnel, parts["models"]),
        "models": parts["models"],
        "stages": [estimate.as_json() for estimate in foreseen.estimates],
        "bottleneck": foreseen.bottleneck,
        "hours": _hours(parts["hours"]),
        "queue": [
            row | {"oldest_ready_seconds": _age(now, row["oldest_ready_at"])}
            for row in parts["queue"]
        ],
        "ring": ring,
        "opt_outs": parts["opt_outs"],
        "releases": parts["releases"],
        "leaderboard": downloaders[:NAMED],
        "anonymous": parts["anonymous"],
        "crawls": parts["crawls"],
    }


def _foreseen(parts: Parts, funnel: dict[str, Any], now: datetime, *, is_full: bool) -> Forecast:
    samples = parts["progress"]
    total = next(row for row in samples if row["seconds"] == 0)
    files = sum(funnel["wat_files"].get(state, 0) for state in WAITING)
    downloads = funnel["fetched"].get("waiting", 0)
    scores = sum(counts.get("waiting", 0) for counts in funnel["scored"].values())
    pairs_to_come = round(files * _share(total["pairs"], total["files"]))
    images = (downloads + pairs_to_come) * _share(total["succeeded"], total["fetched"])
    left = {
        "extract": (files, 0),
        "download": (downloads, pairs_to_come),
        "score": (scores, round(images * len(parts["models"]))),
    }
    stages = [
        StageNow(name, total[column], *left[name], rates(samples, column, now))
        for name, column in DONE.items()
    ]
    return forecast(stages, ring_is_full=is_full)


def _totals(funnel: dict[str, Any], models: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Pairs, those whose download has ended, images, and images that each active model scored."""
    fetched = {name: count for name, count in funnel["fetched"].items() if name != "waiting"}
    scored = [
        sum(
            count
            for outcome, count in funnel["scored"].get(model["model"], {}).items()
            if outcome not in ("waiting", "not_queued")
        )
        for model in models
    ]
    return {
        "pairs": sum(funnel["pairs"].values()),
        "fetched": sum(fetched.values()),
        "images": fetched.get("success", 0),
        "scored": min(scored, default=0),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _age(now: datetime, since: datetime | None) -> int | None:
    """Seconds; 0 for a task whose back-off is not over."""
    return None if since is None else max(0, round((now - since).total_seconds()))


def _hours(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was done in each hour, from how far the line had come at its beginning; the hour that
    is not over is left out."""
    found = []
    for before, after in pairwise(samples):
        at = before["at"].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        found.append({"at": at} | {name: max(0, after[name] - before[name]) for name in HOURLY})
    return found
