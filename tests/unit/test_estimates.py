"""When the stages of the line end, by how fast they went."""

from datetime import UTC, datetime, timedelta

import pytest

from pairmill.ops.web.live.estimates import Rates, StageNow, forecast, rates
from pairmill.ops.web.live.shown import ends

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOUR, DAY, WEEK = 3_600, 86_400, 604_800


def sample(seconds: int, ago: float, fetched: int) -> dict[str, object]:
    return {"seconds": seconds, "at": NOW - timedelta(seconds=ago), "fetched": fetched}


@pytest.mark.parametrize(
    ("what", "before", "expected"),
    [
        ("a line of a month", [(HOUR, HOUR, 900), (DAY, DAY, 0), (WEEK, WEEK, -6_800)], (100, 1000 / 24, 7800 / 168)),
        ("a minute late", [(HOUR, HOUR + 60, 900)], (100, None, None)),
        ("an outage before the window", [(HOUR, 5 * HOUR, 900)], (100, None, None)),
        ("half an hour old", [(HOUR, 1800, 900), (DAY, 1800, 900), (WEEK, 1800, 900)], (200, None, None)),
        ("two hours old", [(HOUR, HOUR, 900), (DAY, 2 * HOUR, 0), (WEEK, 2 * HOUR, 0)], (100, 500, None)),
        ("seconds old", [(HOUR, 5, 0), (DAY, 5, 0), (WEEK, 5, 0)], (None, None, None)),
        ("more withdrawn than done", [(HOUR, HOUR, 1500)], (0, None, None)),
        ("nothing noted yet", [], (None, None, None)),
    ],
)  # fmt: skip
def test_rates_are_those_of_the_windows(
    what: str, before: list[tuple[int, float, int]], expected: tuple[float | None, ...]
) -> None:
    """Would catch: a rate of a week from ten minutes, an outage that halves it, a negative one."""
    samples = [sample(0, 0, 1_000), *(sample(*each) for each in before)]
    found = rates(samples, "fetched", NOW)
    assert list(found) == ["hour", "day", "week"]
    assert list(found.values()) == [
        value if value is None else pytest.approx(value) for value in expected
    ]


def stage(name: str, left: tuple[int, int], *per_hour: float | None) -> StageNow:
    known: Rates = dict(zip(("hour", "day", "week"), per_hour, strict=True))
    return StageNow(name, 0, *left, known)


BUSY = (100.0, 50.0, 200.0)
NONE = (None, None, None)


@pytest.mark.parametrize(
    ("what", "stages", "ring", "seconds", "bottleneck"),
    [
        ("nothing is left", [("extract", (0, 0), BUSY), ("download", (0, 0), BUSY)], False, [(0, 0), (0, 0)], None),
        ("a range of the three", [("download", (100, 0), BUSY)], False, [(1800, 7200)], "download"),
        ("what is to come counts", [("download", (50, 50), BUSY)], False, [(1800, 7200)], "download"),
        ("none ends before those ahead",
         [("extract", (1000, 0), BUSY), ("download", (1, 0), BUSY)], False, [(18000, 72000), (18000, 72000)], "extract"),
        ("rate 0", [("download", (100, 0), (0.0, 50.0, 50.0))], False, [None], "download"),
        ("after an unknown one",
         [("extract", (10, 0), (0.0, 0.0, 0.0)), ("download", (10, 0), BUSY)], False, [None, None], "extract"),
        ("a slow week does not hide a stop of a stage that has nothing to do",
         [("extract", (10, 0), BUSY), ("download", (0, 10), (0.0, 0.0, None))], False, [(180, 720), None], "extract"),
        ("a new line", [("extract", (10, 0), NONE)], False, [None], None),
        ("a full ring waits for the scorers",
         [("download", (10**6, 0), (0.0, 9.0, 9.0)), ("score", (10, 0), BUSY)], True, [None, None], "score"),
    ],
)  # fmt: skip
def test_ends_are_ranges_and_unknown_where_they_are(
    what: str,
    stages: list[tuple[str, tuple[int, int], tuple[float | None, ...]]],
    ring: bool,
    seconds: list[tuple[float, float] | None],
    bottleneck: str | None,
) -> None:
    """Would catch: an end of a stage whose work has not come yet, a number where nothing moves."""
    found = forecast([stage(name, left, *speed) for name, left, speed in stages], ring_is_full=ring)
    assert [each.seconds for each in found.estimates] == seconds
    assert found.bottleneck == bottleneck
    for each in found.estimates:
        assert (each.seconds is None) == bool(each.why)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [([0, 0], "nothing is left"), ([7200, 18_000], "2 h to 5 h"), ([7200, 7300], "2 h"), (None, "unknown: x")],
)  # fmt: skip
def test_ends_in_words(seconds: list[int] | None, said: str) -> None:
    """Would catch: "2 h to 2 h", and 0 s for a stage that is done."""
    assert ends({"eta_seconds": seconds, "eta_unknown_because": "x"}) == said
