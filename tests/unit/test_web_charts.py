"""Charts as SVG: well-formed whatever the numbers and texts, and with marks where people look."""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from markupsafe import Markup

from pairmill.ops.web import charts
from pairmill.ops.web.chart_axes import compact, figure, nice_marks, time_marks, top_of

NAN, INF = float("nan"), float("inf")
HOSTILE = '<script>"&\u202e\x00'
NOW = datetime(2026, 11, 27, 10, 30, tzinfo=UTC)


def drawn(chart: Markup) -> ET.Element:
    """The chart, parsed; its numbers are numbers."""
    assert not {"nan", "inf"} & set(chart.replace('"', " ").replace("%", " ").split())
    assert "style=" not in chart
    root = ET.fromstring(str(chart))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == root[0].text
    assert [child.tag for child in root[:2]] == ["title", "desc"]
    return root


@pytest.mark.parametrize(
    "draw",
    [
        lambda: charts.bars([], "t"),
        lambda: charts.bars([("a", 0)], "t"),
        lambda: charts.bars([("a", NAN), ("b", INF), ("c", -1), ("d", None), ("e", 2)], "t"),
        lambda: charts.bars([(HOSTILE, 1)], HOSTILE),
        lambda: charts.lines([], "t"),
        lambda: charts.lines([("a", [])], "t"),
        lambda: charts.lines([("a", [(1, 1)])], "t"),
        lambda: charts.lines([("a", [(1, NAN), (2, 0)]), (HOSTILE, [(1, 1e300)])], HOSTILE),
        lambda: charts.lines([("a", [(NOW, 1)])], "t", x_label=HOSTILE),
        lambda: charts.histogram([0.0], [], "t"),
        lambda: charts.histogram([0.0, 1.0], [0], HOSTILE),
        lambda: charts.histogram([-1, 0, 1e9], [1, 10**12], "t"),
        lambda: charts.meter(NAN, HOSTILE),
        lambda: charts.meter(7, "t"),
    ],
)
def test_a_chart_is_well_formed_whatever_is_in_it(draw: Callable[[], Markup]) -> None:
    """Would catch: a page that shows nothing for one odd number, or runs a worker's name."""
    if "meter" not in str(chart := draw()):
        drawn(chart)
    assert "<script" not in chart
    assert "\u202e" not in chart


def test_bars_are_as_long_as_their_numbers() -> None:
    root = drawn(charts.bars([("a", 50), ("b", 100), ("c", None)], "t"))
    wide = [each.attrib["width"] for each in root.iter("rect") if each.attrib["class"] == "s1"]
    assert wide == ["50.00%", "100.00%", "0.00%"]
    texts = [each.text for each in root.iter("text")]
    assert texts == ["a", "50", "b", "100", "c", "not known"]
    of_total = drawn(charts.bars([("a", 50)], "t", total=200))
    assert of_total.findall("rect")[1].attrib["width"] == "25.00%"


def test_lines_begin_at_zero_and_end_at_the_edge() -> None:
    """Would catch: a line that is cut at its lowest number, and so looks steeper than it is."""
    root = drawn(charts.lines([("a", [(0, 5), (10, 10)]), ("b", [(0, 0)])], "t"))
    first, second = (each.attrib["points"] for each in root.iter("polyline"))
    assert first == "0.0,50.00 1000.0,0.00"
    assert second == "0.0,100.00"
    assert {"a", "b"} <= {each.text for each in root.iter("text")}


def test_a_histogram_needs_an_edge_more() -> None:
    with pytest.raises(ValueError, match="3 edges"):
        charts.histogram([0.0, 1.0], [1, 2], "t")
    root = drawn(charts.histogram([0, 0.5, 1], [5, 10], "t"))
    said = [each.find("title").text for each in root.iter("rect")]  # type: ignore[union-attr]
    assert said == ["0 to 0.5: 5", "0.5 to 1: 10"]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0, 10, ["0", "5", "10"]),
        (0, 1, ["0", "0.5", "1"]),
        (0.2, 0.4, ["0.2", "0.25", "0.3", "0.35", "0.4"]),
        (-168, 0, ["-150", "-100", "-50", "0"]),
        (0, 4e6, ["0", "1 M", "2 M", "3 M", "4 M"]),
        (3, 3, ["3"]),
        (0, NAN, ["0"]),
    ],
)
def test_marks_are_round_numbers(low: float, high: float, labels: list[str]) -> None:
    assert [label for _, label in nice_marks(low, high)] == labels


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (timedelta(minutes=20), ["10:10", "10:15", "10:20", "10:25", "10:30"]),
        (timedelta(hours=3), ["08:00", "09:00", "10:00"]),
        (timedelta(hours=24), ["12:00", "18:00", "27 Nov", "06:00"]),
        (timedelta(days=7), ["22 Nov", "24 Nov", "26 Nov"]),
        (timedelta(days=40), ["19 Oct", "2 Nov", "16 Nov"]),
        (timedelta(days=900), None),
    ],
)
def test_marks_of_time_are_whole_hours_days_and_weeks(
    span: timedelta, labels: list[str] | None
) -> None:
    """Would catch: an axis that says 07:23 and 11:41."""
    marks = time_marks(NOW - span, NOW)
    assert 2 <= len(marks) <= 5
    assert all(NOW - span <= moment <= NOW for moment, _ in marks)
    if labels:
        assert [label for _, label in marks] == labels


@pytest.mark.parametrize(
    ("value", "full", "short"),
    [(0, "0", "0"), (0.12345, "0.123", "0.123"), (999.5, "1,000", "1,000"), (1234.5, "1,234", "1,234"),
     (12_345, "12,345", "12.3 k"), (1_234_567, "1,234,567", "1.23 M"), (5e9, "5,000,000,000", "5 G"),
     (NAN, "–", "–")],
)  # fmt: skip
def test_numbers_are_read_at_a_glance(value: float, full: str, short: str) -> None:
    assert figure(value) == full
    assert compact(value) == short


@pytest.mark.parametrize(
    ("values", "top"), [([], 1), ([0], 1), ([3], 5), ([10], 10), ([0.7, NAN], 1), ([1100], 2000)]
)
def test_the_top_of_an_axis_is_round(values: list[float], top: float) -> None:
    assert top_of(values) == top
