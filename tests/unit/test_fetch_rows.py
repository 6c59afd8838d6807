"""Rows of `pairmill fetch`: what a source's columns become, whatever they hold."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.demo.site import jpeg
from pairmill.ops.errors import UserError
from pairmill.ops.fetch.boxes import column_boxes
from pairmill.ops.fetch.keys import keys_from
from pairmill.ops.fetch.parameters import Parameters
from pairmill.ops.fetch.run import failed_shards, new_shards, retryable, sample_result
from pairmill.ops.fetch.samples import (
    Layout,
    SampleResult,
    ShardRows,
    as_rows,
    expected_hashes,
    text_of,
)
from pairmill.ops.fetch.shards import Folder
from pairmill.ops.fetch.sources import SourceColumns, open_source
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.crawl import Result
from pairmill.workers.download.rendition import RenditionSpec

COLUMNS = SourceColumns("URL", "TEXT")
GOOD = SampleResult("success")


def not_utf8(*values: bytes) -> pa.Array:
    """Text as a careless writer of Parquet leaves it."""
    return pa.array(values, pa.binary()).view(pa.string())


def test_column_that_is_no_text_is_said() -> None:
    table = pa.table({"URL": [["a", "list"]], "TEXT": ["t"]})
    with pytest.raises(UserError, match=r"column URL is of type list<.*>, and no text"):
        as_rows(table, COLUMNS)


def test_text_that_is_not_utf8_costs_its_characters() -> None:
    """One caption in latin-1 must not end the fetch of all others."""
    rows = as_rows(
        pa.table({"URL": not_utf8(b"http://a/\xfc"), "TEXT": not_utf8(b"f\xfcr")}), COLUMNS
    )
    assert rows.to_pylist() == [{"url": "http://a/\ufffd", "caption": "f\ufffdr"}]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_text_as_bytes_is_text(kind: pa.DataType) -> None:
    """As Spark and Hive write it. Would catch: one octet that refuses all URLs."""
    table = pa.table({"URL": pa.array([b"http://a/", b"\xff"], kind), "TEXT": ["t", "u"]})
    assert as_rows(table, COLUMNS)["url"].to_pylist() == ["http://a/", "\ufffd"]


def test_key_may_be_a_uuid() -> None:
    """As DuckDB writes it."""
    table = pa.table({"uid": pa.array([bytes(15) + b"\1", None], pa.uuid())})
    assert text_of(table, "uid").to_pylist() == ["00000000-0000-0000-0000-000000000001", None]


def test_missing_captions_of_pandas_are_none() -> None:
    """A column without one caption is of NaN there; "nan" is no caption."""
    table = pa.table({"URL": ["u", "v"], "TEXT": pa.array([float("nan"), None])})
    assert as_rows(table, COLUMNS)["caption"].to_pylist() == [None, None]


def test_names_of_ours_are_not_taken_by_the_source() -> None:
    table = pa.table({"URL": ["u"], "TEXT": ["t"], "WIDTH": [7], "md5": ["AB "], "NSFW": [None]})
    rows = as_rows(table, COLUMNS)
    assert rows.column_names == ["url", "caption", "source_WIDTH", "source_md5", "NSFW"]
    assert expected_hashes(rows) == [{"md5": "ab"}]
    # a shard's own table as a source: its md5 is what its images are compared with
    again = as_rows(
        pa.table({"url": ["u"], "md5": ["cd"], "source_md5": ["ab"]}), SourceColumns("url", None)
    )
    assert expected_hashes(again) == [{"md5": "cd"}]
    assert again["caption"].to_pylist() == [None]


def test_columns_name_of_images_is_not_taken_either() -> None:
    table = pa.table({"URL": ["u"], "TEXT": ["t"], "JPG": [b"x"]})
    assert as_rows(table, COLUMNS, Layout().reserved).column_names[-1] == "JPG"
    assert as_rows(table, COLUMNS, Layout("parquet").reserved).column_names[-1] == "source_JPG"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"sha256": ["AB", "", None]}, [{"sha256": "ab"}, {}, {}]),
        ({"MD5": [" cd", None, "ef"], "SHA256": ["ab", "ab", None]},
         [{"md5": "cd", "sha256": "ab"}, {"sha256": "ab"}, {"md5": "ef"}]),
        ({"sha256": pa.array([b"\xab\xcd", None, b""], pa.binary())}, [{"sha256": "abcd"}, {}, {}]),
        ({"hash": ["ab", "ab", "ab"]}, [{}, {}, {}]),
    ],
)  # fmt: skip
def test_hashes_that_a_source_names(columns: dict[str, Any], expected: list[Any]) -> None:
    table = pa.table({"URL": ["u"] * 3, "TEXT": ["t"] * 3} | columns)
    assert expected_hashes(as_rows(table, COLUMNS)) == expected


def json_of(column: pa.Array) -> Any:
    """A cell of KEY.json, read strictly: RFC 8259 has no NaN."""

    def refused(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    table = pa.table({"url": ["u"], "caption": ["c"], "x": column})
    (sample,) = ShardRows(table, ["k"], [GOOD]).samples(lambda n: b"", Layout())
    return json.loads(sample.json, parse_constant=refused)["x"]


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([NAN]), None),
        (pa.array([-INFINITY], pa.float32()), None),
        (pa.array([NAN], pa.float16()), None),
        (pa.array([[1.5, NAN, [INFINITY][0]]]), [1.5, None, None]),
        (pa.array([{"a": NAN, "b": [NAN]}]), {"a": None, "b": [None]}),
        (pa.array([[("k", NAN)]], pa.map_(pa.string(), pa.float64())), [["k", None]]),
        (pa.array([True]), True),
        (pa.array([2**62]), 2**62),
        (pa.array([Decimal("1.50")]), "1.50"),
        (pa.array([b"\x00\xff"]), "00ff"),
        (pa.array([date(2024, 2, 29)]), "2024-02-29"),
        (pa.array([datetime(2024, 2, 29, 1, tzinfo=UTC)]), "2024-02-29T01:00:00+00:00"),
        (pa.array([10**7], pa.date32()), "29349-01-26"),  # a year that Python has not
        (pa.array([0], pa.timestamp("us", "Mars/Phobos")), None),
        (pa.array([timedelta(days=1)]), "1 day, 0:00:00"),
        (not_utf8(b"f\xfcr"), "f\ufffdr"),
        (pa.array([""]), ""),
        (pa.nulls(1), None),
    ],
)  # fmt: skip
def test_cell_of_any_type_is_json(column: pa.Array, expected: Any) -> None:
    assert json_of(column) == expected


@pytest.mark.parametrize(
    ("given", "fold", "keys", "faults"),
    [
        (["a", "B-2_c", "0" * 95], False, ["a", "B-2_c", "0" * 95], {}),
        (["a", "b", "a", "a"], False, ["a", "b", None, None], {2: "duplicate_key", 3: "duplicate_key"}),
        (["a", "A"], False, ["a", "A"], {}),
        (["a", "A"], True, ["a", None], {1: "duplicate_key"}),
        *[([key], False, [None], {0: "invalid_key"}) for key in (
            None, "", " ", "../a", "..", ".", "a/b", "/etc/passwd", "a\\b", "a\x00", "a.b", "a\n", "0" * 96,
            "\u00fc", "a b", "~", "$HOME", "C:a", "\u202e",
        )],
    ],
)  # fmt: skip
def test_key_from_outside_is_no_path(
    given: list[str | None], fold: bool, keys: list[str | None], faults: dict[int, str]
) -> None:
    assert keys_from(given, fold=fold) == (keys, faults)


FACES = pa.list_(pa.list_(pa.float64()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[0.1, 0.2, 0.3, 0.4]], [(0.1, 0.2, 0.3, 0.4)]),
        ([], []),
        (None, ()),
        ([[0.9, 0.4, -0.1, 1.01]], [(0.0, 0.4, 0.9, 1.0)]),  # over the edge, and turned round
        ([[10.0, 20.0, 30.0, 40.0]], None),  # pixels: nothing would be blurred
        ([[0.1, 0.2, 0.3]], None),
        ([[0.1, 0.2, 0.3, NAN]], None),
        ([[0.1, 0.2, 0.3, None]], None),
        ([None], None),
        ([[0.1, 0.2, 0.3, 0.4], [0.1]], None),  # half of the faces is not enough
    ],
)
def test_boxes_are_understood_or_their_row_fails(value: Any, expected: Any) -> None:
    column = pa.chunked_array([pa.array([value], FACES)])
    text = "" if value is None else json.dumps(value)
    expected = None if expected is None else tuple(expected)
    assert column_boxes(column) == column_boxes(pa.chunked_array([[text]])) == [expected]


@pytest.mark.parametrize("text", ["[", "[" * 100_000, "{}", "1", '["a"]', "[[true,0,0,0]]"])
def test_text_that_is_no_boxes(text: str) -> None:
    assert column_boxes(pa.chunked_array([[text]])) == [None]


@pytest.mark.parametrize("column", [pa.array([1]), pa.array([[1.0]]), pa.array([[["a"]]])])
def test_column_of_another_type_is_no_boxes(column: pa.Array) -> None:
    with pytest.raises(UserError, match="the column of boxes is of type"):
        column_boxes(pa.chunked_array([column]))


def parameters(path: Path, text: str, **changed: Any) -> Parameters:
    path.write_text(text)
    source = open_source(path)
    options: dict[str, Any] = {"key": None, "boxes": None, "shard_rows": 10, "verify": False}
    made = Layout(changed.pop("output_format", "webdataset"))
    return Parameters.of(
        source, SourceColumns.of(source, None, None), changed.pop("rendition", RenditionSpec()),
        made, **options | changed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": "uid"}, "no column uid, name another by --key-col: url, Key"),
        ({"boxes": "faces"}, "no column faces, name another by --bbox-col"),
        ({"verify": True}, "--verify needs a column md5 or sha256"),
    ],
)
def test_column_that_is_not_there_is_said(tmp_path: Path, changed: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parameters(tmp_path / "a.csv", "url,Key\nu,k\n", **changed)


@pytest.mark.parametrize(
    "changed",
    [{"key": "uid"}, {"boxes": "faces"}, {"verify": True}],
    ids=["key", "boxes", "verify"],
)
def test_column_that_one_file_lacks_is_said(tmp_path: Path, changed: Any) -> None:
    """Null boxes for a whole file would leave all of its faces."""
    whole = {"url": ["u"], "uid": ["k"], "faces": ["[]"], "md5": ["x"]}
    pq.write_table(pa.table(whole), tmp_path / "a.parquet")
    pq.write_table(pa.table({"url": ["v"]}), tmp_path / "b.parquet")
    source = open_source(tmp_path)
    options: dict[str, Any] = {"key": None, "boxes": None, "shard_rows": 10, "verify": False}
    with pytest.raises(UserError, match=r"b\.parquet has no"):
        Parameters.of(
            source, SourceColumns("url", None), RenditionSpec(), Layout(), **options | changed
        )


def test_key_column_is_found_under_its_name_in_the_shard(tmp_path: Path) -> None:
    """A column that is named as one of ours has another name in the shard, where a retry reads."""
    found = parameters(tmp_path / "a.csv", "url,Key\nu,k\n", key="key")
    rows = found.rows(pa.table({"url": ["u"], "Key": ["k"]}))
    assert rows.column_names == ["url", "caption", "source_Key"]
    assert found.keys_of(rows) == (["k"], {})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rendition": RenditionSpec(mode="crop")}, "another resize mode: keep_ratio, not crop"),
        ({"rendition": RenditionSpec(size=64)}, "another image size: 256, not 64"),
        ({"rendition": RenditionSpec(enlarge=True)}, "another enlarge: False, not True"),
        ({"rendition": RenditionSpec(format="png")}, "another encode format: jpg, not png"),
        ({"rendition": RenditionSpec(quality=9)}, "another encode quality: None, not 9"),
        ({"rendition": RenditionSpec(skip_reencode=True)}, "another skip reencode"),
        ({"rendition": RenditionSpec(min_side=9)}, "another min image size"),
        ({"rendition": RenditionSpec(max_area=9)}, "another max image area"),
        ({"rendition": RenditionSpec(max_aspect=2)}, "another max aspect ratio: None, not 2"),
        ({"rendition": RenditionSpec(exif=True)}, "another extract exif"),
        ({"output_format": "files"}, "another output format: webdataset, not files"),
        ({"key": "md5"}, "another key col: None, not md5"),
        ({"boxes": "md5"}, "another bbox col"),
        ({"shard_rows": 20}, "another shard rows: 10, not 20"),
        ({"verify": True}, "another verify"),
    ],
)
def test_folder_is_of_all_that_its_bytes_hang_on(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """A folder whose second half has another format, size or layout is no data set."""
    text = "url,md5\nu,k\n"
    begun = parameters(tmp_path / "a.csv", text)
    folder = Folder(tmp_path / "out", 10, begun.layout)
    with folder.locked():
        begun.write(folder)
    begun.check(folder, begun=True)
    with pytest.raises(UserError, match=said):
        parameters(tmp_path / "a.csv", text, **changed).check(folder, begun=False)


def test_retry_has_the_keys_and_boxes_of_the_first_run(tmp_path: Path) -> None:
    """A retry that counted keys anew, or forgot the faces, would write another sample."""
    text = 'url,Key,face\nu,k0,"[[0,0,1,1]]"\nv,k1,\nw,../x,\nx,k3,[\n'
    found = parameters(tmp_path / "a.csv", text, key="Key", boxes="face")
    source = open_source(tmp_path / "a.csv")
    folder = Folder(tmp_path / "out", 10, found.layout)
    with folder.locked():
        (first,) = new_shards(source, found, folder)
        assert (first.keys, first.boxes[0]) == (["k0", "k1", None, "k3"], ((0.0, 0.0, 1.0, 1.0),))
        assert [n for n, _ in first.urls] == [0, 1]
        ended = [replace(GOOD, status="failed_to_download", error_message="timeout"), GOOD]
        first.results[:2] = ended
        folder.write(0, first.rows, lambda n: b"image", folder.begin(0), (0.0, 1.0))
        (again,) = failed_shards(found, folder)
    assert [r and r.error_message for r in again.results] == [
        None, None, "invalid_key", "invalid_boxes",
    ]  # fmt: skip
    assert (again.keys, again.boxes, again.urls) == (first.keys, first.boxes, [(0, "u")])


def test_memory_is_no_parameter(tmp_path: Path) -> None:
    little = parameters(tmp_path / "a.csv", "url\nu\n")
    more = parameters(tmp_path / "a.csv", "url\nu\n", rendition=RenditionSpec(memory=10**9))
    assert little.as_json() == more.as_json()


@pytest.mark.parametrize("text", ["[]", "no JSON"])
def test_fetch_json_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    found = parameters(tmp_path / "a.csv", "url\nu\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "fetch.json").write_text(text)
    with pytest.raises(UserError, match=r"cannot read .*fetch\.json"):
        found.check(Folder(out, 10, found.layout), begun=False)


BODY = jpeg(photo_like(1, (64, 48)))
JPEG, WEBP = RenditionSpec(), RenditionSpec(format="webp")
HASHES: dict[str, Any] = {"md5": b"m" * 16, "sha1": b"1" * 20, "sha256": b"s" * 32, "dhash": 0}
FETCHED = Result(0, Outcome.SUCCESS, 200, 999, 640, 480, **HASHES, thumbnail=BODY, format="jpg")
MD5, SHA256 = "6d" * 16, "73" * 32


def test_result_as_a_row() -> None:
    good = SampleResult("success", None, 200, 64, 48, 640, 480, MD5, SHA256)
    assert sample_result(FETCHED, {}, JPEG, verify=True) == good


@pytest.mark.parametrize(
    ("expected", "matches"),
    [
        ({"md5": MD5}, (True, None)),
        ({"sha256": SHA256}, (None, True)),
        ({"md5": "00" * 16}, (False, None)),
        ({"sha256": "00" * 32}, (None, False)),
        ({"md5": MD5, "sha256": "00" * 32}, (True, False)),
    ],
)
def test_image_is_compared_with_each_hash(
    expected: dict[str, str], matches: tuple[bool | None, ...]
) -> None:
    for verify in (False, True):
        row = sample_result(FETCHED, expected, JPEG, verify=verify)
        assert (row.md5_matches, row.sha256_matches) == matches
        changed = verify and False in matches
        assert row.error_message == ("changed" if changed else None)
        assert row.status == ("failed_to_download" if changed else "success")
        assert row.width == (None if changed else 64)


def encoded(kind: str) -> bytes:
    out = BytesIO()
    Image.new("RGB", (5, 4)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("image", "told", "wanted", "size"),
    [
        (encoded("WEBP"), "webp", WEBP, (5, 4)),
        (encoded("PNG"), "png", RenditionSpec(format="png"), (5, 4)),
        (encoded("PNG"), "png", WEBP, None),  # a member would be named wrongly
        (b"no image", "webp", WEBP, None),
        (b"", "jpg", JPEG, None),
    ],
)
def test_image_is_measured_and_of_the_format_that_its_name_says(
    image: bytes, told: str, wanted: RenditionSpec, size: tuple[int, int] | None
) -> None:
    result = Result(0, Outcome.SUCCESS, 200, 9, 7, 7, **HASHES, thumbnail=image, format=told)
    row = sample_result(result, {}, wanted, verify=False)
    assert (row.width, row.height) == (size or (None, None))
    assert row.error_message == (None if size else "internal_error")


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
    ending = sample_result(result, {}, JPEG, verify=False)
    assert ending == SampleResult(status, result.outcome.name.lower(), result.http_status)


def test_what_may_pass_is_counted() -> None:
    counts = {
        "success": 5, "timeout": 3, "server_error": 2, "opted_out": 7, "changed": 1,
        "invalid_key": 4, "duplicate_key": 4, "invalid_boxes": 4,
    }  # fmt: skip
    assert retryable({"status_dict": counts}) == 5
