"""The row-local pass of a release: of each part of the facts, what is decided of each candidate,
and the rows that no condition leaves out.

``decided-<part>.parquet`` has sample_id and reason, the code of a word; ``kept-<part>.parquet`` the
columns of ``Candidates.kept_columns``. A part is done once its ``decided`` is there, which is
renamed last: so a build that was killed goes on with the next part.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from pairmill.ops.release.annotating import annotate
from pairmill.ops.release.annotators import Annotator
from pairmill.ops.release.candidates import Candidates, decide, named_in, nothing, where
from pairmill.ops.release.engine import Engine, Part, Table, failures

PASSES = 1  # the code of a row that no condition leaves out
Conditions = Sequence[tuple[int, str]]


@dataclass(frozen=True)
class PartFiles:
    """What the pass wrote of a part."""

    part: Part
    decided: Path
    kept: Path

    def pieces(self, path: Path) -> list[Path]:
        """The files of ``decided`` or ``kept``, in order: Spark writes several."""
        return sorted(path.glob("*.parquet")) if path.is_dir() else [path]

    def rows(self, path: Path) -> int:
        return sum(pq.read_metadata(piece).num_rows for piece in self.pieces(path))


@dataclass(frozen=True)
class RowPass:
    """conditions: (code, condition) in the order in which they are tried. folder: of its files."""

    engine: Engine
    annotators: Sequence[Annotator]
    conditions: Conditions
    folder: Path

    def files(self, part: Part) -> PartFiles:
        return PartFiles(
            part,
            self.folder / f"decided-{part.name}.parquet",
            self.folder / f"kept-{part.name}.parquet",
        )

    def run(self, candidates: Candidates, part: Part) -> PartFiles:
        """Decide the candidates of a part, unless that is done."""
        done = self.files(part)
        if done.decided.exists():
            return done
        first, rest = self._split()
        names = ("decided", "kept", "survivors", "annotated", "rest")
        half = {name: self.folder / f"half-{name}-{part.name}.parquet" for name in names}
        for path in (*half.values(), done.kept):
            delete(path)
        query = decide(candidates.query(), first)
        # in any order, which costs a third less: what reads it puts each row into its place
        self.engine.copy(*over_facts(candidates, part, query), half["decided"], ordered=False)
        passing = pieces(half["decided"])
        if rest:
            self._annotate(candidates, part, rest, half)
        else:
            query = f"select {', '.join(candidates.kept_columns())} from ({candidates.query()}) c"
            self.engine.copy(*over_facts(candidates, part, query, passing), half["kept"])
        half["kept"].rename(done.kept)
        half["decided"].rename(done.decided)
        for name in names[2:]:
            delete(half[name])
        return done

    def _split(self) -> tuple[Conditions, Conditions]:
        """The conditions before the first that names an annotator's column, and the others: a
        model or a rule in Python is asked of what is left alone."""
        made = {annotator.column for annotator in self.annotators}
        for at, (_, condition) in enumerate(self.conditions):
            if made & named_in(condition):
                return self.conditions[:at], self.conditions[at:]
        return self.conditions, ()

    def _annotate(
        self, candidates: Candidates, part: Part, rest: Conditions, half: dict[str, Path]
    ) -> None:
        """Decide by the annotators' columns too; replaces ``decided``."""
        engine = self.engine
        passing = pieces(half["decided"])
        engine.copy(
            *over_facts(candidates, part, f"select * from ({candidates.query()}) c", passing),
            half["survivors"],
        )
        with failures(str(half["annotated"])):
            annotate(pieces(half["survivors"]), self.annotators, candidates, half["annotated"])
        made = {"survivors": pieces(half["survivors"]), "annotated": pieces(half["annotated"])}
        columns = ", ".join(f"a.{annotator.column}" for annotator in self.annotators)
        joined = f"select s.*, {columns} from survivors s join annotated a using (sample_id)"
        engine.copy(decide(joined, rest), made, half["rest"])
        relations = {"first": passing, "rest": pieces(half["rest"])}
        whole = half["decided"].with_suffix(".whole")
        engine.copy(
            "select f.sample_id, coalesce(r.reason, f.reason) as reason from first f"
            " left join rest r on r.sample_id = f.sample_id",
            relations,
            whole,
            ordered=False,
        )
        kept = ", ".join(f"s.{name}" for name in candidates.kept_columns())
        engine.copy(
            f"select {kept} from survivors s join rest r on r.sample_id = s.sample_id"
            f" where r.reason = {PASSES}",
            made | {"rest": pieces(half["rest"])},
            half["kept"],
        )
        delete(half["decided"])
        whole.rename(half["decided"])


def over_facts(
    candidates: Candidates, part: Part, query: str, passing: Sequence[str] | None = None
) -> tuple[str, dict[str, Table]]:
    """A query over ``candidates.query()``, with its relations: the rows of the part that count.
    passing: files with sample_id and reason; of these the candidates that pass alone."""
    low, high = part.samples
    whole = (part.first, part.last) == (part.facts.first, part.facts.last)
    more = [] if whole else [f"sample_id between {low} and {high}"]
    if passing is not None:
        more.append(f"sample_id in (select sample_id from passing where reason = {PASSES})")
    relations: dict[str, Table] = {} if passing is None else {"passing": passing}
    named = []
    for source in candidates.sources():
        relations[f"facts_{source.name}"] = [source.path] if source.path else nothing(source)
        chosen = where(source, candidates.selection.recipe.link_kinds, more)
        named.append(f"{source.name} as (select * from facts_{source.name} where {chosen})")
    return f"with {', '.join(named)} {query}", relations


def pieces(path: Path) -> list[str]:
    found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return [str(each) for each in found]


def delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
