"""Rows of the public page's tables and charts, from the tree of live.json."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from pairmill.ops.web.charts import Point
from pairmill.ops.web.render import ago, duration, number, percent
from pairmill.workers.safe_text import safe

HOURLY = (("Pairs found", "pairs"), ("Downloads", "fetched"), ("Scores", "scored"))
MOST = 20  # bars of a chart; the rest are one
Row = tuple[Any, ...]
Tree = Mapping[str, Any]


def view(now: Tree, people: Sequence[Tree], named: int) -> dict[str, Any]:
    """Everything that the pages' templates show. people: the named download workers on the
    leaderboard, of named ones."""
    funnel = _funnel(now)
    links = now["funnel"]["links"]
    outcomes = _largest({k: v for k, v in now["funnel"]["fetched"].items() if k != "waiting"})
    languages = _largest(now["funnel"]["pairs"])
    hours = [row for row in now["hours"] if any(row[name] for _, name in HOURLY)]
    return {
        "funnel": funnel,
        "funnel_rows": [(label, number(n), percent(_share(n, links))) for label, n in funnel],
        "stages": [_stage(stage) for stage in now["stages"]],
        "hours": [
            (f"{r['at']:%Y-%m-%d %H:00}", *_of(r, *(name for _, name in HOURLY)))
            for r in reversed(hours)
        ],
        "hour_lines": _hour_lines(now["hours"]),
        "queue": [_kind(row) for row in now["queue"]],
        "ring": [_ring(now["ring"])],
        "outcomes": outcomes,
        "outcome_rows": _with_shares(outcomes),
        "languages": languages,
        "language_rows": _with_shares(languages),
        "opt_outs": [(safe(r["signal"], 60), r["by"], number(r["count"])) for r in now["opt_outs"]],
        "releases": [
            (safe(r["name"], 60), r["version"], ago(r["built_at"]), *_of(r, "kept", "candidates"))
            for r in now["releases"]
        ],
        "leaders": [_leader(row) for row in people],
        "more_named": max(0, named - len(people)),
        "anonymous": [
            (r["kind"], *_of(r, "workers", "rows", "rows_last_day", "checks"))
            for r in now["anonymous"]
        ],
        "crawls": [_crawl(row) for row in now["crawls"]],
        "dropped": [(safe(n), number(c)) for n, c in _largest(now["funnel"]["dropped"])],
    }  # fmt: skip


def _funnel(now: Tree) -> list[tuple[str, int]]:
    totals = now["totals"]
    return [
        ("Links", now["funnel"]["links"]),
        ("Pairs", totals["pairs"]),
        ("Downloads ended", totals["fetched"]),
        ("Images", totals["images"]),
        ("Scored", totals["scored"]),
        *((f"In {safe(r['name'], 20)}", r["kept"]) for r in now["releases"][:MOST]),
    ]


def _stage(stage: Tree) -> Row:
    speeds = (stage["per_hour"][name] for name in ("hour", "day", "week"))
    return (
        f"{stage['name']} ({stage['unit']})",
        *(number(_rounded(speed)) for speed in speeds),
        number(stage["waiting"]),
        number(stage["to_come"]),
        ends(stage),
    )


def _rounded(speed: float | None) -> float | None:
    return speed if speed is None else round(speed) if speed >= 10 else round(speed, 1)


def ends(stage: Tree) -> str:
    """In words, when a stage ends: 2 h to 5 h, or why that is not known."""
    if (seconds := stage["eta_seconds"]) is None:
        return f"unknown: {stage['eta_unknown_because']}"
    if not any(seconds):
        return "nothing is left"
    soonest, latest = (duration(each) for each in seconds)
    return soonest if soonest == latest else f"{soonest} to {latest}"


def _hour_lines(hours: Sequence[Tree]) -> list[tuple[str, list[Point]]]:
    return [(label, [(row["at"], row[name]) for row in hours]) for label, name in HOURLY]


def _kind(row: Tree) -> Row:
    oldest = row["oldest_ready_seconds"]
    return (
        row["kind"], number(row["ready"]), "" if oldest is None else duration(oldest),
        number(row["leased"]), number(row["submitted"]), number(row["discarded"]),
        number(row["done"]), number(row["workers_here"]),
    )  # fmt: skip


def _ring(ring: Tree) -> Row:
    state = "full: no download is claimed" if ring["is_full"] else "has room"
    return number(ring["slots"]), number(ring["used"]), number(ring["batches"]), state


def _leader(row: Tree) -> Row:
    name = Markup('<a href="/worker/{}"><bdi>{}</bdi></a>').format(
        quote(row["name"], safe=""), safe(row["name"], 60)
    )
    return number(row["rank"]), name, *_of(row, "rows", "rows_last_day", "checks")


def _crawl(row: Tree) -> Row:
    files = row["wat_files"]
    return (
        safe(row["crawl"] or "added alone", 60), number(files.get("done", 0)),
        number(sum(files.values())), *_of(row, "records", "links"),
        number(sum(row["dropped"].values())), number(row["duplicates"]), number(row["pairs"]),
    )  # fmt: skip


def _of(row: Tree, *names: str) -> list[str]:
    return [number(row[name]) for name in names]


def _largest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The largest counts in order, all others as one."""
    ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(count for _, count in ordered[MOST:])
    return ordered[:MOST] + ([("others", rest)] if rest else [])


def _with_shares(rows: Sequence[tuple[str, int]]) -> list[Row]:
    whole = sum(count for _, count in rows)
    return [(safe(name, 60), number(n), percent(_share(n, whole))) for name, n in rows]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
