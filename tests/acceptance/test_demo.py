"""`make demo`: what comes out is what the site was built to give, link by link."""

import functools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import psycopg
import pyarrow.parquet as pq
import pytest

from pairmill.ops.demo.model import PATH as MODEL
from pairmill.ops.demo.publish import TAKEN_DOWN
from pairmill.ops.demo.site import build
from pairmill.schema.outcomes import DropReason, Outcome
from support.line import Line

links_of_the_site = functools.cache(lambda: build(drawn=False).links)

# sitecustomize of every process of the demo's: what only scoring needs is not there, and who asks
# for it is written down
WITHOUT_TORCH = """
import os, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "torchvision", "open_clip", "timm", "transformers"):
            with Path(__file__).with_name("asked").open("a") as asked:
                asked.write(f"{name}: {sys.argv}\\n")
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


@dataclass
class Tried:
    """folder: where the demo ran up to the downloads. status: after it. asked: who imported what is
    not there, a line each."""

    folder: Path
    status: dict[str, Any]
    asked: str


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Tried:
    """The demo without torch, on an embedded server of its own."""
    folder, site = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(WITHOUT_TORCH)
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    without = {"PYTHONPATH": path}
    _python(folder, "-m", "pairmill.ops.demo", "--until", "download", **without)
    status = json.loads(_python(folder, "-m", "pairmill.ops.cli", "status", "--json", **without))
    asked = site / "asked"
    before = asked.read_text() if asked.exists() else ""
    with pytest.raises(AssertionError, match="No module named 'torch'"):
        _python(folder, "-c", "import torch", **without)
    assert asked.read_text().removeprefix(before) == "torch: ['-c']\n"
    return Tried(folder, status, before)


@pytest.fixture(scope="module")
def folder(tried: Tried) -> Path:
    """Where the demo was run to its end: it goes on from the downloads."""
    _python(tried.folder, "-m", "pairmill.ops.demo")
    return tried.folder


def _python(folder: Path, *arguments: str, **more: str) -> str:
    environment = {
        k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "PAIRMILL_HOME")
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment | more,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def line(folder: Path) -> Iterator[Line]:
    """The command as it is run in the demo's folder, on a server that goes on."""
    _python(folder, "-m", "pairmill.ops.cli", "db", "start")
    line = Line("", folder / ".pairmill")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield line
    _python(folder, "-m", "pairmill.ops.cli", "db", "stop")


def _assert_every_link_is_where_the_site_says(status: dict[str, Any]) -> None:
    links = links_of_the_site()
    dropped = Counter(link.fate.value for link in links if isinstance(link.fate, DropReason))
    fates = {link.url: link.fate for link in links if isinstance(link.fate, Outcome)}
    assert status["links"] == len(links)
    assert status["dropped"] == dict(dropped)
    assert status["duplicates"] == len(links) - dropped.total() - len(fates)
    assert sum(status["pairs"].values()) == len(fates)
    assert status["fetched"] == Counter(fate.name.lower() for fate in fates.values())
    assert status["wat_files"] == {"done": 1}


def test_without_torch_every_link_is_in_exactly_one_place_of_the_funnel(tried: Tried) -> None:
    """Would catch: a first try that installs gigabytes, or that shows less than was downloaded."""
    _assert_every_link_is_where_the_site_says(tried.status)
    assert tried.status["scored"] == {}
    assert tried.status["tasks"] == {kind: {"done": 1} for kind in ("download", "extract")}
    assert not (tried.folder / "out").exists()


def test_up_to_the_downloads_nothing_imports_torch(tried: Tried) -> None:
    """Would catch: an import of torch that is tried and not missed, and costs seconds a process."""
    assert tried.asked == ""


def test_every_link_is_in_exactly_one_place_of_the_funnel(line: Line) -> None:
    status = line.status()
    _assert_every_link_is_where_the_site_says(status)
    assert status["scored"] == {"pairmill-demo": {"scored": status["fetched"]["success"]}}
    assert status["tasks"] == {kind: {"done": 1} for kind in ("download", "extract", "score")}


def test_the_sums_of_the_status_match(line: Line) -> None:
    s = line.status()
    assert s["links"] == sum(s["dropped"].values()) + s["duplicates"] + sum(s["pairs"].values())
    assert sum(s["pairs"].values()) == sum(s["fetched"].values())
    assert s["fetched"]["success"] == sum(s["scored"]["pairmill-demo"].values())


def test_the_release_keeps_what_matches_and_nothing_else(folder: Path) -> None:
    table = pq.read_table(folder / "out/demo/part-00000.parquet")
    kept = set(table["URL"].to_pylist())
    matching = {link.url for link in links_of_the_site() if link.matching}
    assert kept <= matching
    copies = {link.url: link.copy_of for link in links_of_the_site() if link.copy_of}
    # a few captions are no reliable English to CLD3, a few drawings are hard
    assert len(kept) >= 0.9 * (len(matching) - len(copies))
    # of each image one URL, whichever has the most pixels and came in first
    assert {len({copy, of} & kept) for copy, of in copies.items()} == {1}
    assert table["LANGUAGE"].unique().to_pylist() == ["en"]
    assert min(table["similarity"].to_pylist()) >= 0.7
    # of a drawing 400 pixels wide and 300 high
    assert set(table["WIDTH"].to_pylist()) == {400}
    assert set(table["HEIGHT"].to_pylist()) == {300}
    licensed = [bool(x) for x in table["LICENSE"].to_pylist()]
    assert any(licensed)
    assert not all(licensed)


