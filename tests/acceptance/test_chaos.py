"""Faults on a line at work, a short form of ``make chaos``: every book balances afterwards."""

from pathlib import Path

from support.chaos.plan import Plan
from support.chaos.run import run, table


def test_books_balance_after_faults(tmp_path: Path) -> None:
    plan = Plan(faults=24, urls=2_000, seed=7, clients=3, extractors=1, scorers=1, downloaders=1)
    report = run(plan, tmp_path / "server")
    assert report.problems == [], table(report)
    assert sum(sum(kinds.values()) for kinds in report.faults.values()) == plan.faults
    assert report.database["urls"] == plan.urls
