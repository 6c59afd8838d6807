"""Statistics of a release, by hand on few rows, and its charts."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.release import statistics as counting
from pairmill.ops.release.cards.card_charts import charts
from tests.support.laid_out import laid_out

NAN = float("nan")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Those of twelve rows, in two files of a folder whose name is a pattern."""
    folder = tmp_path_factory.mktemp("of[1]") / "*"
    folder.mkdir()
    table = pa.table(
        {
            "URL": [f"https://me@WWW.Big.example:80/{n}?a=/b" for n in range(10)]
            + ["http://small.example?q=1", "http://www.www.other.example/#x"],
            "TEXT": ["abcde"] * 10 + ["x" * 499 + "ж", "x" * 600],
            "WIDTH": pa.array([64] * 10 + [128, 65536], pa.int32()),
            "HEIGHT": pa.array([64] * 10 + [64, None], pa.int32()),
            "LANGUAGE": ["en"] * 10 + ["de", None],
            "similarity": [0.3] * 9 + [-1.0, 1.0, NAN],
            "mine": pa.array([0.0, 1.0] + [0.5] * 9 + [None], pa.float32()),
            "flat": pa.array([2.0] * 12, pa.float32()),
            "md5": ["a"] * 5 + ["b"] * 2 + ["c", "d", "e", "f", None],
        }
    )
    for n, part in enumerate((table.slice(0, 7), table.slice(7))):
        pq.write_table(part, folder / f"part-{n}.parquet")
    files = sorted(folder.glob("part-*"))
    assert counting.statistics(files) == counting.statistics(files, threads=1, memory="500MB")
    return counting.statistics(files)


def test_nulls_and_ranges_are_of_all_files(found: dict[str, Any]) -> None:
    columns = found["columns"]
    assert found["rows"] == 12
    assert columns["WIDTH"] == {"type": "int32", "nulls": 0, "min": 64, "max": 65536}
    assert columns["HEIGHT"] == {"type": "int32", "nulls": 1, "min": 64, "max": 64}
    assert (columns["similarity"]["min"], columns["similarity"]["max"]) == (-1.0, 1.0)
    assert columns["LANGUAGE"] == {"type": "string", "nulls": 1}


@pytest.mark.parametrize(
    ("name", "bins", "outside"),
    [
        # [low, high) -> rows, and those below, above and without a value
        ("similarity", {(-1.0, -0.98): 1, (0.3, 0.32): 9}, (0, 1, 1)),
        ("TEXT length", {(0.0, 10.0): 10}, (0, 2, 0)),
        ("WIDTH", {(64.0, 76.1093): 10, (128.0, 152.219): 1}, (0, 1, 0)),
        ("HEIGHT", {(64.0, 76.1093): 11}, (0, 0, 1)),
        ("aspect", {(1.0, 1.18921): 10, (2.0, 2.37841): 1}, (0, 0, 1)),
        ("mine", {(0.0, 0.02): 1, (0.5, 0.52): 9}, (0, 1, 1)),
    ],
)
def test_bins(
    found: dict[str, Any],
    name: str,
    bins: dict[tuple[float, float], int],
    outside: tuple[int, int, int],
) -> None:
    """Would catch: a value in the bin beside its own, a NaN that is a number, a row in no bin."""
    histogram = found["histograms"][name]
    edges, counts = histogram["edges"], histogram["counts"]
    assert len(edges) == len(counts) + 1
    filled = {(edges[i], edges[i + 1]): n for i, n in enumerate(counts) if n}
    assert filled == bins
    assert (histogram["below"], histogram["above"], histogram["missing"]) == outside
    assert sum(counts) + sum(outside) == 12


def test_a_tag_of_one_value_has_no_bins(found: dict[str, Any]) -> None:
    assert "flat" not in found["histograms"]


def test_what_few_rows_have_is_not_named(found: dict[str, Any]) -> None:
    """Would catch: a list of hosts or languages that names whoever has one row in it; a host with
    its user, its port or its query."""
    assert found["top"]["domains"] == {
        "values": [{"value": "big.example", "rows": 10}],
        "others": {"values": 2, "rows": 2}, "missing": 0, "least": 10,
    }  # fmt: skip
    assert found["top"]["languages"] == {
        "values": [{"value": "en", "rows": 10}],
        "others": {"values": 1, "rows": 1}, "missing": 1, "least": 10,
    }  # fmt: skip


def test_repeats_by_the_size_of_their_groups(found: dict[str, Any]) -> None:
    assert found["repeats"] == {
        "md5": [
            {"up_to": 1, "images": 4, "rows": 4},
            {"up_to": 2, "images": 1, "rows": 2},
            {"up_to": 8, "images": 1, "rows": 5},
        ]
    }


def test_groups_of_duplicates_by_size() -> None:
    with duckdb.connect() as db:
        db.execute(
            "create table duplicate_group as select i as sample_id, representative from (values"
            " (1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, null), (7, null)) t (i, representative)"
        )
        assert counting.group_sizes(db) == [
            {"up_to": 2, "groups": 1, "rows": 2},
            {"up_to": 4, "groups": 1, "rows": 3},
        ]


def test_charts_are_pictures_of_all_of_it(found: dict[str, Any]) -> None:
    """Would catch: two charts with the name of one file, a bar that is not there."""
    groups = [{"up_to": 2, "groups": 1, "rows": 2}]
    drawn = charts(found | {"duplicates": groups})
    assert set(drawn) == {
        "similarity.svg", "text-length.svg", "width.svg", "height.svg", "aspect.svg", "mine.svg",
        "domains.svg", "languages.svg", "repeats-md5.svg", "duplicates.svg",
    }  # fmt: skip
    for svg in drawn.values():
        assert ET.fromstring(svg).attrib["role"] == "img"
    twice = found | {"histograms": dict.fromkeys(("p", "P", "p."), found["histograms"]["mine"])}
    assert {"p.svg", "p-2.svg", "p-2-2.svg"} <= set(charts(twice))
    assert drawn["similarity.svg"].count("<rect") == len(
        found["histograms"]["similarity"]["counts"]
    )


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "part-0.parquet").write_bytes(b"none")
    with pytest.raises(UserError, match=r"^the rows of the release cannot be counted: "):
        counting.statistics([tmp_path / "part-0.parquet"])


def test_the_command_of_an_old_release(tmp_path: Path) -> None:
    """Would catch: numbers that differ from those of the build, where there are none stored."""
    found = laid_out(tmp_path / "release")
    run = CliRunner().invoke
    stored = run(app, ["release", "statistics", str(found), "--json"])
    again = run(app, ["release", "statistics", str(found), "--json", "--again"])
    assert json.loads(stored.stdout) == json.loads(again.stdout)
    assert json.loads(stored.stdout)["rows"] == 5
    shown = run(app, ["release", "statistics", str(found), "--to", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    assert json.loads((tmp_path / "out" / "statistics.json").read_text())["rows"] == 5
    assert (tmp_path / "out" / "similarity.svg").is_file()
    shown = run(app, ["release", "statistics", str(found)])
    assert "domains: 5 rows of 3 others, 0 rows without" in shown.output
