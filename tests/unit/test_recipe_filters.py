"""What each recipe keeps: its conditions over a small table, with answers computed by hand, at each
threshold and beside it."""

from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
import sqlglot

from pairmill.ops.release import filters, recipe
from pairmill.ops.release.recipe import Recipe

# a pair that every recipe keeps, but for what a case changes; tags by the place in the recipe
PAIR: dict[str, Any] = {
    "url": "https://a.example/1.jpg", "text": "a red house by the lake", "language": "en",
    "language_probability": 0.99, "language_detector": "cld3", "license": None, "downloaded": 0,
    "bytes": 90_000, "width": 1500, "height": 1100, "scored": 0, "similarity": 0.9,
    "aesthetic": 9.0, "punsafe": 0.01, "pwatermark": 0.01, "removed": False, "pii": 0,
    "keyword": False, "entity": True, "cluster": True,
}  # fmt: skip
TYPES = {
    "language_probability": pa.float32(), "downloaded": pa.int16(), "bytes": pa.int32(),
    "width": pa.int32(), "height": pa.int32(), "scored": pa.int16(), "similarity": pa.float32(),
    "removed": pa.bool_(), "pii": pa.int16(), "keyword": pa.bool_(), "entity": pa.bool_(),
    "cluster": pa.bool_(),
}  # fmt: skip
TAGS = ("aesthetic", "punsafe", "pwatermark")
KEPT = "kept"


def below(value: float) -> float:
    """The next float32 below a threshold as it is written."""
    return float(np.nextafter(np.float32(value), np.float32(-9)))


def above(value: float) -> float:
    return float(np.nextafter(np.float32(value), np.float32(9)))


def decided(chosen: Recipe, pairs: list[dict[str, Any]]) -> list[str]:
    """The reason of each pair, by the conditions as DuckDB runs them."""
    columns = {
        name: pa.array([pair[name] for pair in pairs], TYPES.get(name, pa.string()))
        for name in PAIR
        if name not in TAGS
    }
    for i, name in enumerate(chosen.tags):
        columns[f"tag_{i}"] = pa.array([pair[name] for pair in pairs], pa.float32())
    columns["place"] = pa.array(range(len(pairs)))
    case = " ".join(
        f"WHEN {condition} THEN {filters.string(word)}"
        for word, condition in filters.reasons(chosen)
    )
    query = f"SELECT CASE {case} ELSE '{KEPT}' END FROM candidate ORDER BY place"
    # what Spark is given: an unknown function or cast would be an error here, or stay DuckDB's
    assert "::" not in sqlglot.transpile(query, read="duckdb", write="spark")[0]
    with duckdb.connect() as db:
        db.register("candidate", pa.table(columns))
        return [word for (word,) in db.execute(query).fetchall()]


def changed(chosen: Recipe, changes: dict[str, Any]) -> dict[str, Any]:
    own = {"language": (chosen.languages or ["en"])[0]}
    if chosen.exclude_languages:
        own["language"] = "vi"
    if chosen.language_detectors:
        own["language_detector"] = chosen.language_detectors[0]
    return PAIR | own | changes


Case = tuple[dict[str, Any], str]
LAION: list[Case] = [
    ({"text": "abcde"}, KEPT), ({"text": "abcd"}, "text_too_short"),
    ({"bytes": 5000}, KEPT), ({"bytes": 4999}, "too_few_bytes"),
    ({"language_detector": "fasttext"}, "language_detector"),
    ({"language_detector": None}, "language_detector"),
    ({"downloaded": None}, "not_downloaded"), ({"downloaded": 31}, "download_failed"),
    ({"scored": None, "similarity": None}, "not_scored"),
    ({"scored": 2, "similarity": None}, "scoring_failed"),
    ({"removed": True, "downloaded": None}, "removed"),
    # LAION-400M's 6016, and its sizes of 0
    ({"similarity": 6016.0}, "out_of_range"), ({"similarity": float("nan")}, "out_of_range"),
    ({"width": 0}, "out_of_range"), ({"similarity": 1.0}, KEPT),
]  # fmt: skip
ENGLISH: list[Case] = [({"language": "de"}, "language"), ({"language": "nolang"}, "language")]


def at(bound: float, **others: Any) -> list[Case]:
    return [({"similarity": bound} | others, KEPT),
            ({"similarity": below(bound)} | others, "similarity")]  # fmt: skip


def strictly_above(column: str, bound: float) -> list[Case]:
    return [({column: bound}, column), ({column: above(bound)}, KEPT),
            ({column: None}, "not_tagged")]  # fmt: skip


def strictly_below(column: str, bound: float) -> list[Case]:
    return [({column: bound}, column), ({column: below(bound)}, KEPT),
            ({column: None}, "not_tagged")]  # fmt: skip


def at_most(column: str, bound: float) -> list[Case]:
    return [({column: bound}, KEPT), ({column: above(bound)}, column),
            ({column: None}, "not_tagged")]  # fmt: skip


