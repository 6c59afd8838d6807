"""Zero-shot taggers: their file, and that they tag drawings rightly with the demo's model."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import COLOURS, COUNTS, SHAPES, Attributes, attributes, caption
from pairmill.ops.demo.model.train import HELD_OUT, thumbnail
from pairmill.ops.taggers.zero_shot import head, parse, read
from pairmill.workers.errors import Refused
from pairmill.workers.score.heads import Head
from pairmill.workers.score.model import load
from pairmill.workers.score.model import open_clip as clip

SHIPPED = Path(__file__).parents[3] / "ops" / "taggers"


def vectors(prompts: list[str]) -> np.ndarray:
    """An embedding by the prompt's own letters."""
    rows = [np.random.default_rng(list(prompt.encode())).standard_normal(16) for prompt in prompts]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def told(*categories: tuple[str, list[str]], **more: Any) -> dict[str, Any]:
    return {
        "category": [{"name": name, "prompts": prompts} for name, prompts in categories],
        **more,
    }


def test_categories_are_the_means_of_their_prompts() -> None:
    tagger = parse(told(("x", ["a", "b"]), ("y", ["c"]), templates=["{}", "no {}"], positive=["y"]))
    assert [c.prompts for c in tagger.categories] == [("a", "no a", "b", "no b"), ("c", "no c")]
    made = head(tagger, vectors, scale=100)
    means = [vectors(list(c.prompts)).mean(axis=0) for c in tagger.categories]
    wanted = np.array([mean / np.linalg.norm(mean) for mean in means])
    assert (made.kind, made.labels, made.positive, made.scale) == (
        "zero-shot",
        ("x", "y"),
        ("y",),
        100,
    )
    assert made.layers[0].weight == pytest.approx(wanted, abs=1e-6)
    tags = made.tag(torch.from_numpy(wanted.astype(np.float32)))
    assert tags.labels is not None
    assert tags.labels.tolist() == [0, 1]
    assert tags.values == pytest.approx([0, 1], abs=1e-3)  # the probability of y
    # prompts that are not normalised count no more than others
    longer = head(tagger, lambda prompts: vectors(prompts) * [[9]] * len(prompts), scale=100)
    assert longer.layers[0].weight == pytest.approx(wanted, abs=1e-6)


def test_drawings_are_tagged_by_the_colour_of_their_background() -> None:
    """With a real model: the demo's, on drawings that it was not trained on."""
    name = f"local-dir:{demo.PATH}"
    network, _, _ = clip.create_model_and_transforms(name)
    tokenize = clip.get_tokenizer(name)

    def encode(prompts: list[str]) -> np.ndarray:
        with torch.inference_mode():
            return network.eval().encode_text(tokenize(prompts), normalize=True).numpy()

    every = [
        Attributes(*what)
        for what in itertools.product(COUNTS, COLOURS, SHAPES, COLOURS)
        if what[1] != what[3]
    ]
    says = told(
        *(
            (g, [caption(i, what) for i, what in enumerate(every) if what.ground == g])
            for g in COLOURS
        ),
        positive=["red", "blue"],
    )
    tagger = head(parse(says), encode, scale=float(network.logit_scale.detach().exp()))
    seeds = range(HELD_OUT, HELD_OUT + 100)
    model = load(str(demo.PATH), device="cpu")
    scores = model.score([thumbnail(seed) for seed in seeds], ["x"] * len(seeds))
    tags = Head.from_bytes(tagger.to_bytes()).tag(torch.from_numpy(scores.image_embedding).float())
    assert tags.labels is not None
    grounds = [attributes(seed).ground for seed in seeds]
    right = [tagger.labels[k] == ground for k, ground in zip(tags.labels, grounds, strict=True)]
    assert np.mean(right) > 0.9
    positive = np.array([ground in ("red", "blue") for ground in grounds])
    assert tags.values[positive].mean() > 0.8 > 0.2 > tags.values[~positive].mean()