def test_the_release_is_read_by_duckdb_and_pandas(folder: Path) -> None:
    file = folder / "out/demo/part-00000.parquet"
    rows = pq.read_table(file).num_rows
    assert duckdb.sql(f"select count(*) from '{file}'").fetchall() == [(rows,)]
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(file)) == rows


def test_a_second_run_adds_nothing(tried: Tried, folder: Path, line: Line) -> None:
    """Up to the downloads the whole demo was a second run; what it does then is done again."""
    before = line.status()
    for name in ("wat_files", "links", "dropped", "duplicates", "pairs", "fetched"):
        assert before[name] == tried.status[name]
    model = ("--model", str(MODEL))
    assert "; 0 batches queued" in line.pairmill("model", "add", *model, "--name", "pairmill-demo")
    assert "nothing left to do" in line.here("work", "score", "--drain", *model).stderr
    after = line.status()
    del before["workers"], after["workers"]  # the scorer was seen again
    assert after == before
    options = ("--set", "model=pairmill-demo")
    line.pairmill("release", "build", "demo", "--out", "again", *options)
    # what the demo took down, with the copy of it that had stayed, is in no later build
    again, after = (pq.read_table(folder / name) for name in ("again", "out/demo-next"))
    assert again.equals(after)
    first = pq.read_table(folder / "out/demo")
    gone = set(first["URL"].to_pylist()) - set(after["URL"].to_pylist())
    (link,) = [link for link in links_of_the_site() if link.url == TAKEN_DOWN]
    assert len(gone) == 1
    assert gone <= {TAKEN_DOWN, link.copy_of}


def test_the_release_has_a_card_that_proves_its_files(folder: Path) -> None:
    card = folder / "out/demo-card"
    done = subprocess.run(["sha256sum", "-c", "--strict", "--quiet", "SHA256SUMS"], cwd=card)
    assert done.returncode == 0
    assert {"README.md", "croissant.json", "statistics.json"} <= {p.name for p in card.iterdir()}


def test_thumbnails_are_gone_once_they_are_scored(line: Line) -> None:
    with psycopg.connect(line.pairmill("db", "url").strip()) as connection:
        assert connection.execute("select count(*) from mill.thumbnail").fetchone() == (0,)


def test_images_are_found_by_a_text_and_a_removal_takes_them_out(folder: Path, line: Line) -> None:
    release = pq.read_table(folder / "out/demo-next/part-00000.parquet")
    exported = json.loads(
        line.pairmill("embeddings", "export", "out/demo-next", "out/arrays", "--json")
    )
    images = np.load(folder / "out/arrays/img_emb/img_emb_0.npy").astype(np.float32)
    texts = np.load(folder / "out/arrays/text_emb/text_emb_0.npy").astype(np.float32)
    assert (exported["rows"], exported["left_out"]) == (release.num_rows, {})
    assert (images * texts).sum(axis=1) == pytest.approx(release["similarity"].to_numpy(), abs=2e-3)

    built = json.loads(
        line.pairmill("index", "build", "out/demo-next", "--out", "out/index", "--json")
    )
    assert built["samples"] == release.num_rows
    assert built["recall_at_10"]["image"] > 0.99
    assert built["recall_at_10"]["text"] > 0.99
    assert sorted(p.name for p in (folder / "out").iterdir()) == [
        "arrays", "demo", "demo-card", "demo-next", "index",
    ]  # fmt: skip

    best = int(np.argmax(release["similarity"].to_numpy()))
    text, sample = release["TEXT"][best].as_py(), release["SAMPLE_ID"][best].as_py()
    question = ("index", "query", "out/index", "--text", text, "--model", str(MODEL), "--json")
    found = json.loads(line.pairmill(*question))
    by_hand = np.argsort(-(images @ texts[best]), kind="stable")[:10]
    assert [f["similarity"] for f in found] == pytest.approx(
        (images @ texts[best])[by_hand], abs=2e-3
    )
    (own,) = [f for f in found if f["sample_id"] == sample]
    assert (own["url"], own["text"]) == (release["URL"][best].as_py(), text)

    line.pairmill("removal", "add", own["url"])
    assert json.loads(line.pairmill("index", "remove", "out/index", "--json")) == {
        "deleted": 1, "not_in_index": 0, "left": release.num_rows - 1, "dry_run": False,
    }  # fmt: skip
    assert sample not in [f["sample_id"] for f in json.loads(line.pairmill(*question))]
    exported = json.loads(
        line.pairmill("embeddings", "export", "out/demo-next", "out/later", "--json")
    )
    assert exported["left_out"] == {"removed": 1}
    assert (
        folder / "out/later/left_out.csv"
    ).read_text() == f"SAMPLE_ID,reason\n{sample},removed\n"
