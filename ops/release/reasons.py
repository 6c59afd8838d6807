"""The reason for which a recipe keeps or leaves out a pair, in words and with its numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pairmill.ops.release.selection import Selection


@dataclass(frozen=True)
class Facts:
    """What is known of a pair: pair, the row of why.sql; scores, the rows of why_scores.sql."""

    pair: dict[str, Any]
    scores: list[dict[str, Any]]


Row = dict[str, Any]  # of release.sql


def because(reason: str | None, facts: Facts, selection: Selection, row: Row) -> str:
    """One clause. reason: the recipe's, null where it keeps the pair; row: the pair's row of
    release.sql."""
    if reason is None:
        return f"similarity {_compared(row['similarity'], '≥', _threshold(selection, row))}"
    if reason in SAID:
        return SAID[reason](facts, selection, row)
    return _tag(reason, selection, row)


def _compared(value: float, sign: str, bound: float) -> str:
    """Four digits of the value, or all of them where four would be the bound's own."""
    short = f"{value:.4f}"
    return f"{value if short == f'{bound:.4f}' else short} {sign} {bound:g}"


def _threshold(selection: Selection, row: Row) -> float:
    recipe = selection.recipe
    return recipe.min_similarity_by_language.get(row["language"], recipe.min_similarity)


def _removed(facts: Facts, selection: Selection, row: Row) -> str:
    pair = facts.pair
    if pair["removal_id"] is None:
        return "a removal names its URL or its image"
    why = f" ({pair['removed_because']})" if pair["removed_because"] else ""
    return f"removal {pair['removal_id']} of {pair['removed_at']:%Y-%m-%d} names it{why}"


def _not_downloaded(facts: Facts, selection: Selection, row: Row) -> str:
    pair = facts.pair
    if pair["in_open_batch"]:
        return f"batch {pair['batch_id']} is open: it is downloaded once that is closed"
    return f"not downloaded: {_task(pair, 'no download is queued')}"


def _task(task: dict[str, Any], none: str) -> str:
    if task["task_id"] is None or task["task_state"] == "done":
        return none
    why = f" ({task['task_reason']})" if task["task_reason"] else ""
    return f"task {task['task_id']} is {task['task_state']}{why}"


def _download_failed(facts: Facts, selection: Selection, row: Row) -> str:
    pair = facts.pair
    if pair["signal"] is not None:
        return f"opted out: {pair['signal']} of {pair['source']} says {pair['value']!r}"
    status = f", HTTP {pair['http_status']}" if pair["http_status"] else ""
    return f"{pair['outcome']}{status}, on attempt {pair['attempt']}"


def _score_of(facts: Facts, selection: Selection, row: Row) -> tuple[str, dict[str, Any]]:
    """The model whose similarity counts for the pair, and its row of why_scores.sql."""
    values = selection.values
    own = row["language"] in values["model_languages"]
    model = selection.model if own else selection.multilingual_model or selection.model
    name = f"{model['name']} {model['pretrained']}".strip()
    none = {"task_id": None, "outcome": None}
    found = [score for score in facts.scores if score["model_id"] == model["model_id"]]
    return name, found[0] if found else none


def _not_scored(facts: Facts, selection: Selection, row: Row) -> str:
    model, score = _score_of(facts, selection, row)
    none = "no scoring of it is queued: `pairmill model backfill` queues it"
    return f"not scored by {model}: {_task(score, none)}"


def _scoring_failed(facts: Facts, selection: Selection, row: Row) -> str:
    model, score = _score_of(facts, selection, row)
    return f"{model}: {score['outcome']}"


def _language_detector(facts: Facts, selection: Selection, row: Row) -> str:
    known = ", ".join(selection.recipe.language_detectors)
    return f"its language is by {facts.pair['language_detector']}, and the recipe takes {known}"


def _language(facts: Facts, selection: Selection, row: Row) -> str:
    return (
        f"language {row['language']}, and the recipe keeps {', '.join(selection.recipe.languages)}"
    )


def _too_short(facts: Facts, selection: Selection, row: Row) -> str:
    length = f"{len(row['text'])} characters"
    if selection.values.get("text_by_script"):
        length += f" that count as {facts.pair['text_weight']:.1f}"
    return f"a text of {length} < {selection.recipe.min_text_length}"


def _too_few_bytes(facts: Facts, selection: Selection, row: Row) -> str:
    return f"{facts.pair['bytes']:,} bytes < {selection.recipe.min_bytes:,}"


def _similarity(facts: Facts, selection: Selection, row: Row) -> str:
    return f"similarity {_compared(row['similarity'], '<', _threshold(selection, row))}"


def _not_tagged(facts: Facts, selection: Selection, row: Row) -> str:
    without = [
        selection.recipe.tags[column]
        for i, column in enumerate(selection.recipe.tags)
        if selection.values[f"has_threshold_{i}"] and row[f"value_{i}"] is None
    ]
    return f"no value by {', '.join(without)}"


def _tag(column: str, selection: Selection, row: Row) -> str:
    recipe = selection.recipe
    value = row[f"value_{list(recipe.tags).index(column)}"]
    low = recipe.min_tag.get(column)
    if low is not None and value < selection.values[f"min_{list(recipe.tags).index(column)}"]:
        return f"{column} {_compared(value, '<', low)}"
    return f"{column} {_compared(value, '>', recipe.max_tag[column])}"


SAID: dict[str, Callable[[Facts, Selection, Row], str]] = {
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
}
