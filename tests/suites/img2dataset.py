"""img2dataset's own cases over `pairmill fetch` and its decoder: sizes, filters, blur, formats.

    python tests/suites/img2dataset.py PATH    # of a checkout of rom1504/img2dataset

Its images (tests/resize_test_image, tests/blur_test_files) are served on loopback; what its tests
assert of them is asserted here: of test_resizer.py and test_main.py each combination of options.
An unlisted disagreement, or a listed one that is none, is exit code 1.
"""

import contextlib
import csv
import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from listed import report

from pairmill.ops.demo.site import File
from pairmill.ops.fetch.boxes import column_boxes
from pairmill.workers.download.decode import decode
from pairmill.workers.download.rendition import RenditionSpec
from support.line import Web, here

# case -> why ours is another
LISTED = {
    "command parquet dummy": "no such format: --dry-run says what would be done",
    "command parquet tfrecord": "no such format: it needs TensorFlow; convert the shards",
}
# as test_resizer.py and test_main.py have them: mode, resize_only_if_bigger, skip_reencode
RESIZES = [
    ("border", False, False), ("border", False, True), ("border", True, False),
    ("keep_ratio", False, False), ("keep_ratio", True, False), ("keep_ratio", True, True),
    ("keep_ratio_largest", False, False), ("keep_ratio_largest", True, False),
    ("keep_ratio_largest", True, True), ("center_crop", False, False),
    ("center_crop", True, False), ("no", False, False), ("no", False, True),
]  # fmt: skip
OURS = {"keep_ratio_largest": "largest", "center_crop": "crop"}
TEXTS = ["txt", "csv", "tsv", "json", "jsonl"]
INPUTS = [*TEXTS, *(f"{name}.gz" for name in TEXTS), "parquet"]
# mean of 255; 0.9 to 1.7 were seen: a large blur is of a smaller copy, and the kernel is another
BLUR_DIFFERENCE = 2.5
TAG = "X-Robots-Tag: noai, noimageai, noindex, noimageindex, nofollow"
Case = tuple[str, bool, str]  # its name, whether it agrees, and what was found


def size_of(mode: str, only_bigger: bool, size: int, original: tuple[int, int]) -> tuple[int, int]:
    """What img2dataset's resizer makes of an original, border and cut among it."""
    width, height = original
    side = min(original) if mode in ("keep_ratio", "center_crop") else max(original)
    if mode == "no" or (only_bigger and side <= size):
        return original
    if mode in ("border", "center_crop"):
        return size, size
    return round(width * size / side), round(height * size / side)


def opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image


def resizes(images: dict[str, bytes]) -> Iterator[Case]:
    formats = [("jpg", 95), ("webp", 95), ("png", 9)]
    for size, (mode, bigger, skip), (kind, quality) in product((256, 512), RESIZES, formats):
        spec = RenditionSpec(
            OURS.get(mode, mode), size, not bigger, kind, quality, skip_reencode=skip
        )
        for name, body in images.items():
            original = opened(body).size
            made = decode(body, spec)
            found = opened(made.thumbnail).size if made.thumbnail else None
            right = size_of(mode, bigger, size, original)
            agrees = (made.width, made.height, found, made.format) == (*original, right, kind)
            yield f"resize {mode} {bigger} {skip} {size} {kind} {name}", agrees, f"{found}"


def filters(images: dict[str, bytes]) -> Iterator[Case]:
    for spec, right in (
        (RenditionSpec("no", min_side=200, max_aspect=1.5),
         {"SUCCESS": 2, "TOO_SMALL": 2, "TOO_THIN": 3}),
        (RenditionSpec("no", max_area=60_000), {"SUCCESS": 2, "TOO_MANY_PIXELS": 5}),
    ):  # fmt: skip
        found = Counter(decode(body, spec).outcome.name for body in images.values())
        yield f"filter {right}", found == right, f"{dict(found)}"


def blurs(folder: Path) -> Iterator[Case]:
    body = (folder / "original.png").read_bytes()
    (boxes,) = column_boxes(pq.read_table(folder / "test_bbox.parquet")["bboxes"])
    assert boxes
    for mode, bigger in product(
        ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop"), (False, True)
    ):
        spec = RenditionSpec(OURS.get(mode, mode), 600, not bigger, quality=95)
        made = opened(decode(body, spec, tuple(boxes)).thumbnail)
        right = opened((folder / f"resize_{'no' if bigger else mode}.jpg").read_bytes())
        both = [np.asarray(image.convert("RGB"), np.float64) for image in (made, right)]
        off = 255.0 if made.size != right.size else float(np.abs(both[0] - both[1]).mean())
        yield f"blur {mode} {bigger}", off <= BLUR_DIFFERENCE, f"{off:.2f} of 255"


def write_list(path: Path, kind: str, rows: list[tuple[str, str]]) -> None:
    """A list as fixtures.py writes it."""
    table = pa.table({"caption": [c for c, _ in rows], "url": [u for _, u in rows]})
    out = io.BytesIO()
    name = kind.removesuffix(".gz")
    if name == "parquet":
        pq.write_table(table, path)
        return
    if name in ("csv", "tsv"):  # with pandas' index, whose column has no name
        text = io.StringIO()
        writer = csv.writer(text, delimiter="," if name == "csv" else "\t", lineterminator="\n")
        writer.writerow(["", "caption", "url"])
        writer.writerows([n, *row] for n, row in enumerate(rows))
        out.write(text.getvalue().encode())
    elif name == "txt":
        out.write("".join(f"{url}\n" for _, url in rows).encode())
    elif name == "json":  # by column, as pandas writes it
        columns = {
            c: {str(n): value for n, value in enumerate(table[c].to_pylist())}
            for c in table.column_names
        }
        out.write(json.dumps(columns).encode())
    else:
        out.writelines(json.dumps(row).encode() + b"\n" for row in table.to_pylist())
    path.write_bytes(gzip.compress(out.getvalue()) if kind.endswith(".gz") else out.getvalue())


