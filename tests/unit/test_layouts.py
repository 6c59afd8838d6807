"""Layouts: a release's table and one of the original's schema are one table, to every reader."""

from pathlib import Path
from typing import Any

import duckdb
import mmh3
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.release import recipe_keys
from pairmill.ops.release.layouts import LAYOUTS, as_pairmill, layout
from pairmill.ops.release.recipe import Recipe

f32, f64, i32, i64, string = pa.float32(), pa.float64(), pa.int32(), pa.int64(), pa.string()
BOXES = pa.list_(pa.list_(f64))
SIZES = [("WIDTH", i32), ("HEIGHT", i32)]
MULTI: dict[str, Any] = {"exclude_languages": ["en", "nolang"]}
ENGLISH: dict[str, Any] = {"languages": ["en"]}
TAGS = {"tags": {"punsafe": "u", "pwatermark": "w", "aesthetic": "a"}}
B32, L14 = ({"model": name, "pretrained": "openai"} for name in ("ViT-B-32", "ViT-L-14"))

# the columns of published files, in their order: of each layout, and of what it depends on
LAION_400M = [("SAMPLE_ID", i64), ("URL", string), ("TEXT", string), ("HEIGHT", i32),
              ("WIDTH", i32), ("LICENSE", string), ("NSFW", string), ("similarity", f64)]  # fmt: skip
JOINED = [("URL", string), ("TEXT", string), *SIZES, ("similarity", f64)]
SCORES = [("hash", i64), ("pwatermark", f32), ("punsafe", f32)]
DATACOMP = [("uid", string), ("url", string), ("text", string), ("original_width", i64),
            ("original_height", i64), ("clip_b32_similarity_score", f32),
            ("clip_l14_similarity_score", f32), ("face_bboxes", BOXES), ("sha256", string)]  # fmt: skip
ORIGINALS: list[tuple[str, dict[str, Any], list[tuple[str, pa.DataType]]]] = [
    ("laion-400m", ENGLISH, LAION_400M),
    ("laion-400m", MULTI, [*LAION_400M[:6], ("LANGUAGE", string), *LAION_400M[6:]]),
    ("laion-joined", ENGLISH, [*JOINED, *SCORES]),
    ("laion-joined", MULTI, [*JOINED, ("LANGUAGE", string), *SCORES]),
    ("laion-joined", ENGLISH | TAGS, [*JOINED, *SCORES, ("aesthetic", f32)]),
    ("laion-aesthetics-v2", ENGLISH | TAGS,
     [("URL", string), ("TEXT", string), ("WIDTH", f64), ("HEIGHT", f64), ("similarity", f64),
      ("punsafe", f32), ("pwatermark", f32), ("AESTHETIC_SCORE", f32), ("hash", i64)]),
    ("datacomp", B32 | {"similarities": {"l14": "ViT-L-14 openai"}}, DATACOMP),
    ("laion-coco", TAGS,
     [("URL", string), ("TEXT", string), ("top_caption", string), ("all_captions", pa.list_(string)),
      ("all_similarities", pa.list_(f64)), *SIZES, ("similarity", f64), *SCORES]),
]  # fmt: skip


def chosen(name: str, **values: Any) -> Recipe:
    return Recipe("x", 1, "", "", layout=name, **values)


