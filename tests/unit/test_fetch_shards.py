"""Shards on the disk, in each of the three formats: whole or not there, and read again."""

import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.samples import Layout, SampleResult, ShardRows, as_rows
from pairmill.ops.fetch.shards import Folder
from pairmill.ops.fetch.sources import SourceColumns
from pairmill.ops.fetch.writers import GROUP_ROWS

COLUMNS = SourceColumns("URL", "TEXT")
GOOD = SampleResult("success", None, 200, 4, 3, 8, 6, "ab", "cd", True)
BAD = SampleResult("failed_to_download", "http_error", 404)
TABLE = as_rows(
    pa.table(
        {"SAMPLE_ID": [7, 8, 2**62], "URL": ["http://a/", "x", "y"], "TEXT": ["\u00fc", "no", None]}
    ),
    COLUMNS,
)
LAYOUTS = [Layout(), Layout("files", "webp", digits=3), Layout("parquet", "png", exif=True)]
TAR = LAYOUTS[0]


def image(index: int) -> bytes:
    return b"\xff\xd8" + bytes([index])


def rows(folder: Folder, number: int) -> ShardRows:
    return ShardRows(TABLE, folder.keys(number, 3), [GOOD, BAD, GOOD])


@pytest.fixture
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    """Of webdataset, or of the layout that a test is parametrised with."""
    folder = Folder(tmp_path / "out", 10_000, getattr(request, "param", TAR))
    with folder.locked():
        yield folder


of_each_format = pytest.mark.parametrize(
    "folder", LAYOUTS, ids=[layout.output_format for layout in LAYOUTS], indirect=True
)


def write(folder: Folder, number: int, order: tuple[int, ...] = (2, 0)) -> dict[str, object]:
    spool = folder.begin(number)
    for index in order:
        spool.add(index, image(index))
    return folder.write(number, rows(folder, number), spool.image, spool, (100.0, 103.5))


def files(path: Path) -> dict[str, bytes]:
    """The contents of all files below, by their paths."""
    return {
        found.relative_to(path).as_posix(): found.read_bytes()
        for found in sorted(path.rglob("*"))
        if found.is_file() and found.name != ".lock"
    }


def test_shard_is_laid_out_as_img2dataset_does(folder: Folder) -> None:
    stats = write(folder, 12)
    assert list(files(folder.path)) == ["00012.parquet", "00012.tar", "00012_stats.json"]
    with tarfile.open(folder.path / "00012.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert list(members) == [
        f"{key}.{ending}" for key in ("000120000", "000120002") for ending in ("jpg", "json", "txt")
    ]
    assert members["000120002.jpg"] == image(2)
    assert members["000120000.txt"].decode() == "\u00fc"
    assert json.loads(members["000120000.json"]) == {
        "url": "http://a/", "caption": "\u00fc", "key": "000120000", "status": "success",
        "error_message": None, "http_status": 200, "width": 4, "height": 3, "original_width": 8,
        "original_height": 6, "md5": "ab", "sha256": "cd", "md5_matches": True,
        "sha256_matches": None, "SAMPLE_ID": 7,
    }  # fmt: skip
    table = pq.read_table(folder.parquet(12)).to_pylist()
    assert [(row["key"], row["status"], row["SAMPLE_ID"]) for row in table] == [
        ("000120000", "success", 7), ("000120001", "failed_to_download", 8),
        ("000120002", "success", 2**62),
    ]  # fmt: skip
    assert "exif" not in table[0]
    assert stats == folder.stats(12)
    assert stats == {
        "count": 3, "successes": 2, "failed_to_download": 1, "failed_to_resize": 0,
        "duration": 3.5, "start_time": 100.0, "end_time": 103.5,
        "status_dict": {"http_error": 1, "success": 2},
    }  # fmt: skip


