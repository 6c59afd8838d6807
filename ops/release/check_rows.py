"""What a row of a release can be, by the meaning of its columns, and the order of the rows."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.release.meanings import meaning

# of each row whether it breaks a rule; null: it does not
Rule = Callable[[pa.Array], pa.Array]
# recipes that take links alone have rows without an image, those without a threshold without score
_OF_IMAGES = ("width", "height", "md5", "sha256")
_NEVER_NULL = ("id", "url", "text", "row_hash", "language", "boxes")
_THRESHOLDS = ("min_similarity", "above_similarity", "top_fraction", "min_similarity_by_language")
_DIGITS = {"md5": 32, "sha256": 64}


class RowChecks:
    """The rules of one release, and what they remember from row to row: all files in order."""

    def __init__(self, schema: pa.Schema, manifest: Mapping[str, Any]) -> None:
        self.languages: Counter[str] = Counter()
        self._schema = schema
        self._rules = list(_rules(schema, manifest["recipe"]))
        by_role = {meaning(name).role: name for name in reversed(schema.names)}
        self.id_column = by_role.get("id")
        self.url_column = by_role.get("url")
        self._text_column = by_role.get("text")
        self._hash_column = by_role.get("row_hash")
        self.language_column = by_role.get("language")
        self._last: Any = None  # of the rows before, also of another file

    def broken(self, rows: pa.RecordBatch) -> Iterator[tuple[str, int, int]]:
        """The rules that some rows break: what is wrong, the first of those rows, how many."""
        for what, column, rule in self._rules:
            if column in rows.schema.names:
                yield from _named(what, rule(rows[column]))
        if self.id_column in rows.schema.names and len(rows):
            yield from _named(f"{self.id_column} is not above that of the row before",
                              self._out_of_order(rows[self.id_column]))  # fmt: skip
        if self._hash_column in rows.schema.names and self.url_column and self._text_column:
            what = f"{self._hash_column} is not the hash of {self.url_column} and text"
            yield from _named(what, self._wrong_hash(rows))
        if self.language_column in rows.schema.names:
            for each in pc.value_counts(rows[self.language_column].cast(pa.string())).to_pylist():
                self.languages[each["values"] or "nolang"] += each["counts"]

    def _out_of_order(self, ids: pa.Array) -> pa.Array:
        before = pa.concat_arrays([pa.array([self._last], ids.type), ids.slice(0, len(ids) - 1)])
        self._last = ids[-1].as_py()
        return pc.less_equal(ids, before)

    def _wrong_hash(self, rows: pa.RecordBatch) -> pa.Array:
        urls, texts = (
            pc.fill_null(rows[name].cast(pa.string()), "").to_pylist()
            for name in (self.url_column, self._text_column)
        )
        right = [mmh3.hash64(url + text)[0] for url, text in zip(urls, texts, strict=True)]
        return pc.not_equal(rows[self._hash_column], pa.array(right, pa.int64()))


def _named(what: str, bad: pa.Array) -> Iterator[tuple[str, int, int]]:
    at = np.flatnonzero(np.asarray(pc.fill_null(bad, False)))
    if len(at):
        yield what, int(at[0]), len(at)


def _rules(schema: pa.Schema, recipe: Mapping[str, Any]) -> Iterator[tuple[str, str, Rule]]:
    images = recipe.get("takes", "images") == "images"
    scored = images and any(recipe.get(key) not in (None, {}, "") for key in _THRESHOLDS)
    for field in schema:
        name, role = field.name, meaning(field.name).role
        needed = role in _NEVER_NULL or (images and role in _OF_IMAGES)
        if needed or (scored and name.lower() == "similarity"):
            yield f"{name} is null", name, pc.is_null
        if pa.types.is_floating(field.type):
            yield f"{name} is no finite number", name, lambda of: pc.invert(pc.is_finite(of))
        if role == "similarity":
            yield f"{name} is outside of -1 to 1", name, _outside
        elif role in ("width", "height"):
            yield f"{name} is not above 0", name, lambda of: pc.less_equal(of, 0)
        elif role == "url":
            yield f"{name} is no address", name, _no_address
        elif role in _DIGITS or (role == "id" and pa.types.is_string(field.type)):
            digits = _DIGITS.get(role, 32)
            yield f"{name} has not {digits} hexadecimal digits", name, _not_hexadecimal(digits)


def _outside(of: pa.Array) -> pa.Array:
    return pc.or_(pc.less(of, -1), pc.greater(of, 1))


def _no_address(of: pa.Array) -> pa.Array:
    return pc.invert(pc.or_(pc.starts_with(of, "http://"), pc.starts_with(of, "https://")))


def _not_hexadecimal(digits: int) -> Rule:
    return lambda of: pc.invert(pc.match_substring_regex(of, f"^[0-9a-f]{{{digits}}}$"))
