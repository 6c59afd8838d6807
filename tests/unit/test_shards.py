"""Reading lists of URLs, in pieces of a shard's length."""

import gzip
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
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


def test_parquet_files_that_differ_are_said(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", range(3))
    pq.write_table(pa.table({"URL": ["http://a/"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet has no column SAMPLE_ID"):
        urls(open_source(tmp_path), "URL")


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.tsv"])
def test_csv_is_text_whatever_it_looks_like(tmp_path: Path, name: str) -> None:
    comma = "\t" if "tsv" in name else ","
    rows = [
        ["url", "caption", "id"],
        ["http://a/1", '"two\nlines"', "007"],
        ["http://a/2", "", "x"],
    ]
    text = "".join(comma.join(row) + "\n" for row in rows).encode()
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
