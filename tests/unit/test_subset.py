"""Files of subsets: DataComp's u8,u8, of releases and of others' Parquet."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pairmill.ops.cli import app
from pairmill.ops.errors import UserError
from pairmill.ops.release import annotators, subset
from pairmill.ops.release.recipe import Recipe, load

BIG = (1 << 63) + 5  # above every SAMPLE_ID
UIDS = [f"{3:016x}{1:016x}", f"{1:016x}{BIG:016x}", f"{1:016x}{2:016x}", f"{3:016x}{1:016x}"]
PAIRS = [(1, 2), (1, BIG), (3, 1)]


def listed(path: Path, pairs: list[tuple[int, int]]) -> Path:
    np.save(path, np.array(pairs, np.dtype("u8,u8")))
    return path


def test_datacomps_own_way_of_writing_one_is_read_and_written(tmp_path: Path) -> None:
    """Fault: halves of a uid in the other order; bytes that are not numpy's; a uid twice."""
    (tmp_path / "pool").mkdir()
    for number, uids in enumerate((UIDS[:2], UIDS[2:])):
        pq.write_table(
            pa.table({"uid": uids, "url": uids}), tmp_path / "pool" / f"{number}.parquet"
        )
    out = tmp_path / "ids.npy"
    found = subset.write(tmp_path / "pool", out)
    assert (found.read, found.repeated, found.ids) == (4, 1, 3)
    # as baselines/apply_filter.py does it
    theirs = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in set(UIDS)], "u8,u8")
    theirs.sort()
    np.save(tmp_path / "theirs.npy", theirs)
    assert out.read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    # back: others' ids stay uids
    subset.write(out, tmp_path / "ids.parquet")
    table = pq.read_table(tmp_path / "ids.parquet")
    assert table.to_pydict() == {"uid": sorted(set(UIDS))}
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("ending", "content"), [("txt", "7\n16385\n"), ("parquet", {"SAMPLE_ID": [7, 16385]})]
)
def test_ids_of_our_own_are_numbers(tmp_path: Path, ending: str, content: Any) -> None:
    """Fault: a SAMPLE_ID that a reader would have to make from hexadecimal digits."""
    source = listed(tmp_path / "ids.npy", [(0, 16385), (0, 7), (0, 7)])
    out = tmp_path / f"out.{ending}"
    assert subset.write(source, out).ids == 2
    found = out.read_text() if ending == "txt" else pq.read_table(out).to_pydict()
    assert found == content


def test_command_intersects_and_subtracts(tmp_path: Path) -> None:
    """Fault: a name that two filters count once; counts that do not add up."""
    source = listed(tmp_path / "a.npy", [(0, n) for n in (9, 1, 2, 3, 4, 4)])
    within = listed(tmp_path / "b.npy", [(0, n) for n in (1, 2, 4, 5)])
    without = listed(tmp_path / "c.npy", [(0, n) for n in (2, 7)])
    out = tmp_path / "out.npy"
    command = ["release", "subset", *map(str, (source, "--out", out))]
    command += ["--within", str(within), "--without", str(without)]
    result = CliRunner().invoke(app, command)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    said = f"2 ids in {out}, 3 left out, 1 repeated; sha256 {digest}\n"
    assert (result.exit_code, result.stdout) == (0, said)
    assert np.load(out).tolist() == [(0, 1), (0, 4)]
    result = CliRunner().invoke(app, [*command, "--json"])
    counts = {"read": 6, "repeated": 1, "ids": 2, "sha256": digest}
    assert json.loads(result.stdout) == {"file": str(out)} | counts


@pytest.mark.parametrize("rows", [[], [(0, 5)]])
def test_a_subset_of_few(tmp_path: Path, rows: list[tuple[int, int]]) -> None:
    """Fault: an empty file, which cannot be mapped."""
    source = tmp_path / "a.npy"
    np.save(source, np.array(rows, np.dtype("u8,u8")))
    subset.write(source, tmp_path / "b.npy", without=[source])
    assert len(np.load(tmp_path / "b.npy")) == 0
    subset.write(source, tmp_path / "b.npy", within=[source])
    assert (tmp_path / "b.npy").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("source", "out", "says"),
    [
        ("none", "x.npy", "is no release, no Parquet file, no folder of some, and no .npy"),
        ("floats.npy", "x.npy", "its type is float64, and not u8,u8"),
        ("broken.parquet", "x.npy", "cannot read"),
        ("urls.parquet", "x.npy", "has no column SAMPLE_ID or uid"),
        ("words.parquet", "x.npy", "has an id that is no SAMPLE_ID and no uid"),
        ("ids.npy", "x.csv", "a file of a subset ends in .npy, .parquet, .txt"),
    ],
)
def test_what_is_no_subset_is_refused(tmp_path: Path, source: str, out: str, says: str) -> None:
    """Fault: a traceback; a half-written file."""
    listed(tmp_path / "ids.npy", [(0, 1)])
    np.save(tmp_path / "floats.npy", np.zeros(3))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"url": ["a"]}), tmp_path / "urls.parquet")
    pq.write_table(pa.table({"uid": ["xyz"]}), tmp_path / "words.parquet")
    with pytest.raises(UserError) as error:
        subset.write(tmp_path / source, tmp_path / out)
    assert says in str(error.value)
    assert not (tmp_path / out).exists()


def test_a_recipe_takes_the_pairs_of_a_subset(tmp_path: Path) -> None:
    """Fault: a subset that a recipe names and a release does not keep to."""
    listed(tmp_path / "s.npy", [(0, 7), (5, 8)])
    text = 'name = "x"\nversion = 1\ndescription = ""\nlicence = ""\nsubset = { file = "s.npy" }'
    (tmp_path / "r.toml").write_text(text)
    chosen: Recipe = load(str(tmp_path / "r.toml"))
    (annotator,) = annotators.of_recipe(chosen, None)
    rows = pa.record_batch({"sample_id": pa.array([7, 8], pa.int64())})
    assert annotator.annotate(rows).to_pylist() == [True, False]
