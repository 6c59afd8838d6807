"""`pairmill fetch` against a web server: whatever happens, each row is there once."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.demo.serve import site_answers
from pairmill.ops.demo.site import File, build, jpeg
from pairmill.schema.outcomes import Outcome
from support.line import PATIENCE, Web, here, sentence, wait_until

ROWS, SHARD = 60, 20
PROGRAM = [sys.executable, "-m", "pairmill.ops.cli"]


@cache
def body(seed: int) -> bytes:
    return jpeg(photo_like(seed % 7, (320, 300)))


def images(host: str, path: str) -> File | None:
    """/7.jpg is an image, on every host."""
    name = path.removeprefix("/").removesuffix(".jpg")
    return File("image/jpeg", body(int(name))) if name.isdecimal() else None


def url(n: int) -> str:
    return f"http://h{n % 10}.example/{n}.jpg"


@pytest.fixture
def web() -> Iterator[Web]:
    with Web(images).running() as web:
        yield web


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A list in a release's shape."""
    folder = tmp_path / "release"
    folder.mkdir()
    columns = {
        "SAMPLE_ID": [16384 + n for n in range(ROWS)],
        "URL": [url(n) for n in range(ROWS)],
        "TEXT": [f"caption {n}" for n in range(ROWS)],
        "md5": [hashlib.md5(body(n)).hexdigest() for n in range(ROWS)],
    }
    pq.write_table(pa.table(columns), folder / "part-00000.parquet", row_group_size=25)
    return folder


def command(source: Path, out: Path, *options: str) -> list[str]:
    return [
        "fetch", str(source), "--out", str(out), "--shard-rows", str(SHARD), "--decoders", "1",
        *options,
    ]  # fmt: skip


