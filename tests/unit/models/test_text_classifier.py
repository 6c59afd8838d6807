"""Classifiers of texts: Hugging Face's folders and detoxify's checkpoints, tiny and random."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.annotators import of_recipe
from pairmill.ops.release.filters import reasons
from pairmill.ops.release.recipe import load
from pairmill.ops.release.text_scores import MANIFEST, TextBound, score
from pairmill.ops.taggers import text_classifier
from pairmill.workers.errors import Refused
from pairmill.workers.score import torchvision_import as _before_transformers  # noqa: F401

CLASSES = ["toxic", "severe_toxic", "obscene"]
WORDS = ["a", "red", "bicycle", "you", "idiot", "##s", "photo", "of"]
TEXTS = ["a red bicycle", "you idiots", "", "photo of a red bicycle of a photo of you", "x" * 2000]


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=5 + len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32, num_labels=len(CLASSES), initializer_range=1.0,
        id2label=dict(enumerate(CLASSES)), label2id={c: i for i, c in enumerate(CLASSES)},
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config).eval()


def base(folder: Path, model: Any) -> Path:
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (folder / "vocab.txt").write_text("\n".join(special + WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    model.config.save_pretrained(folder)
    return folder


@pytest.fixture
def hugging_face(tmp_path: Path, model: Any) -> Path:
    folder = base(tmp_path / "hf", model)
    model.save_pretrained(folder)
    return folder


def checkpoint(folder: Path, state: dict[str, Any], name: str = "BertForSequenceClassification"):  # type: ignore[no-untyped-def]
    config = {
        "arch": {"args": {"model_name": name, "num_classes": len(CLASSES)}},
        "dataset": {"args": {"classes": CLASSES}},
    }
    torch.save({"config": config, "state_dict": state}, folder / "toxic_original.ckpt")
    return folder


@pytest.fixture
def detoxify(tmp_path: Path, model: Any) -> Path:
    old = {"bert.embeddings.position_ids": torch.arange(32)[None]}
    return checkpoint(base(tmp_path / "detoxify", model), model.state_dict() | old)


def test_both_forms_of_the_same_weights_give_what_the_model_gives(
    hugging_face: Path, detoxify: Path, model: Any
) -> None:
    """Texts are sorted by length before they are padded: a value must come back to its own."""
    ours = text_classifier.load(hugging_face)
    theirs = text_classifier.load(detoxify)
    tokenizer = transformers.AutoTokenizer.from_pretrained(hugging_face)
    with torch.inference_mode():
        each = [
            torch.sigmoid(
                model(**tokenizer(t, return_tensors="pt", truncation=True, max_length=32)).logits
            )
            for t in TEXTS
        ]
    expected = torch.cat(each).numpy()
    assert len({tuple(row) for row in expected.round(5)}) == len(TEXTS)
    np.testing.assert_allclose(ours.probabilities(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(theirs.probabilities(TEXTS), expected, atol=1e-5)
    assert ours.labels == CLASSES
    assert theirs.labels == ["toxicity", "severe_toxicity", "obscene"]


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must not run",))


def test_what_is_no_classifier_is_refused(
    tmp_path: Path, detoxify: Path, hugging_face: Path, model: Any
) -> None:
    """Weights that are missing would be random, and give probabilities all the same."""
    with pytest.raises(Refused, match=r"no config\.json"):
        text_classifier.load(tmp_path)
    state = model.state_dict()
    lacking = {key: value for key, value in state.items() if key != "classifier.weight"}
    with pytest.raises(Refused, match=r"do not fit .*classifier\.weight"):
        text_classifier.load(checkpoint(detoxify, lacking))
    with pytest.raises(Refused, match="no classifier of transformers"):
        text_classifier.load(checkpoint(detoxify, state, "pipeline"))
    with pytest.raises(Refused, match="no checkpoint of plain tensors"):
        text_classifier.load(checkpoint(detoxify, {"x": Runs()}))
    (hugging_face / "model.safetensors").unlink()
    with pytest.raises(Refused, match=r"neither \*\.safetensors nor"):
        text_classifier.load(hugging_face)


class ByLength:
    """The probability is a thousandth of the length."""

    def __init__(self) -> None:
        self.labels, self.digest = ["length", "other"], "d1"
        self.asked = 0

    def probabilities(self, texts: Any) -> npt.NDArray[np.float32]:
        self.asked += len(texts)
        return np.array([[len(t) / 1000, 0.0] for t in texts], np.float32)


def texts_file(path: Path, ids: list[int], texts: list[str | None]) -> Path:
    pq.write_table(pa.table({"SAMPLE_ID": ids, "TEXT": texts}), path)
    return path


def unsafe(bound: TextBound, ids: list[int]) -> list[bool | None]:
    batch = pa.RecordBatch.from_arrays([pa.array(ids, pa.int64())], ["sample_id"])
    found: list[bool | None] = bound.annotate(batch).to_pylist()
    return found


def test_scores_go_on_where_they_were_cut_off_and_bound_texts(tmp_path: Path) -> None:
    parts = [
        texts_file(tmp_path / "a.parquet", [5, 1, 9], ["x" * 500, "x" * 501, None]),
        texts_file(tmp_path / "b.parquet", [20], ["x" * 900]),
    ]
    classifier, out = ByLength(), tmp_path / "scores"
    score(parts[:1], classifier, out)
    (out / MANIFEST).unlink()
    manifest = score(parts, classifier, out)
    assert classifier.asked == 4  # and not seven
    assert [file["rows"] for file in manifest["files"]] == [3, 1]
    bound = TextBound(out / MANIFEST, {"length": 0.5})
    # exactly at the bound is kept; 7 has no score
    assert unsafe(bound, [1, 5, 7, 9, 20, 21]) == [True, False, None, False, True, None]
    assert unsafe(bound, []) == []
    # another release's part of that name and size, whose rows would have no scores
    other = tmp_path / "other"
    other.mkdir()
    score([texts_file(other / "b.parquet", [21], ["x" * 900])], classifier, out)
    assert unsafe(TextBound(out / MANIFEST, {"length": 0.5}), [20, 21]) == [None, True]


def test_scores_that_are_not_the_recipes_are_refused(tmp_path: Path) -> None:
    part = texts_file(tmp_path / "a.parquet", [1], ["x"])
    out = tmp_path / "scores"
    score([part], ByLength(), out)
    with pytest.raises(UserError, match="no manifest of `pairmill text-safety score`"):
        TextBound(part.with_name("a.parquet"), {"length": 0.5})
    with pytest.raises(UserError, match="have no 'toxicity': they have length, other"):
        TextBound(out / MANIFEST, {"toxicity": 0.5})
    texts_file(out / "a.parquet", [1], ["y"])
    with pytest.raises(UserError, match="not the file that its manifest names"):
        TextBound(out / MANIFEST, {"length": 0.5})


def test_a_recipe_leaves_out_texts_above_its_bound_and_texts_without_a_score(
    tmp_path: Path,
) -> None:
    """A text that no classifier saw is not safe."""
    out = tmp_path / "scores"
    score([texts_file(tmp_path / "a.parquet", [1, 2], ["x" * 600, "x"])], ByLength(), out)
    safety = {"scores": {"file": str(out / MANIFEST)}, "max": {"length": 0.5}}
    chosen = load("demo", {"text_safety": safety})
    assert chosen.text_safety and chosen.text_safety.scores.sha256 == sha256(out / MANIFEST)
    (annotator,) = of_recipe(chosen, None)
    found = annotator.annotate(pa.RecordBatch.from_arrays([pa.array([1, 2, 3])], ["sample_id"]))
    assert found.to_pylist() == [True, False, None]
    tried = dict(reasons(chosen))
    assert tried["text_not_scored"] == "text_unsafe IS NULL"
    assert list(tried).index("text_not_scored") == list(tried).index("text_unsafe") - 1
