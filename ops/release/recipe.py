"""Recipes: the thresholds of a release, as a named, versioned TOML file."""

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from pairmill.ops.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """The thresholds of a release, all of them inclusive.

    model, pretrained: the model whose similarity is used, as in ``mill.model``.
    min_similarity: cosine similarity, -1 to 1; min_similarity_by_language: other values for
    some languages. languages: those to keep, ``nolang`` among them if wanted; empty: all.
    min_text_length: characters. min_bytes: of the image's file. licence: of the metadata.
    multilingual_model, multilingual_pretrained: another model, whose similarity is used instead for
    pairs in none of model_languages; empty: there is none.
    tags: which tagger fills which column of the release; aesthetic, punsafe and pwatermark are
    always columns, NSFW is the tagger's label. min_tag, max_tag: thresholds on those columns; a
    pair without the tag is left out.
    """

    name: str
    version: int
    description: str
    licence: str
    model: str
    min_similarity: float
    pretrained: str = ""
    min_similarity_by_language: dict[str, float] = field(default_factory=dict)
    languages: list[str] = field(default_factory=list)
    min_text_length: int = 5
    min_bytes: int = 5000
    multilingual_model: str = ""
    multilingual_pretrained: str = ""
    model_languages: list[str] = field(default_factory=lambda: ["en"])
    tags: dict[str, str] = field(default_factory=dict)
    min_tag: dict[str, float] = field(default_factory=dict)
    max_tag: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


KINDS: dict[str, type] = {
    "name": str, "version": int, "description": str, "licence": str, "model": str,
    "pretrained": str, "min_similarity": float, "min_similarity_by_language": dict,
    "languages": list, "min_text_length": int, "min_bytes": int, "multilingual_model": str,
    "multilingual_pretrained": str, "model_languages": list, "tags": dict, "min_tag": dict,
    "max_tag": dict,
}  # fmt: skip


# of every release, and no tagger's, however they are written
COLUMNS = (
    "SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "LANGUAGE", "SIMILARITY", "HASH",
    "MD5",
)  # fmt: skip
# of every release, filled by taggers where the recipe names any
TAG_COLUMNS = ("NSFW", "punsafe", "pwatermark", "aesthetic")
MAX_TAG = 3.4e38  # a tag is a float32


def builtin() -> list[str]:
    """Names of the recipes that come with Pairmill."""
    folder = files("pairmill.ops.release") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name or its file's path, with other values for some of its keys.

    Raises UserError, naming the key, for a recipe that does not exist or does not hold.
    """
    if name in builtin():
        text = (files("pairmill.ops.release") / "recipes" / f"{name}.toml").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8", errors="replace")
    else:
        raise UserError(f"there is no recipe {name!r}: a file, or one of {', '.join(builtin())}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name} is not TOML: {error}") from None
    return _checked(name, values | dict(overrides or {}))


def parse_overrides(given: Sequence[str]) -> dict[str, Any]:
    """``key=value`` as the command line gives them; the value is TOML, or else a string."""
    overrides: dict[str, Any] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"--set {item}: write key=value, as in --set min_similarity=0.28")
        try:
            overrides[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key.strip()] = value
    return overrides


def _checked(name: str, values: dict[str, Any]) -> Recipe:
    for key, value in values.items():
        if key not in KINDS:
            close = difflib.get_close_matches(key, KINDS, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(KINDS)}"
            raise UserError(f"recipe {name}: unknown key {key!r}: {hint}")
        kind = KINDS[key]
        if kind is float and type(value) is int:
            values[key] = value = float(value)
        if type(value) is not kind:
            raise UserError(
                f"recipe {name}: {key} must be of type {kind.__name__}, and is {value!r}"
            )
    required = [f.name for f in fields(Recipe) if f.default is f.default_factory is MISSING]
    missing = [key for key in required if key not in values]
    if missing:
        raise UserError(f"recipe {name} lacks {', '.join(missing)}")
    _check_ranges(name, values)
    return Recipe(**values)


def _check_ranges(name: str, values: dict[str, Any]) -> None:
    similarities = {"min_similarity": values["min_similarity"]}
    for language, value in values.get("min_similarity_by_language", {}).items():
        similarities[f"min_similarity_by_language.{language}"] = value
    for key, value in similarities.items():
        if type(value) not in (int, float) or not -1 <= value <= 1:
            raise UserError(f"recipe {name}: {key} must be between -1 and 1, and is {value!r}")
    for key in ("min_text_length", "min_bytes"):
        if values.get(key, 0) < 0:
            raise UserError(f"recipe {name}: {key} must not be negative, and is {values[key]}")
    for key in ("languages", "model_languages"):
        if not all(isinstance(language, str) for language in values.get(key, [])):
            raise UserError(f"recipe {name}: {key} must be a list of codes, like ['en', 'nolang']")
    _check_tags(name, values)


def _check_tags(name: str, values: dict[str, Any]) -> None:
    tags = values.get("tags", {})
    for column, tagger in tags.items():
        others = [*COLUMNS, *TAG_COLUMNS, *tags]
        # a reader that does not tell cases apart must not find two
        twice = sum(column.lower() == other.lower() for other in {*others} - {column})
        if not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,59}", column) or twice or column in COLUMNS:
            raise UserError(f"recipe {name}: tags.{column} cannot be a column of a release")
        if not isinstance(tagger, str) or not tagger:
            raise UserError(
                f"recipe {name}: tags.{column} must be a tagger's name, and is {tagger!r}"
            )
    for key in ("min_tag", "max_tag"):
        for column, value in values.get(key, {}).items():
            if column not in tags or column == "NSFW":
                raise UserError(f"recipe {name}: {key}.{column} needs tags.{column}, with numbers")
            if type(value) not in (int, float) or not -MAX_TAG <= value <= MAX_TAG:
                raise UserError(
                    f"recipe {name}: {key}.{column} must be a number that a tag can be, and is"
                    f" {str(value)[:40]}"
                )
