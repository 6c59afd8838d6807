"""A release from facts, in passes: each row by itself, then those that are left together, then the
files. It needs no database; ``release`` gives it what it read of one."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pairmill import __version__
from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError
from pairmill.ops.release.annotators import of_recipe
from pairmill.ops.release.candidates import Candidates
from pairmill.ops.release.decisions import (
    NONE_STAYS,
    POSITIONS,
    Decisions,
    OfBatch,
    PackedDuplicates,
    of_batches,
)
from pairmill.ops.release.engine import DuckDb, Engine, failures
from pairmill.ops.release.filters import reasons
from pairmill.ops.release.kept_pool import Pool, threshold
from pairmill.ops.release.layouts import ReleaseLayout, layout
from pairmill.ops.release.release_files import Shards
from pairmill.ops.release.row_pass import PASSES, PartFiles, RowPass
from pairmill.ops.release.selection import Selection

REMOVED, WITHDRAWN, DUPLICATE = "removed", "withdrawn", "duplicate"
CONTAMINATED, TOP = "contaminated", "top_fraction"
READ = 100_000  # rows of a kept file at once
Stages = Callable[[str, int, int], None]
Keep = Callable[[OfBatch], None]


def unseen(stage: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass
class Build:
    """The passes of a release over facts, in a folder of their own.

    engine: of the passes over facts; duck: of those over what these leave. facts: in the order of
    their batches. stages: called with the name of a pass, and batches or rows done and to do.
    """

    selection: Selection
    facts: Sequence[Facts]
    folder: Path
    engine: Engine
    duck: DuckDb
    stages: Stages = unseen
    thresholds: dict[str, float] = field(default_factory=dict)
    decisions: Decisions = field(default_factory=Decisions)

    def __post_init__(self) -> None:
        self._of = {facts: Candidates(self.selection, facts) for facts in self.facts}

    def pool(self) -> Pool:
        """Decide each row by itself."""
        files = self._decide()
        codes = {
            word: self.decisions.code(word)
            for word in (REMOVED, WITHDRAWN, CONTAMINATED, DUPLICATE)
        }
        return Pool(self.duck, files, self._of, codes, self.folder)

    def _decide(self) -> list[PartFiles]:
        conditions = self._conditions()
        recipe = self.selection.recipe
        annotators = of_recipe(recipe, self.selection)
        parts = [part for facts in self.facts for part in self.engine.parts(facts)]
        total, done, files = sum(part.last - part.first + 1 for part in parts), 0, []
        for part in parts:
            self.stages("filters", done, total)
            candidates = self._of[part.facts]
            into = self.folder / "parts" / self._identity(part.facts)
            into.mkdir(parents=True, exist_ok=True)
            row_pass = RowPass(self.engine, annotators, conditions, into)
            files.append(row_pass.run(candidates, part))
            done += part.last - part.first + 1
        self.stages("filters", total, total)
        return files

    def _identity(self, facts: Facts) -> str:
        """Another one wherever the pass over these facts might give other rows."""
        selection = self.selection
        known = [
            selection.recipe.as_dict(), selection.model_ids(), self.thresholds, self.engine.name,
            __version__, facts.folder, facts.first, facts.last, facts.version,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:32]

    def _conditions(self) -> list[tuple[int, str]]:
        recipe = self.selection.recipe
        self.decisions.code(REMOVED)
        least = None
        if recipe.top_fraction is not None:
            pool = list(self._of.values())
            least = threshold(
                self.engine,
                pool,
                recipe.top_fraction,
                lambda done, total: self.stages("pool", done, total),
            )
            if least is not None:
                self.thresholds[TOP] = least
        # before the annotators', which cost more a row
        found = reasons(recipe, self.selection, least)
        return [(self.decisions.code(word), condition) for word, condition in found]

    def write(
        self,
        pool: Pool,
        out: Path | None,
        *,
        shard_rows: int,
        keep: Keep = lambda of_batch: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[tuple[Path, int]]:
        """Count, hand each batch's decisions to ``keep``, and write what no pass left out into
        ``out``, unless that is None; returns the files with their rows. Raises UserError where
        kept and left out are not the candidates."""
        recipe = self.selection.recipe
        shape = layout(recipe.layout)
        total = sum(each.rows(each.kept) for each in pool.files) - pool.gone_kept()
        shards = None
        if out is not None:
            schema = shape.schema(recipe)
            shards = Shards(out, schema, shard_rows, lambda done: progress(done, total))
        candidates = kept = 0
        try:
            for each in pool.files:
                with failures(str(each.decided)):
                    candidates += each.rows(each.decided)
                gone = pool.gone(*each.part.samples)
                kept += self._count(each, gone, keep)
                self._write_part(each, gone, shape, shards)
            if shards:
                shards.close()
        except BaseException:
            if shards:
                shards.abort()
            raise
        if kept != self.decisions.kept:
            raise UserError(
                f"{kept:,} rows are kept, and {self.decisions.kept:,} were found to write: the"
                " folder of --work is damaged; build without it"
            )
        self.decisions.require_sum(candidates)
        return shards.files if shards else []

    def _count(self, each: PartFiles, gone: dict[str, npt.NDArray[Any]], keep: Keep) -> int:
        """Count the decisions of a part, and hand them over; returns how many are kept."""
        low, _ = each.part.samples
        decided = np.zeros((each.part.last - each.part.first + 1) * POSITIONS, np.uint8)
        for piece in each.pieces(each.decided):
            with failures(str(piece)):
                table = pq.read_table(piece, memory_map=True)
            decided[table["sample_id"].to_numpy() - low] = table["reason"].to_numpy()
        at = gone["sample_id"] - low
        candidate = decided[at] != 0
        # a removal is the reason whatever else holds; the others are of rows that were kept
        other = gone["reason"] != self.decisions.code(REMOVED)
        chosen = candidate & (~other | (decided[at] == PASSES))
        decided[at[chosen]] = gone["reason"][chosen]
        kept = self.decisions.count(decided)
        for of_batch in of_batches(
            each.part.first, decided.reshape(-1, POSITIONS), self._duplicates(gone, chosen)
        ):
            keep(of_batch)
        return kept

    def _duplicates(
        self, gone: dict[str, npt.NDArray[Any]], chosen: npt.NDArray[np.bool_]
    ) -> PackedDuplicates:
        codes = [self.decisions.code(word) for word in (DUPLICATE, CONTAMINATED)]
        found = chosen & np.isin(gone["reason"], codes)
        names = [str(name) for name in gone["method"][found]]
        for name in sorted(set(names) - set(self.decisions.methods)):
            self.decisions.methods.append(name)
        places = [self.decisions.methods.index(name) for name in names]
        others = np.ma.filled(gone["of"][found], NONE_STAYS).astype(np.int64)
        return PackedDuplicates(gone["sample_id"][found], others, places)

    def _write_part(
        self,
        each: PartFiles,
        gone: dict[str, npt.NDArray[Any]],
        shape: ReleaseLayout,
        shards: Shards | None,
    ) -> None:
        recipe, labels = self.selection.recipe, self.selection.labels
        for rows in _kept_rows(each, None if shards else ["sample_id", "language"]):
            left = rows.filter(pa.array(~_is_in(rows["sample_id"].to_numpy(), gone["sample_id"])))
            for found in pc.value_counts(left["language"]).to_pylist():
                self.decisions.kept_by_language[found["values"]] += found["counts"]
            if shards and len(left):
                shards.add(shape.table(left.combine_chunks(), recipe, labels))


def _is_in(values: npt.NDArray[np.int64], ordered: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    at = np.searchsorted(ordered, values)
    found: npt.NDArray[np.bool_] = np.zeros(len(values), bool)
    there = at < len(ordered)
    found[there] = ordered[at[there]] == values[there]
    return found


def _kept_rows(each: PartFiles, columns: list[str] | None) -> Iterator[pa.Table]:
    for piece in each.pieces(each.kept):
        with failures(str(piece)), pq.ParquetFile(piece, memory_map=True) as file:
            for batch in file.iter_batches(READ, columns=columns):
                yield pa.Table.from_batches([batch])