class Runs:
    """Runs of the command over lists of the served images, each in a folder of its own."""

    def __init__(self, web: Web, folder: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PAIRMILL_")}
        self._environment, self.folder = kept | web.environment, folder
        self._count = 0

    def __call__(self, source: Path, *options: str) -> tuple[Path, str]:
        """The folder that was made, and what was said if none was."""
        self._count += 1
        out = self.folder / f"out{self._count}"
        done = here(
            self._environment, "fetch", str(source), "--out", str(out), "--decoders", "1", *options
        )
        return out, "" if done.returncode == 0 else done.stderr.strip()


def count(out: Path, output: str, ending: str) -> int:
    if output == "files":
        return len([*out.glob(f"*/*.{ending}")])
    if output == "parquet":
        return sum(len(pq.ParquetFile(path).read([ending])) for path in out.glob("*.parquet"))
    found = 0
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            found += sum(name.endswith(f".{ending}") for name in tar.getnames())
    return found


def commands(run: Runs, rows: list[tuple[str, str]]) -> Iterator[Case]:
    """test_download_input_format, test_download_multiple_input_files, test_captions_saving."""
    pairs = [*product(INPUTS, ("files", "webdataset")),
             *(("parquet", name) for name in ("parquet", "dummy", "tfrecord"))]  # fmt: skip
    for kind, output in pairs:
        path = run.folder / f"list.{kind}"
        write_list(path, kind, rows)
        out, said = run(path, "--output-format", output)
        tables = [pq.ParquetFile(path).read() for path in out.glob("00000.parquet")]
        expected = {
            "url", "caption", "key", "status", "error_message", "width", "height",
            "original_width", "original_height", "md5",
        }  # fmt: skip
        columns = bool(tables) and expected <= set(tables[0].column_names)
        captions = 0 if kind.startswith("txt") else len(rows)
        agrees = columns and count(out, output, "jpg") == len(rows)
        if output != "parquet":
            agrees &= count(out, output, "txt") == captions
        yield f"command {kind} {output}", agrees, said


def folders(run: Runs, rows: list[tuple[str, str]]) -> Iterator[Case]:
    for output in ("files", "webdataset"):
        folder = run.folder / f"lists-{output}"
        folder.mkdir()
        for name in ("1", "2"):
            write_list(folder / f"url_list{name}.parquet", "parquet", rows)
        out, said = run(folder, "--output-format", output, "--shard-rows", str(len(rows)))
        shards = len([*out.glob("*_stats.json")])
        agrees = count(out, output, "jpg") == 2 * len(rows) and shards == 2
        yield f"folder of two files, {output}", agrees, said or f"{shards} shards"


def verified(run: Runs, tests: Path) -> Iterator[Case]:
    """test_verify_hash: of two rows of the same image one has its hash."""
    table = pq.read_table(tests / "test_files/sample_image.parquet")
    url = [f"http://{h}.example/original.png" for h in ("a", "b")]
    path = run.folder / "verify.parquet"
    pq.write_table(pa.table({"url": url, "sha256": table["sha256hash"]}), path)
    out, said = run(path, "--verify", "--image-size", "224")
    rows = pq.read_table(out / "00000.parquet").to_pylist()
    found = [row["error_message"] for row in rows]
    yield "verify sha256", found == [None, "changed"], said or f"{found}"


def opted_out(run: Runs, rows: list[tuple[str, str]]) -> Iterator[Case]:
    """test_downloader: five of ten have X-Robots-Tag."""
    path = run.folder / "disallowed.parquet"
    tagged = [(c, u.replace("/allowed/", "/disallowed/").replace("//h", "//d")) for c, u in rows]
    write_list(path, "parquet", rows + tagged)
    out, said = run(path, "--output-format", "files")
    files = [*out.glob("00000/*")]
    yield "X-Robots-Tag", len(files) == 3 * len(rows), said or f"{len(files)} files"


def main(path: Path) -> int:
    tests = path / "tests"
    images = {p.name: p.read_bytes() for p in sorted((tests / "resize_test_image").iterdir())}
    original = (tests / "blur_test_files/original.png").read_bytes()
    rows = [
        (f"caption {n}" if n else "", f"http://h{n}.example/allowed/{name}")
        for n, name in enumerate([*images][:5])
    ]

    def answer(host: str, asked: str) -> File | None:
        name = asked.rsplit("/", 1)[-1]
        body = original if name == "original.png" else images.get(name)
        kind = f"image/jpeg\r\n{TAG}" if "/disallowed/" in asked else "image/jpeg"
        return File(kind, body) if body else None

    with contextlib.ExitStack() as stack:
        web = stack.enter_context(Web(answer).running())
        run = Runs(web, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        cases = [
            *resizes(images), *filters(images), *blurs(tests / "blur_test_files"),
            *commands(run, rows), *folders(run, rows), *verified(run, tests),
            *opted_out(run, rows),
        ]  # fmt: skip
    wrong = {name: found[:200] for name, agrees, found in cases if not agrees}
    return report(path, len(cases) - len(wrong), len(cases), wrong, LISTED)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
