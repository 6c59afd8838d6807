"""Lists of URLs of every kind, whole and broken: every row is there, or its absence is said."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairmill.ops.errors import UserError
from pairmill.ops.fetch.remarks import Remarks
from pairmill.ops.fetch.source_text import CsvRecords
from pairmill.ops.fetch.sources import SourceColumns, fingerprint, open_source, shards
from support.line import here

URLS = [f"http://plain.test/{n}" for n in range(1, 7)]


def rows(path: Path | str, start: int = 0) -> list[dict[str, Any]]:
    return [row for table in open_source(path).read(start) for row in table.to_pylist()]


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd,
}  # fmt: skip
PLAIN = [{"url": url, "caption": f"text ü {n}"} for n, url in enumerate(URLS)]
KINDS: dict[str, bytes] = {
    ".csv": "".join(["url,caption\r\n", *(f"{r['url']},{r['caption']}\r\n" for r in PLAIN)]).encode(),
    ".tsv": "".join(["url\tcaption\n", *(f"{r['url']}\t{r['caption']}\n" for r in PLAIN)]).encode(),
    ".json": json.dumps(PLAIN).encode(),
    ".jsonl": "".join(json.dumps(r) + "\n" for r in PLAIN).encode(),
    ".ndjson": "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in PLAIN).encode(),
}  # fmt: skip


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("ending", KINDS)
def test_every_kind_and_compression(tmp_path: Path, ending: str, compression: str) -> None:
    """Would catch: a kind that img2dataset takes and this refuses; a cut file taken for a whole."""
    path = tmp_path / f"list{ending}{compression}"
    data = COMPRESSIONS[compression](KINDS[ending])
    path.write_bytes(data)
    source = open_source(path)
    assert SourceColumns.of(source, None, None) == SourceColumns("url", "caption")
    assert [rows(path, start) for start in (0, 4, 6, 9)] == [PLAIN, PLAIN[4:], [], []]
    numbered = list(shards(source, 4, lambda number: False))
    assert [(number, table.num_rows) for number, table in numbered] == [(0, 4), (1, 2)]
    if compression:
        for size in (0, 1, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:size])
            with pytest.raises(UserError, match="cannot read"):
                rows(path)
        path.write_bytes(KINDS[ending])  # a server that has unpacked it
        with pytest.raises(UserError, match=r"does not begin as a \.\w+ does"):
            rows(path)
        path.with_name("list" + ending).write_bytes(data)  # and one that says nothing of it
        assert rows(tmp_path / f"list{ending}") == PLAIN


MARKED = [
    ("utf-8-sig", b"\xef\xbb\xbf", "utf-8"), ("utf-16 le", b"\xff\xfe", "utf-16-le"),
    ("utf-16 be", b"\xfe\xff", "utf-16-be"), ("utf-32", b"\xff\xfe\0\0", "utf-32-le"),
]  # fmt: skip


@pytest.mark.parametrize(("mark", "encoding"), [m[1:] for m in MARKED], ids=[m[0] for m in MARKED])
@pytest.mark.parametrize("ending", [*KINDS, ".txt"])
def test_byte_order_marks(tmp_path: Path, ending: str, mark: bytes, encoding: str) -> None:
    """Would catch: a first URL, or a column, that begins with U+FEFF."""
    path = tmp_path / f"list{ending}"
    text = KINDS.get(ending, "\n".join(URLS).encode()).decode()
    path.write_bytes(mark + text.encode(encoding))
    assert [row["url"] for row in rows(path)] == URLS


def test_byte_order_mark_of_a_file_that_another_was_joined_to(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfhttp://a/1\r\n\xef\xbb\xbfhttp://a/2\r\n")
    assert [row["url"] for row in rows(path)] == ["http://a/1", "http://a/2"]


# name, content, rows as (url, caption), what is said of them
TEXTS: dict[str, tuple[str, str, list[tuple[str | None, str | None]], str]] = {
    "stray quotes in TSV": (
        ".tsv", 'url\tcaption\nhttp://a/1\t"Stop" sign\nhttp://a/2\t5" screen\nhttp://a/3\t"open\nhttp://a/4\tb\n'
        'http://a/5\tc\nhttp://a/6\tHe said "hi"\n',
        [("http://a/1", '"Stop" sign'), ("http://a/2", '5" screen'), ("http://a/3", '"open'),
         ("http://a/4", "b"), ("http://a/5", "c"), ("http://a/6", 'He said "hi"')], "",
    ),
    "a quote that never closes": (
        ".csv", 'url,caption\nhttp://a/1,"open\nhttp://a/2,b\nhttp://a/3,c\n',
        [("http://a/1", '"open'), ("http://a/2", "b"), ("http://a/3", "c")],
        "line 2 has a quote that does not hold: it is read without quoting",
    ),
    "a quote that closes rows later, before text": (
        ".csv", 'url,caption\nhttp://a/1,"12 inch\nhttp://a/2,b\nhttp://a/3,"c" d\n',
        [("http://a/1", '"12 inch'), ("http://a/2", "b"), ("http://a/3", '"c" d')], "line 2 has a quote",
    ),
    "a quote that closes rows later, at a line's end": (
        ".csv", 'url,caption\nhttp://a/1,"12 inch\nhttp://a/2,b\nhttp://a/3,size 5"\n',
        [("http://a/1", '"12 inch'), ("http://a/2", "b"), ("http://a/3", 'size 5"')], "line 2 has a quote",
    ),
    "a quote that closes in the next row, captions first": (
        ".csv", 'caption,url\n"12 inch TV,http://a/1\nTV 5",http://a/2\n',
        [("http://a/1", '"12 inch TV'), ("http://a/2", 'TV 5"')], "line 2 has a quote",
    ),
    "a quote at a URL": (
        ".csv", 'url,caption\n"http://a/1,b\nhttp://a/2",c\nhttp://a/3,d\n',
        [('"http://a/1', "b"), ('http://a/2"', "c"), ("http://a/3", "d")], "line 2 has a quote",
    ),
    "quotes that hold": (
        ".csv", 'url,caption\nhttp://a/1,"two\n\nlines, ""one"""\n"http://a/2,x",\'\nhttp://a/3,5" TV\n',
        [("http://a/1", 'two\n\nlines, "one"'), ("http://a/2,x", "'"), ("http://a/3", '5" TV')], "",
    ),
    "lines that say a URL": (
        ".csv", 'caption,url\n"see\nhttp://b/, or\nnot",http://a/1\n', [("http://a/1", "see\nhttp://b/, or\nnot")], "",
    ),
    "a carriage return within": (
        ".csv", 'url,caption\r\nhttp://a/1,"a\rb"\r\nhttp://a/2,c\rd\r\n',
        [("http://a/1", "a\rb"), ("http://a/2", "c\rd")], "",
    ),
    "lines of old Macs": (".csv", "url,caption\rhttp://a/1,b\rhttp://a/2,c\r", [("http://a/1", "b"), ("http://a/2", "c")], ""),
    "too few": (
        ".csv", "url,caption\nhttp://a/1,b\nhttp://a/2\nhttp://a/3,c\n",
        [("http://a/1", "b"), ("http://a/2", None), ("http://a/3", "c")],
        "line 3 has 1 column, and the header 2: the others are null",
    ),
    "too many": (
        ".csv", "url,caption\nhttp://a/1,b\nhttp://a/2,c, d\nhttp://a/3,c,\n",
        [("http://a/1", "b"), (None, None), ("http://a/3", "c")],
        "line 3 has 3 columns, and the header 2: its row is all null, without a URL",
    ),
    "too many tabs": (
        ".tsv", "url\tcaption\nhttp://a/1\tb\nhttp://a/2\tc\td\nhttp://a/3\t\n\n",
        [("http://a/1", "b"), (None, None), ("http://a/3", "")], "line 3 has 3 columns",
    ),
    "octets that are not UTF-8": (
        ".csv", "url,caption\nhttp://a/1,ü\nhttp://a/2,\udcfc\nhttp://a/3,é\n",
        [("http://a/1", "ü"), ("http://a/2", "\ufffd"), ("http://a/3", "é")],
        "line 3 is not all text: U+FFFD stands for what is no character",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "content", "right", "said"), TEXTS.values(), ids=TEXTS)
