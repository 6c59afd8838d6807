"""bench/on_device.py asks one process for one measurement after another: each becomes a row, whatever
the process does."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import on_device
from on_device_plan import Row, limit, steps, table

PRECISIONS = ["bf16", "fp16", "fp32"]
LABELS = [
    "towers, bf16", "whole line, bf16", "decode in threads", "decode in processes", "towers, fp16",
    "towers, fp32", "towers, bf16, compiled", "whole line, bf16, compiled",
]  # fmt: skip
LATER = 1e12  # no deadline
Answer = Callable[[str, dict[str, Any]], dict[str, Any]]


class Asked:
    """A process that answers as a test says."""

    def __init__(self, answer: Answer, kind: str = "cuda") -> None:
        self.began = {"kind": kind, "precisions": PRECISIONS, "device": "one", "versions": {}}
        self.options: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self._answer = answer

    def begin(self, seconds: float) -> None:
        pass

    def ask(self, what: str, within: float, **options: Any) -> dict[str, Any]:
        self.asked.append({"what": what} | options)
        return self._answer(what, options)

    def end(self) -> None:
        pass


def rate(what: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"rate": 1234.5, "flops_a_pair": 2.0, "flops": 1e12}


def failing(**wanted: Any) -> Answer:
    """For the questions that have these options."""

    def answer(what: str, options: dict[str, Any]) -> dict[str, Any]:
        if ({"what": what} | options).items() >= wanted.items():
            raise on_device.Failed("failed: as asked")
        return rate(what, options)

    return answer


def rows_of(side: Asked, models: list[str], deadline: float = LATER) -> dict[str, list[str]]:
    """The labels of rows with numbers, by model, and the reasons of the others."""
    plan = steps(models, PRECISIONS)
    products = {"bf16": 1e4}
    found = list(on_device.Run(side, plan, products, 480, deadline, light=False).rows())  # type: ignore[arg-type]
    assert [row.label for row in found if row.model == models[0]] == LABELS
    return {m: [r.reason or r.label for r in found if r.model == m] for m in models}


@pytest.mark.parametrize(
    ("asked", "failed"),
    [
        ({}, dict.fromkeys(range(8), "failed: as asked")),
        ({"what": "load", "model": "a", "compiled": False}, dict.fromkeys(range(6), "failed: as asked")),
        ({"what": "towers", "model": "a", "precision": "fp32"}, {5: "failed: as asked"}),
        ({"what": "line", "model": "a", "compiled": False}, {1: "failed: as asked"}),
        ({"what": "decode", "model": "a", "processes": True}, {3: "failed: as asked"}),
        # a line would only compile for minutes once more
        ({"what": "towers", "model": "a", "compiled": True}, dict.fromkeys((6, 7), "failed: as asked")),
    ],
    ids=["all", "load", "a precision", "line", "processes", "compiling"],
)  # fmt: skip
def test_a_failure_is_a_row_and_takes_only_what_needs_it_along(
    asked: dict[str, Any], failed: dict[int, str]
) -> None:
    found = rows_of(Asked(failing(**asked)), ["a", "b"])
    assert found["a"] == [failed.get(n, label) for n, label in enumerate(LABELS)]
    assert found["b"] == (LABELS if asked else found["a"])


def test_a_model_is_loaded_again_after_a_process_was_ended_and_apart_from_what_is_asked() -> None:
    """Of a large model loading takes longer than a small measurement's share: one that was ended
    took all small ones after it along."""
    side = Asked(failing(what="line"))
    rows_of(side, ["a"])
    whats = [question["what"] for question in side.asked]
    assert whats == [
        "load", "towers", "line", "load", "decode", "decode", "towers", "towers",
        "load", "towers", "line",
    ]  # fmt: skip


def test_what_the_budget_has_no_time_for_is_named_and_not_dropped() -> None:
    side = Asked(rate)
    assert rows_of(side, ["a"], deadline=0.0) == {"a": [on_device.SPENT.format(480)] * 8}
    assert side.asked == []


def test_on_a_cpu_nothing_is_compiled_for_minutes() -> None:
    found = rows_of(Asked(rate, "cpu"), ["a"])["a"]
    assert found == [*LABELS[:6], *["not measured: models are compiled on a GPU only"] * 2]


def test_a_line_is_as_long_as_its_towers_are_fast_and_shares_are_of_its_precision() -> None:
    side = Asked(rate)
    plan = steps(["a"], PRECISIONS)
    found = list(on_device.Run(side, plan, {"bf16": 1e4}, 480, LATER, light=False).rows())  # type: ignore[arg-type]
    assert [q["alone"] for q in side.asked if q["what"] == "line"] == [1234.5, 1234.5]
    shares = {row.label: row.found.get("share") for row in found}
    assert shares["towers, bf16"] == shares["whole line, bf16"] == 1234.5 * 2 / 1e4
    assert shares["towers, fp16"] is None  # its product was not measured


def test_limits_never_reach_beyond_the_budget() -> None:
    plan, left = steps(["a", "b", "c"], PRECISIONS), 480.0
    for number, step in enumerate(plan):  # each takes all that it may
        allowed = limit(left, step.weight, sum(each.weight for each in plan[number:]))
        assert 0 <= allowed <= left
        left -= allowed
    last = plan[-1:]
    assert limit(10.0, last[0].weight, last[0].weight) == 10.0


def test_words_from_outside_stay_in_their_cell() -> None:
    lines = table([Row("a", "towers, bf16", {}, "failed: one\n| two | \x1b[31m")]).splitlines()
    assert lines[2:] == ["| a | towers, bf16 | – | – | – | failed: one / two /  [31m |"]


@pytest.mark.parametrize(("answer", "code"), [(failing(), 1), (failing(what="line"), None)])
def test_only_a_run_without_any_number_fails(
    answer: Answer, code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(on_device, "Side", lambda **_: Asked(answer))
    monkeypatch.setattr(on_device, "server", lambda: nullcontext(("", "none")))
    with pytest.raises(typer.Exit) if code else nullcontext() as ended:
        on_device.main(10**9, "a", "auto", 1, light=False, as_json=True)
    assert not code or ended.value.exit_code == code
    assert (tmp_path / "table.md").read_text().count("| a |") == len(LABELS)
    assert len(json.loads((tmp_path / "on_device.json").read_text())["rows"]) == len(LABELS)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import sys; sys.stdin.read()", "not measured: it had not ended after 0 s"),
        ("import sys; sys.exit(3)", "failed: its process ended with 3"),
        ("import os; os.kill(os.getpid(), 9)", "failed: its process ended with -9"),
    ],
    ids=["hangs", "ends", "is killed"],
)
def test_a_process_that_gives_no_answer_is_ended_and_begun_anew(
    program: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs would take the budget of all that follows, and then the run's end."""
    within = 0.01 if "read" in program else on_device.BEGIN_SECONDS
    monkeypatch.setattr(on_device, "COMMAND", [sys.executable, "-c", program])
    side = on_device.Side()
    try:
        first = side._process
        for _ in range(2):
            with pytest.raises(on_device.Failed, match=reason):
                side.ask("load", within)
        assert first.poll() is not None
        assert side._process is not first
    finally:
        side.end()
    assert side._process.poll() is not None
