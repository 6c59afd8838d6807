"""Reading lists of URLs and writing shards: nothing of the network."""

import gzip
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.demo.site import jpeg
from pairmill.ops.errors import UserError
from pairmill.ops.fetch.run import retryable, sample_result
from pairmill.ops.fetch.samples import SampleResult, as_rows, expected_md5s
from pairmill.ops.fetch.shards import Folder
from pairmill.ops.fetch.sources import Source, SourceColumns, fingerprint, open_source, shards
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.crawl import Result

COLUMNS = SourceColumns("URL", "TEXT")


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


def test_column_that_is_no_text_is_said() -> None:
    table = pa.table({"URL": [["a", "list"]], "TEXT": ["t"]})
    with pytest.raises(UserError, match=r"column URL is of type list<.*>, and no text"):
        as_rows(table, COLUMNS)


def test_names_of_ours_are_not_taken_by_the_source() -> None:
    table = pa.table({"URL": ["u"], "TEXT": ["t"], "WIDTH": [7], "md5": ["AB "], "NSFW": [None]})
    rows = as_rows(table, COLUMNS)
    assert rows.column_names == ["url", "caption", "source_WIDTH", "source_md5", "NSFW"]
    assert expected_md5s(rows) == ["ab"]
    # a shard's own table as a source: its md5 is what its images are compared with
    again = as_rows(
        pa.table({"url": ["u"], "md5": ["cd"], "source_md5": ["ab"]}), SourceColumns("url", None)
    )
    assert expected_md5s(again) == ["cd"]
    assert again["caption"].to_pylist() == [None]


GOOD = SampleResult("success", None, 200, 4, 3, 8, 6, "ab", "cd", True)
RESULTS = [GOOD, SampleResult("failed_to_download", "http_error", 404), GOOD]
TABLE = as_rows(
    pa.table(
        {"SAMPLE_ID": [7, 8, 2**62], "URL": ["http://a/", "x", "y"], "TEXT": ["\u00fc", "no", None]}
    ),
    COLUMNS,
)


def image(index: int) -> bytes:
    return b"\xff\xd8" + bytes([index])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path / "out", 10_000)
    with folder.locked():
        yield folder


def write(folder: Folder, number: int) -> dict[str, object]:
    spool = folder.begin(number)
    for index in (2, 0):
        spool.add(index, image(index))
    return folder.write(number, TABLE, RESULTS, spool.image, spool, (100.0, 103.5))


def names(folder: Folder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir() if path.name != ".lock")


def test_shard_is_laid_out_as_img2dataset_does(folder: Folder) -> None:
    stats = write(folder, 12)
    assert names(folder) == ["00012.parquet", "00012.tar", "00012_stats.json"]
    with tarfile.open(folder.tar(12)) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(members) == [
        "000120000.jpg", "000120000.json", "000120000.txt", "000120002.jpg", "000120002.json",
    ]  # fmt: skip
    assert members["000120002.jpg"] == image(2)
    assert members["000120000.txt"].decode() == "\u00fc"
    assert json.loads(members["000120000.json"]) == {
        "url": "http://a/", "caption": "\u00fc", "key": "000120000", "status": "success",
        "error_message": None, "http_status": 200, "width": 4, "height": 3, "original_width": 8,
        "original_height": 6, "md5": "ab", "sha256": "cd", "md5_matches": True, "SAMPLE_ID": 7,
    }  # fmt: skip
    table = pq.read_table(folder.parquet(12)).to_pylist()
    assert [(row["key"], row["status"], row["SAMPLE_ID"]) for row in table] == [
        ("000120000", "success", 7), ("000120001", "failed_to_download", 8),
        ("000120002", "success", 2**62),
    ]  # fmt: skip
    assert stats == folder.stats(12)
    assert stats == {
        "count": 3, "successes": 2, "failed_to_download": 1, "failed_to_resize": 0,
        "duration": 3.5, "start_time": 100.0, "end_time": 103.5,
        "status_dict": {"http_error": 1, "success": 2},
    }  # fmt: skip


