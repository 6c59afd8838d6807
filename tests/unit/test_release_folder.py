"""A release's folder as other libraries read it, and its manifest."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.release import folder
from tests.support.laid_out import laid_out

PAGE = Path(__file__).parents[2] / "docs" / "researcher.md"
LAION_400M = pa.schema(
    [
        ("SAMPLE_ID", pa.int64()), ("URL", pa.string()), ("TEXT", pa.string()),
        ("HEIGHT", pa.int32()), ("WIDTH", pa.int32()), ("LICENSE", pa.string()),
        ("NSFW", pa.string()), ("similarity", pa.float64()),
    ]
)  # fmt: skip
# laion2B-en-aesthetic and its like: LAION-5B's joined tables, with the score
LAION_AESTHETIC = pa.schema(
    [
        ("URL", pa.string()), ("TEXT", pa.string()), ("WIDTH", pa.int32()), ("HEIGHT", pa.int32()),
        ("similarity", pa.float64()), ("hash", pa.int64()), ("punsafe", pa.float32()),
        ("pwatermark", pa.float32()), ("aesthetic", pa.float32()),
    ]
)  # fmt: skip
LAION_MULTI = pa.schema([*LAION_400M, ("LANGUAGE", pa.string())])


def _duckdb(pattern: str) -> Callable[[Path], list[Any]]:
    query = "select SAMPLE_ID from read_parquet('{}') order by 1"
    return lambda f: [row[0] for row in duckdb.sql(query.format(f / pattern)).fetchall()]


def _datasets(found: Path) -> list[Any]:
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(found))
    return list(loaded["train"]["SAMPLE_ID"])


READERS: dict[str, Callable[[Path], list[Any]]] = {
    "pyarrow": lambda f: pq.read_table(f)["SAMPLE_ID"].to_pylist(),
    "pyarrow.dataset": lambda f: ds.dataset(f).to_table()["SAMPLE_ID"].to_pylist(),
    "pandas": lambda f: pd.read_parquet(f)["SAMPLE_ID"].tolist(),
    "polars": lambda f: pl.read_parquet(f)["SAMPLE_ID"].to_list(),
    "polars scan": lambda f: pl.scan_parquet(f"{f}/").collect()["SAMPLE_ID"].to_list(),
    "duckdb": _duckdb("*.parquet"),
    "duckdb part": _duckdb("part-*.parquet"),
    "duckdb **": _duckdb("**"),
    "duckdb **/": _duckdb("**/*.parquet"),
    "datasets": _datasets,
}


ROWS = (0, 1, 5)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A release of each number of rows."""
    root = tmp_path_factory.mktemp("releases")
    return {rows: laid_out(root / f"of{rows}", rows) for rows in ROWS}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("reader", READERS)
def test_folder_is_one_data_set(
    releases: dict[int, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reader: str,
    rows: int,
) -> None:
    """Would catch: a file that is no Parquet, or one that a reader takes for rows.

    Spark's rule is pyarrow's; tests/suites/release_readers.py runs it.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    found = releases[rows]
    if reader == "datasets" and not rows:  # it knows no data set without rows
        with pytest.raises(ValueError, match="no data"):
            READERS[reader](found)
        return
    assert READERS[reader](found) == [16384 + n for n in range(rows)]


def test_only_parquet_files_lie_in_the_folder(releases: dict[int, Path]) -> None:
    """Would catch: a README beside the parts, on which polars, pandas and Spark fail."""
    names = sorted(path.name for path in releases[1].iterdir())
    assert names == ["_release.parquet", "part-00000.parquet"]


def test_the_page_for_researchers_reads_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a line of docs/researcher.md that does not work as it stands there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    laid_out(tmp_path / "release", 5)
    (block,) = (
        b for b in re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "duckdb" in b
    )
    found: dict[str, Any] = {}
    exec(block, found)
    assert [found["table"].num_rows, found["frame"].height, found["train"].num_rows] == [5, 5, 5]
    assert len(found["rows"].fetchall()) == 5
    assert sum(batch.num_rows for batch in found["lazily"]) == 5


@pytest.mark.parametrize("theirs", [LAION_400M, LAION_AESTHETIC, LAION_MULTI])
def test_rows_stand_beside_those_of_the_original(
    releases: dict[int, Path], theirs: pa.Schema
) -> None:
    """Would catch: similarity as float32, which neither library concatenates with a float64. Of
    the other layouts tests/unit/test_layouts.py has more."""
    ours = pq.read_table(releases[1])
    other = theirs.empty_table()
    assert pa.concat_tables([other, ours.select(theirs.names)]).num_rows == 1
    assert pa.concat_tables([ours, other], promote_options="default").schema == ours.schema
    frames = [pl.from_arrow(other), pl.from_arrow(ours.select(theirs.names))]
    assert pl.concat(frames).height == 1  # type: ignore[type-var]


def test_what_is_not_counted_is_no_statistic(tmp_path: Path) -> None:
    """Would catch: a release that another version wrote, and that cannot be shown for it."""
    found = laid_out(tmp_path / "release", 2)
    with pq.ParquetWriter(found / folder.NAME, folder.release_schema(found)) as writer:
        writer.add_key_value_metadata({folder.MANIFEST: b"{}"})
    assert folder.stored_statistics(found) is None
    with pytest.raises(UserError, match="has no release's README"):
        folder.readme(found)
    with pytest.raises(UserError, match="has no release's manifest"):
        folder.read_release(found)
    with pytest.raises(UserError, match=r"is no release: it has no _release\.parquet"):
        folder.read_release(tmp_path)
