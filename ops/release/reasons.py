"""The reason for which a recipe keeps or leaves out a pair, in words and with its numbers."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.selection import Selection


@dataclass(frozen=True)
class PairFacts:
    """What is known of a pair: pair, the row of why.sql; scores, the rows of why_scores.sql."""

    pair: dict[str, Any]
    scores: list[dict[str, Any]]


Row = dict[str, Any]  # of candidate, and the text's weight


def because(reason: str | None, facts: PairFacts, selection: Selection, row: Row) -> str:
    """One clause. reason: the recipe's, null where it keeps the pair; row: the pair's candidate."""
    if reason is None:
        return _kept(selection, row)
    if reason in SAID:
        return SAID[reason](facts, selection, row)
    if reason in selection.recipe.tags:
        return _tag(reason, selection, row)
    return OTHERS.get(reason, reason.replace("_", " "))


def _kept(selection: Selection, row: Row) -> str:
    recipe = selection.recipe
    if not recipe.needs_score or row["similarity"] is None:
        return "every condition of the recipe holds"
    if recipe.above_similarity is not None and recipe.min_similarity is None:
        return f"similarity {_compared(row['similarity'], '>', recipe.above_similarity)}"
    if recipe.min_similarity is None and not recipe.min_similarity_by_language:
        return f"similarity {row['similarity']:.4f}"
    return f"similarity {_compared(row['similarity'], '≥', _threshold(selection, row))}"


def _compared(value: float, sign: str, bound: float) -> str:
    """Four digits of the value, or all of them where four would be the bound's own."""
    short = f"{value:.4f}"
    return f"{_shortest(value) if short == f'{bound:.4f}' else short} {sign} {bound:g}"


def _shortest(value: float) -> str:
    """The shortest name of a float32."""
    return str(np.float32(value))


def _threshold(selection: Selection, row: Row) -> float:
    recipe = selection.recipe
    least = -1.0 if recipe.min_similarity is None else recipe.min_similarity
    return recipe.min_similarity_by_language.get(row["language"], least)


def _removed(facts: PairFacts, selection: Selection, row: Row) -> str:
    pair = facts.pair
    if pair["removal_id"] is None:
        return "a removal names its URL or its image, or it is a cover row"
    why = f" ({pair['removed_because']})" if pair["removed_because"] else ""
    return f"removal {pair['removal_id']} of {pair['removed_at']:%Y-%m-%d} names it{why}"


def _not_downloaded(facts: PairFacts, selection: Selection, row: Row) -> str:
    pair = facts.pair
    if pair["in_open_batch"]:
        return f"batch {pair['batch_id']} is open: it is downloaded once that is closed"
    return f"not downloaded: {_task(pair, 'no download is queued')}"


def _task(task: dict[str, Any], none: str) -> str:
    if task["task_id"] is None or task["task_state"] == "done":
        return none
    why = f" ({task['task_reason']})" if task["task_reason"] else ""
    return f"task {task['task_id']} is {task['task_state']}{why}"


def _download_failed(facts: PairFacts, selection: Selection, row: Row) -> str:
    pair = facts.pair
    if pair["signal"] is not None:
        return f"opted out: {pair['signal']} of {pair['source']} says {pair['value']!r}"
    status = f", HTTP {pair['http_status']}" if pair["http_status"] else ""
    return f"{pair['outcome']}{status}, on attempt {pair['attempt']}"


def _score_of(facts: PairFacts, selection: Selection, row: Row) -> tuple[str, dict[str, Any]]:
    """The model whose similarity counts for the pair, and its row of why_scores.sql."""
    model = selection.model_of(row["language"])
    none = {"task_id": None, "outcome": None}
    if model is None:
        return "no model, which the recipe does not name", none
    name = f"{model['name']} {model['pretrained']}".strip()
    found = [score for score in facts.scores if score["model_id"] == model["model_id"]]
    return name, found[0] if found else none


def _not_scored(facts: PairFacts, selection: Selection, row: Row) -> str:
    model, score = _score_of(facts, selection, row)
    none = "no scoring of it is queued: `pairmill model backfill` queues it"
    return f"not scored by {model}: {_task(score, none)}"


def _scoring_failed(facts: PairFacts, selection: Selection, row: Row) -> str:
    model, score = _score_of(facts, selection, row)
    return f"{model}: {score['outcome']}"


def _language_detector(facts: PairFacts, selection: Selection, row: Row) -> str:
    known = ", ".join(selection.recipe.language_detectors)
    return f"its language is by {facts.pair['language_detector']}, and the recipe takes {known}"


