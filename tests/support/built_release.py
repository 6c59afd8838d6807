"""A release built from facts alone, without a database."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pairmill.ops.archive.facts import Facts
from pairmill.ops.release import recipe as recipes
from pairmill.ops.release.build import Build
from pairmill.ops.release.decisions import OfBatch
from pairmill.ops.release.engine import DuckDb, Engine
from pairmill.ops.release.selection import Selection
from pairmill.ops.release.state import Removed
from support.made_facts import made_facts

MODEL = {"model_id": 1, "name": "ViT-B-32", "pretrained": "openai", "digest": "d", "dims": 8}
ROWS = 4_000  # of some_facts
# every kind of condition that SQL has, and a fraction; no dedupe, which is DuckDB's alone
EVERYTHING: dict[str, Any] = {
    "languages": ["en", "de", "ru", "zh", "nolang"], "text_length": "by_script",
    "min_text_length": 20, "max_text_length": 60, "min_words": 3, "max_words": 12,
    "min_side": 70, "max_side": 1900, "min_pixels": 10_000, "max_aspect": 3.0,
    "min_similarity": 0.15, "top_fraction": 0.6, "min_language_probability": 0.05,
    "tags": {"punsafe": "made"}, "max_tag": {"punsafe": 0.9},
}  # fmt: skip
NOTHING = Removed(np.empty(0, np.int64), [], [], [])


def some_facts(folder: Path) -> Facts:
    """Facts of ``ROWS`` pairs, with superseded rows, duplicates and the tags of tagger 7."""
    return made_facts(folder, ROWS, taggers=(7,), superseded=0.1, duplicates=0.2, per_batch=500)


def selection_of(name: str, taggers: Sequence[int] = (), **values: Any) -> Selection:
    """A recipe whose model is 1, and whose tags are those of taggers, in order."""
    recipe = recipes.load(name, values)
    found = [{"model_id": number, "labels": None} for number in taggers]
    return Selection(recipe, MODEL, None, found, {})


def build_release(
    selection: Selection,
    facts: Sequence[Facts],
    work: Path,
    *,
    engine: Engine | None = None,
    removed: Removed = NOTHING,
) -> tuple[Build, list[bytes], list[OfBatch]]:
    """The build, the bytes of its files, and what would be recorded."""
    work.mkdir(parents=True, exist_ok=True)
    duck = DuckDb(work / "spill", "2GB", 1)
    try:
        made = Build(selection, facts, work, engine or duck, duck)
        pool = made.pool()
        dedupe = selection.recipe.dedupe
        if dedupe:
            pool.remove(removed)
            pool.find_duplicates(dedupe, 1, lambda done, total: None)
        pool.settle(removed)
        out = work / "out"
        out.mkdir()
        kept: list[OfBatch] = []
        files = made.write(pool, out, shard_rows=1000, keep=kept.append)
        return made, [path.read_bytes() for path, _ in files], kept
    finally:
        duck.close()