@pytest.mark.parametrize("folder", [LAYOUTS[1]], indirect=True)
def test_files_have_a_folder_a_shard(folder: Folder) -> None:
    write(folder, 12)
    found = files(folder.path)
    assert list(found) == [
        *(f"012/012{n}.{e}" for n in ("0000", "0002") for e in ("json", "txt", "webp")),
        "012.parquet", "012_stats.json",
    ]  # fmt: skip
    assert found["012/0120002.webp"] == image(2)
    assert json.loads(found["012/0120002.json"])["SAMPLE_ID"] == 2**62


@pytest.mark.parametrize("folder", [LAYOUTS[2]], indirect=True)
def test_parquet_has_the_images_in_a_column(folder: Folder) -> None:
    write(folder, 12)
    assert list(files(folder.path)) == ["00012.parquet", "00012_stats.json"]
    table = pq.read_table(folder.parquet(12))
    assert table["png"].to_pylist() == [image(0), None, image(2)]
    assert table.column_names[-3:] == ["exif", "SAMPLE_ID", "png"]


@pytest.mark.parametrize("captions", [True, False])
def test_every_key_has_the_same_endings(tmp_path: Path, captions: bool) -> None:
    """A strict reader of webdataset stops at a key without .txt: an empty caption, and none,
    have an empty one; a source without captions has none at all."""
    folder = Folder(tmp_path, 10, Layout("files", captions=captions))
    table = pa.table({"url": ["a", "b", "c"], "caption": ["text", "", None]})
    made = ShardRows(table, ["x", "y", "z"], [GOOD] * 3)
    with folder.locked():
        spool = folder.begin(0)
        folder.write(0, made, image, spool, (0.0, 1.0))
    found = {name: data for name, data in files(tmp_path).items() if name.endswith(".txt")}
    assert found == (
        {"00000/x.txt": b"text", "00000/y.txt": b"", "00000/z.txt": b""} if captions else {}
    )


@of_each_format
def test_same_answers_in_any_order_give_the_same_bytes(folder: Folder, tmp_path: Path) -> None:
    write(folder, 0)
    other = Folder(tmp_path / "other", 10_000, folder.layout)
    with other.locked():
        write(other, 0, order=(0, 2))
    assert files(other.path) == files(folder.path)


@of_each_format
def test_what_is_written_is_read_again(folder: Folder) -> None:
    write(folder, 0)
    read = folder.read(0)
    assert read == rows(folder, 0)
    with folder.images(0, read) as found:
        assert (found(0), found(2), found(0)) == (image(0), image(2), image(0))


@of_each_format
def test_what_is_damaged_is_said(folder: Folder) -> None:
    write(folder, 0)
    read = folder.read(0)
    ending = folder._writer.endings[0]
    path = folder.path / f"{folder.name(0)}{ending}"
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.write_bytes(path.read_bytes()[:700])
    said = pytest.raises(UserError, match=r"is damaged: remove 0+_stats\.json")
    with said, folder.images(0, read) as found:
        found(2)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"count": 1, "status_dict": []}'])
def test_statistics_that_are_damaged_are_said(tmp_path: Path, text: str) -> None:
    """Would catch: a traceback at a run's end."""
    (tmp_path / "00000_stats.json").write_text(text)
    with pytest.raises(UserError, match=r"00000_stats\.json cannot be read .*remove it"):
        Folder(tmp_path, 10, Layout()).stats(0)


@pytest.mark.parametrize("url", ["s3://bucket/images", "file:///images", "hf://datasets/a/b"])
def test_output_is_no_url(url: str) -> None:
    """Would catch: shards in a new folder named s3:."""
    with pytest.raises(UserError, match="is a URL: shards are written into a folder of this mach"):
        Folder(Path(url), 10, Layout())


@of_each_format
def test_folder_from_elsewhere_names_no_path(folder: Folder) -> None:
    """A key of somebody else's shard is not read as a path."""
    write(folder, 0)
    table = pq.read_table(folder.parquet(0))
    keys = pa.array(["../../secret", "b", "c"])
    table = table.set_column(table.column_names.index("key"), "key", keys)
    pq.write_table(table, folder.parquet(0))
    with pytest.raises(UserError, match="names no file"):
        folder.read(0)


