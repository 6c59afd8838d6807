"""Reading lists of URLs, in pieces of a shard's length."""

import gzip
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.source_columns import UnitedFiles
from pairmill.ops.fetch.source_files import SourceFile
from pairmill.ops.fetch.sources import Source, SourceColumns, fingerprint, open_source, shards


def parquet(path: Path, ids: range, row_group: int = 1000) -> Path:
    table = pa.table({"SAMPLE_ID": list(ids), "URL": [f"http://a/{n}" for n in ids]})
    pq.write_table(table, path, row_group_size=row_group)
    return path


def urls(source: Source, column: str, start: int = 0) -> list[str]:
    return [url for table in source.read(start) for url in table[column].to_pylist()]


@pytest.mark.parametrize("start", [0, 1, 6, 7, 8, 15, 24, 25, 26, 30])
def test_parquet_is_read_from_any_row(tmp_path: Path, start: int) -> None:
    parquet(tmp_path / "part-00000.parquet", range(15), row_group=7)
    parquet(tmp_path / "part-00001.parquet", range(15, 15))
    parquet(tmp_path / "part-00002.parquet", range(15, 26), row_group=4)
    (tmp_path / "manifest.json").write_text("{}")
    source = open_source(tmp_path)
    assert source.rows() == 26
    assert urls(source, "URL", start) == [f"http://a/{n}" for n in range(start, 26)]


def test_parquet_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    random = Random(1)
    long = [f"http://a/{random.randbytes(60).hex()}" for _ in range(200_000)]
    pq.write_table(pa.table({"URL": long}), path, row_group_size=200_000, use_dictionary=False)
    del long
    before = pa.total_allocated_bytes()
    most = max(
        pa.total_allocated_bytes() for _ in shards(open_source(path), 1000, {0}.__contains__)
    )
    assert most - before < path.stat().st_size / 2


# the types of a column in each file -> the column's of all
UNITED: list[tuple[list[pa.DataType], pa.DataType]] = [
    ([pa.null(), pa.string()], pa.string()),
    ([pa.string(), pa.null()], pa.string()),
    ([pa.null(), pa.null()], pa.null()),
    ([pa.int32(), pa.int64()], pa.int64()),
    ([pa.int64(), pa.float64(), pa.null()], pa.float64()),
    ([pa.float32(), pa.float64()], pa.float64()),
    ([pa.string(), pa.large_string()], pa.large_string()),
    ([pa.dictionary(pa.int8(), pa.string()), pa.string()], pa.string()),
    ([pa.int64(), pa.string()], pa.string()),
    ([pa.bool_(), pa.int64()], pa.string()),
    ([pa.timestamp("ms"), pa.timestamp("us")], pa.timestamp("us")),
    ([pa.timestamp("us"), pa.timestamp("us", "UTC")], pa.string()),
    ([pa.list_(pa.null()), pa.list_(pa.list_(pa.float64()))], pa.list_(pa.list_(pa.float64()))),
]


@pytest.mark.parametrize(("types", "united"), UNITED, ids=str)
def test_types_of_many_files_are_united(
    tmp_path: Path, types: list[pa.DataType], united: pa.DataType
) -> None:
    """Would catch: a fetch that stops at the second file, since the first's column is all null."""
    for number, kind in enumerate(types):
        value = pa.array([number], pa.int64()).cast(kind) if _is_flat(kind) else pa.nulls(1, kind)
        table = pa.table({"url": [f"http://a/{number}"], "x": value})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    found = pa.concat_tables(open_source(tmp_path).read(0))
    assert found.schema == pa.schema([("url", pa.string()), ("x", united)])
    assert found["url"].to_pylist() == [f"http://a/{number}" for number in range(len(types))]
    assert [v is None for v in found["x"].to_pylist()] == [not _is_flat(t) for t in types]


def _is_flat(kind: pa.DataType) -> bool:
    return not (pa.types.is_nested(kind) or pa.types.is_null(kind) or pa.types.is_timestamp(kind)
                or pa.types.is_dictionary(kind))  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "united"),
    [
        (pa.array([(1 << 60) + 1]), pa.array([0.5]), [str((1 << 60) + 1), "0.5"]),
        (pa.array([0.5]), pa.array([-(1 << 60)]), ["0.5", str(-(1 << 60))]),
        (pa.array([1 << 53]), pa.array([0.5]), [float(1 << 53), 0.5]),
        (pa.array([(1 << 64) - 1], pa.uint64()), pa.array([-1]), [str((1 << 64) - 1), "-1"]),
        (pa.array(["a"]), pa.array([b"b\xff"]), ["a", "b\ufffd"]),
        (pa.array([7]), pa.array([b"\xff"]), ["7", "\ufffd"]),
        (pa.array([float("nan")]), pa.array(["a"]), [None, "a"]),
        (pa.array([bytes(16)], pa.uuid()), pa.array(["a"]), ["00000000-0000-0000-0000-000000000000", "a"]),
    ],
    ids=str,
)  # fmt: skip
def test_no_value_is_lost_or_stops_a_fetch_where_types_differ(
    tmp_path: Path, first: pa.Array, second: pa.Array, united: list[Any]
) -> None:
    """Would catch: hours later, an error at a hash above 2^53, which is no float64, or at one octet
    that is not UTF-8; text as bytes."""
    for name, column in (("a", first), ("b", second)):
        table = pa.table({"url": [f"http://{name}/"], "x": column})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    assert pa.concat_tables(open_source(tmp_path).read(0))["x"].to_pylist() == united


