"""Planted faults of a release, each of which `pairmill release check` tells, without a database."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.release import folder
from pairmill.ops.release.check import check
from tests.support.laid_out import laid_out

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid_out(tmp_path_factory.mktemp("whole") / "release")


@pytest.fixture
def release(whole: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "release"))


def sentences(found: Path) -> list[str]:
    return [fault.sentence() for fault in check(found).faults]


def test_a_whole_release(whole: Path) -> None:
    """Would catch: a release as it is built that is told to have a fault; of every layout one is
    checked in tests/unit/test_release_card.py."""
    seen: list[tuple[int, int]] = []
    found = check(whole, lambda *at: seen.append(at))
    assert [fault.sentence() for fault in found.faults] == []
    assert (found.rows, found.files, seen[-1]) == (5, 3, (5, 5))


def test_nothing_kept_is_whole(tmp_path: Path) -> None:
    assert sentences(laid_out(tmp_path / "release", 0, kept_by_language={})) == []


def put(name: str, row: int, value: Any) -> Change:
    """The table with another value in one place."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[row] = value
        at = table.schema.get_field_index(name)
        return table.set_column(at, table.schema.field(name), pa.array(values, table[name].type))

    return change


def rows(*order: int) -> Change:
    return lambda table: table.take(list(order))


