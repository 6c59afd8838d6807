"""``candidate``: the relation that a release's passes read, as SQL over the files of facts."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import sqlglot
from sqlglot import exp

from pairmill.ops.archive import columns
from pairmill.ops.archive.facts import Facts
from pairmill.ops.queries import query_text
from pairmill.ops.release.filters import string, strings
from pairmill.ops.release.selection import Model, Selection

# what later passes and layouts read of a candidate that no condition leaves out
KEPT_COLUMNS = (
    "sample_id", "url", "text", "language", "license", "link_kind", "width", "height", "md5",
    "sha256", "dhash", "similarity",
)  # fmt: skip
SQL_TYPES = {
    pa.int16(): "SMALLINT", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float32(): "FLOAT",
    pa.string(): "VARCHAR", pa.binary(): "BLOB", pa.bool_(): "BOOLEAN",
}  # fmt: skip


@dataclass(frozen=True)
class FactsFile:
    """A file of facts as a query names it. name: of the relation; path: of the file, None where it
    has no rows; columns: those that are read, with their types."""

    name: str
    path: str | None
    columns: pa.Schema


@dataclass(frozen=True)
class Candidates:
    """The candidates of a folder of facts for a recipe."""

    selection: Selection
    facts: Facts

    def sources(self) -> list[FactsFile]:
        found = [
            self._source("pair", "pair", columns.PAIR),
            self._source("download", "download", columns.DOWNLOAD),
        ]
        for model_id in self.selection.clip_ids():
            found.append(self._source(f"score_{model_id}", "score", columns.SCORE, model_id))
        for model_id in self.selection.tagger_ids():
            found.append(self._source(f"tag_{model_id}", "tag", columns.TAG, model_id))
        return found

    def _source(
        self, name: str, table: str, schema: pa.Schema, model_id: int | None = None
    ) -> FactsFile:
        there = self.facts.has(table, model_id)
        return FactsFile(name, self.facts.path(table, model_id) if there else None, schema)

    def kept_columns(self) -> list[str]:
        """Of KEPT_COLUMNS and those of the recipe."""
        return [*KEPT_COLUMNS, *self._similarities(), *self._tags()]

    def _similarities(self) -> dict[str, str]:
        return {
            f"similarity_{name}": f"s{model['model_id']}.similarity"
            for name, model in self.selection.similarities.items()
        }

    def _tags(self) -> dict[str, str]:
        found = {}
        for i, tagger in enumerate(self.selection.taggers):
            found[f"tag_{i}"] = f"t{tagger['model_id']}.value"
            found[f"label_{i}"] = f"t{tagger['model_id']}.label"
        return found

    def query(self) -> str:
        """candidate.sql for this recipe; its relations are those of ``sources``."""
        selection = self.selection
        more = {**self._similarities(), **self._tags()}
        joins = [
            f"left join {kind}_{number} {kind[0]}{number}"
            f" on {kind[0]}{number}.sample_id = p.sample_id"
            for kind, numbers in (("score", selection.clip_ids()), ("tag", selection.tagger_ids()))
            for number in numbers
        ]
        text = query_text("release", "candidate")
        return text[text.index("select") :].format(
            scored=self._of_model("outcome", "SMALLINT"),
            similarity=self._of_model("similarity", "FLOAT"),
            columns="".join(f"{of} as {name}, " for name, of in more.items()),
            joins="\n  ".join(joins),
        )

    def scores(self) -> str:
        """The same rows, with sample_id, scored and similarity alone: a third of the joins."""
        joins = " ".join(
            f"left join score_{number} s{number} on s{number}.sample_id = p.sample_id"
            for number in self.selection.clip_ids()
        )
        scored, similarity = (
            self._of_model(*column) for column in (("outcome", "SMALLINT"), ("similarity", "FLOAT"))
        )
        columns = f"p.sample_id, {scored} as scored, {similarity} as similarity"
        return f"select {columns} from pair p {joins}"

    def _of_model(self, column: str, kind: str) -> str:
        """A column of the score by the model that counts for the pair's language."""
        model, other = self.selection.model, self.selection.multilingual_model
        if other is None:
            return f"CAST(NULL AS {kind})" if model is None else _of(model, column)
        own = strings(self.selection.recipe.model_languages)
        first = f"CAST(NULL AS {kind})" if model is None else _of(model, column)
        if not self.selection.recipe.model_languages:
            return _of(other, column)
        return (
            f"case when coalesce(p.language, 'nolang') in ({own}) then {first}"
            f" else {_of(other, column)} end"
        )


def _of(model: Model, column: str) -> str:
    return f"s{model['model_id']}.{column}"


def where(source: FactsFile, link_kinds: Collection[str], more: Sequence[str] = ()) -> str:
    """The conditions on the rows of a file: those that count, of these kinds of links, and more."""
    conditions = ["counts", *more]
    if source.name == "pair":
        conditions.append(f"link_kind in ({strings(sorted(link_kinds))})")
    return " and ".join(conditions)


def nothing(source: FactsFile) -> str:
    """A SELECT of a file's columns without rows."""
    casts = ", ".join(f"cast(null as {SQL_TYPES[f.type]}) as {f.name}" for f in source.columns
                      if f.type in SQL_TYPES)  # fmt: skip
    return f"select {casts} where false"


def decide(candidate: str, conditions: Sequence[tuple[int, str]]) -> str:
    """decide.sql: (code, condition) in the order in which they are tried."""
    tried = " ".join(f"when {condition} then {code}" for code, condition in conditions)
    text = query_text("release", "decide")
    text = text[text.index("select") :]
    # without a condition, `case else` is no SQL
    return text.format(conditions=tried or "when false then 1", candidate=candidate)


def named_in(condition: str) -> set[str]:
    """The columns that a condition names."""
    parsed = sqlglot.parse_one(condition, read="duckdb")
    return {column.name for column in parsed.find_all(exp.Column)}


def quoted(path: str) -> str:
    return string(path)
