"""Recipes: what is wrong with one is said in a sentence that names the key."""

from pathlib import Path

import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.release import recipe

GOOD = """
name = "mine"
version = 2
description = "Mine"
licence = "CC-BY-4.0"
model = "ViT-B-32"
min_similarity = 0.28
"""


def test_laion_400m_is_what_laion_did() -> None:
    r = recipe.load("laion-400m")
    assert (r.min_similarity, r.languages, r.min_text_length, r.min_bytes) == (0.3, ["en"], 5, 5000)
    assert r.model == "ViT-B-32"


@pytest.mark.parametrize(
    "name", [name for name in recipe.builtin() if name.startswith(("laion", "re-laion"))]
)
def test_recipes_after_laion_count_characters_and_take_cld3s_languages(name: str) -> None:
    """Fault: a rule of our own in a release that is named after LAION's."""
    r = recipe.load(name)
    assert (r.min_text_length, r.text_length) == (5, "characters")
    assert r.language_detectors == ["cld3"]


def test_every_recipe_that_comes_with_it_loads() -> None:
    assert {"demo", "laion-400m"} <= set(recipe.builtin())
    for name in recipe.builtin():
        assert recipe.load(name).name == name


def test_file_with_overrides(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(GOOD)
    r = recipe.load(
        str(file), recipe.parse_overrides(["min_similarity=0", "languages=['de']", "model=x/y"])
    )
    assert (r.min_similarity, r.languages, r.model, r.min_bytes) == (0.0, ["de"], "x/y", 5000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "is not TOML"),
        ("", "lacks name, version, description, licence$"),
        (GOOD + "min_similarty = 1.0", "unknown key 'min_similarty': did you mean min_similarity"),
        (GOOD + "xyzzy = 1", "unknown key 'xyzzy': known are"),
        (GOOD + "min_bytes = 'many'", "min_bytes must be of type int"),
        (GOOD + "min_bytes = -1", "min_bytes must be of type int, 0 or more, and is -1"),
        (GOOD + "min_bytes = true", "min_bytes must be of type int"),
        (GOOD.replace("0.28", "28.0"), "min_similarity must be between -1 and 1"),
        (GOOD.replace("0.28", "nan"), "min_similarity must be between -1 and 1"),
        (GOOD + "languages = [1]", "languages must be a list of codes"),
        (GOOD + "text_length = 5", "text_length must be 'characters' or 'by_script', and is 5"),
        (
            GOOD + "[min_similarity_by_language]\nde = 2",
            "min_similarity_by_language.de must be between",
        ),
        (GOOD + "language_detectors = ['lingua']", "must be a list of: cld3, fasttext, and is"),
        (GOOD + "model_languages = [1]", "model_languages must be a list of codes"),
        (
            GOOD + "[tags]\nx = 'x'\n[min_tag]\nx = 1" + 400 * "0",
            "min_tag.x must be a number that a tag can be",
        ),
        (
            GOOD + "[tags]\nx = 'x'\n[max_tag]\nx = 1e39",
            "max_tag.x must be a number that a tag can be",
        ),
        (GOOD + "[tags]\nnsfw = 'x'", "tags.nsfw cannot be a column of a release"),
        (GOOD + "[tags]\nx = 'x'\nX = 'x'", "tags.x cannot be a column of a release"),
        (GOOD + "[tags]\nurl = 'x'", "tags.url cannot be a column of a release"),
        (GOOD + "[tags]\nkept = 'x'", "tags.kept cannot be a column of a release"),
        (GOOD + "[tags]\n'a b' = 'x'", "cannot be a column of a release"),
        (GOOD + "[tags]\naesthetic = 1", "tags.aesthetic must be a tagger's name"),
        (GOOD + "[min_tag]\naesthetic = 5", "min_tag.aesthetic needs tags.aesthetic"),
        (GOOD + "[tags]\nNSFW = 'x'\n[max_tag]\nNSFW = 1", "max_tag.NSFW needs tags.NSFW"),
        (
            GOOD + "[tags]\na = 'x'\n[max_tag]\na = nan",
            "max_tag.a must be a number that a tag can be",
        ),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        recipe.load(str(file))


def test_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(
        UserError,
        match=r"no recipe 'laion-6b': did you mean laion-5b\? A file, or one of datacomp-",
    ):
        recipe.load("laion-6b")
    with pytest.raises(UserError, match="write key=value"):
        recipe.parse_overrides(["min_similarity"])