def test_images_of_many_row_groups_are_found(tmp_path: Path) -> None:
    """A retry reads the images before in order of rows, across row groups of bounded size."""
    count = 2 * GROUP_ROWS + 7
    folder = Folder(tmp_path, 10_000, Layout("parquet"))
    table = pa.table({"url": ["u"] * count, "caption": pa.nulls(count, pa.string())})
    results = [GOOD if n % 3 else BAD for n in range(count)]
    made = ShardRows(table, folder.keys(0, count), results)
    with folder.locked():
        folder.write(0, made, lambda n: b"%d" % n, folder.begin(0), (0.0, 1.0))
        assert pq.ParquetFile(folder.parquet(0)).num_row_groups == 3
        with folder.images(0, made) as found:
            asked = [1, GROUP_ROWS - 2, GROUP_ROWS, 2 * GROUP_ROWS + 3, 4]
            assert [found(n) for n in asked] == [b"%d" % n for n in asked]
            with pytest.raises(UserError, match="is damaged"):
                found(3)  # a row that has none


@of_each_format
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_killed_while_moving_is_finished(folder: Folder, moved: int) -> None:
    """Killed after so many of a shard's files were moved over those of the shard before."""
    write(folder, 0)
    whole = files(folder.path)
    names = [f"{folder.name(0)}{ending}" for ending in (*folder._writer.endings, "_stats.json")]
    hidden = folder.path / f".{folder.name(0)}.whole"
    hidden.mkdir()
    for name in names:
        shutil.move(folder.path / name, hidden / name)
    write_earlier(folder)
    for name in names[:moved]:
        if (folder.path / name).is_dir():
            (folder.path / name).rename(folder.path / f".{folder.name(0)}.old")
        (hidden / name).rename(folder.path / name)
    folder._recover()
    assert files(folder.path) == whole


def write_earlier(folder: Folder) -> None:
    """A shard 0 of other rows, as it was before a retry."""
    spool = folder.begin(0)
    earlier = ShardRows(TABLE, ["x", "y", "z"], [replace(GOOD, http_status=203)] * 3)
    half = folder.path / f".{folder.name(0)}.half"
    folder._writer.write(half, folder.name(0), earlier, lambda index: b"earlier")
    (half / f"{folder.name(0)}_stats.json").write_text("{}")
    spool.remove()
    for made in half.iterdir():
        made.rename(folder.path / made.name)
    half.rmdir()


@of_each_format
def test_killed_between_a_folder_and_the_next_is_finished(folder: Folder) -> None:
    """The earlier folder was put aside, and its successor not yet in its place."""
    write(folder, 0)
    whole = files(folder.path)
    name = f"{folder.name(0)}{folder._writer.endings[0]}"
    hidden = folder.path / f".{folder.name(0)}.whole"
    hidden.mkdir()
    (folder.path / name).rename(hidden / name)
    (folder.path / f".{folder.name(0)}.old").mkdir()
    folder._recover()
    assert files(folder.path) == whole
    assert {path.name[0] for path in folder.path.iterdir() if path.name != ".lock"} == {"0"}


@of_each_format
def test_shard_takes_an_earlier_ones_place(folder: Folder, tmp_path: Path) -> None:
    write_earlier(folder)
    write(folder, 0)
    other = Folder(tmp_path / "other", 10_000, folder.layout)
    with other.locked():
        write(other, 0)
    assert files(folder.path) == files(other.path)


def test_killed_before_it_was_whole_is_begun_anew(tmp_path: Path) -> None:
    folder = Folder(tmp_path, 10_000, TAR)
    spool = folder.begin(3)
    spool.add(0, b"half")
    with folder.locked():
        assert files(tmp_path) == {}
        assert not folder.done(3)
        write(folder, 3)
        assert folder.done(3)


def test_folder_is_for_one_process(folder: Folder) -> None:
    with pytest.raises(UserError, match="another process"), Folder(folder.path, 10, TAR).locked():
        pass
