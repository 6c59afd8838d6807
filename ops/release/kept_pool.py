"""Passes over all rows that a recipe's own conditions keep: the threshold of ``top_fraction``, the
duplicates, and what must go: by ids and keys alone."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text
from pairmill.ops.release.candidates import Candidates
from pairmill.ops.release.engine import DuckDb, Engine, failures, read_parquet
from pairmill.ops.release.filters import fraction_index
from pairmill.ops.release.row_pass import PASSES, PartFiles, over_facts
from pairmill.ops.release.state import Removed

Progress = Callable[[int, int], None]


def sql(name: str) -> str:
    """The text of a query, without its comment."""
    text = query_text("release", name)
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()


def threshold(
    engine: Engine, pool: Sequence[Candidates], fraction: float, progress: Progress
) -> float | None:
    """The similarity of the last row of the top fraction of all scored candidates, exactly, in two
    passes: over buckets of similarity, then over the values of the bucket that it is in. None: the
    pool is empty."""
    steps = 2 * sum(len(engine.parts(candidates.facts)) for candidates in pool)
    done = count(1)
    buckets = _counts(engine, pool, "pool_buckets", lambda: progress(next(done), steps))
    size = buckets.total()
    if not size:
        return None
    above = 0
    place = fraction_index(size, fraction)
    for bucket in sorted(buckets, reverse=True):
        if above + buckets[bucket] > place:
            break
        above += buckets[bucket]
    values = _counts(
        engine, pool, "pool_values", lambda: progress(next(done), steps), bucket=bucket
    )
    for value in sorted(values, reverse=True):
        above += values[value]
        if above > place:
            return float(value)
    raise UserError("the facts changed while the release was built: build it again")


def _counts(
    engine: Engine, pool: Sequence[Candidates], name: str, step: Callable[[], None], **values: Any
) -> Counter[float]:
    counts: Counter[float] = Counter()
    for candidates in pool:
        query = sql(name).format(candidate=candidates.scores(), **values)
        for part in engine.parts(candidates.facts):
            for value, pairs in engine.rows(*over_facts(candidates, part, query)):
                counts[value] += pairs
            step()
    return counts


@dataclass
class Pool:
    """The rows that a recipe's conditions keep, as views and tables of one DuckDB.

    ``kept``: their columns. ``gone``: sample_id, reason (a code), of and method of those, and of
    others that are removed, that no release may have, in the order of sample_id.
    """

    duck: DuckDb
    files: Sequence[PartFiles]
    candidates: dict[Facts, Candidates]
    codes: dict[str, int]
    work: Path
    findings: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        kept = [str(piece) for each in self.files for piece in each.pieces(each.kept)]
        self._run(
            f"create view kept as from {read_parquet(kept)}"
            if kept
            else "create view kept as select null::bigint as sample_id, '' as url, '' as text,"
            " ''::blob as md5, ''::blob as sha256, 0::bigint as dhash, 0 as width, 0 as height,"
            " 0::float as similarity where false"
        )
        self._run("create table duplicate (sample_id bigint, of bigint, method varchar)")
        self._run("create table duplicate_group (sample_id bigint, representative bigint)")
        self._run("create table removed (sample_id bigint)")
        self._run("create table removed_row as select sample_id, url, text, md5, sha256, dhash,"
                  " width, height, similarity from kept where false")  # fmt: skip

    def _run(self, text: str) -> None:
        with failures("the pool"):
            self.duck.db.execute(text)

    def remove(self, removed: Removed) -> None:
        """Take these for the removed ones; their rows are read from the facts where no condition
        kept them, since what repeats them goes too."""
        ids = pa.table({"sample_id": removed.samples})
        path = self.work / "removed.parquet"
        pq.write_table(ids, path)
        self._run(f"create or replace table removed as from {read_parquet([str(path)])}")
        wanted: npt.NDArray[Any] = self.duck.db.execute(
            "select sample_id from removed where sample_id not in (select sample_id from kept)"
            " and sample_id not in (select sample_id from removed_row) order by 1"
        ).fetchnumpy()["sample_id"]  # type: ignore[assignment]
        for each in self.files:
            low, high = each.part.samples
            if np.searchsorted(wanted, low) < np.searchsorted(wanted, high, "right"):
                self._fetch(each, wanted[(wanted >= low) & (wanted <= high)])

    def _fetch(self, each: PartFiles, samples: npt.NDArray[np.int64]) -> None:
        """Read the candidates of a part that are these into ``removed_row``."""
        chosen, out = self.work / "chosen.parquet", self.work / "fetched.parquet"
        reason = np.full(len(samples), PASSES, np.int16)
        pq.write_table(pa.table({"sample_id": samples, "reason": reason}), chosen)
        candidates = self.candidates[each.part.facts]
        query = (
            "select sample_id, url, text, md5, sha256, dhash, width, height, similarity from"
            f" ({candidates.query()}) c"
        )
        self.duck.copy(*over_facts(candidates, each.part, query, [str(chosen)]), out)
        self._run(f"insert into removed_row from {read_parquet([str(out)])}")

    def find_duplicates(self, spec: Any, model_id: int | None, progress: Progress) -> None:
        """Fill ``duplicate`` and ``duplicate_group`` of the rows kept and of those removed."""
        from pairmill.ops.dedupe.duplicate_search import find_duplicates

        self._run("drop table duplicate")
        self._run("drop table duplicate_group")
        names = "sample_id, url, text, sha256, dhash, width, height, similarity"
        self._run(
            f"create or replace view pool as select {names},"
            " sample_id in (select sample_id from removed) as removed from kept"
            f" union all select {names}, true from removed_row"
        )
        facts = list(self.candidates)
        with failures("the pool"):
            self.findings = find_duplicates(
                self.duck.db, "pool", spec, facts, self.work, model_id=model_id, progress=progress
            )

    def settle(self, removed: Removed) -> None:
        """Make ``gone``: what is removed, what repeats it, what was withdrawn meanwhile, and
        duplicates."""
        self.remove(removed)
        md5s, sha256s = pa.array(removed.md5s, pa.binary()), pa.array(removed.sha256s, pa.binary())
        for name, values in (("listed_md5", md5s), ("listed_sha256", sha256s)):
            path = self.work / f"{name}.parquet"
            pq.write_table(pa.table({"key": values}), path)
            self._run(f"create or replace table {name} as from {read_parquet([str(path)])}")
        self._run("create or replace table withdrawn (sample_id bigint)")
        if removed.withdrawn:
            self._find_withdrawn(removed.withdrawn)
        text = query_text("release", "gone").format(**{
            name: self.codes[name] for name in ("removed", "withdrawn", "contaminated", "duplicate")
        })  # fmt: skip
        self._run(text)

    def _find_withdrawn(self, submissions: Sequence[int]) -> None:
        listed = ", ".join(str(each) for each in submissions)
        for candidates in self.candidates.values():
            for source in candidates.sources():
                if source.path:
                    self.duck.open_url(source.path)
                    self._run(
                        f"insert into withdrawn select sample_id from {read_parquet([source.path])}"
                        f" where counts and submission_id in ({listed})"
                    )

    def gone_kept(self) -> int:
        """How many of the kept rows go."""
        (row,) = self.duck.db.execute("select count(*) from kept semi join gone using (sample_id)"
                                      ).fetchall()  # fmt: skip
        return int(row[0])

    def gone(self, low: int, high: int) -> dict[str, npt.NDArray[Any]]:
        """``gone`` of the SAMPLE_IDs low to high, in order: sample_id, reason, of, method."""
        with failures("the pool"):
            query = f"from gone where sample_id between {low} and {high} order by sample_id"
            return dict(self.duck.db.execute(query).fetchnumpy())  # type: ignore[arg-type]