def test_text_of_which_no_row_is_lost(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ending: str,
    content: str,
    right: list[tuple[str | None, str | None]],
    said: str,
) -> None:
    """Would catch: rows swallowed by a quote, cut or shifted by a comma, with exit code 0."""
    path = tmp_path / f"list{ending}"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert [(row["url"], row["caption"]) for row in rows(path)] == right
    errors = capsys.readouterr().err
    assert said in errors
    assert bool(errors) == bool(said)


def test_of_many_faults_the_first_and_the_number_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch: a million lines on standard error, or one and silence."""
    path = tmp_path / "list.csv"
    path.write_text("url,caption\n" + "http://a/,b\n" * 200 + "http://a/\n" * 30)
    source = open_source(path)
    assert sum(table.num_rows for table in source.read(0)) == 230
    assert sum(table.num_rows for table in source.read(220)) == 10
    assert capsys.readouterr().err.splitlines() == [
        f"{path}: line 202 has 1 column, and the header 2: the others are null",
        f"{path}: 30 lines in all: the others are null",
    ]


def test_commas_of_a_column_alone_are_its_own(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("url\nhttp://a/1,2.jpg\nhttp://a/3\n")
    assert [row["url"] for row in rows(path)] == ["http://a/1,2.jpg", "http://a/3"]


CAPTION = st.text(st.sampled_from("ab \"'\t"), max_size=5)


@given(st.lists(CAPTION, min_size=1, max_size=8), st.booleans())
def test_stray_quotes_swallow_no_line(captions: list[str], urls_first: bool) -> None:
    """Would catch: any quote that takes a later row with it. No caption here has several lines."""
    wanted = [f"http://h/{n}" for n in range(len(captions))]
    pairs = zip(wanted, captions, strict=True)
    lines = [f"{u},{c}\n" if urls_first else f"{c},{u}\n" for u, c in pairs]
    records = CsvRecords("x", iter(enumerate(["url,caption\n", *lines])), Remarks())
    found = [fields for _, fields in records][1:]
    assert [fields[not urls_first] for fields in found] == wanted


@given(st.lists(st.lists(st.text(st.sampled_from('ab ",\n'), max_size=6), min_size=2, max_size=2)))
def test_csv_as_python_writes_it(cells: list[list[str]]) -> None:
    """Would catch: a valid quoted field, of several lines or not, that is taken apart."""
    table = [["a", "url", "b"], *([a, "http://h/", b] for a, b in cells)]
    out = io.StringIO(newline="")
    csv.writer(out).writerows(table)
    lines = io.StringIO(out.getvalue(), newline="\n")
    assert [fields for _, fields in CsvRecords("x", iter(enumerate(lines)), Remarks())] == table


JSONS: dict[str, tuple[str, str, list[dict[str, Any]]]] = {
    "types": (
        ".json", '[{"url": "u", "n": 1, "x": 1.5, "b": true, "l": [[1, 2.5]]}, {"url": "v", "n": null}]',
        [{"url": "u", "n": 1, "x": 1.5, "b": True, "l": [[1.0, 2.5]]},
         {"url": "v", "n": None, "x": None, "b": None, "l": None}],
    ),
    "NaN and infinities": (
        ".jsonl", '{"url": "u", "x": NaN}\n{"url": "v", "x": -Infinity}\n{"url": "w", "x": 2}',
        [{"url": "u", "x": None}, {"url": "v", "x": None}, {"url": "w", "x": 2}],
    ),
    "numbers and texts": (
        ".json", '[{"url": "u", "x": 1}, {"url": "v", "x": "one"}, {"url": "w", "x": [1, "ü"]}]',
        [{"url": "u", "x": "1"}, {"url": "v", "x": "one"}, {"url": "w", "x": '[1, "ü"]'}],
    ),
    "numbers that no type holds": (
        ".json", '[{"url": "u", "x": 18446744073709551616, "y": 9007199254740993},'
        ' {"url": "v", "x": 1, "y": 0.5}]',
        [{"url": "u", "x": "18446744073709551616", "y": "9007199254740993"}, {"url": "v", "x": "1", "y": "0.5"}],
    ),
    "an object of lists": (".json", '{"url": ["u", "v"], "n": [1, 2]}', [{"url": "u", "n": 1}, {"url": "v", "n": 2}]),
    "an object of objects": (
        ".json", '{"url": {"0": "u", "7": "v"}, "n": {"7": 2}}', [{"url": "u", "n": None}, {"url": "v", "n": 2}],
    ),
    "one object": (".json", '{"url": "u", "tags": ["a"]}', [{"url": "u", "tags": ["a"]}]),
    "no rows": (".json", "[]", []),
    "lines in a .json": (".json", '{"url": "u"}\n\n{"url": "v"}\n', [{"url": "u"}, {"url": "v"}]),
    "objects of several lines": (".json", '{\n"url": "u"\n}\n{\n"url": "v"}', [{"url": "u"}, {"url": "v"}]),
    "an array in a .jsonl": (".jsonl", '\ufeff [\n{"url": "u"},\n{"url": "v"}]\n', [{"url": "u"}, {"url": "v"}]),
    "lines that are no JSON": (
        ".jsonl", '{"url": "u"}\n{"url": \n\n["v"]\nnull\n{"url": "w"}\n' + "[" * 100_000,
        [{"url": u} for u in ("u", None, None, None, "w", None)],
    ),
    "elements that are no objects": (".json", '["u", {"url": "v"}, 1]', [{"url": None}, {"url": "v"}, {"url": None}]),
    "surrogates": (".json", '[{"url": "u", "\\ud800": "\\ud83d\\ude00 \\udfff"}]', [{"url": "u", "\ufffd": "😀 \ufffd"}]),
    "an object without keys": (".json", '[{"url": "u", "x": {}}]', [{"url": "u", "x": "{}"}]),
    "a column without values": (".jsonl", '{"url": "u", "x": null}', [{"url": "u", "x": None}]),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "content", "right"), JSONS.values(), ids=JSONS)
def test_json(tmp_path: Path, ending: str, content: str, right: list[dict[str, Any]]) -> None:
    """Would catch: a row, column or number that is lost; a type that later rows are not of."""
    path = tmp_path / f"list{ending}"
    path.write_text(content, "utf-8", newline="")
    source = open_source(path)
    assert rows(path) == right
    assert source.rows() == len(right)
    out = tmp_path / "shard.parquet"
    pq.write_table(
        pa.concat_tables([*source.read(0), *source.read(len(right))] or [pa.table({})]), out
    )
    if len(right) > 1:
        assert rows(path, 1) == right[1:]


def test_json_is_read_in_pieces_of_one_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: tables of a file that cannot be joined, a value across two reads of the file."""
    monkeypatch.setattr("pairmill.ops.fetch.source_json.READ_ROWS", 3)
    monkeypatch.setattr("pairmill.ops.fetch.json_values.CHUNK", 5)
    values: list[Any] = [None, 1, 22, 2**53 + 1, 333.25, None, 4, [1], "t"]
    for kinds, kind in (
        (values[:7], pa.string()),
        (values[:3], pa.int64()),
        (values[4:7], pa.float64()),
    ):
        objects = [{"url": f"http://a/{n}", "x": value} for n, value in enumerate(kinds)]
        for name, text in (
            ("a.json", json.dumps(objects, indent=1)),
            ("a.jsonl", "\n".join(map(json.dumps, objects))),
        ):
            (tmp_path / name).write_text(text)
            table = pa.concat_tables(open_source(tmp_path / name).read(0))
            assert table.schema.field("x").type == kind
            wanted = [json.dumps(v) if v and kind == pa.string() else v for v in kinds]
            assert table["x"].to_pylist() == wanted
            assert table["url"].to_pylist() == [each["url"] for each in objects]


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "Windows-1252": (
        "list.csv", "url,caption\nhttp://a/1,a\nhttp://a/2,Café\n".encode("cp1252"),
        r"is not UTF-8, see its line 3: convert it first, as by iconv -f WINDOWS-1252",
    ),
    "Windows-1252 in a txt": ("list.txt", "http://a/é\n".encode("cp1252"), "is not UTF-8, see its line 1"),
    "UTF-16 without a mark": ("list.txt", "http://a/1\n".encode("utf-16-le"), "as it seems UTF-16"),
    "an empty csv": ("list.csv", b"", "it is empty, without a header"),
    "blank lines": ("list.tsv", b"\n\n", "it is empty, without a header"),
    "two columns of a name": ("list.tsv", b"url\turl\n1\t2\n", "two columns named url"),
    "rows of another width": ("list.csv", b"url,caption\nhttp://a/,b,c\nhttp://a/,b,d\n", "line 2 has 3 columns, and the header 2; so"),
    "no header": ("list.csv", b"http://a/1,text\nhttp://a/2,text\n", "has no header, but a row as its first line"),
    "semicolons": ("list.csv", b"url;caption\nhttp://a/1;text\n", "has one column, 'url;caption': those of a .csv are separated by commas"),
    "commas in a tsv": ("list.tsv", b"url,caption\nhttp://a/1,text\n", "has one column, 'url,caption'"),
    "rows by their ids": ("list.json", json.dumps({n: {"url": "u"} for n in range(60)}).encode(), "by --url-col: 0, 1, .*, 49, …$"),
    "an empty json": ("list.json", b"", "list.json has no columns: it is empty"),
    "an empty array": ("list.json", b"[]", "has no columns: it is empty"),
    "an array of texts": ("list.json", b'["http://a/1"]', "has no columns: it is empty, or has no objects"),
    "a line without an end": ("list.csv", b"url\n" + b"a" * (9 << 20), "line 2 is longer than 8 MB"),
    "JSON that is cut": ("list.json", b'[{"url": "u"},\n{"url": "v"}', "line 2: an array is cut"),
    "JSON cut in a value": ("list.json", b'[{"url": "u"},\n{"url": "v', "line 2: Unterminated string"),
    "JSON without a comma": ("list.json", b'[{"url": "u"}\n{"url": "v"}]', "line 2: '{' follows a value"),
    "text behind an array": ("list.json", b'[{"url": "u"}]\n[{"url": "v"}]', r"line 2: '\[' follows the array"),
    "columns of two lengths": ("list.json", b'{"url": ["u"], "x": []}', "its columns have different lengths"),
    "no JSON": ("list.json", b"url\nhttp://a/\n", "line 1: Expecting value"),
    "another kind": ("list.xls", b"x", r"is no folder, \.parquet, \.csv, .* \(all but \.parquet also \.gz"),
    "a parquet that is compressed": ("list.parquet.gz", b"x", "is no folder"),
    "nothing": ("", b"", "there is no"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_anything_is_fetched(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    """Would catch: a traceback, wrong captions, or rows lost in silence."""
    if name:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=said):
        SourceColumns.of(open_source(tmp_path / (name or "none")), None, None)


def test_folders_of_one_kind(tmp_path: Path) -> None:
    """Would catch: a second file's columns under the first's names, or its header as a row."""
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a/1,one\n")
    (tmp_path / "b.CSV.gz").write_bytes(gzip.compress(b"Caption,id,URL\ntwo,7,http://a/2\n"))
    (tmp_path / "_note.txt").write_text("no list")
    (tmp_path / "LICENSE").write_text("no list")
    source = open_source(f"{tmp_path}/")
    assert source.names == ["url", "caption", "id"]
    assert rows(tmp_path) == [
        {"url": "http://a/1", "caption": "one", "id": None},
        {"url": "http://a/2", "caption": "two", "id": "7"},
    ]
    assert rows(tmp_path, 1) == rows(tmp_path)[1:]
    (tmp_path / "c.jsonl").write_text("{}")
    with pytest.raises(UserError, match="has files of several kinds, csv, jsonl: name one file"):
        open_source(tmp_path)
    pq.write_table(pa.table({"url": ["http://a/3"]}), tmp_path / "d.parquet")
    assert rows(tmp_path) == [{"url": "http://a/3"}]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"has no \.parquet files in it, nor \.csv.* folders in it"):
        open_source(tmp_path / "empty")


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".json", ".jsonl"])
def test_empty_file_beside_others_has_no_rows(tmp_path: Path, ending: str) -> None:
    """Would catch: a list refused for a file without rows, as Spark writes some."""
    for name, data in (("a", b""), ("b", KINDS[ending]), ("c", b"")):
        (tmp_path / f"part-{name}{ending}").write_bytes(data)
    source = open_source(tmp_path)
    assert SourceColumns.of(source, None, None) == SourceColumns("url", "caption")
    assert source.lacking("caption") is None
    assert [rows(tmp_path, start) for start in (0, 4, 6)] == [PLAIN, PLAIN[4:], []]


