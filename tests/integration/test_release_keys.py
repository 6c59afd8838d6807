"""Keys of recipes, from the file to the rows of a release."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pairmill.ops.release import recipe as recipes
from pairmill.ops.release import release
from pairmill.ops.release.folder import read_release
from pairmill.schema.outcomes import Outcome
from support.database import Database
from support.released import LANGUAGES, SIMILARITY, URLS, add_scored_pairs

RECIPE = """
name = "mine"
version = 1
description = "Mine"
licence = "CC0-1.0"
"""
IMAGES = RECIPE + 'model = "model-d1"\n'
# of 6 similarities the fourth, int(6 x 0.5) from 0, is the threshold: 0.9, 0.5, 0.4, 0.3
BEST = {i for i in range(6) if SIMILARITY[i] >= 0.3}


def built(db: Database, folder: Path, text: str) -> tuple[release.Manifest, list[dict[str, Any]]]:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text)
    out = folder / "out"
    manifest = release.build(db.admin, recipes.load(str(folder / "mine.toml")), out)
    parts = read_release(out).parts
    return manifest, [row for part in parts for row in pq.read_table(part).to_pylist()]


@pytest.fixture
def scored(db: Database) -> Database:
    return add_scored_pairs(db)


def test_keys_of_a_file_reach_the_rows(scored: Database, tmp_path: Path) -> None:
    """Faults: a key that no pass reads; a list whose digest the manifest lacks; a layout or a
    further model's column that the files lack; a pair of links that was not downloaded, or one
    that opted out, taken for the other."""
    scored.add_model("d2")
    scored.score(similarity=0.125, digest="d2")
    (tmp_path / "words.txt").write_text("number 0\n")
    text = IMAGES + 'top_fraction = 0.5\nexclude_keywords = [{ file = "../words.txt" }]\n'
    text += '[similarities]\nd2 = "model-d2"\n'
    manifest, rows = built(scored, tmp_path / "a", text)
    assert {row["URL"] for row in rows} == {URLS[i] for i in BEST - {0}}
    assert {row["similarity_d2"] for row in rows} == {0.125}
    assert (manifest.excluded["keyword"], manifest.excluded["top_fraction"]) == (1, 2)
    assert manifest.thresholds["top_fraction"] == pytest.approx(0.3)
    (words,) = manifest.recipe["exclude_keywords"]
    assert (words["file"], len(words["sha256"])) == ("../words.txt", 64)

    scored.admin.execute(
        "update mill.download set outcome = %s where n = (select n from mill.pair where url = %s)",
        (Outcome.OPTED_OUT, URLS[7]),
    )
    links = RECIPE + "takes = 'links'\nmin_words = 3\nlanguages = ['en', 'nolang']\n"
    manifest, rows = built(scored, tmp_path / "b", links)
    wanted = {URLS[i] for i in range(12) if LANGUAGES[i % 6] in ("en", None)} - {URLS[7]}
    assert {row["URL"] for row in rows} == wanted
    assert manifest.excluded == {"language": 4, "opted_out": 1}

    manifest, rows = built(scored, tmp_path / "c", IMAGES + "layout = 'datacomp'\nmin_side = 480\n")
    assert manifest.kept == 6
    assert [len(row["uid"]) for row in rows] == 6 * [32]
