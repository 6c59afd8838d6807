"""Files of ratings: read exactly, or refused with the line."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from pairmill.ops.taggers.ratings import read
from pairmill.workers.errors import Refused

BIG = 2**63 - 1  # which no float64 holds


def csv(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "ratings.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "ratings.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_csv_is_read(tmp_path: Path) -> None:
    text = (
        f'\ufeffURL,SAMPLE_ID,rating\r\n"a,\r\nb",{BIG},7.25\r\nc,{-(2**63)},-1e1\r\n,0, 3 \r\n\r\n'
    )
    found = read(csv(tmp_path, text), "rating")
    assert found.sample_ids.tolist() == [BIG, -(2**63), 0]
    assert found.ratings.tolist() == [7.25, -10, 3]
    assert (found.sample_ids.dtype, found.ratings.dtype) == (np.int64, np.float64)
    assert read(csv(tmp_path, "SAMPLE_ID,x\n1,2\n")).ratings.tolist() == [2]


def test_parquet_is_read(tmp_path: Path) -> None:
    path = table(
        tmp_path, SAMPLE_ID=[BIG, 2], rating=np.array([1.5, 2], np.float32), URL=["a", "b"]
    )
    found = read(path, "rating")
    assert found.sample_ids.tolist() == [BIG, 2]
    assert found.ratings.tolist() == [1.5, 2]
    assert read(table(tmp_path, SAMPLE_ID=[1], x=[3])).ratings.tolist() == [3]


@given(
    st.dictionaries(
        st.integers(-(2**63), BIG), st.floats(allow_nan=False, allow_infinity=False), max_size=20
    )
)
def test_both_formats_give_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rated: dict[int, float]
) -> None:
    tmp_path = tmp_path_factory.mktemp("ratings")
    lines = [f"{key},{value!r}" for key, value in rated.items()]
    ids = pyarrow.array(list(rated), pyarrow.int64())
    ratings = pyarrow.array(list(rated.values()), pyarrow.float64())
    for path in (
        csv(tmp_path, "\n".join(["SAMPLE_ID,rating", *lines])),
        table(tmp_path, SAMPLE_ID=ids, rating=ratings),
    ):
        found = read(path)
        assert dict(zip(found.sample_ids.tolist(), found.ratings.tolist(), strict=True)) == rated


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "needs one column SAMPLE_ID, and has none"),
        ("sample_id,rating\n", "needs one column SAMPLE_ID, and has sample_id, rating"),
        ("SAMPLE_ID,SAMPLE_ID,rating\n", "needs one column SAMPLE_ID"),
        ("SAMPLE_ID\n1\n", "has 0 columns beside SAMPLE_ID"),
        ("SAMPLE_ID,a,b\n1,2,3\n", "has 2 columns beside SAMPLE_ID, .*: a, b"),
        ("SAMPLE_ID,r\n1,2\n2\n", "line 3: 1 fields instead of 2"),
        ("SAMPLE_ID,r\n1,2\n2,3,4\n", "line 3: 3 fields instead of 2"),
        ('SAMPLE_ID,r\n1,2\n"2\n",x\n', "line 4: 'x' is no finite rating"),
        ("SAMPLE_ID,r\n1,nan\n", "line 2: 'nan' is no finite rating"),
        ("SAMPLE_ID,r\n1,-inf\n", "line 2: '-inf' is no finite rating"),
        ("SAMPLE_ID,r\n1,1e999\n", "line 2: '1e999' is no finite rating"),
        ("SAMPLE_ID,r\n1,\n", "line 2: '' is no finite rating"),
        ("SAMPLE_ID,r\n1,1_0\n", "line 2: '1_0' is no finite rating"),
        ("SAMPLE_ID,r\n1.0,1\n", "line 2: '1.0' is no SAMPLE_ID, an int64"),
        ("SAMPLE_ID,r\n1_0,1\n", "line 2: '1_0' is no SAMPLE_ID"),
        (f"SAMPLE_ID,r\n{2**63},1\n", "line 2: '9223372036854775808' is no SAMPLE_ID"),
        ("SAMPLE_ID,r\n" + "9" * 5000 + ",1\n", "line 2: '9{40}' is no SAMPLE_ID"),
        ("SAMPLE_ID,r\n1,1\n2,1\n1,1\n", "line 4: sample 1 was rated before, in line 2"),
        ('SAMPLE_ID,r\n1,2\n3,"4\n', "no CSV in UTF-8, after line 2"),
        (b"SAMPLE_ID,r\n1,\xff\n", "no CSV in UTF-8"),
        ("SAMPLE_ID,r\n1," + "x" * 200_000 + "\n", "no CSV in UTF-8"),
        ("SAMPLE_ID,r\n1,\0\n", r"line 2: '\\x00' is no finite rating"),
    ],
)
def test_csv_that_does_not_hold_is_refused(
    tmp_path: Path, text: str | bytes, sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        read(csv(tmp_path, text))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"SAMPLE_ID": [1, 2], "r": [1.0, None]}, "row 2: 'None' is no finite rating"),
        ({"SAMPLE_ID": [1, 2], "r": [1.0, float("nan")]}, "row 2: 'nan' is no finite rating"),
        ({"SAMPLE_ID": [1, None], "r": [1.0, 2.0]}, "row 2: 'None' is no SAMPLE_ID"),
        ({"SAMPLE_ID": [1, 1], "r": [1.0, 2.0]}, "row 2: sample 1 was rated before, in row 1"),
        ({"SAMPLE_ID": [1.0], "r": [1.0]}, "the column SAMPLE_ID is no integer"),
        ({"SAMPLE_ID": ["1"], "r": [1.0]}, "the column SAMPLE_ID is no integer"),
        ({"SAMPLE_ID": [1], "r": ["1"]}, "the column r holds no numbers"),
        ({"SAMPLE_ID": [1], "r": [True]}, "the column r holds no numbers"),
        (
            {"SAMPLE_ID": np.array([2**63], np.uint64), "r": [1]},
            "row 1: '9223372036854775808' is no",
        ),
        ({"SAMPLE_ID": [1], "r": [1], "s": [1]}, "2 columns beside SAMPLE_ID"),
        ({"r": [1]}, "needs one column SAMPLE_ID"),
    ],
)
def test_parquet_that_does_not_hold_is_refused(
    tmp_path: Path, columns: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Refused, match=sentence):
        read(table(tmp_path, **columns))


def test_files_that_are_no_ratings_are_refused(tmp_path: Path) -> None:
    for name, sentence in (("x.txt", "neither .csv nor .parquet"), ("x.parquet", "cannot read")):
        with pytest.raises(Refused, match="there is no file"):
            read(tmp_path / name)
        (tmp_path / name).write_bytes(b"SAMPLE_ID,r\n1,2\n")
        with pytest.raises(Refused, match=sentence):
            read(tmp_path / name)
    with pytest.raises(Refused, match="needs one column x, and has SAMPLE_ID, r"):
        read(csv(tmp_path, "SAMPLE_ID,r\n1,2\n"), "x")