@pytest.mark.parametrize("name", ["a list ü.csv", "a%20list.csv", "50%.csv"])
def test_url_of_a_file_is_decoded(tmp_path: Path, name: str) -> None:
    """Would catch: a path as ``Path.as_uri`` writes it, that is not found."""
    path = tmp_path / name
    path.write_bytes(KINDS[".csv"])
    for url in (path.as_uri(), f"file://{path}", path.as_uri().replace("///", "//localhost/")):
        assert rows(url) == PLAIN


def test_folder_of_json_has_the_columns_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"URL": "http://a/1", "n": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"url": "http://a/2", "n": 2.5, "m": "x"}\n')
    assert rows(tmp_path) == [
        {"URL": "http://a/1", "n": 1.0, "m": None}, {"URL": "http://a/2", "n": 2.5, "m": "x"},
    ]  # fmt: skip


@pytest.fixture
def memory() -> Any:
    """fsspec's file system in memory, in place of a cloud's."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/", recursive=True)


def test_lists_elsewhere(memory: Any, tmp_path: Path) -> None:
    """Would catch: a path of a cloud that is taken for a folder here, or read to its end at once."""
    (tmp_path / "a.csv").write_bytes(KINDS[".csv"])
    memory.pipe("/lists/a.csv", KINDS[".csv"])
    memory.pipe("/lists/b.csv.zst", zstd(KINDS[".csv"]))
    memory.pipe("/lists/_SUCCESS", b"")
    for path in ("memory://lists/a.csv", f"file://{tmp_path}/a.csv", f"file://{tmp_path}"):
        assert rows(path) == PLAIN
    for path in ("memory://lists", "memory://lists/"):
        assert rows(path) == [*PLAIN, *PLAIN]
        assert rows(path, 7) == PLAIN[1:]
    here = [
        fingerprint(open_source(tmp_path / "a.csv")),
        fingerprint(open_source(f"file://{tmp_path}")),
    ]
    there = [
        fingerprint(open_source("memory://lists/a.csv")),
        fingerprint(open_source("memory://lists")),
    ]
    assert here == [there[0]] * 2
    assert there[1] != there[0]
    out = io.BytesIO()
    pq.write_table(pa.table({"url": URLS}), out, row_group_size=2)
    for name in ("part-0.parquet", "part-1.parquet"):
        memory.pipe(f"/release/{name}", out.getvalue())
    source = open_source("memory://release")
    assert (source.rows(), [row["url"] for row in rows("memory://release", 5)]) == (
        12,
        [URLS[5], *URLS],
    )


def test_command_takes_a_url(memory: Any, tmp_path: Path) -> None:
    """Would catch: memory://lists as a path, of which pathlib makes memory:/lists."""
    memory.pipe("/lists/a.csv", KINDS[".csv"])
    done = here(
        {}, "fetch", "memory://lists", "--out", str(tmp_path / "out"), "--dry-run", "--json"
    )
    assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, 6), done.stderr


