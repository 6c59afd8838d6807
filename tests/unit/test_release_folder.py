"""A release's folder as other libraries read it, and its manifest."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from pairmill.ops.errors import UserError
from pairmill.ops.files import file_entries
from pairmill.ops.release import folder, recipe, release
from pairmill.ops.release.manifest import Manifest

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


def made(out: Path, rows: int, shard_rows: int = 2, name: str = "demo") -> Path:
    """A release of so many rows, as ``release.build`` writes it."""
    out.mkdir()
    columns = release.ReleaseColumns(
        recipe.load(name, {"tags": {}, "min_tag": {}, "max_tag": {}}), []
    )
    found = (
        (16384 + n, f"http://a/{n}", f"text {n}", 3, 4, None, "en", 0.3, UUID(int=n), None)
        for n in range(rows)
    )
    shards = list(release._shards(found, out, rows, lambda *_: None, shard_rows, columns))
    manifest = Manifest(
        recipe=recipe.load(name).as_dict(), model={"name": "m", "pretrained": "", "digest": "d"},
        multilingual_model=None, taggers={}, candidates=rows, kept=rows, excluded={},
        kept_by_language={"en": rows, "nolang": 0, "zh-Latn": 0}, removals={"count": 0, "sha256": ""},
        unfinished={}, columns={}, files=file_entries(out, shards), written_by={},
    )  # fmt: skip
    folder.write_manifest(out, manifest, columns.schema)
    return out


def _duckdb(pattern: str) -> Callable[[Path], list[Any]]:
    query = "select SAMPLE_ID from read_parquet('{}') order by 1"
    return lambda f: [row[0] for row in duckdb.sql(query.format(f / pattern)).fetchall()]


def _datasets(found: Path) -> list[Any]:
    import datasets

    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(found), cache_dir=str(found.parent / "cache"))
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


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("reader", READERS)
def test_folder_is_one_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, rows: int
) -> None:
    """Would catch: a file that is no Parquet, or one that a reader takes for rows.

    Spark's rule is pyarrow's; tests/suites/release_readers.py runs it.
    """
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = made(tmp_path / "release", rows)
    if reader == "datasets" and not rows:  # it knows no data set without rows
        with pytest.raises(ValueError, match="no data"):
            READERS[reader](found)
        return
    assert READERS[reader](found) == [16384 + n for n in range(rows)]


def test_only_parquet_files_lie_in_the_folder(tmp_path: Path) -> None:
    """Would catch: a README beside the parts, on which polars, pandas and Spark fail."""
    names = sorted(path.name for path in made(tmp_path / "release", 3).iterdir())
    assert names == ["_release.parquet", "part-00000.parquet", "part-00001.parquet"]


def test_the_page_for_researchers_reads_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: a line of docs/researcher.md that does not work as it stands there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "release", 5)
    (block,) = (
        b for b in re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "duckdb" in b
    )
    found: dict[str, Any] = {}
    exec(block, found)
    assert [found["table"].num_rows, found["frame"].height, found["train"].num_rows] == [5, 5, 5]
    assert len(found["rows"].fetchall()) == 5
    assert sum(batch.num_rows for batch in found["lazily"]) == 5


@pytest.mark.parametrize("name", recipe.builtin())
@pytest.mark.parametrize("theirs", [LAION_400M, LAION_AESTHETIC, LAION_MULTI])
def test_rows_stand_beside_those_of_the_original(
    tmp_path: Path, name: str, theirs: pa.Schema
) -> None:
    """Would catch: similarity as float32, which neither library concatenates with a float64."""
    ours = pq.read_table(made(tmp_path / "release", 2, name=name))
    other = theirs.empty_table()
    assert pa.concat_tables([other, ours.select(theirs.names)]).num_rows == 2
    assert pa.concat_tables([ours, other], promote_options="default").schema == ours.schema
    frames = [pl.from_arrow(other), pl.from_arrow(ours.select(theirs.names))]
    assert pl.concat(frames).height == 2  # type: ignore[type-var]


def test_no_index_of_pandas(tmp_path: Path) -> None:
    """Would catch: a column __index_level_0__ in the users' frames, and rows without statistics."""
    part = made(tmp_path / "release", 2) / "part-00000.parquet"
    file = pq.ParquetFile(part)
    assert file.schema_arrow.metadata is None
    assert list(pd.read_parquet(part).columns) == release.SCHEMA.names
    statistics = file.metadata.row_group(0).column(0).statistics
    assert (statistics.min, statistics.max) == (16384, 16385)


@pytest.mark.parametrize(
    ("rows", "category"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**12, "n>1T")]
)
def test_readme_is_a_card(tmp_path: Path, rows: int, category: str) -> None:
    """Would catch: a head that Hugging Face cannot read, or takes another meaning from."""
    found = made(tmp_path / "release", 1)
    manifest = Manifest(**(json.loads(folder.manifest_text(found)) | {"kept": rows}))
    _, head, text = manifest.readme().split("---\n", 2)
    card = yaml.safe_load(head)
    assert card == {
        "pretty_name": "demo", "license": "cc0-1.0", "language": ["en"],
        "size_categories": [category],
        "configs": [{"config_name": "default", "data_files": "part-*.parquet"}],
    }  # fmt: skip
    assert text.lstrip().startswith("# demo, version 1")
    own = manifest.recipe | {"licence": "Ours: all"}
    card = yaml.safe_load(
        Manifest(**(manifest.as_dict() | {"recipe": own})).readme().split("---\n")[1]
    )
    assert (card["license"], card["license_name"]) == ("other", "Ours: all")


def test_folder_is_checked_against_its_manifest(tmp_path: Path) -> None:
    """Would catch: a part that was changed, lost, or put there, and was not noticed."""
    found = made(tmp_path / "release", 3)
    assert folder.check(found).rows == 3
    (found / "README.md").write_text(folder.readme(found))  # as it is published
    assert folder.check(found).rows == 3
    part = found / "part-00001.parquet"
    body = part.read_bytes()
    for changed in (body[:-1], body[:9] + bytes([body[9] ^ 1]) + body[10:]):
        part.write_bytes(changed)
        with pytest.raises(UserError, match=r"part-00001\.parquet is not the file"):
            folder.check(found)
    part.rename(found / "part-00002.parquet")
    with pytest.raises(UserError, match=r"lacks part-00001\.parquet"):
        folder.check(found)
    part.write_bytes(body)
    with pytest.raises(UserError, match=r"part-00002\.parquet is not of the release"):
        folder.check(found)
    with pytest.raises(UserError, match=r"is no release: it has no _release\.parquet"):
        folder.check(tmp_path)