INTERNAL = pa.table(
    {
        "sample_id": pa.array([16384, (1 << 40) + 7], i64),
        "url": ["https://a.example/ü.jpg", "https://b.example/2.png"],
        "text": ["a red house", "写真"],
        "language": ["en", "nolang"],
        "license": pa.array([None, "https://creativecommons.org/licenses/by/4.0/"], string),
        "width": pa.array([640, 200], i32),
        "height": pa.array([480, 100], i32),
        "md5": pa.array([bytes(range(16)), b"\xff" * 16], pa.binary()),
        "sha256": pa.array([bytes(range(32)), b"\xff" * 32], pa.binary()),
        "similarity": pa.array([0.3, 1.0], f32),
        "similarity_l14": pa.array([0.25, None], f32),
        "tag_0": pa.array([0.1, None], f32), "label_0": pa.array([1, None], pa.int16()),
        "tag_1": pa.array([0.2, 0.5], f32), "label_1": pa.array([None, None], pa.int16()),
        "tag_2": pa.array([6.5, 7.0], f32), "label_2": pa.array([None, None], pa.int16()),
    }
)  # fmt: skip
SOME: dict[pa.DataType, Any] = {
    string: "?", i32: 10, i64: -5, f32: 0.5, f64: 0.5, BOXES: [[0.1, 0.2, 0.3, 0.4]],
    pa.list_(string): ["a"], pa.list_(f64): [0.5],
}  # fmt: skip


@pytest.mark.parametrize(("name", "values", "columns"), ORIGINALS)
def test_a_table_of_the_original_goes_before_ours(
    tmp_path: Path, name: str, values: dict[str, Any], columns: list[tuple[str, pa.DataType]]
) -> None:
    """Fault: a name, a type or an order that is not the original's, in the schema or the file."""
    schema = pa.schema(columns)
    rows = [{key: SOME[kind] for key, kind in columns}, dict.fromkeys(schema.names)]
    files = [tmp_path / "original.parquet", tmp_path / "ours.parquet"]
    pq.write_table(pa.Table.from_pylist(rows, schema), files[0], compression="snappy")
    found = chosen(name, **values)
    ours = layout(name).table(INTERNAL, found)
    assert ours.schema == layout(name).schema(found) == schema
    pq.write_table(ours, files[1], compression="zstd")

    tables = [pq.read_table(file) for file in files]
    assert pa.concat_tables(tables).num_rows == 4
    frames = [pl.read_parquet(file) for file in files]
    assert pl.concat(frames, how="vertical").height == 4
    both = pd.concat([pd.read_parquet(file, dtype_backend="pyarrow") for file in files])
    assert list(both.columns) == schema.names
    assert list(both.dtypes) == [pd.ArrowDtype(field.type) for field in tables[0].schema]
    paths = [str(file) for file in files]
    read = duckdb.sql("select * from read_parquet($paths)", params={"paths": paths})
    alone = duckdb.sql("select * from read_parquet($paths)", params={"paths": paths[:1]})
    assert (read.columns, read.types) == (schema.names, alone.types)
    assert len(read.fetchall()) == 4


def test_datasets_joins_every_layout_with_its_original(tmp_path: Path) -> None:
    """Fault: features that `datasets` does not take for the same."""
    import datasets

    for name, values, columns in ORIGINALS:
        schema = pa.schema(columns)
        row = {key: SOME[kind] for key, kind in columns}
        original = datasets.Dataset(pa.Table.from_pylist([row], schema))
        ours = datasets.Dataset(layout(name).table(INTERNAL, chosen(name, **values)))
        assert original.features == ours.features
        assert len(datasets.concatenate_datasets([original, ours])) == 3


def first(name: str, **values: Any) -> dict[str, Any]:
    labels = values.pop("labels", ())
    rows: list[dict[str, Any]] = (
        layout(name).table(INTERNAL, chosen(name, **values), labels).to_pylist()
    )
    return rows[0]


