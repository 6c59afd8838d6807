"""`pairmill fetch` with img2dataset's options, against a web server: what each writes."""

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.demo.site import File
from support.line import Web, here, sentence

ORIENTATION, MAKE = 0x0112, 0x010F


def drawn(kind: str, size: tuple[int, int], exif: Image.Exif | None = None) -> bytes:
    out = BytesIO()
    photo_like(3, size).save(out, kind, exif=exif or Image.Exif())
    return out.getvalue()


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[ORIENTATION], made[MAKE] = orientation, "Pear"
    return made


SITE = {
    "/photo.jpg": drawn("JPEG", (320, 240), exif(1)),
    "/turned.jpg": drawn("JPEG", (320, 240), exif(6)),
    "/drawing.png": drawn("PNG", (200, 150)),
    "/small.png": drawn("PNG", (20, 18)),
    "/wide.jpg": drawn("JPEG", (560, 40)),
    "/late.jpg": drawn("JPEG", (64, 48)),
}
NAMES = list(SITE)


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    with Web(lambda host, path: answer(path)).running() as web:
        yield web


late = {"status": 500}


def answer(path: str) -> File | None:
    if path == "/late.jpg" and late["status"] != 200:
        return File("text/plain", b"", late["status"])
    return File("image/any", SITE[path]) if path in SITE else None


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """In DataComp's columns: uid, url, text, face_bboxes, sha256."""
    faces = pa.list_(pa.list_(pa.float64()))
    boxes = [[[0.0, 0.0, 0.5, 1.0]], [], None, [], [], [[100.0, 10.0, 200.0, 90.0]]]
    columns = {
        "uid": ["a0", "b1", "c2", "../d3", "a0", "f5"],
        "url": [f"http://h{n}.example{name}" for n, name in enumerate(NAMES)],
        "text": ["a photo", "", None, "x", "y", "z"],
        "original_width": [320, 320, 200, 20, 560, 64],
        "clip_score": [0.5, float("nan"), 0.25, 0.1, 0.1, 0.1],
        "face_bboxes": pa.array(boxes, faces),
        "sha256": [hashlib.sha256(SITE[name]).hexdigest().upper() for name in NAMES],
    }
    columns["sha256"][2] = "00" * 32
    pq.write_table(pa.table(columns), tmp_path / "list.parquet")
    return tmp_path / "list.parquet"


def run(web: Web, source: Path, out: Path, *options: str) -> dict[str, Any]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PAIRMILL_")}
    done = here(
        kept | web.environment, "fetch", str(source), "--out", str(out), "--json",
        "--decoders", "1", "--shard-rows", "10", *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def rows_of(out: Path) -> list[dict[str, Any]]:
    (path,) = out.glob("*.parquet")
    found: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    return found


def size_of(data: bytes) -> tuple[str | None, tuple[int, int]]:
    with Image.open(BytesIO(data)) as image:
        return image.format, image.size


DATACOMP = ["--key-col", "uid", "--bbox-col", "face_bboxes", "--verify", "--shard-digits", "8"]


def test_datacomps_list_as_files(site: Web, source: Path, tmp_path: Path) -> None:
    """uid names the files, and never a path; faces are blurred, or the row fails; sha256 is
    verified; every key has the same endings."""
    out = tmp_path / "out"
    summary = run(
        site, source, out, *DATACOMP, "--output-format", "files", "--resize-mode", "border",
        "--image-size", "128", "--enlarge", "--encode-format", "png", "--extract-exif",
    )  # fmt: skip
    assert summary["status_dict"] == {
        "success": 2, "changed": 1, "invalid_key": 1, "duplicate_key": 1, "invalid_boxes": 1,
    }  # fmt: skip
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        *(f"00000000/{key}.{e}" for key in ("a0", "b1") for e in ("png", "json", "txt")),
        "00000000.parquet", "00000000_stats.json", "fetch.json", ".lock",
    }  # fmt: skip
    rows = rows_of(out)
    assert [row["key"] for row in rows] == ["a0", "b1", "c2", None, None, "f5"]
    for row in rows[:2]:
        folder = out / "00000000"
        data = (folder / f"{row['key']}.png").read_bytes()
        assert size_of(data) == ("PNG", (row["width"], row["height"])) == ("PNG", (128, 128))
        meta = json.loads((folder / f"{row['key']}.json").read_text(), parse_constant=refused)
        assert (meta["uid"], meta["sha256_matches"]) == (row["key"], True)
        assert json.loads(meta["exif"])["Image Make"] == "Pear"
        assert (folder / f"{row['key']}.txt").read_text() == row["caption"]
    assert meta["clip_score"] is None  # NaN, in the JSON of b1
    assert rows[1]["clip_score"] != rows[1]["clip_score"]
    assert (rows[1]["original_width"], rows[1]["original_height"]) == (240, 320)  # upright
    assert rows[1]["source_original_width"] == 320
    # sharp to the right of the face's box and its margin, blurred within
    with Image.open(out / "00000000" / "a0.png") as image:
        edges = np.abs(np.diff(np.asarray(image.convert("L"), np.int16)[30:90], axis=1))
    assert edges[:, 5:50].mean() < 0.7 * edges[:, 85:120].mean()