def environment(web: Web | None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PAIRMILL_")}
    return kept | (web.environment if web else {})


def run(
    web: Web | None, source: Path, out: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    return here(environment(web), *command(source, out, *options))


def fetched(web: Web, source: Path, out: Path, *options: str) -> dict[str, Any]:
    """The summary of a run, which must succeed."""
    done = run(web, source, out, "--json", *options)
    assert done.returncode == 0, done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def refusal(web: Web | None, source: Path, out: Path, *options: str) -> str:
    return sentence(run(web, source, out, *options))


def start(web: Web, source: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, *command(source, out)], env=environment(web), text=True, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def members_of(out: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.name not in found
                found[member.name] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


def check(out: Path) -> None:
    """Every row of the source once, in order; a sample for each that succeeded; nothing else."""
    rows = rows_of(out)
    assert [row["url"] for row in rows] == [url(n) for n in range(ROWS)]
    assert [row["key"] for row in rows] == [f"{n // SHARD:05}{n % SHARD:02}" for n in range(ROWS)]
    good = [row for row in rows if row["status"] == "success"]
    members = members_of(out)
    assert list(members) == [f"{row['key']}.{e}" for row in good for e in ("jpg", "json", "txt")]
    for row in good:
        assert json.loads(members[f"{row['key']}.json"]) == row
        assert members[f"{row['key']}.txt"].decode() == row["caption"]
    assert {path.name for path in out.iterdir()} == {".lock", "fetch.json"} | {
        f"{n:05}{ending}"
        for n in range(ROWS // SHARD)
        for ending in (".tar", ".parquet", "_stats.json")
    }


def test_release_becomes_shards(web: Web, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = json.loads(run(None, source, out, "--dry-run", "--json").stdout)
    assert (plan["rows"], plan["shards"], plan["rows_to_fetch"]) == (ROWS, 3, ROWS)
    assert not out.exists()
    summary = fetched(web, source, out)
    assert summary["status_dict"] == {"success": ROWS}
    check(out)
    for n, row in enumerate(rows_of(out)):
        assert (row["SAMPLE_ID"], row["md5_matches"]) == (16384 + n, True)
        assert (row["original_width"], row["original_height"]) == (320, 300)
        with Image.open(BytesIO(members_of(out)[f"{row['key']}.jpg"])) as image:
            assert image.size == (row["width"], row["height"]) == (273, 256)
    asked = web.asked.copy()
    assert fetched(web, source, out) == summary
    assert web.asked == asked  # what is there is not fetched again


def test_everything_that_goes_wrong_has_a_row(tmp_path: Path) -> None:
    site = build()
    fates = {link.url: link.fate for link in site.links if isinstance(link.fate, Outcome)}
    # hosts take turns by a gap of a moment: one of each kind is enough
    some = [u for u, f in fates.items() if urlsplit(u).netloc == "odd.example"]
    path = tmp_path / "urls.txt"
    path.write_text("\n".join([*some, "ftp://x/", "no url"]))
    with Web(site_answers(site)).running() as web:
        summary = fetched(web, path, tmp_path / "out")
    rows = {row["url"]: row for row in rows_of(tmp_path / "out")}
    assert {u: rows[u]["error_message"] for u in some} == {
        u: None if f is Outcome.SUCCESS else _now(u, f) for u, f in fates.items() if u in some
    }
    assert {rows[u]["error_message"] for u in ("ftp://x/", "no url")} == {"invalid_url"}
    resized = {u.rsplit("/", 1)[1] for u in rows if rows[u]["status"] == "failed_to_resize"}
    assert resized == {"page.jpg", "truncated.jpg", "strip.png"}
    assert summary["count"] == len(rows) == len(some) + 2
    assert summary["count"] == sum(
        summary[name] for name in ("successes", "failed_to_download", "failed_to_resize")
    )
    assert not any(name.endswith(".txt") for name in members_of(tmp_path / "out"))


def _now(address: str, fate: Outcome) -> str:
    return "server_error" if address.endswith("error.jpg") else fate.name.lower()


def test_killed_and_run_again(web: Web, source: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    web.hold = lambda path: path == f"/{SHARD + 5}.jpg"
    child = start(web, source, out)
    wait_until(lambda: (out / "00000_stats.json").exists() and web.held.is_set(), "the 2nd shard")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert (out / ".00001.half").exists()
    assert not (out / "00001.tar").exists()
    web.hold = lambda path: False
    web.release.set()
    fetched(web, source, out)
    check(out)
    assert all(web.asked[f"h{n % 10}.example", f"/{n}.jpg"] == 1 for n in range(SHARD))
    # what was interrupted is what was not, byte by byte
    fetched(web, source, other)
    for path in [*out.glob("*.tar"), *out.glob("*.parquet")]:
        assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_leaves_no_half(
    web: Web, source: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "out"
    web.hold = lambda path: path == f"/{SHARD + 5}.jpg"
    child = start(web, source, out)
    wait_until(lambda: (out / "00000_stats.json").exists() and web.held.is_set(), "the 2nd shard")
    child.send_signal(how)
    said, errors = child.communicate(timeout=30)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert (
        f"interrupted: 1 shard with {SHARD} rows and {SHARD} images lie whole in {out}; the shard"
        " that was being fetched has nothing kept; the same command goes on with it" in errors
    )
    assert f"{SHARD} of {SHARD} images" in said
    assert {path.name for path in out.iterdir()} == {
        ".lock", "fetch.json", "00000.tar", "00000.parquet", "00000_stats.json",
    }  # fmt: skip


def test_what_may_pass_is_fetched_again_and_only_that(source: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    broken = {"/3.jpg", "/44.jpg"}

    def answer(host: str, path: str) -> File | None:
        if path == "/5.jpg":
            return None
        return File("text/plain", b"", 500) if path in broken else images(host, path)

    with Web(answer).running() as web:
        summary = fetched(web, source, out)
        assert summary["status_dict"] == {"success": ROWS - 3, "server_error": 2, "http_error": 1}
        middle = (out / "00001_stats.json").read_bytes()
        plan = json.loads(run(None, source, out, "--retry-failed", "--dry-run", "--json").stdout)
        assert plan["rows_to_fetch"] == 2
        broken.clear()
        before = web.asked.copy()
        summary = fetched(web, source, out, "--retry-failed")
        again = {path for (_, path), count in (web.asked - before).items() if "jpg" in path}
        assert again == {"/3.jpg", "/44.jpg"}
        assert summary["status_dict"] == {"success": ROWS - 1, "http_error": 1}
        fetched(web, source, whole)
    check(out)
    assert (out / "00001_stats.json").read_bytes() == middle
    # as if it had been so the first time
    for path in [*out.glob("*.tar"), *out.glob("*.parquet")]:
        assert path.read_bytes() == (whole / path.name).read_bytes()


def test_changed_image_is_marked_or_refused(source: Path, tmp_path: Path) -> None:
    def answer(host: str, path: str) -> File | None:
        return images(host, "/6.jpg" if path == "/2.jpg" else path)

    with Web(answer).running() as web:
        fetched(web, source, tmp_path / "marked")
        summary = fetched(web, source, tmp_path / "refused", "--verify")
    row = rows_of(tmp_path / "marked")[2]
    assert (row["status"], row["md5_matches"]) == ("success", False)
    assert row["md5"] == hashlib.md5(body(6)).hexdigest() != row["source_md5"]
    assert summary["status_dict"] == {"success": ROWS - 1, "changed": 1}
    row = rows_of(tmp_path / "refused")[2]
    assert (row["status"], row["error_message"]) == ("failed_to_download", "changed")
    check(tmp_path / "refused")


def test_site_that_opts_out_is_not_fetched(source: Path, tmp_path: Path) -> None:
    def answer(host: str, path: str) -> File | None:
        if path == "/robots.txt" and host == "h4.example":
            return File("text/plain", b"User-agent: pairmill\nDisallow: /\n")
        return images(host, path)

    with Web(answer).running() as web:
        summary = fetched(web, source, tmp_path / "out")
        assert {path for host, path in web.asked if host == "h4.example"} <= {
            "/robots.txt", "/ai.txt", "/.well-known/tdmrep.json",
        }  # fmt: skip
    assert summary["status_dict"] == {"success": ROWS * 9 // 10, "opted_out": ROWS // 10}


def test_folder_of_other_options_or_of_another_source(
    web: Web, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fetched(web, source, out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert "image size: 256, not 512" in refusal(web, source, out, "--image-size", "512")
    part = source / "part-00000.parquet"
    pq.write_table(pq.read_table(part).slice(1), part)
    assert "another source" in refusal(web, source, out)
    assert before == {path: path.read_bytes() for path in out.iterdir()}
    assert "not of `pairmill fetch`" in refusal(web, source, tmp_path)


def test_what_it_needs_is_said(web: Web, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "PAIRMILL_CONTACT is not set" in refusal(None, source, out)
    assert "nothing was fetched" in refusal(web, source, out, "--retry-failed")
    urls = tmp_path / "urls.txt"
    urls.write_text("http://a/\n")
    assert "--verify needs a column md5 or sha256" in refusal(web, urls, out, "--verify")
    assert "has no column img, name one by --url-col: SAMPLE_ID, URL, TEXT, md5" in refusal(
        web, source, out, "--url-col", "img"
    )
    assert not out.exists()
    (tmp_path / "file").write_text("")
    assert "cannot write to" in refusal(web, source, tmp_path / "file" / "out")


def test_disk_that_is_full_is_a_sentence_and_leaves_no_half(
    web: Web, source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [*PROGRAM, *command(source, out)], env=environment(web), capture_output=True, text=True,
        timeout=PATIENCE, check=False, preexec_fn=little,
    )  # fmt: skip
    assert sentence(done) == f"pairmill: cannot write to {out}: File too large"
    assert {path.name for path in out.iterdir()} == {".lock", "fetch.json"}
    fetched(web, source, out)
    check(out)


@pytest.mark.parametrize("absent", ["pyarrow", "PIL", "ada_url"])
def test_missing_extra_is_named(source: Path, tmp_path: Path, absent: str) -> None:
    code = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from pairmill.ops.cli import main\n"
        f"sys.argv = ['pairmill', 'fetch', {str(source)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'pairmill[download,ops]'" in done.stderr


def test_webdataset_reads_the_shards(web: Web, source: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    fetched(web, source, tmp_path / "out")
    tars = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    found = webdataset.WebDataset(tars, shardshuffle=False).decode("pil")
    samples = list(found.to_tuple("__key__", "jpg", "txt", "json"))
    assert [sample[3]["SAMPLE_ID"] for sample in samples] == [16384 + n for n in range(ROWS)]
    assert Counter(sample[1].size for sample in samples) == {(273, 256): ROWS}
    assert all(key == meta["key"] for key, _, _, meta in samples)