def test_shipped_taggers_are_read() -> None:
    files = sorted(SHIPPED.glob("*.toml"))
    assert [file.name for file in files] == ["nsfw.toml"]
    tagger = read(files[0])
    assert set(tagger.positive) == {"explicit photograph", "explicit drawing"}
    assert len(tagger.categories) == 11
    made = head(tagger, vectors, scale=100)
    assert len(made.labels) == 11


X, Y = ("x", ["a", "b"]), ("y", ["c"])


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ({}, r"needs \[\[category\]\] tables"),
        ({"category": {"name": "x"}}, r"needs \[\[category\]\] tables"),
        (told(X), "at least two categories"),
        (told(X, X), "category 'x' stands there twice"),
        (told(X, ("y", ["a"])), "prompt 'a' stands there twice"),
        (told(X, ("y", ["c", " C "])), "prompt ' C ' stands there twice"),
        (told(X, ("y", ["c", ""])), "category 'y': the 2. is no text, or empty"),
        (told(X, ("y", [" "])), "the 1. is no text, or empty"),
        (told(X, ("y", [1])), "the 1. is no text"),  # type: ignore[list-item]
        (told(X, ("y", [])), "a list of texts, with one at least"),
        (told(X, ("y", "c")), "a list of texts"),  # type: ignore[arg-type]
        (told(X, ("y", ["c" * 251])), "more than 250 characters"),
        (told(X, (" ", ["c"])), "category 2 needs a name"),
        (told(X, Y, positive=["z"]), "'z' of positive is no category"),
        (told(X, Y, positive=["x", "y"]), "always be 1"),
        (told(X, Y, positive=["x", "x"]), "'x' stands there twice"),
        (told(X, Y, positive=[]), "positive must be a list of texts, with one at least"),
        (told(X, Y, templates=["a photo"]), "must hold {} once"),
        (told(X, Y, templates=["{} {}"]), "must hold {} once"),
        (told(X, Y, templates=["{}", "{}"]), "prompt 'a' stands there twice"),
        (
            told(X, Y, positiv=["x"]),
            "unknown key 'positiv': known are category, positive, templates",
        ),
        ({"category": [{"name": "x", "prompt": ["a"]}, {}]}, "unknown key 'prompt'"),
    ],
)
def test_tagger_that_does_not_hold_is_refused(says: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        parse(says)


GOOD = '[[category]]\nname = "x"\nprompts = ["a"]\n[[category]]\nname = "y"\nprompts = ["b"]\n'


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (GOOD.replace('["b"]', '["b" "c"]').encode(), "is not TOML"),  # a forgotten comma
        (GOOD.replace('name = "y"', 'name = "y"\nname = "z"').encode(), "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"x = " + b"[" * 100_000, "is not TOML"),
        (b"#" * (2**20 + 1), "at most 1048576"),
        (GOOD.replace('"b"', '"a"').encode(), "nsfw.toml: the prompt 'a' stands there twice"),
    ],
)
def test_file_that_is_no_tagger_is_refused(tmp_path: Path, data: bytes, sentence: str) -> None:
    file = tmp_path / "nsfw.toml"
    with pytest.raises(Refused, match="cannot read the tagger"):
        read(file)
    file.write_text(GOOD)
    assert [c.name for c in read(file).categories] == ["x", "y"]
    file.write_bytes(data)
    with pytest.raises(Refused, match=sentence):
        read(file)


def test_embeddings_that_make_no_category_are_refused() -> None:
    tagger = parse(told(X, Y))
    with pytest.raises(Refused, match="embeds 'a' as a vector of length nan"):
        head(tagger, lambda prompts: vectors(prompts) * np.nan, scale=100)
    opposite = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
    with pytest.raises(Refused, match="embeds 'x' as a vector of length 0"):
        head(tagger, lambda prompts: opposite, scale=100)
    with pytest.raises(ValueError, match="3 prompts were encoded"):
        head(tagger, lambda prompts: opposite[:2], scale=100)
    with pytest.raises(Refused, match="a positive number"):
        head(tagger, vectors, scale=float("nan"))