def _language(facts: PairFacts, selection: Selection, row: Row) -> str:
    recipe = selection.recipe
    if not recipe.languages:
        return f"language {row['language']}, which the recipe leaves out"
    return f"language {row['language']}, and the recipe keeps {', '.join(recipe.languages)}"


def _too_short(facts: PairFacts, selection: Selection, row: Row) -> str:
    length = f"{len(row['text'])} characters"
    if selection.recipe.text_length == "by_script":
        length += f" that count as {facts.pair['text_weight']:.1f}"
    return f"a text of {length} < {selection.recipe.min_text_length}"


def _too_few_bytes(facts: PairFacts, selection: Selection, row: Row) -> str:
    if row["bytes"] is None:
        return f"no size is known, and the recipe wants {selection.recipe.min_bytes:,} bytes"
    return f"{row['bytes']:,} bytes < {selection.recipe.min_bytes:,}"


def _similarity(facts: PairFacts, selection: Selection, row: Row) -> str:
    bound = _threshold(selection, row)
    above = selection.recipe.above_similarity
    if above is not None and row["similarity"] >= np.float32(bound):
        return f"similarity {_compared(row['similarity'], '≤', above)}"
    return f"similarity {_compared(row['similarity'], '<', bound)}"


def _not_tagged(facts: PairFacts, selection: Selection, row: Row) -> str:
    recipe = selection.recipe
    without = [
        recipe.tags[column]
        for i, column in enumerate(recipe.tags)
        if any(column in bounds for bounds in _bounds(recipe)) and row[f"tag_{i}"] is None
    ]
    return f"no value by {', '.join(without)}"


def _bounds(recipe: Recipe) -> tuple[dict[str, float], ...]:
    return recipe.min_tag, recipe.above_tag, recipe.max_tag, recipe.below_tag


def _tag(column: str, selection: Selection, row: Row) -> str:
    value = np.float32(row[f"tag_{list(selection.recipe.tags).index(column)}"])
    signs = (("<", operator.lt), ("≤", operator.le), (">", operator.gt), ("≥", operator.ge))
    for (sign, outside), bounds in zip(signs, _bounds(selection.recipe), strict=True):
        if column in bounds and outside(value, np.float32(bounds[column])):
            return f"{column} {_compared(float(value), sign, bounds[column])}"
    return f"{column} {value:.4f}"


def _size(facts: PairFacts, selection: Selection, row: Row) -> str:
    return f"{row['width']} x {row['height']} pixels"


def _words(facts: PairFacts, selection: Selection, row: Row) -> str:
    recipe, count = selection.recipe, len(row["text"].split())
    if count < recipe.min_words:
        return f"{count} words < {recipe.min_words}"
    return f"{count} words > {recipe.max_words}"


def _too_long(facts: PairFacts, selection: Selection, row: Row) -> str:
    return f"a text of {len(row['text'])} characters > {selection.recipe.max_text_length}"


def _licence(facts: PairFacts, selection: Selection, row: Row) -> str:
    found = row["license"] or "none"
    return f"its licence is {found}, and the recipe takes {', '.join(selection.recipe.licences)}"


def _language_probability(facts: PairFacts, selection: Selection, row: Row) -> str:
    value, bound = row["language_probability"], selection.recipe.min_language_probability
    return f"probability of its language {_compared(value, '<', bound)}" if value else "unknown"


OTHERS = {
    "out_of_range": "a similarity or a size that there cannot be",
    "opted_out": "its site or page opted out",
    "personal_data": "its text has personal data of a kind that the recipe leaves out",
    "keyword": "its text has a keyword that the recipe leaves out",
    "no_entity": "its text has no word of the recipe's list",
    "text_not_scored": "the recipe's scores of texts have none of its text",
    "text_unsafe": "a classifier finds its text more probable to be unsafe than the recipe takes",
    "not_in_subset": "the recipe's subset does not name it",
    "cluster": "its image is in none of the recipe's clusters",
    "top_fraction": "its similarity is below that of the recipe's fraction of the pool",
}
SAID: dict[str, Callable[[PairFacts, Selection, Row], str]] = {
    "removed": _removed,
    "not_downloaded": _not_downloaded,
    "download_failed": _download_failed,
    "not_scored": _not_scored,
    "scoring_failed": _scoring_failed,
    "language_detector": _language_detector,
    "language": _language,
    "text_too_short": _too_short,
    "too_few_bytes": _too_few_bytes,
    "similarity": _similarity,
    "not_tagged": _not_tagged,
    "too_small": _size,
    "too_large": _size,
    "too_few_pixels": _size,
    "aspect": _size,
    "too_few_words": _words,
    "too_many_words": _words,
    "text_too_long": _too_long,
    "licence": _licence,
    "language_probability": _language_probability,
}
