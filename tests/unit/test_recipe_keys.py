"""Keys of recipes that go together or do not, and the files that recipes name."""

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from pairmill.ops.errors import UserError
from pairmill.ops.release import annotators, pii, recipe, recipe_keys
from pairmill.ops.release.recipe import Recipe

GOOD = """
name = "mine"
version = 2
description = "Mine"
licence = "CC-BY-4.0"
"""
MODEL = 'model = "m"\n'
TAGGED = "[tags]\na = 'x'\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("min_similarity = 0.3", "a threshold of similarity needs a model"),
        ("top_fraction = 0.3", "a threshold of similarity needs a model"),
        (MODEL + "top_fraction = 0", "top_fraction must be above 0 and at most 1, and is 0"),
        (MODEL + "above_similarity = 0.3\nmin_similarity = 0.3", "are both given"),
        ("max_aspect = 0.5", "max_aspect must be 1 or more: the longer side over the shorter"),
        ("max_words = 0", "max_words must be of type int, 1 or more, and is 0"),
        ("min_words = 6\nmax_words = 5", "min_words is above max_words, and no pair"),
        ("min_side = 6\nmax_side = 5", "min_side is above max_side"),
        ("max_text_length = 4", "min_text_length is above max_text_length"),
        ("licences = ['cc0 1.0']", "licences must be a list of Creative Commons licences"),
        ("exclude_pii = ['name']", "exclude_pii must be a list of: email, phone, iban"),
        ("languages = ['en']\nexclude_languages = ['en']", "en is in languages and in exclude_"),
        ("link_kinds = ['image', 'audio']", "link_kinds other than image need takes = 'links'"),
        ("link_kinds = []", "link_kinds must be a list of: image, audio, video, document"),
        ("takes = 'texts'", "takes must be 'images' or 'links'"),
        ("takes = 'links'\nmin_side = 5", "min_side is of images, and takes is 'links'"),
        ("takes = 'links'\n" + MODEL, "model is of images"),
        ("takes = 'links'\nlayout = 'datacomp'", "layout datacomp is of images"),
        ("layout = 'laion'", "layout must be one of: pairmill, laion-400m"),
        ("max_removals_age_days = 3", "max_removals_age_days needs required_removals"),
        ("entity_list = 'words.txt'", "entity_list must be a table of file, sha256"),
        ("entity_list = { path = 'x' }", "unknown key 'entity_list.path': known are file"),
        ("entity_list = { sha256 = '' }", "lacks entity_list.file"),
        ("entity_list = { file = 'x', sha256 = 'AB' }", "entity_list.sha256 must be a sha256, 64"),
        ("exclude_keywords = [{ name = 'x' }]", "exclude_keywords must be a list of files"),
        (MODEL + "clusters = { centroids = { file = 'x' } }", "clusters needs near or ids"),
        ("clusters = { centroids = { file = 'x' }, ids = { file = 'y' } }", "needs a model, whose"),
        ("[clusters.centroids]\nfil = 'x'", "key 'clusters.centroids.fil': did you mean file"),
        ("[dedupe]\ndhash_radius = 9", "dedupe.dhash_radius must be bits"),
        ("[dedupe]\nradius = 3", "unknown key 'dedupe.radius': did you mean"),
        ("[dedupe]\nsemantic_cosine = 0.9", "dedupe by a cosine needs a model"),
        (TAGGED + "[min_tag]\na = 1\n[above_tag]\na = 1", "a is in min_tag and above_tag"),
        (TAGGED + "[max_tag]\na = 1\n[below_tag]\na = 1", "a is in max_tag and below_tag"),
        (TAGGED + "[above_tag]\na = 2\n[max_tag]\na = 1", "above_tag.a is above max_tag.a"),
        ("[below_tag]\na = 1", "below_tag.a needs tags.a, with numbers"),
        ("[tags]\nduplicate = 'x'", "tags.duplicate cannot be a column"),
        ("[similarities]\n'a b' = 'x'", "similarities.a b cannot be part of a column"),
        ("[similarities]\na = ''", "similarities.a must be a model's name and weights"),
        ("folder = '/tmp'", "unknown key 'folder'"),
    ],
)
def test_keys_that_do_not_hold(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(GOOD + text)
    with pytest.raises(UserError) as error:
        recipe.load(str(file))
    assert says in str(error.value)


def loaded(folder: Path, text: str, *overrides: str) -> Recipe:
    (folder / "mine.toml").write_text(GOOD + text)
    return recipe.load(str(folder / "mine.toml"), recipe.parse_overrides(overrides))


def test_a_key_of_a_table_can_be_set_alone(tmp_path: Path) -> None:
    """Fault: --set tags.b=… that forgets tags.a."""
    found = loaded(tmp_path, TAGGED, "tags.b=y", "min_tag.b=3", "dedupe.text=near")
    assert (found.tags, found.min_tag) == ({"a": "x", "b": "y"}, {"b": 3})
    assert found.dedupe and found.dedupe.text == "near"
    with pytest.raises(UserError, match=r"name.a cannot be set: name is no table"):
        loaded(tmp_path, "", "name.a=3")


def test_a_manifest_has_the_digests_of_files_and_not_their_folder(tmp_path: Path) -> None:
    """Fault: bytes of a release that depend on the folder of its recipe; a list that was changed
    since, taken for the one that the recipe means."""
    (tmp_path / "words.txt").write_text("cat\n")
    digest = hashlib.sha256(b"cat\n").hexdigest()
    found = loaded(tmp_path, "entity_list = { file = 'words.txt' }")
    values = json.loads(json.dumps(found.as_dict()))
    assert values["entity_list"] == {"file": "words.txt", "sha256": digest}
    assert str(tmp_path) not in json.dumps(values)
    assert msgspec.convert(values, Recipe).as_dict() == values
    wrong = f"entity_list = {{ file = 'words.txt', sha256 = '{'0' * 64}' }}"
    with pytest.raises(UserError, match="has not the sha256 that the recipe gives"):
        loaded(tmp_path, wrong)
    (tmp_path / "words.txt").write_text("dog\n")
    with pytest.raises(UserError, match="has not the sha256 that the recipe gives"):
        annotators.of_recipe(found, None)


def test_kinds_of_personal_data_are_those_that_are_found() -> None:
    """Fault: a mask of another kind than the recipe names."""
    assert get_args(recipe_keys.PiiKind) == pii.KINDS


# ---- the passes over the files ------------------------------------------------------------------


def annotated(found: Recipe, column: str, **rows: pa.Array) -> list[bool | None]:
    (annotator,) = [a for a in annotators.of_recipe(found, None) if a.column == column]
    assert set(annotator.needs) == set(rows)
    array = annotator.annotate(pa.record_batch(rows))
    assert array.type == annotator.kind
    values: list[bool | None] = array.to_pylist()
    return values


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("a red CAT", True), ("cat,", False), ("concat", False), ("Cats", False), ("fish", True),
        ("", False), (None, None),
    ],
)  # fmt: skip
def test_an_entity_is_a_whole_word_as_datacomp_parts_them(
    tmp_path: Path, text: str | None, hit: bool | None
) -> None:
    """Fault: a word within another; punctuation taken off, which DataComp leaves on."""
    (tmp_path / "w.txt").write_text("\ufeff# of ImageNet-21k\n\ncat\nFish\n", "utf-8")
    found = loaded(tmp_path, "entity_list = { file = 'w.txt' }")
    assert annotated(found, "entity", text=pa.array([text, "cat"], pa.string())) == [hit, True]


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ("class", False), ("ASS!", True), ("an ass", True), ("Nude-Photo of", True),
        ("nude photos", False), ("nudity", True), ("denudi", False), ("この裸体写真", True),
        ("big cat", True), ("big dog", False), ("CAFE\u0301", True), ("ａｓｓ", True), ("", False),
        ("a+b", False), (None, None),
    ],
)  # fmt: skip
def test_a_keyword_is_a_whole_word_or_phrase_in_any_spelling(
    tmp_path: Path, text: str | None, hit: bool | None
) -> None:
    """Fault: ``ass`` in ``class``; a phrase that a hyphen hides; full-width letters, a letter with
    a combining accent, or Chinese without spaces that are not found."""
    (tmp_path / "k.txt").write_text("ass\nnude photo\nnudi*\n裸体\nbig c*\ncafé\n", "utf-8")
    found = loaded(tmp_path, "exclude_keywords = [{ file = 'k.txt' }]")
    assert annotated(found, "keyword", text=pa.array([text, "ass"], pa.string())) == [hit, True]


