"""DataComp's text-based filter: a text needs a word of a list.

DataComp keeps a text where WordNet's first synset of any of its words is one of ImageNet-21k's
(https://github.com/mlfoundations/datacomp, baselines/apply_filter.py). The list here is of words:
those whose first synset is one of them, inflected ones too, since WordNet takes the endings off.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.recipe_checks import file_of
from pairmill.ops.release.word_lists import any_of_list, read_words


class Entities:
    """An annotator: whether a word of the text is listed, in any case; null of no text. A word is
    what white space parts, so ``cat,`` is not ``cat``, as it is not in DataComp."""

    column = "entity"
    kind = pa.bool_()
    needs: tuple[str, ...] = ("text",)

    def __init__(self, words: Iterable[str]) -> None:
        self._words = pc.unique(pc.utf8_lower(pa.array(words, pa.string())))

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        texts = rows["text"].cast(pa.string())
        words = pc.split_pattern(pc.utf8_lower(texts), " ")
        hits = pc.is_in(words.flatten(), self._words)
        return any_of_list(words, np.asarray(hits), np.asarray(texts.is_null()))


def of_recipe(recipe: Recipe) -> Entities | None:
    """Raises UserError for a file that is absent or has no words."""
    if recipe.entity_list is None:
        return None
    return Entities(read_words(file_of(recipe, "entity_list", recipe.entity_list)))
