"""Row-local passes that SQL cannot do well: each adds a column to ``candidate``."""

from typing import Any, Protocol

import pyarrow as pa

from pairmill.ops.release import clusters, entities, keywords, subset, text_scores
from pairmill.ops.release.recipe import Recipe


class Annotator(Protocol):
    """column, kind: the column that it adds. needs: the columns of ``candidate`` that it reads
    (``text``, ``url``, ``sample_id``, …), or ``image``: the image's embedding by the recipe's
    model, float16[dims], null where there is none."""

    @property
    def column(self) -> str: ...
    @property
    def kind(self) -> pa.DataType: ...
    @property
    def needs(self) -> tuple[str, ...]: ...

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        """A value a row, of ``kind``. rows: what the annotator needs, of rows that no condition
        before the first on its column left out."""
        ...


def of_recipe(recipe: Recipe, selection: Any) -> list[Annotator]:
    """The annotators whose columns the recipe's conditions name. Raises UserError for a file of
    theirs that is not there, or not the one that the recipe means."""
    found: list[Annotator] = []
    for part in (
        subset.of_recipe(recipe),
        keywords.of_recipe(recipe),
        entities.of_recipe(recipe),
        clusters.of_recipe(recipe),
        text_scores.of_recipe(recipe),
    ):
        if part is not None:
            found.append(part)
    if recipe.exclude_pii:
        from pairmill.ops.release.pii import PersonalData

        found.append(PersonalData())
    return found