def test_types_without_one_for_both_are_said(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["http://a/"], "x": [[1]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": ["http://b/"], "x": ["1"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"column x is string in .*b\.parquet, and list<.*> in"):
        open_source(tmp_path)


def test_columns_that_some_files_lack(tmp_path: Path) -> None:
    """Would catch: a file whose rows have no URL, without a word; names that differ in case."""
    parquet(tmp_path / "a.parquet", range(3))
    pq.write_table(pa.table({"note": ["n"], "url": ["http://b/"]}), tmp_path / "b.parquet")
    source = open_source(tmp_path)
    assert source.names == ["SAMPLE_ID", "URL", "note"]
    assert pa.concat_tables(source.read(2)).to_pylist() == [
        {"SAMPLE_ID": 2, "URL": "http://a/2", "note": None},
        {"SAMPLE_ID": None, "URL": "http://b/", "note": "n"},
    ]
    assert SourceColumns.of(source, None, None).url == "URL"
    pq.write_table(pa.table({"link": ["http://c/"]}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"c\.parquet has no column URL, and other files of"):
        SourceColumns.of(open_source(tmp_path), None, None)


def test_very_many_columns_are_united() -> None:
    """An object of 100,000 rows by their ids. Would catch: hours of comparing each with each."""
    names = [str(number) for number in range(100_000)]
    files = [SourceFile("a", "a"), SourceFile("b", "b")]
    assert UnitedFiles("x", files, [names, names]).names == names


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz"])
def test_csv_is_text_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    rows = [
        ["url", "caption", "id"],
        ["http://a/1", '"two\nlines"', "007"],
        ["http://a/2", "", "x"],
    ]
    text = "".join(",".join(row) + "\n" for row in rows).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    source = open_source(path)
    (table,) = source.read(0)
    assert table.to_pylist() == [
        {"url": "http://a/1", "caption": "two\nlines", "id": "007"},
        {"url": "http://a/2", "caption": "", "id": "x"},
    ]
    assert urls(source, "url", 1) == ["http://a/2"]
    assert SourceColumns.of(source, None, None) == SourceColumns("url", "caption")


@pytest.mark.parametrize("name", ["list.txt", "list.txt.gz"])
def test_text_has_a_url_a_line(tmp_path: Path, name: str) -> None:
    text = "http://a/1\r\n\n  http://a/\u00fc \nhttp://a/3".encode() + b"\xff"
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert urls(open_source(path), "url") == ["http://a/1", "http://a/\u00fc", "http://a/3\ufffd"]
    assert urls(open_source(path), "url", 2) == ["http://a/3\ufffd"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.parquet", None, "there is no"),
        ("broken.parquet", b"PAR1 and no more", "cannot read"),
        ("empty.csv", b"", "cannot read"),
        ("twice.csv", b"url,url\n1,2\n", "two columns named url"),
        ("image.jpg", b"x", r"no folder, \.parquet"),
        ("ragged.csv", b"url,text\nhttp://a/\n", "cannot read"),
        ("cut.txt.gz", gzip.compress(b"http://a/\n" * 1000, mtime=0)[:-20], "cannot read"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said):
        list(open_source(tmp_path / name).read(0))


def test_columns_are_found_in_any_case_or_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Link,Alt,text\nhttp://a/,b,c\n")
    source = open_source(path)
    assert SourceColumns.of(source, "LINK", None) == SourceColumns("Link", "text")
    assert SourceColumns.of(source, "Link", "alt") == SourceColumns("Link", "Alt")
    with pytest.raises(UserError, match=r"no column URL, .*--url-col: Link, Alt, text"):
        SourceColumns.of(source, None, None)
    with pytest.raises(UserError, match=r"no column nosuch, .*--caption-col"):
        SourceColumns.of(source, "Link", "nosuch")


@pytest.mark.parametrize("done", [(), (0,), (1, 2), (0, 1, 3), (4,), (0, 1, 2, 3, 4)])
def test_shards_that_are_done_are_left_out(tmp_path: Path, done: tuple[int, ...]) -> None:
    source = open_source(parquet(tmp_path / "a.parquet", range(45), row_group=8))
    found = {n: t["SAMPLE_ID"].to_pylist() for n, t in shards(source, 10, done.__contains__)}
    assert found == {
        n: list(range(10 * n, min(45, 10 * n + 10))) for n in range(5) if n not in done
    }


def test_fingerprint_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    found = []
    for number, (folder, rows) in enumerate([("a", 30), ("b", 30), ("c", 31)]):
        (tmp_path / folder).mkdir()
        path = parquet(tmp_path / folder / "x.parquet", range(rows))
        found.append(fingerprint(open_source(path if number else path.parent)))
    assert found[0] == found[1] != found[2]
