"""Recipes: the thresholds of a release, as a named, versioned TOML file."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, field

from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import LANGUAGE_DETECTORS, LanguageDetectorName

# A description ends the sentence of the error: "min_bytes must be …".
Similarity = Annotated[float, Meta(ge=-1, le=1, description="between -1 and 1")]
Count = Annotated[int, Meta(ge=0, description="of type int, 0 or more")]
TextLength = Annotated[
    Literal["characters", "by_script"], Meta(description="'characters' or 'by_script'")
]
Languages = Annotated[list[str], Meta(description="a list of codes, like ['en', 'nolang']")]
Detectors = Annotated[
    list[LanguageDetectorName], Meta(description=f"a list of: {', '.join(LANGUAGE_DETECTORS)}")
]
Tagger = Annotated[str, Meta(min_length=1, description="a tagger's name")]
# a tag is a float32
Tag = Annotated[float, Meta(ge=-3.4e38, le=3.4e38, description="a number that a tag can be")]


class Recipe(msgspec.Struct, frozen=True):
    """The thresholds of a release, all of them inclusive.

    model, pretrained: the model whose similarity is used, as in ``mill.model``.
    min_similarity: cosine similarity, -1 to 1; min_similarity_by_language: other values for
    some languages. languages: those to keep, ``nolang`` among them if wanted; empty: all.
    language_detectors: those whose pairs are taken; empty: all.
    min_text_length: characters, as LAION counts them; where text_length is ``by_script``, each of
    them counts as many Latin ones as say about as much: ``mill.text_weight``.
    min_bytes: of the image's file. licence: of the metadata.
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
    min_similarity: Similarity
    pretrained: str = ""
    min_similarity_by_language: dict[str, Similarity] = {}
    languages: Languages = []
    language_detectors: Detectors = []
    min_text_length: Count = 5
    text_length: TextLength = "characters"
    min_bytes: Count = 5000
    multilingual_model: str = ""
    multilingual_pretrained: str = ""
    model_languages: Languages = field(default_factory=lambda: ["en"])
    tags: dict[str, Tagger] = {}
    min_tag: dict[str, Tag] = {}
    max_tag: dict[str, Tag] = {}

    def as_dict(self) -> dict[str, Any]:
        return msgspec.structs.asdict(self)


FIELDS = {f.name: f for f in msgspec.structs.fields(Recipe)}
# of every release, and no tagger's, however they are written
COLUMNS = (
    "SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "LANGUAGE", "SIMILARITY", "HASH",
    "MD5",
)  # fmt: skip
# a threshold's reason is its column's name: these have another meaning in counts and records
REASONS = (
    "kept", "removed", "not_downloaded", "download_failed", "not_scored", "scoring_failed",
    "language_detector", "text_too_short", "too_few_bytes", "not_tagged",
)  # fmt: skip
# of every release, filled by taggers where the recipe names any
TAG_COLUMNS = ("NSFW", "punsafe", "pwatermark", "aesthetic")


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
    for key in values:
        if key not in FIELDS:
            close = difflib.get_close_matches(key, FIELDS, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(FIELDS)}"
            raise UserError(f"recipe {name}: unknown key {key!r}: {hint}")
    if missing := [f.name for f in FIELDS.values() if f.required and f.name not in values]:
        raise UserError(f"recipe {name} lacks {', '.join(missing)}")
    for key, kind, value in _parts(values):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            meta = getattr(kind, "__metadata__", None)
            must = meta[0].description if meta else f"of type {kind.__name__}"
            raise UserError(f"recipe {name}: {key} must be {must}, and is {value!r:.40}") from None
    recipe = msgspec.convert(values, Recipe)
    _check_tags(recipe, name)
    return recipe


def _parts(values: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and value of each key. A table is given key by key: msgspec's errors do not name
    a table's key."""
    for key, value in values.items():
        kind = FIELDS[key].type
        if get_origin(kind) is dict and isinstance(value, dict):
            of = get_args(kind)[1]
            yield from ((f"{key}.{part}", of, each) for part, each in value.items())
        else:
            yield key, kind, value


def _check_tags(recipe: Recipe, name: str) -> None:
    for column in recipe.tags:
        others = {*COLUMNS, *TAG_COLUMNS, *recipe.tags} - {column}
        # a reader that does not tell cases apart must not find two
        twice = column.lower() in {other.lower() for other in others}
        taken = twice or column in (*COLUMNS, *REASONS)
        if taken or not re.fullmatch("[A-Za-z][A-Za-z0-9_]{0,59}", column):
            raise UserError(f"recipe {name}: tags.{column} cannot be a column of a release")
    for key, thresholds in (("min_tag", recipe.min_tag), ("max_tag", recipe.max_tag)):
        for column in thresholds:
            if column not in recipe.tags or column == "NSFW":
                raise UserError(f"recipe {name}: {key}.{column} needs tags.{column}, with numbers")
