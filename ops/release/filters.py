"""A recipe's row-local filters: conditions over ``candidate``, in DuckDB's dialect.

They keep to functions that sqlglot has in Spark's dialect too. Numbers are compared as float32,
which similarities and tags are: 0.45 as a float32 is less than 0.45, and inclusive is meant of the
number as it is written.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sqlglot import exp

from pairmill.ops.release.pii_kinds import mask
from pairmill.ops.release.recipe import Recipe
from pairmill.schema.outcomes import Outcome

Reason = tuple[str, str]  # the word, and the condition for which a pair is left out
# the class of a script, and how much more than one Latin character each of it says; the numbers of
# schema/sql/core/text.sql. Characters, not escapes: engines do not agree about those.
SCRIPTS = (
    ("\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", "2.0"),  # Han
    ("\uac00-\ud7a3", "0.75"),  # Hangul
    ("\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9d", "0.5"),  # Katakana
    # Hiragana, Hebrew, Ethiopic
    ("\u3041-\u3096\u309d-\u309f\u05d0-\u05ea\u1200-\u139f\u2d80-\u2ddf\uab00-\uab2f", "0.25"),
)
# the text is cleaned: one space between words, none at the ends
WORDS = "(CASE WHEN text = '' THEN 0 ELSE length(text) - length(replace(text, ' ', '')) + 1 END)"
SHORTER, LONGER = "least(width, height)", "greatest(width, height)"
PUBLIC_DOMAIN = ("zero", "mark", "certification")


def reasons(recipe: Recipe, selection: object = None, top: float | None = None) -> list[Reason]:
    """(reason, condition) in the order in which they are tried; the first that holds is the pair's
    reason. They are in the order in which things happen to a pair; last is what SQL alone cannot
    tell, so that annotators see few rows. top: the similarity that ``top_fraction`` comes to."""
    return [
        ("removed", "removed"),
        *(_of_links() if recipe.takes == "links" else _of_downloads(recipe)),
        *_of_languages(recipe),
        *_of_texts(recipe),
        *(_of_sizes(recipe) if recipe.takes == "images" else ()),
        *_of_similarity(recipe),
        *_of_tags(recipe),
        *([("top_fraction", f"similarity < {float32(top)}")] if top is not None else []),
        *_of_annotators(recipe),
    ]


def _of_links() -> Iterator[Reason]:
    yield "opted_out", f"downloaded = {int(Outcome.OPTED_OUT)}"


def _of_downloads(recipe: Recipe) -> Iterator[Reason]:
    yield "not_downloaded", "downloaded IS NULL"
    yield "download_failed", "downloaded <> 0"
    if recipe.needs_score:
        yield "not_scored", "scored IS NULL"
        yield "scoring_failed", "scored <> 0"
    # LAION-400M has similarities of 6016, and sizes of 0; NaN is above every number in SQL
    yield (
        "out_of_range",
        "NOT (similarity BETWEEN -1 AND 1) OR width IS NULL OR height IS NULL"
        f" OR {SHORTER} <= 0" + (" OR similarity IS NULL" if recipe.needs_score else ""),
    )


def _of_languages(recipe: Recipe) -> Iterator[Reason]:
    if recipe.language_detectors:
        known = strings(recipe.language_detectors)
        yield (
            "language_detector",
            f"language_detector IS NULL OR language_detector NOT IN ({known})",
        )
    if recipe.languages:
        yield "language", f"language NOT IN ({strings(recipe.languages)})"
    elif recipe.exclude_languages:
        yield "language", f"language IN ({strings(recipe.exclude_languages)})"
    if recipe.min_language_probability > 0:
        bound = float32(recipe.min_language_probability)
        yield (
            "language_probability",
            f"language_probability IS NULL OR language_probability < {bound}",
        )
    if recipe.licences:
        found = " OR ".join(f"contains({_LICENCE}, {string(_path(x))})" for x in recipe.licences)
        yield "licence", f"license IS NULL OR NOT ({found})"


# a licence's URL may end with the part that is looked for, or go on with a query
_LICENCE = "concat(replace(replace(lower(license), '?', '/'), '#', '/'), '/')"


def _path(licence: str) -> str:
    folder = "publicdomain" if licence.split("/")[0] in PUBLIC_DOMAIN else "licenses"
    return f"creativecommons.org/{folder}/{licence}/"


def _of_texts(recipe: Recipe) -> Iterator[Reason]:
    least = recipe.min_text_length
    if least:
        short = f"length(text) < {least}"
        if recipe.text_length == "by_script":
            short += f" AND {weight('text')} < {least}"
        yield "text_too_short", short
    if recipe.max_text_length is not None:
        yield "text_too_long", f"length(text) > {recipe.max_text_length}"
    if recipe.min_words:
        yield "too_few_words", f"{WORDS} < {recipe.min_words}"
    if recipe.max_words is not None:
        yield "too_many_words", f"{WORDS} > {recipe.max_words}"


def weight(text: str) -> str:
    """``mill.text_weight`` of a column, in quarters, which sum without rounding."""
    more = (
        f" + {each} * (length({text}) - length(regexp_replace({text}, '[{script}]', '', 'g')))"
        for script, each in SCRIPTS
    )
    return f"(length({text}){''.join(more)})"


def _of_sizes(recipe: Recipe) -> Iterator[Reason]:
    if recipe.min_bytes:
        yield "too_few_bytes", f"bytes IS NULL OR bytes < {recipe.min_bytes}"
    if recipe.min_side:
        yield "too_small", f"{SHORTER} < {recipe.min_side}"
    if recipe.max_side is not None:
        yield "too_large", f"{LONGER} > {recipe.max_side}"
    if recipe.min_pixels:
        yield "too_few_pixels", f"CAST(width AS BIGINT) * height < {recipe.min_pixels}"
    if recipe.max_aspect is not None:
        ratio = f"CAST({LONGER} AS DOUBLE) / CAST({SHORTER} AS DOUBLE)"
        # sizes are above 0 here, unless an engine tries this first
        yield "aspect", f"{SHORTER} > 0 AND {ratio} > CAST('{recipe.max_aspect!r}' AS DOUBLE)"


def _of_similarity(recipe: Recipe) -> Iterator[Reason]:
    if recipe.min_similarity is not None or recipe.min_similarity_by_language:
        yield "similarity", f"similarity < {_bound(recipe)}"
    if recipe.above_similarity is not None:
        yield "similarity", f"similarity <= {float32(recipe.above_similarity)}"


def _bound(recipe: Recipe) -> str:
    least = -1.0 if recipe.min_similarity is None else recipe.min_similarity
    if not recipe.min_similarity_by_language:
        return float32(least)
    own = " ".join(
        f"WHEN {string(language)} THEN {float32(bound)}"
        for language, bound in recipe.min_similarity_by_language.items()
    )
    return f"CASE language {own} ELSE {float32(least)} END"


BOUNDS = (("min_tag", "<"), ("above_tag", "<="), ("max_tag", ">"), ("below_tag", ">="))


def _of_tags(recipe: Recipe) -> Iterator[Reason]:
    for i, column in enumerate(recipe.tags):
        outside = [
            f"tag_{i} {sign} {float32(getattr(recipe, key)[column])}"
            for key, sign in BOUNDS
            if column in getattr(recipe, key)
        ]
        if outside:
            yield "not_tagged", f"tag_{i} IS NULL"
            yield column, " OR ".join(outside)


def _of_annotators(recipe: Recipe) -> Iterator[Reason]:
    if recipe.subset:
        yield "not_in_subset", "listed IS NULL OR NOT listed"
    if recipe.exclude_pii:
        yield "personal_data", f"pii IS NULL OR (pii & {mask(recipe.exclude_pii)}) <> 0"
    if recipe.exclude_keywords:
        yield "keyword", "keyword IS NULL OR keyword"
    if recipe.entity_list:
        yield "no_entity", "entity IS NULL OR NOT entity"
    if recipe.text_safety:
        yield "text_not_scored", "text_unsafe IS NULL"
        yield "text_unsafe", "text_unsafe"
    if recipe.clusters:
        if not recipe.needs_score:
            yield "not_scored", "cluster IS NULL"
        yield "cluster", "cluster IS NULL OR NOT cluster"


def fraction_index(pool: int, fraction: float) -> int:
    """The place, from 0 in descending order of similarity, whose value is the threshold of
    ``top_fraction`` over a pool: as DataComp takes it, int(N x fraction); the last where that is
    none. Rows that are as similar as it are kept, all of them."""
    return min(int(pool * fraction), pool - 1)


def string(value: str) -> str:
    return exp.Literal.string(value).sql("duckdb")


def strings(values: Sequence[str]) -> str:
    return ", ".join(string(value) for value in values)


def float32(value: float) -> str:
    """The nearest float32, by its shortest name: parsed as one, and not as a decimal or double."""
    return f"CAST('{np.float32(value)!s}' AS FLOAT)"
