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

MODEL = {"model_id": 1, "name": "ViT-B-32", "pretrained": "openai", "digest": "d", "dims": 8}
NOTHING = Removed(np.empty(0, np.int64), [], [], [])


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
