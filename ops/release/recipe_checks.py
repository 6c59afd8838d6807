"""What is wrong with a recipe, in a sentence that names the key."""

import difflib
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import msgspec

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.recipe_keys import Clusters, RecipeFile

if TYPE_CHECKING:
    from pairmill.ops.release.recipe import Recipe

# of every release, and no tagger's, however they are written
COLUMNS = (
    "SAMPLE_ID", "URL", "TEXT", "HEIGHT", "WIDTH", "LICENSE", "LANGUAGE", "SIMILARITY", "HASH",
    "MD5",
)  # fmt: skip
# a threshold's reason is its column's name: these have another meaning in counts and records
REASONS = (
    "kept", "removed", "withdrawn", "not_downloaded", "download_failed", "opted_out", "not_scored",
    "scoring_failed", "out_of_range", "language_detector", "language_probability", "licence",
    "text_too_short", "text_too_long", "too_few_words", "too_many_words", "personal_data",
    "keyword", "no_entity", "not_in_subset", "text_not_scored", "text_unsafe", "too_few_bytes",
    "too_small", "too_large", "too_few_pixels", "aspect", "top_fraction", "cluster",
    "duplicate", "not_tagged",
)  # fmt: skip
# of every release, filled by taggers where the recipe names any
TAG_COLUMNS = ("NSFW", "punsafe", "pwatermark", "aesthetic")
# what only images have, so that links need none of it
OF_IMAGES = (
    "model", "pretrained", "min_similarity", "above_similarity", "min_similarity_by_language",
    "top_fraction", "similarities", "multilingual_model", "min_bytes", "min_side", "max_side",
    "min_pixels", "max_aspect", "clusters", "tags",
)  # fmt: skip
_NAME = re.compile("[A-Za-z][A-Za-z0-9_]{0,59}")