def test_same_answers_in_any_order_give_the_same_bytes(folder: Folder, tmp_path: Path) -> None:
    write(folder, 0)
    other = Folder(tmp_path / "other", 10_000)
    with other.locked():
        spool = other.begin(0)
        for index in (0, 2):
            spool.add(index, image(index))
        other.write(0, TABLE, RESULTS, spool.image, spool, (1.0, 2.0))
    assert other.tar(0).read_bytes() == folder.tar(0).read_bytes()
    assert other.parquet(0).read_bytes() == folder.parquet(0).read_bytes()


def test_what_is_written_is_read_again(folder: Folder) -> None:
    write(folder, 0)
    table, results = folder.read(0)
    assert (table, results) == (TABLE, RESULTS)
    with folder.images(0) as found:
        assert (found(0), found(2)) == (image(0), image(2))
    folder.tar(0).write_bytes(folder.tar(0).read_bytes()[:700])
    with pytest.raises(UserError, match="is damaged"), folder.images(0) as found:
        found(2)


@pytest.mark.parametrize("moved", [(), ("00000.tar",), ("00000.tar", "00000.parquet")])
def test_killed_while_moving_is_finished(tmp_path: Path, moved: tuple[str, ...]) -> None:
    folder = Folder(tmp_path, 10_000)
    with folder.locked():
        write(folder, 0)
        bytes_of = {name: (tmp_path / name).read_bytes() for name in names(folder)}
        whole = tmp_path / ".00000.whole"
        whole.mkdir()
        for name in bytes_of:
            (whole / name).write_bytes(bytes_of[name])
            (tmp_path / name).write_bytes(b"of the shard that was there before")
        for name in moved:
            (whole / name).replace(tmp_path / name)
    with folder.locked():
        assert {name: (tmp_path / name).read_bytes() for name in names(folder)} == bytes_of


def test_killed_before_it_was_whole_is_begun_anew(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 10_000)
    spool = folder.begin(3) if tmp_path.is_dir() else None
    assert spool
    spool.add(0, b"half")
    with folder.locked():
        assert names(folder) == []
        assert not folder.done(3)
        write(folder, 3)
        assert folder.done(3)


def test_folder_is_for_one_process(folder: Folder) -> None:
    with pytest.raises(UserError, match="another process"), Folder(folder.path, 10).locked():
        pass


BODY = jpeg(photo_like(1, (64, 48)))
FETCHED = Result(0, Outcome.SUCCESS, 200, 999, 640, 480, b"m" * 16, b"s" * 32, 0, BODY)


def test_result_as_a_row() -> None:
    good = SampleResult("success", None, 200, 64, 48, 640, 480, "6d" * 16, "73" * 32)
    assert sample_result(FETCHED, None, verify=True) == good
    assert sample_result(FETCHED, "6d" * 16, verify=True).md5_matches is True
    changed = sample_result(FETCHED, "00" * 16, verify=False)
    assert (changed.status, changed.md5_matches) == ("success", False)
    refused = sample_result(FETCHED, "00" * 16, verify=True)
    assert (refused.status, refused.error_message) == ("failed_to_download", "changed")
    assert (refused.width, refused.md5_matches) == (None, False)


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (Result(0, Outcome.HTTP_ERROR, 404), "failed_to_download"),
        (Result(0, Outcome.INTERNAL_ERROR), "failed_to_download"),
        (Result(0, Outcome.TOO_THIN, 200, 999), "failed_to_resize"),
        (Result(0, Outcome.INTERNAL_ERROR, 200, 999), "failed_to_resize"),
    ],
)
def test_failure_is_of_the_download_or_of_the_image(result: Result, status: str) -> None:
    ending = sample_result(result, None, verify=False)
    assert ending == SampleResult(status, result.outcome.name.lower(), result.http_status)


def test_what_may_pass_is_counted() -> None:
    counts = {"success": 5, "timeout": 3, "server_error": 2, "opted_out": 7, "changed": 1}
    assert retryable({"status_dict": counts}) == 5
