"""What a recipe asks of a database: its models and taggers by name, and the query that decides."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows
from pairmill.ops.release.recipe import Recipe


@dataclass(frozen=True)
class Selection:
    """A recipe in a database.

    model, multilingual_model: model_id, name, pretrained and digest. taggers: rows of
    ``mill.model``, in the order of the recipe's tags. query, values: release.sql, a row for every
    pair that counts, and its parameters.
    """

    recipe: Recipe
    model: dict[str, Any]
    multilingual_model: dict[str, Any] | None
    taggers: list[dict[str, Any]]
    query: str
    values: dict[str, Any]

    def model_ids(self) -> list[int]:
        """The models and taggers whose work a release waits for."""
        found = [self.model, *([self.multilingual_model] if self.multilingual_model else [])]
        return sorted({each["model_id"] for each in (*found, *self.taggers)})


def select(connection: psycopg.Connection, recipe: Recipe) -> Selection:
    """Raises UserError if the database lacks a model or tagger that the recipe names."""
    model = _model(connection, recipe, recipe.model, recipe.pretrained)
    other = None
    if recipe.multilingual_model:
        other = _model(
            connection, recipe, recipe.multilingual_model, recipe.multilingual_pretrained
        )
    taggers = [_tagger(connection, recipe, column) for column in recipe.tags]
    values = {
        "model_id": model["model_id"],
        "multilingual_id": (other or model)["model_id"],
        "model_languages": recipe.model_languages,
        "languages": recipe.languages,
        "language_detectors": recipe.language_detectors,
        "min_text_length": recipe.min_text_length,
        "text_by_script": recipe.text_length == "by_script",
        "min_bytes": recipe.min_bytes,
        "min_similarity": recipe.min_similarity,
        "min_similarity_by_language": Jsonb(recipe.min_similarity_by_language),
    }
    for i, (column, tagger) in enumerate(zip(recipe.tags, taggers, strict=True)):
        values |= _tag_values(recipe, i, column, tagger)
    return Selection(recipe, model, other, taggers, _query(recipe), values)


def _query(recipe: Recipe) -> str:
    """release.sql with the columns, reasons and joins of each tagger."""
    parts = query_text("release", "release_tag").split("\n--\n")
    columns, reasons, joins = (
        "\n       ".join(part.format(i=i) for i in range(len(recipe.tags))) for part in parts[1:]
    )
    return query_text("release", "release").format(
        tag_columns=columns, tag_reasons=reasons, tag_joins=joins
    )


def _tag_values(recipe: Recipe, i: int, column: str, tagger: dict[str, Any]) -> dict[str, Any]:
    low, high = recipe.min_tag.get(column), recipe.max_tag.get(column)
    # inclusive is meant of the number as it is written, and 0.45 as a tag, a float32, is 0.4499…
    return {
        f"tagger_{i}": tagger["model_id"],
        f"column_{i}": column,
        f"has_threshold_{i}": low is not None or high is not None,
        f"min_{i}": -math.inf if low is None else float(np.float32(low)),
        f"max_{i}": math.inf if high is None else float(np.float32(high)),
    }


def _model(
    connection: psycopg.Connection, recipe: Recipe, name: str, pretrained: str
) -> dict[str, Any]:
    known = rows(
        connection,
        "select model_id, name, pretrained, digest from mill.model where kind = 'clip'"
        " order by name",
    )
    found = [m for m in known if (m["name"], m["pretrained"]) == (name, pretrained)]
    if len(found) != 1:
        names = ", ".join(f"{m['name']} {m['pretrained']}".strip() for m in known) or "none"
        what = "has no model" if not found else "has several models"
        raise UserError(
            f"recipe {recipe.name}: the database {what} {name} {pretrained}".rstrip()
            + f"; it has: {names}"
        )
    return found[0]


def _tagger(connection: psycopg.Connection, recipe: Recipe, column: str) -> dict[str, Any]:
    known = rows(connection, "select * from mill.model where kind <> 'clip' order by name")
    found = [tagger for tagger in known if tagger["name"] == recipe.tags[column]]
    if not found:
        names = ", ".join(tagger["name"] for tagger in known) or "none"
        raise UserError(
            f"recipe {recipe.name}: the database has no tagger {recipe.tags[column]!r} for"
            f" {column}; it has: {names}"
        )
    if column == "NSFW" and not found[0]["labels"]:
        raise UserError(
            f"recipe {recipe.name}: NSFW is a label, and {recipe.tags[column]} gives numbers: name"
            " a zero-shot tagger, or another column"
        )
    return found[0]