LAION_5B = LAION + at(0.28) + at(0.26, language="de") + at(0.26, language="nolang")
AESTHETICS_V1 = strictly_below("punsafe", 0.5) + strictly_below("pwatermark", 0.8)
POOL: list[Case] = [
    ({"downloaded": None}, "not_downloaded"), ({"bytes": 1, "text": "abc"}, KEPT),
    ({"bytes": 1, "width": 1, "height": 1}, KEPT), ({"language": "en"}, KEPT),
]  # fmt: skip
UNSCORED: list[Case] = [({"scored": None, "similarity": None}, KEPT)]
FASTTEXT: list[Case] = [*ENGLISH, ({"language_detector": "cld3"}, "language_detector")]
CAPTION: list[Case] = [
    ({"text": "ab cde"}, KEPT), ({"text": "ab cd"}, "text_too_short"),
    ({"text": "abcdef"}, "too_few_words"),
]  # fmt: skip
CLUSTER: list[Case] = [({"cluster": False}, "cluster"), ({"cluster": None}, "not_scored")]

RECIPES: dict[str, list[Case]] = {
    "demo": [*ENGLISH, *at(0.7)],
    "laion-400m": LAION + ENGLISH + at(0.3),
    "laion-2b-en": LAION + ENGLISH + at(0.28),
    "laion-2b-multi": [*LAION, *at(0.26), ({"language": "en"}, "language"),
                       ({"language": "nolang"}, "language"), ({"language": "de"}, KEPT)],
    "laion-1b-nolang": [*LAION, *at(0.26), ({"language": "en"}, "language")],
    "laion-5b": LAION_5B,
    "laion-high-resolution": [
        *LAION_5B, ({"width": 1024, "height": 1024}, KEPT), ({"width": 1023}, "too_small"),
        ({"height": 1023, "width": 4000}, "too_small"), ({"punsafe": None}, KEPT),
    ],
    "laion-aesthetics-v1": LAION_5B + strictly_above("aesthetic", 7) + AESTHETICS_V1,
    "laion-art": LAION_5B + strictly_above("aesthetic", 8) + AESTHETICS_V1,
    **{
        f"laion-aesthetics-v2-{bound:g}plus": [
            *LAION, *ENGLISH, *at(0.28), ({"aesthetic": bound}, KEPT),
            ({"aesthetic": below(bound)}, "aesthetic"), ({"aesthetic": None}, "not_tagged"),
            ({"pwatermark": 1.0, "punsafe": None}, KEPT),
        ]
        for bound in (4.5, 4.75, 5, 6, 6.25, 6.5)
    },
    "re-laion-research": [*LAION_5B, *at_most("punsafe", 0.95), ({"keyword": True}, "keyword")],
    "re-laion-research-safe": [*LAION_5B, *at_most("punsafe", 0.45),
                               ({"keyword": True}, "keyword")],
    "pairmill-curated": [
        *at(0.28), *at(0.26, language="de"), *strictly_above("aesthetic", 5),
        ({"width": 128, "height": 128}, KEPT), ({"width": 127}, "too_small"),
        ({"text": "one two three four five"}, KEPT), ({"text": "one two three four"}, "too_few_words"),
    ],
    "datacomp-no-filter": POOL + UNSCORED,
    "datacomp-basic": [
        *FASTTEXT, *UNSCORED, ({"bytes": 1}, KEPT),
        ({"text": "a b cd"}, KEPT), ({"text": "abc def"}, "too_few_words"),
        ({"text": "a b c"}, "text_too_short"),
        ({"width": 200, "height": 600}, KEPT), ({"width": 601, "height": 200}, "aspect"),
        ({"width": 199}, "too_small"),
    ],
    # top_fraction is a pass over all: see below
    "datacomp-clip-score-l14": [*POOL, ({"scored": None, "similarity": None}, "not_scored")],
    "datacomp-clip-score-b32": POOL + at(0.25),
    "datacomp-laion2b": [*ENGLISH, *at(0.28), ({"text": "abc", "bytes": 1}, KEPT)],
    "datacomp-text-based": [*FASTTEXT, *UNSCORED, ({"entity": False}, "no_entity"),
                            ({"text": "abc"}, KEPT)],
    "datacomp-image-based": [*FASTTEXT, *CAPTION, *CLUSTER, *UNSCORED],
    "datacomp-image-based-intersect-clip-score": [
        *FASTTEXT, *CAPTION, ({"cluster": False}, "cluster"), ({"cluster": None}, "cluster"),
        ({"scored": None, "similarity": None}, "not_scored"),
    ],
    "text-by-language": [
        ({"downloaded": None, "scored": None, "width": None, "height": None, "bytes": None,
          "similarity": None}, KEPT),
        ({"downloaded": 31}, KEPT), ({"downloaded": 50}, "opted_out"),
        ({"language": "en"}, "language"), ({"language_probability": 0.9}, KEPT),
        ({"language_probability": below(0.9)}, "language_probability"),
        ({"language_probability": None}, "language_probability"),
        ({"text": "eins zwei drei vier"}, "too_few_words"), ({"pii": 8}, "personal_data"),
        ({"text": "a b c d " + 992 * "e"}, KEPT), ({"text": "a b c d " + 993 * "e"}, "text_too_long"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", recipe.builtin())
def test_a_recipe_keeps_what_its_source_keeps(name: str) -> None:
    """Fault: a threshold that is strict where its source's is not, or the reverse; one that is
    missing; a number that is compared as a double."""
    chosen = recipe.load(name)
    cases = [({}, KEPT), *RECIPES[name]]
    found = decided(chosen, [changed(chosen, changes) for changes, _ in cases])
    wrong = [(case, word) for case, word in zip(cases, found, strict=True) if case[1] != word]
    assert wrong == []


def custom(**values: Any) -> Recipe:
    base: dict[str, Any] = {"name": "x", "version": 1, "description": "", "licence": ""}
    return Recipe(**(base | values))


CC = "https://creativecommons.org"
KEYS: list[tuple[dict[str, Any], list[Case]]] = [
    ({"model": "m", "above_similarity": 0.3},
     [({"similarity": 0.3}, "similarity"), ({"similarity": above(0.3)}, KEPT)]),
    ({"max_side": 1500}, [({}, KEPT), ({"height": 1501}, "too_large")]),
    # 50,000 squared is more than an int32
    ({"min_pixels": 2_500_000_000},
     [({"width": 50_000, "height": 50_000}, KEPT), ({"width": 49_999, "height": 50_000}, "too_few_pixels")]),
    ({"max_aspect": 1.7}, [({"width": 17, "height": 10}, KEPT), ({"width": 10, "height": 18}, "aspect")]),
    ({"max_words": 2}, [({"text": "one two"}, KEPT), ({"text": "one two three"}, "too_many_words")]),
    ({"exclude_pii": ["email", "iban"]},
     [({"pii": 2}, KEPT), ({"pii": 1}, "personal_data"), ({"pii": 6}, "personal_data")]),
    ({"licences": ["zero", "by-sa/4.0"]},
     [({"license": None}, "licence"),
      ({"license": f"{CC}/publicdomain/zero/1.0/"}, KEPT),
      ({"license": "http://www.CreativeCommons.org/licenses/by-sa/4.0?ref=x"}, KEPT),
      ({"license": f"{CC}/licenses/by-sa/3.0/"}, "licence"),
      ({"license": f"{CC}/licenses/by/4.0/"}, "licence"),
      ({"license": f"{CC}/licenses/zero/"}, "licence")]),
    ({"model": "m", "min_similarity_by_language": {"it's": 0.9}},
     [({"language": "it's", "similarity": below(0.9)}, "similarity"), ({"similarity": -1.0}, KEPT)]),
    ({"languages": ["a'b\\", "de"]}, [({"language": "a'b\\"}, KEPT), ({"language": "a"}, "language")]),
]  # fmt: skip


@pytest.mark.parametrize(("values", "cases"), KEYS)
def test_a_key_leaves_out_what_it_says(values: dict[str, Any], cases: list[Case]) -> None:
    """Fault: sizes that overflow; a value that ends its own quotes; a licence of another name."""
    found = decided(custom(**values), [PAIR | changes for changes, _ in cases])
    assert found == [word for _, word in cases]


def test_every_reason_is_a_word_that_no_tag_can_have() -> None:
    """Fault: a tag's column that counts as something else in manifests and records."""
    from pairmill.ops.release.recipe_checks import REASONS

    known = {*REASONS, "language", "similarity"}
    for name in recipe.builtin():
        chosen = recipe.load(name)
        assert {word for word, _ in filters.reasons(chosen)} <= {*known, *chosen.tags}


@pytest.mark.parametrize(
    ("fraction", "kept"),
    # of 10 similarities, of which the third and fourth are equal
    [(0.3, 4), (0.2, 4), (0.19, 2), (1.0, 10), (0.01, 1), (0.5, 6)],
)
def test_a_fraction_is_datacomps_with_its_ties(fraction: float, kept: int) -> None:
    """Fault: one row less than DataComp's threshold, sorted[int(N x f)], keeps."""
    scores = np.sort(np.array([9, 8, 7, 7, 6, 5, 4, 3, 2, 1], np.float32))[::-1]
    threshold = scores[filters.fraction_index(len(scores), fraction)]
    assert int((scores >= threshold).sum()) == kept


def texts() -> Iterator[str]:
    yield from ("a", "a b", "\u00e9t\u00e9 a\u0301 b", "\U0001f98a \u5199\u771f", "x" * 2000)


def test_words_are_what_white_space_parts() -> None:
    """Fault: an empty text of one word; a length in bytes."""
    with duckdb.connect() as db:
        db.register("t", pa.table({"text": [*texts(), ""]}))
        found = [n for (n,) in db.execute(f"SELECT {filters.WORDS} FROM t").fetchall()]
    assert found == [len(text.split()) for text in [*texts(), ""]]
