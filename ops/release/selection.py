"""What a recipe asks of a database: its models and taggers by name."""

from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows
from pairmill.ops.release.recipe import Recipe

Model = dict[str, Any]  # a row of mill.model


@dataclass(frozen=True)
class Selection:
    """A recipe in a database.

    model, multilingual_model: model_id, name, pretrained, digest and dims; None where the recipe
    names none. similarities: those of the recipe's further columns. taggers: rows of
    ``mill.model``, in the order of the recipe's tags.
    """

    recipe: Recipe
    model: Model | None
    multilingual_model: Model | None
    taggers: list[Model]
    similarities: dict[str, Model]

    @property
    def labels(self) -> list[list[str] | None]:
        """The labels of each tagger."""
        return [tagger["labels"] for tagger in self.taggers]

    def model_of(self, language: str) -> Model | None:
        """The model whose similarity counts for pairs of a language."""
        if self.multilingual_model is None or language in self.recipe.model_languages:
            return self.model
        return self.multilingual_model

    def clip_ids(self) -> list[int]:
        """The models whose scores a release reads."""
        found = (self.model, self.multilingual_model, *self.similarities.values())
        return sorted({each["model_id"] for each in found if each})

    def tagger_ids(self) -> list[int]:
        return sorted({each["model_id"] for each in self.taggers})

    def model_ids(self) -> list[int]:
        """The models and taggers whose work a release waits for."""
        return sorted({*self.clip_ids(), *self.tagger_ids()})


def select(connection: psycopg.Connection, recipe: Recipe) -> Selection:
    """Raises UserError if the database lacks a model or tagger that the recipe names."""
    model = other = None
    if recipe.model:
        model = _model(connection, recipe, f"{recipe.model} {recipe.pretrained}".strip())
    if recipe.multilingual_model:
        name = f"{recipe.multilingual_model} {recipe.multilingual_pretrained}".strip()
        other = _model(connection, recipe, name)
    return Selection(
        recipe,
        model,
        other,
        [_tagger(connection, recipe, column) for column in recipe.tags],
        {name: _model(connection, recipe, of) for name, of in recipe.similarities.items()},
    )


def _model(connection: psycopg.Connection, recipe: Recipe, wanted: str) -> Model:
    """wanted: the name, and the weights after a space if it has any."""
    known = rows(
        connection,
        "select model_id, name, pretrained, digest, dims from mill.model where kind = 'clip'"
        " order by name",
    )
    found = [m for m in known if f"{m['name']} {m['pretrained']}".strip() == wanted]
    if len(found) != 1:
        names = ", ".join(f"{m['name']} {m['pretrained']}".strip() for m in known) or "none"
        what = "has no model" if not found else "has several models"
        raise UserError(f"recipe {recipe.name}: the database {what} {wanted}; it has: {names}")
    return found[0]


def _tagger(connection: psycopg.Connection, recipe: Recipe, column: str) -> Model:
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