def refused(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


def test_images_in_a_column_and_again(site: Web, source: Path, tmp_path: Path) -> None:
    """A retry reads back the images of the column, and ends as if all had been there at first."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    options = (
        "--output-format", "parquet", "--encode-format", "webp", "--image-size", "32",
        "--resize-mode", "keep_ratio_largest", "--min-image-size", "19", "--max-image-area", "76799",
    )  # fmt: skip
    late["status"] = 500
    try:
        first = run(site, source, out, *options)
        late["status"] = 200
        last = run(site, source, out, "--retry-failed", *options)
    finally:
        late["status"] = 500
    ends = {"too_small": 1, "too_many_pixels": 2, "too_thin": 1}
    assert first["status_dict"] == ends | {"success": 1, "server_error": 1}
    assert last["status_dict"] == ends | {"success": 2}
    rows = rows_of(out)
    assert [row["key"] for row in rows] == [f"00000{n}" for n in range(6)]
    made = [(row["webp"] and size_of(row["webp"]), row["status"]) for row in rows]
    failed = (None, "failed_to_resize")
    good = ("WEBP", (32, 24)), "success"
    assert made == [failed, failed, good, failed, failed, good]
    assert (rows[2]["sha256_matches"], rows[5]["sha256_matches"]) == (False, True)
    late["status"] = 200
    try:
        run(site, source, whole, *options)
    finally:
        late["status"] = 500
    (before,), (after,) = whole.glob("*.parquet"), out.glob("*.parquet")
    assert before.read_bytes() == after.read_bytes()


def test_original_is_kept_where_nothing_has_to_change(
    site: Web, source: Path, tmp_path: Path
) -> None:
    """A name says the format: a PNG is no .jpg, whatever --skip-reencode saves."""
    out = tmp_path / "out"
    run(
        site, source, out, "--resize-mode", "no", "--skip-reencode", "--max-aspect-ratio", "inf",
        "--bbox-col", "face_bboxes",
    )  # fmt: skip
    with tarfile.open(out / "00000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    images = {name[:6]: data for name, data in members.items() if name.endswith(".jpg")}
    kept = [name for n, name in enumerate(NAMES) if images.get(f"00000{n}") == SITE[name]]
    assert kept == ["/wide.jpg"]  # not the blurred, the turned, the PNGs
    assert {size_of(data)[0] for data in images.values()} == {"JPEG"}
    sizes = [(row["width"], row["height"]) for row in rows_of(out)]
    assert sizes == [(320, 240), (240, 320), (200, 150), (20, 18), (560, 40), (None, None)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--encode-format", "png", "--encode-quality", "88"], "quality of png is 0 to 9"),
        (["--encode-quality", "101"], "quality of jpg is 1 to 100"),
        (["--max-aspect-ratio", "nan"], "--max-aspect-ratio is a number"),
        (["--key-col", "id"], "no column id, name another by --key-col: uid, url"),
        (["--bbox-col", "clip_score"], "the column of boxes is of type double"),
    ],
)
def test_option_that_cannot_be_is_a_sentence(
    site: Web, source: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    out = tmp_path / "out"
    done = here(
        dict(os.environ) | site.environment, "fetch", str(source), "--out", str(out), *options
    )
    assert said in sentence(done)
    assert not list(out.glob("[!.]*")) or said.startswith("the column")