CENTROIDS = np.array([[1, 0], [0, 1], [-2, -2], [0, 1]], np.float32)


def images(*vectors: list[float] | None) -> pa.Array:
    return pa.array(vectors, pa.list_(pa.float16(), 2))


@pytest.mark.parametrize(
    ("wanted", "near"),
    [("near", np.array([[0.1, 0.9]], np.float64)), ("ids", np.array([1]))],
)
def test_an_image_is_near_where_its_centroid_is(
    tmp_path: Path, wanted: str, near: np.ndarray[Any, Any]
) -> None:
    """Fault: distance for a dot product (of the last the long third wins); the last of equals."""
    np.save(tmp_path / "c.npy", CENTROIDS)
    np.save(tmp_path / "n.npy", near)
    found = loaded(
        tmp_path,
        f"{MODEL}clusters = {{ centroids = {{ file = 'c.npy' }}, {wanted} = {{ file = 'n.npy' }} }}",
    )
    given = images([0.9, 0.1], [0.3, 0.7], None, [-0.1, -0.05])
    assert annotated(found, "cluster", image=given) == [False, True, None, False]
    with pytest.raises(UserError, match=r"centroids have 2 numbers each, and the model's .* 3"):
        annotated(found, "cluster", image=pa.array([[1.0, 0, 0]], pa.list_(pa.float16(), 3)))
    # of a folder without embeddings the width is not known
    unknown = pa.nulls(1, pa.list_(pa.float16(), 1))
    assert annotated(found, "cluster", image=unknown) == [None]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.txt", b"", "has no word"),
        ("w.txt", b"\xff\xfe\x00", "is not UTF-8, at byte 0"),
        ("k.txt", b"ok\n---\n", "the keyword '---' has no letter and no digit"),
        ("k.txt", None, "there is no file .*k.txt: bring it, or name another"),
        ("c.npy", b"no array", "is no .npy file"),
        ("c.npy", np.zeros((0, 2), np.float32), r"holds float32\[0, 2\], and not float"),
        ("c.npy", np.full((1, 2), np.nan), "has a number that is not finite"),
        ("n.npy", np.array([4]), "names a centroid beyond the 4 that there are"),
        ("n.npy", np.array([0.5]), "is no list of whole numbers"),
    ],
)
def test_a_file_that_does_not_hold(
    tmp_path: Path, name: str, content: bytes | np.ndarray[Any, Any] | None, says: str
) -> None:
    """Fault: a traceback, or a release without a filter."""
    (tmp_path / "w.txt").write_text("cat")
    (tmp_path / "k.txt").write_text("cat")
    np.save(tmp_path / "c.npy", CENTROIDS)
    np.save(tmp_path / "n.npy", np.array([0]))
    (tmp_path / name).unlink()
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / name, content)
    found = loaded(
        tmp_path,
        MODEL + "entity_list = { file = 'w.txt' }\nexclude_keywords = [{ file = 'k.txt' }]\n"
        "clusters = { centroids = { file = 'c.npy' }, ids = { file = 'n.npy' } }",
    )
    with pytest.raises(UserError, match=says):
        annotators.of_recipe(found, None)
