"""Texts with a word or a phrase of a list, in any case and any of Unicode's spellings (NFKC).

A keyword matches whole words: ``ass`` is not in ``class``. One that ends with * matches any ending.
One with a character of a script that does not part words (Han, kana, Thai and so on) matches
anywhere.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.errors import UserError
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.recipe_checks import file_of
from pairmill.ops.release.word_lists import any_of_list, read_words

_BETWEEN = r"[^\pL\pM\pN]+"  # RE2's classes: all but letters, marks and numbers
# Thai, Lao, Tibetan, Burmese, Khmer; kana, Bopomofo, Han; further Han
_UNPARTED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u3040-\u31ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
AT_ONCE = 200  # of a pattern: RE2 compiles into 8 MB at most


class KeywordHits:
    """An annotator: whether the text has one of the keywords; null of no text. Raises UserError for
    a keyword without a letter or digit."""

    column = "keyword"
    kind = pa.bool_()
    needs: tuple[str, ...] = ("text",)

    def __init__(self, keywords: Iterable[str]) -> None:
        words: set[str] = set()
        self._prefixes: set[str] = set()
        self._phrases: dict[str, list[str]] = defaultdict(list)
        anywhere = []
        keywords = list(keywords)
        for keyword, plain in zip(keywords, _plain(keywords), strict=True):
            parts = plain.split()
            if not parts:
                raise UserError(f"the keyword {keyword!r} has no letter and no digit")
            whole = not keyword.endswith("*")
            if _UNPARTED.search(keyword):
                anywhere.append(re.escape(_normal([keyword.rstrip("*")])[0].as_py()))
            elif len(parts) > 1:
                self._phrases[parts[0]].append(f" {' '.join(parts)}{' ' if whole else ''}")
            else:
                (words if whole else self._prefixes).add(parts[0])
        self._words = pa.array(sorted(words), pa.string())
        self._first = pa.array(sorted(self._phrases), pa.string())
        self._lengths = sorted({len(prefix) for prefix in self._prefixes})
        self._patterns = [
            "|".join(anywhere[i : i + AT_ONCE]) for i in range(0, len(anywhere), AT_ONCE)
        ]

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        texts = rows["text"].cast(pa.string())
        normal = _normal(texts)
        plain = pc.utf8_trim(pc.replace_substring_regex(normal, _BETWEEN, " "), " ")
        words = pc.split_pattern(plain, " ")
        found = any_of_list(words, self._of_words(words.flatten()), np.asarray(texts.is_null()))
        for pattern in self._patterns:
            found = pc.or_(found, pc.match_substring_regex(normal, pattern))
        return pc.or_(found, self._of_phrases(words, plain))

    def _of_words(self, words: pa.Array) -> npt.NDArray[np.bool_]:
        different = pc.dictionary_encode(words)
        hit = np.asarray(pc.is_in(different.dictionary, self._words))
        if self._prefixes:
            began = (self._begins(word) for word in different.dictionary.to_pylist())
            hit = hit | np.fromiter(began, bool, len(hit))
        return np.asarray(hit[np.asarray(different.indices)], bool)

    def _begins(self, word: str) -> bool:
        return any(word[:length] in self._prefixes for length in self._lengths)

    def _of_phrases(self, words: pa.ListArray, plain: pa.Array) -> pa.Array:
        """Phrases are looked for in the texts that have the first word of one."""
        hits = np.asarray(pc.is_in(words.flatten(), self._first))
        nulls = np.asarray(plain.is_null())
        possible = np.asarray(any_of_list(words, hits, nulls).fill_null(False))
        found = np.zeros(len(plain), bool)
        for at in np.flatnonzero(possible):
            text = f" {plain[int(at)].as_py()} "
            found[at] = any(
                phrase in text
                for first in set(text.split()) & self._phrases.keys()
                for phrase in self._phrases[first]
            )
        return pa.array(found, pa.bool_(), mask=nulls)


def _normal(texts: pa.Array | list[str]) -> pa.Array:
    return pc.utf8_lower(pc.utf8_normalize(pa.array(texts, pa.string()), form="NFKC"))


def _plain(keywords: list[str]) -> Iterator[str]:
    yield from pc.replace_substring_regex(_normal(keywords), _BETWEEN, " ").to_pylist()


def of_recipe(recipe: Recipe) -> KeywordHits | None:
    """Raises UserError for a file that is absent, or has a line that is no keyword."""
    if not recipe.exclude_keywords:
        return None
    lists = [read_words(file_of(recipe, "exclude_keywords", f)) for f in recipe.exclude_keywords]
    return KeywordHits(word for words in lists for word in words)