def check_values(name: str, values: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Raises UserError for a key that there is not, one that is missing, or one of another type."""
    for key, kind, value in _parts(name, values, fields):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise UserError(
                f"recipe {name}: {key} must be {_must(kind, error)}, and is {value!r:.40}"
            ) from None


def _must(kind: Any, error: Exception) -> str:
    meta = getattr(kind, "__metadata__", None)
    if meta and meta[0].description:
        return str(meta[0].description)
    if _is_table(kind):
        return f"a table of {', '.join(kind.__struct_fields__)}"
    return f"of type {getattr(kind, '__name__', kind)}"


def _parts(
    name: str, values: Mapping[str, Any], fields: Mapping[str, Any], above: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and value of each key. A table is given key by key: msgspec's errors do not name
    a table's key."""
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(fields)}"
            raise UserError(f"recipe {name}: unknown key {above + key!r}: {hint}")
    if missing := [above + key for key, f in fields.items() if f.required and key not in values]:
        raise UserError(f"recipe {name} lacks {', '.join(missing)}")
    for key, value in values.items():
        kind = _without_none(fields[key].type)
        if isinstance(value, dict) and get_origin(kind) is dict:
            of = get_args(kind)[1]
            yield from ((f"{above}{key}.{part}", of, each) for part, each in value.items())
        elif (
            isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        ):
            own = {f.name: f for f in msgspec.structs.fields(kind)}
            yield from _parts(name, value, own, f"{above}{key}.")
        else:
            yield above + key, kind, value


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _without_none(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (each for each in get_args(kind) if each is not type(None))
    return kind


def check_together(recipe: "Recipe", name: str) -> None:
    """Raises UserError for keys that do not go together."""
    _check_columns(recipe, name)
    _check_bounds(recipe, name)
    if recipe.needs_score and not recipe.model:
        raise UserError(f"recipe {name}: a threshold of similarity needs a model")
    if recipe.multilingual_model and not recipe.model:
        raise UserError(f"recipe {name}: multilingual_model needs a model")
    if both := sorted(set(recipe.languages) & set(recipe.exclude_languages)):
        raise UserError(f"recipe {name}: {both[0]} is in languages and in exclude_languages")
    if recipe.dedupe and recipe.dedupe.needs_embeddings and not recipe.model:
        raise UserError(f"recipe {name}: dedupe by a cosine needs a model, whose embeddings it has")
    if recipe.clusters:
        _check_clusters(recipe.clusters, recipe.model, name)
    if recipe.max_removals_age_days and not recipe.required_removals:
        raise UserError(f"recipe {name}: max_removals_age_days needs required_removals")
    if recipe.takes == "links":
        _check_links(recipe, name)
    elif recipe.link_kinds != ["image"]:
        raise UserError(f"recipe {name}: link_kinds other than image need takes = 'links'")


def _check_links(recipe: "Recipe", name: str) -> None:
    for key in OF_IMAGES:
        if getattr(recipe, key) != getattr(type(recipe)("", 0, "", ""), key):
            raise UserError(f"recipe {name}: {key} is of images, and takes is 'links'")
    if recipe.layout != "pairmill":
        raise UserError(f"recipe {name}: layout {recipe.layout} is of images, takes is 'links'")


def _check_clusters(clusters: Clusters, model: str, name: str) -> None:
    if (clusters.near is None) is (clusters.ids is None):
        raise UserError(f"recipe {name}: clusters needs near or ids, and not both")
    if not model:
        raise UserError(f"recipe {name}: clusters needs a model, whose embeddings are compared")


def _check_columns(recipe: "Recipe", name: str) -> None:
    for column in recipe.tags:
        others = {*COLUMNS, *TAG_COLUMNS, *recipe.tags} - {column}
        # a reader that does not tell cases apart must not find two
        twice = column.lower() in {other.lower() for other in others}
        if twice or column in (*COLUMNS, *REASONS) or not _NAME.fullmatch(column):
            raise UserError(f"recipe {name}: tags.{column} cannot be a column of a release")
    lower = [column.lower() for column in recipe.similarities]
    for column in recipe.similarities:
        taken = f"similarity_{column}".lower() in {tag.lower() for tag in recipe.tags}
        if taken or lower.count(column.lower()) > 1 or not _NAME.fullmatch(column):
            raise UserError(f"recipe {name}: similarities.{column} cannot be part of a column")
    for key in ("min_tag", "above_tag", "max_tag", "below_tag"):
        for column in getattr(recipe, key):
            if column not in recipe.tags or column == "NSFW":
                raise UserError(f"recipe {name}: {key}.{column} needs tags.{column}, with numbers")


def _check_bounds(recipe: "Recipe", name: str) -> None:
    """One lower and one upper bound, the lower not above the upper."""
    if recipe.above_similarity is not None and (
        recipe.min_similarity is not None or recipe.min_similarity_by_language
    ):
        raise UserError(f"recipe {name}: above_similarity and min_similarity are both given")
    for column in recipe.tags:
        lows, highs = (
            [(key, table[column]) for key in keys if column in (table := getattr(recipe, key))]
            for keys in (("min_tag", "above_tag"), ("max_tag", "below_tag"))
        )
        for found in (lows, highs):
            if len(found) > 1:
                raise UserError(f"recipe {name}: {column} is in {found[0][0]} and {found[1][0]}")
        if lows and highs and lows[0][1] > highs[0][1]:
            _crossed(name, f"{lows[0][0]}.{column}", f"{highs[0][0]}.{column}")
    for low, high in (
        ("min_text_length", "max_text_length"), ("min_words", "max_words"),
        ("min_side", "max_side"),
    ):  # fmt: skip
        most = getattr(recipe, high)
        if most is not None and getattr(recipe, low) > most:
            _crossed(name, low, high)


def _crossed(name: str, low: str, high: str) -> None:
    raise UserError(f"recipe {name}: {low} is above {high}, and no pair would be kept")


def with_digests(recipe: "Recipe", name: str) -> "Recipe":
    """The recipe with the sha256 of each file that it names and that is there. Raises UserError for
    a file with another digest than the recipe gives."""

    def of(key: str, named: RecipeFile) -> RecipeFile:
        path = Path(recipe.folder) / named.file
        if not path.is_file():
            return named
        return RecipeFile(named.file, _of_digest(path, named, name, key))

    changes: dict[str, Any] = {}
    if recipe.exclude_keywords:
        changes["exclude_keywords"] = [of("exclude_keywords", f) for f in recipe.exclude_keywords]
    for key in ("entity_list", "subset"):
        if getattr(recipe, key):
            changes[key] = of(key, getattr(recipe, key))
    if recipe.text_safety:
        scores = of("text_safety.scores", recipe.text_safety.scores)
        changes["text_safety"] = msgspec.structs.replace(recipe.text_safety, scores=scores)
    if recipe.clusters:
        parts = {
            key: of(f"clusters.{key}", part)
            for key in Clusters.__struct_fields__
            if (part := getattr(recipe.clusters, key))
        }
        changes["clusters"] = Clusters(**parts)
    return msgspec.structs.replace(recipe, **changes) if changes else recipe


def file_of(recipe: "Recipe", key: str, named: RecipeFile) -> Path:
    """The path of a recipe's file. Raises UserError where it is absent, or has another sha256."""
    path = Path(recipe.folder) / named.file
    if not path.is_file():
        raise UserError(
            f"recipe {recipe.name}: there is no file {path}: bring it, or name another by"
            f" --set {key}.file=PATH"
        )
    _of_digest(path, named, recipe.name, key)
    return path


def _of_digest(path: Path, named: RecipeFile, name: str, key: str) -> str:
    found = sha256(path)
    if named.sha256 and found != named.sha256:
        raise UserError(
            f"recipe {name}: {key}.file {path} has not the sha256 that the recipe gives: {found}"
        )
    return found