def test_lists_behind_another_system(memory: Any, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "lists.zip", "w") as archive:
        archive.writestr("a.csv", KINDS[".csv"])
    assert rows(f"zip://a.csv::file://{tmp_path}/lists.zip") == PLAIN


def test_what_cannot_be_read_elsewhere(
    memory: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Would catch: a traceback of a cloud's library, or none that says which is missing."""

    def broken(url: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    with pytest.raises(UserError, match=r"there is no memory://lists/none\.csv"):
        open_source("memory://lists/none.csv")
    with pytest.raises(UserError, match="cannot read nosuch://a/b: Protocol not known: nosuch"):
        open_source("nosuch://a/b")
    memory.pipe("/lists/cut.csv.gz", gzip.compress(KINDS[".csv"])[:-9])
    with pytest.raises(
        UserError, match=r"cannot read memory://lists/cut\.csv\.gz: Compressed file"
    ):
        rows("memory://lists/cut.csv.gz")
    monkeypatch.setattr("fsspec.core.url_to_fs", broken)
    with pytest.raises(UserError, match="cannot read s3://a/b: Install s3fs to access S3"):
        open_source("s3://a/b")
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(
        UserError, match=r"fsspec is not installed: pip install 'pairmill\[remote\]'"
    ):
        open_source("s3://a/b.csv")


def test_large_list_is_not_read_whole(tmp_path: Path) -> None:
    """Would catch: a list that is in memory at once, however long it is."""
    path = tmp_path / "list.csv.gz"
    with gzip.open(path, "wb", 1) as out:
        out.write(b"url,caption\n")
        for n in range(300):
            out.write(f"http://a/{n},{'x' * 100_000}\n".encode())
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() for _ in open_source(path).read(0))
    assert most - before < 20_000_000  # of 30