def test_values_are_where_their_names_are() -> None:
    """Fault: sizes swapped, as in laion2B-multi; a similarity with a float32's further digits; a
    licence that is null, where LAION-400M has a question mark; a score of another model."""
    row = first("laion-400m", **ENGLISH, tags={"NSFW": "n"}, labels=[["UNLIKELY", "NSFW"]])
    assert row == {
        "SAMPLE_ID": 16384, "URL": "https://a.example/ü.jpg", "TEXT": "a red house", "HEIGHT": 480,
        "WIDTH": 640, "LICENSE": "?", "NSFW": "NSFW", "similarity": 0.3,
    }  # fmt: skip
    number = mmh3.hash64("https://a.example/ü.jpga red house".encode())[0]
    row = first("re-laion", **ENGLISH, tags={"pwatermark": "w", "punsafe": "u"})
    assert row == {
        "url": "https://a.example/ü.jpg", "caption": "a red house", "width": 640, "height": 480,
        "similarity": 0.3, "hash": number, "punsafe": pytest.approx(0.2),
        "pwatermark": pytest.approx(0.1),
    }  # fmt: skip
    row = first("datacomp", **L14, similarities={"b32": "ViT-B-32 laion2b"})
    assert row["uid"] == "00000000000000000000000000004000"
    assert row["sha256"] == bytes(range(32)).hex()
    assert (row["original_width"], row["original_height"], row["face_bboxes"]) == (640, 480, [])
    scores = row["clip_b32_similarity_score"], row["clip_l14_similarity_score"]
    assert scores == (None, pytest.approx(0.3))
    row = first("laion-joined", **ENGLISH, with_sample_id=True)
    assert (list(row)[-2:], row["SAMPLE_ID"]) == (["punsafe", "SAMPLE_ID"], 16384)
    row = first(
        "pairmill", with_sample_id=True, tags={"x": "t"}, similarities={"l14": "ViT-L-14 openai"}
    )
    assert (row["md5"], row["LICENSE"]) == (bytes(range(16)).hex(), None)
    assert list(row)[-2:] == ["x", "similarity_l14"]
    assert row["similarity_l14"] == 0.25


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_written_of_no_row_and_of_links_without_images(name: str) -> None:
    """Fault: a column of the wrong type where all of it is null, or none of it is there."""
    found = chosen(name)
    some = INTERNAL.select(["sample_id", "url", "text", "language", "license"])
    for table in (some, some.slice(0, 0)):
        assert layout(name).table(table, found).schema == layout(name).schema(found)
    assert name in recipe_keys.LAYOUTS


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("similarity", 6016.0, "SAMPLE_ID 16384 has the similarity 6016.0, which cannot be"),
        ("similarity", float("nan"), "has the similarity nan"),
        ("width", 0, "has the width 0"),
        ("height", -1, "has the height -1"),
    ],
)
def test_what_cannot_be_is_not_written(column: str, value: float, says: str) -> None:
    """Fault: LAION-400M's similarities of 6016 and sizes of 0."""
    place = INTERNAL.column_names.index(column)
    array = pa.array([value, INTERNAL[column][1].as_py()], INTERNAL[column].type)
    wrong = INTERNAL.set_column(place, column, array)
    with pytest.raises(UserError, match=says):
        layout("pairmill").table(wrong, chosen("pairmill"))


def test_a_digest_of_another_length_is_no_digest() -> None:
    """Fault: digests that slide into their neighbours'."""
    place = INTERNAL.column_names.index("md5")
    wrong = INTERNAL.set_column(place, "md5", pa.array([b"\x00" * 15, b"\xff" * 17]))
    with pytest.raises(UserError, match="a digest is not 16 bytes long"):
        layout("pairmill").table(wrong, chosen("pairmill"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_with_ids_is_read_as_our_own(name: str) -> None:
    """Fault: embeddings or an index of a release in another layout under other rows' ids."""
    found = chosen(name, **B32, with_sample_id=True)
    rows = as_pairmill(layout(name).table(INTERNAL, found), "ViT-B-32").to_pylist()
    assert [row["SAMPLE_ID"] for row in rows] == INTERNAL["sample_id"].to_pylist()
    assert [(row["URL"], row["TEXT"], row["WIDTH"]) for row in rows] == list(
        zip(*(INTERNAL[key].to_pylist() for key in ("url", "text", "width")), strict=True)
    )
    assert rows[0]["similarity"] == pytest.approx(0.3)
    if layout(name).id_column is None:
        with pytest.raises(UserError, match="neither SAMPLE_ID nor uid"):
            as_pairmill(layout(name).table(INTERNAL, chosen(name)), "")