def retyped(name: str, kind: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index(name)
        return table.set_column(at, name, table[name].cast(kind))

    return change


# releases that were written so, with manifests that fit their files: all that is told of each
WRITTEN: list[tuple[str, list[Change], list[str]]] = [
    (
        "pairmill",
        [
            put("WIDTH", 3, 0), put("similarity", 4, 6016.0), put("punsafe", 1, float("inf")),
            put("URL", 0, "javascript:x"), put("md5", 0, "D41D8CD98F"), put("TEXT", 2, "another"),
            put("LANGUAGE", 0, "fr"),
        ],
        [
            "part-00000.parquet, row 0: URL is no address",
            "part-00000.parquet, row 0: hash is not the hash of URL and text",
            "part-00000.parquet, row 0: md5 has not 32 hexadecimal digits",
            "part-00000.parquet, row 1: punsafe is no finite number",
            "part-00001.parquet, row 0: hash is not the hash of URL and text",
            "part-00001.parquet, row 1: WIDTH is not above 0",
            "part-00002.parquet, row 0: similarity is outside of -1 to 1",
            "_release.parquet: 1 rows have the language en, and the manifest says 2",
        ],
    ),
    (
        "pairmill",
        [
            put("SAMPLE_ID", 0, None), put("URL", 1, None), put("hash", 1, None),
            put("similarity", 2, float("nan")), put("similarity", 3, None), put("WIDTH", 4, None),
            put("LICENSE", 4, "x"),
        ],
        [
            "part-00000.parquet, row 0: SAMPLE_ID is null",
            "part-00000.parquet, row 1: URL is null",
            "part-00000.parquet, row 1: hash is null",
            "part-00001.parquet, row 0: similarity is no finite number",
            "part-00001.parquet, row 1: similarity is null",
            "part-00002.parquet, row 0: WIDTH is null",
        ],
    ),
    (
        "pairmill",
        [rows(0, 1, 1, 2, 4)],
        [
            "part-00001.parquet, row 0: SAMPLE_ID is not above that of the row before",
            "_release.parquet: 3 rows have the language de, and the manifest says 2",
        ],
    ),
    (
        "datacomp",
        [
            rows(1, 0, 2, 3, 4), put("original_height", 0, -1), put("face_bboxes", 4, None),
            put("clip_b32_similarity_score", 2, -1.5), put("sha256", 3, None), put("uid", 4, "f"),
        ],
        [
            "part-00000.parquet, row 0: original_height is not above 0",
            "part-00000.parquet, row 1: uid is not above that of the row before",
            "part-00001.parquet, row 0: clip_b32_similarity_score is outside of -1 to 1",
            "part-00001.parquet, row 1: sha256 is null",
            "part-00002.parquet, row 0: face_bboxes is null",
            "part-00002.parquet, row 0: uid has not 32 hexadecimal digits",
        ],
    ),
    (
        "laion-joined",
        [rows(0, 1, 2, 0, 0), lambda table: table.append_column("face", table["hash"])],
        [
            "_release.parquet: 1 rows have the language de, and the manifest says 2",
            "_release.parquet: 2 rows repeat the URL of another, as http://www.h0.example/0.jpg",
            "_release.parquet: it has the column face, which the layout laion-joined has not",
        ],
    ),
    (
        "laion-aesthetics-v2",
        [put("WIDTH", 0, float("nan"))],
        ["part-00000.parquet, row 0: WIDTH is no finite number"],
    ),
    (
        "pairmill",
        [lambda table: table.drop(["md5"]), retyped("similarity", pa.float32())],
        [
            "_release.parquet: it lacks the column md5 of the layout pairmill",
            "_release.parquet: similarity is float, and double in the layout pairmill",
        ],
    ),
    (
        "re-laion",
        [lambda table: table.select(table.column_names[::-1])],
        ["_release.parquet: its columns are not in the order of the layout re-laion"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "changes", "told"), WRITTEN)
def test_what_no_row_can_be_is_told(
    tmp_path: Path, layout: str, changes: list[Change], told: list[str]
) -> None:
    """Would catch: a release that was built with it, and whose digests are right; and a fault that
    is told of a row that has none."""

    def change(table: pa.Table) -> pa.Table:
        for each in changes:
            table = each(table)
        return table

    found = sentences(laid_out(tmp_path / "release", layout=layout, change=change))
    assert sorted(found) == sorted(told)


def test_a_fault_of_many_rows_is_told_once(tmp_path: Path) -> None:
    """Would catch: ten lines of the same fault in front of all others."""
    found = laid_out(
        tmp_path / "release", shard_rows=5,
        change=lambda t: put("WIDTH", 4, 0)(put("WIDTH", 2, -5)(put("WIDTH", 1, 0)(t))),
    )  # fmt: skip
    assert sentences(found) == [
        "part-00000.parquet, row 1: WIDTH is not above 0, and in 2 more of it"
    ]


# the manifest alone is wrong
MANIFEST: list[tuple[dict[str, Any], str]] = [
    ({"kept": 4}, "its files have 5 rows, and 4 are kept"),
    ({"candidates": 8}, "8 candidates are not 5 kept and 2 left out"),
    ({"excluded": {"similarity": 1}}, "7 candidates are not 5 kept and 1 left out"),
    ({"kept_by_language": {"en": 5}}, "2 rows have the language de, and the manifest says 0"),
    ({"columns": {}}, "its columns are not those of its manifest"),
    ({"layout": "none"}, "it has the layout 'none', and known are pairmill, laion-400m"),
    ({"recipe": {"name": "x"}}, "its recipe is none of this version of Pairmill"),
]


def with_manifest(found: Path, **others: Any) -> None:
    """The release with other values in its manifest, and the rest of its metadata as it was."""
    manifest = json.loads(folder.manifest_text(found)) | others
    kept = {key: value for key, value in pq.read_metadata(found / folder.NAME).metadata.items()
            if key != b"ARROW:schema"}  # fmt: skip
    kept[folder.MANIFEST] = json.dumps(manifest).encode()
    with pq.ParquetWriter(found / folder.NAME, folder.release_schema(found)) as writer:
        writer.add_key_value_metadata(kept)


@pytest.mark.parametrize(("values", "told"), MANIFEST)
def test_a_manifest_that_counts_otherwise_is_told(
    release: Path, values: dict[str, Any], told: str
) -> None:
    with_manifest(release, **values)
    assert [sentence for sentence in sentences(release) if told in sentence], sentences(release)


def flip(path: Path, at: int) -> None:
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(bytes(body))


def no_utf8(found: Path) -> None:
    """A text that Arrow reads, and of which pandas makes an error."""
    path = found / "part-00000.parquet"
    table = pq.read_table(path)
    wrong = pa.array([b"\xff\xfe", b"b"], pa.binary()).view(pa.string())
    at = table.schema.get_field_index("TEXT")
    pq.write_table(table.set_column(at, "TEXT", wrong), path)


def renamed(found: Path) -> None:
    (found / "part-00001.parquet").rename(found / "part-00009.parquet")


def fewer(found: Path) -> None:
    path = found / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)


def pandas_index(found: Path) -> None:
    path = found / "part-00000.parquet"
    pq.read_table(path).to_pandas().set_index("SAMPLE_ID").to_parquet(path)


def below(found: Path) -> None:
    (found / "sub").mkdir()
    shutil.copy(found / "part-00000.parquet", found / "sub")


DAMAGES: list[tuple[Callable[[Path], None], list[str]]] = [
    # a byte of a page, and one of the end, of which the footer is
    (lambda f: flip(f / "part-00001.parquet", 9), ["part-00001.parquet: it is not the file"]),
    (lambda f: flip(f / "part-00001.parquet", -6), ["part-00001.parquet: it cannot be read"]),
    (lambda f: (f / "part-00002.parquet").unlink(), ["part-00002.parquet: it is missing"]),
    (renamed, ["part-00001.parquet: it is missing", "part-00009.parquet: it is not of the"]),
    (lambda f: (f / "part-00002.parquet").write_bytes(b""), ["part-00002.parquet: it cannot be"]),
    (fewer, ["part-00000.parquet: it has 1 rows, and the manifest says 2", "the file that the"]),
    (no_utf8, ["part-00000.parquet: it cannot be read after row 0", "UTF8"]),
    (pandas_index, ["part-00000.parquet: its columns are not those of _release.parquet"]),
    (below, ["sub/part-00000.parquet: it is not of the release"]),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "told"), DAMAGES)
