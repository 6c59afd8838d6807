"""Recipes: the thresholds of a release, as a named, versioned TOML file."""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from msgspec import field

from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.errors import UserError
from pairmill.ops.release import recipe_checks
from pairmill.ops.release.recipe_keys import (
    Aspect,
    AtLeastOne,
    Clusters,
    Count,
    Detectors,
    Fraction,
    Languages,
    Layouts,
    Licences,
    LinkKinds,
    ModelName,
    PiiKinds,
    Probability,
    RecipeFile,
    RecipeFiles,
    Similarity,
    Sources,
    Tag,
    Tagger,
    Takes,
    TextLength,
    TextSafety,
)


class Recipe(msgspec.Struct, frozen=True):
    """The thresholds of a release: ``min_`` and ``max_`` are inclusive, ``above_`` and ``below_``
    are not. A key that is not given is no threshold.

    source: the text that has the rule. licence: of the metadata.
    takes: ``images``, the pairs whose image was downloaded; or ``links``, pairs as they were found,
    downloaded or not, but for those that opted out. link_kinds: the kinds of links; others than
    ``image`` are links only.
    model, pretrained: the model whose similarity is used, as in ``mill.model``.
    min_similarity, above_similarity: cosine similarity, -1 to 1; min_similarity_by_language: other
    values for some languages. top_fraction: of all pairs that are scored, whatever else holds of
    them, the share with the highest similarity; ties are kept. Where none of these is given, a
    pair needs no score. similarities: further models, whose similarity is a column alone.
    multilingual_model, multilingual_pretrained: another model, whose similarity is used instead for
    pairs in none of model_languages; empty: there is none.
    languages: those to keep, ``nolang`` among them if wanted; empty: all but exclude_languages.
    language_detectors: those whose pairs are taken; empty: all. min_language_probability: the
    detector's, of its best guess. licences: of the page, as Creative Commons' URLs name them.
    min_text_length, max_text_length: characters, as LAION counts them; where text_length is
    ``by_script``, each of them counts as many Latin ones as say about as much, for the minimum:
    ``mill.text_weight``. min_words, max_words: what white space parts.
    exclude_pii: kinds of personal data. exclude_keywords: files of words and phrases, see
    ``keywords``. entity_list: a file of words of which a text needs one, see ``entities``.
    text_safety: bounds on a classifier's probabilities, see ``text_scores``.
    subset: a file of SAMPLE_IDs, u8,u8, of which a pair is one, see ``subset``.
    min_bytes: of the image's file. min_side, max_side, min_pixels: of its shorter side, its longer
    side, and width x height. max_aspect: the longer side over the shorter.
    clusters: of the model's image embeddings those near to others, see ``clusters``.
    tags: which tagger fills which column of the release; aesthetic, punsafe and pwatermark are
    always columns, NSFW is the tagger's label. min_tag, above_tag, max_tag, below_tag: thresholds
    on those columns; a pair without the tag is left out.
    dedupe: what is a duplicate of another kept row, see ``Dedupe``.
    required_removals: sources whose lists must be there, at most max_removals_age_days old (0: any
    age), or there is no release. layout: the names and types of the columns, see ``layouts``;
    with_sample_id: SAMPLE_ID is the last column of a layout that has none, so that keep-lists
    reach copies of it.
    folder: of the recipe's file, from which its files are named; it is no key.
    """

    name: str
    version: int
    description: str
    licence: str
    source: str = ""
    takes: Takes = "images"
    link_kinds: LinkKinds = field(default_factory=lambda: ["image"])
    model: str = ""
    pretrained: str = ""
    min_similarity: Similarity | None = None
    above_similarity: Similarity | None = None
    min_similarity_by_language: dict[str, Similarity] = {}
    top_fraction: Fraction | None = None
    similarities: dict[str, ModelName] = {}
    multilingual_model: str = ""
    multilingual_pretrained: str = ""
    model_languages: Languages = field(default_factory=lambda: ["en"])
    languages: Languages = []
    exclude_languages: Languages = []
    language_detectors: Detectors = []
    min_language_probability: Probability = 0.0
    licences: Licences = []
    min_text_length: Count = 5
    max_text_length: AtLeastOne | None = None
    text_length: TextLength = "characters"
    min_words: Count = 0
    max_words: AtLeastOne | None = None
    exclude_pii: PiiKinds = []
    exclude_keywords: RecipeFiles = []
    entity_list: RecipeFile | None = None
    text_safety: TextSafety | None = None
    subset: RecipeFile | None = None
    min_bytes: Count = 5000
    min_side: Count = 0
    max_side: AtLeastOne | None = None
    min_pixels: Count = 0
    max_aspect: Aspect | None = None
    clusters: Clusters | None = None
    tags: dict[str, Tagger] = {}
    min_tag: dict[str, Tag] = {}
    above_tag: dict[str, Tag] = {}
    max_tag: dict[str, Tag] = {}
    below_tag: dict[str, Tag] = {}
    dedupe: Dedupe | None = None
    required_removals: Sources = []
    max_removals_age_days: Count = 0
    layout: Layouts = "pairmill"
    with_sample_id: bool = False
    folder: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Of JSON's types; without ``folder``, so that a manifest is the same wherever it lies."""
        values: dict[str, Any] = msgspec.to_builtins(self)
        del values["folder"]
        return values

    @property
    def needs_score(self) -> bool:
        """Whether a pair without a similarity is left out."""
        bounds = (self.min_similarity, self.above_similarity, self.top_fraction)
        return any(bound is not None for bound in bounds) or bool(self.min_similarity_by_language)


FIELDS = {f.name: f for f in msgspec.structs.fields(Recipe) if f.name != "folder"}


def builtin() -> list[str]:
    """Names of the recipes that come with Pairmill."""
    folder = files("pairmill.ops.release") / "recipes"
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by its name or its file's path, with other values for some of its keys; a key with
    a dot, ``tags.aesthetic``, is one of a table.

    Files that it names and that are there are read for their digests; one that is absent is an
    error of whatever needs it. Raises UserError, naming the key, for a recipe that does not exist
    or does not hold, and for a file that has another digest.
    """
    folder = ""
    if name in builtin():
        text = (files("pairmill.ops.release") / "recipes" / f"{name}.toml").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8", errors="replace")
        folder = str(Path(name).parent)
    else:
        close = difflib.get_close_matches(name, builtin(), 1)
        hint = f"did you mean {close[0]}? A file" if close else "a file"
        raise UserError(f"there is no recipe {name!r}: {hint}, or one of {', '.join(builtin())}")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"recipe {name} is not TOML: {error}") from None
    values = _merged(name, values, overrides or {})
    recipe_checks.check_values(name, values, FIELDS)
    recipe = msgspec.convert(values | {"folder": folder}, Recipe)
    recipe_checks.check_together(recipe, name)
    return recipe_checks.with_digests(recipe, name)


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


def _merged(name: str, values: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in overrides.items():
        table, last = values, key
        while "." in last:
            first, _, last = last.partition(".")
            table = table.setdefault(first, {})
            if not isinstance(table, dict):
                raise UserError(f"recipe {name}: {key} cannot be set: {first} is no table")
        table[last] = value
    return values
