"""The pages under load: pages_live.py, pages_explore.py and pages_knn.py in one run.

    python bench/pages.py [--quick] [--json] [--theirs PYTHON]

live_rps, explore_p95_ms (10^6 rows), explore_p95_ms_1e7, knn_qps, ratio_over_clip_retrieval and
knn_p99_ms_overload are as those three say; theirs is a Python that has clip-retrieval, without
which there is no ratio. --quick: seconds each, 10^5 vectors, and no 10^7 rows.
"""

import os
from typing import Annotated, Any

import pages_explore
import pages_knn
import pages_live
import typer
from own_server import show


def measure(quick: bool, theirs: str = "") -> dict[str, Any]:
    """The numbers of this page's head, and the whole of what each program found."""
    before = os.getloadavg()[0]
    live = pages_live.measure(quick)
    explore = pages_explore.measure(True)
    large = {} if quick else {"explore_1e7": pages_explore.measure(False)}
    knn = pages_knn.measure(quick, theirs=theirs, processes=os.cpu_count() or 1)
    named = {
        "live_rps": live["live_rps"],
        "explore_p95_ms": explore["explore_p95_ms"],
        "explore_p95_ms_1e7": large["explore_1e7"]["explore_p95_ms"] if large else None,
        "knn_qps": knn["knn_qps"],
        "ratio_over_clip_retrieval": knn.get("ratio_over_clip_retrieval"),
        "knn_p99_ms_overload": knn["knn_p99_ms_overload"],
        "load_before": round(before, 1),
    }
    return named | {"live": live, "explore": explore, "knn": knn} | large


def main(
    quick: Annotated[bool, typer.Option(help="Seconds each; no 10^7 rows.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    theirs: Annotated[str, typer.Option(help="A Python that has clip-retrieval.")] = "",
) -> None:
    """The pages under load."""
    show(measure(quick, theirs), as_json=as_json)


if __name__ == "__main__":
    typer.run(main)