def test_a_damaged_folder_is_told(
    release: Path, damage: Callable[[Path], None], told: list[str]
) -> None:
    """Would catch: a part that was changed, lost or put there, and that a reader takes."""
    damage(release)
    found = "\n".join(sentences(release))
    assert [part for part in told if part not in found] == [], found


def test_a_readme_beside_the_parts_is_no_fault(release: Path) -> None:
    """It is there in a copy from a hub."""
    (release / "README.md").write_text(folder.readme(release))
    assert sentences(release) == []


def test_the_command_tells_the_first_ten_and_fails(release: Path) -> None:
    """Would catch: exit code 0 of a release that is not whole, and a page of ten thousand lines."""
    run = CliRunner().invoke
    told = run(app, ["release", "check", str(release)])
    assert told.exit_code == 0, told.output
    digest = re.findall("[0-9a-f]{64}", told.output)[0]
    assert run(app, ["release", "check", str(release), "--manifest-sha256", digest]).exit_code == 0
    other = run(app, ["release", "check", str(release), "--manifest-sha256", digest[::-1]])
    assert other.exit_code == 1
    assert "and not yours" in other.output
    for n in range(12):
        shutil.copy(release / "part-00000.parquet", release / f"copy-{n:02}.parquet")
    told = run(app, ["release", "check", str(release)])
    assert told.exit_code == 1
    assert told.output.count("is not of the release") == 10
    assert "is not whole: 12 faults; the first 10 are above" in told.output
    as_json = json.loads(run(app, ["release", "check", str(release), "--json"]).stdout)
    assert (as_json["whole"], as_json["fault_count"], len(as_json["faults"])) == (False, 12, 10)


def test_what_is_no_release_is_no_fault_of_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no release: it has no _release\.parquet"):
        check(tmp_path)
