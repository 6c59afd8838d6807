"""Diffs of releases: the same pair in any layout, and no count that names a removed row."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.release import diff
from support.made_releases import datacomp, made_release, rows_of

A, B = [16384 + n for n in range(8)], [16384 + n for n in range(3, 11)]


def as_hash(table: pa.Table) -> pa.Table:
    """A layout without ids."""
    hashes = pa.array([-1 - 7 * i for i in table["SAMPLE_ID"].to_pylist()], pa.int64())
    return pa.table({"hash": hashes, "URL": table["URL"], "similarity": table["similarity"]})


@pytest.mark.parametrize(
    ("of_a", "of_b"),
    [(None, None), (datacomp, None), (datacomp, datacomp), (as_hash, as_hash)],
)
def test_rows_of_one_alone_and_of_both(tmp_path: Path, of_a: object, of_b: object) -> None:
    """Would catch: a uid that is not its SAMPLE_ID, a hash below 0, a null that equals a value."""
    changed = [0.3 if i != 16388 else None for i in B]
    tables = [rows_of(A), rows_of(B, similarity=pa.array(changed, pa.float64()))]
    laid = [of(t) if callable(of) else t for t, of in zip(tables, (of_a, of_b), strict=True)]
    a, b = (made_release(tmp_path / n, t, name=n) for n, t in zip("ab", laid, strict=True))
    found = diff.diff(a, b, tmp_path / "out")
    compared = "similarity" in laid[0].column_names and "similarity" in laid[1].column_names
    assert (found.only_in_a, found.only_in_b) == (3, 3)
    assert (found.changed, found.same) == ((1, 4) if compared else (0, 5))
    assert found.changed_by_column == ({"similarity": 1} if compared else {})
    assert found.reasons_a == found.reasons_b == {}
    keys = laid[0][laid[0].column_names[0]].to_pylist()[:3]
    wanted = sorted(int(key, 16) if isinstance(key, str) else key for key in keys)
    assert pq.read_table(tmp_path / "out" / "only_in_a.parquet")["SAMPLE_ID"].to_pylist() == wanted


def test_layouts_without_a_common_key_are_refused(tmp_path: Path) -> None:
    a = made_release(tmp_path / "a", as_hash(rows_of(A)))
    b = made_release(tmp_path / "b", rows_of(B))
    with pytest.raises(UserError, match="neither SAMPLE_ID nor uid"):
        diff.diff(a, b)


def test_small_counts_are_one() -> None:
    """Would catch: "removed: 1" beside a row that everybody sees is missing."""
    counts = Counter({"similarity": 5000, "gone": 3, "language": 99, "aesthetic": 100})
    assert diff.merged(counts) == {"aesthetic": 100, "similarity": 5000, "other": 102}


def test_the_command_says_it_in_words(tmp_path: Path) -> None:
    a, b = (made_release(tmp_path / n, rows_of(i)) for n, i in (("a", A), ("b", B)))
    done = CliRunner().invoke(app, ["release", "diff", str(a), str(b)])
    assert done.exit_code == 0
    assert "in both, and the same: 5" in done.stdout
    assert "a alone: 3\n" in done.stdout
