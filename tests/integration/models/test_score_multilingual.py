"""Models that read texts by Hugging Face's libraries: tiny ones, with random weights."""

import io
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.model.train import HELD_OUT, thumbnail
from pairmill.ops.release import release
from pairmill.ops.release.recipe import Recipe
from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers import daemon
from pairmill.workers.errors import Refused
from pairmill.workers.score import text_tower
from pairmill.workers.score.model import Model, load
from pairmill.workers.score.model import open_clip as clip
from pairmill.workers.score.worker import Score
from support.database import Database
from support.multilingual import CAPTIONS, CONTEXT, POOLERS, save_model
from support.scoring import add_model, to_score

PICTURES = 5
LONG = "雪の中の赤いキツネ " * 20
TEXTS = [
    *CAPTIONS, "", " ", LONG, "ثعلب " * 60, "🦊❄️🚂" * 30, "👩🏽‍🚀", "<pad> in <pad>", "</s> a fox",
    "<pad> " + "fox " * 40, "x" * 5000, "한국어 텍스트",
]  # fmt: skip
IMAGES = [thumbnail(HELD_OUT + n % PICTURES) for n in range(len(TEXTS))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, tuple[str, str]]:
    return {kind: save_model(folder / kind, kind) for kind in ("siglip", *POOLERS)}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is not in a folder cannot be had, at once."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))


def loaded(named: tuple[str, str], **options: Any) -> Model:
    # one thread: a team of them costs more than such towers do
    return load(*named, device="cpu", threads=1, **options)


def plain(named: tuple[str, str]) -> tuple[Any, Any, Any]:
    name = Path(named[0]).stem
    model, _, preprocess = clip.create_model_and_transforms(name, pretrained=named[1])
    return model.eval(), preprocess, clip.get_tokenizer(name)


@pytest.mark.parametrize("kind", ["siglip", *POOLERS])
def test_scores_equal_a_plain_loop(models: dict[str, tuple[str, str]], kind: str) -> None:
    model = loaded(models[kind])
    scores = model.score(IMAGES, TEXTS)
    towers, preprocess, tokenize = plain(models[kind])
    with torch.no_grad():
        pixels = [
            preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data in IMAGES[:PICTURES]
        ]
        image = towers.encode_image(torch.stack(pixels), normalize=True).double()
        text = towers.encode_text(tokenize(TEXTS), normalize=True).double()
    found = (image[[n % PICTURES for n in range(len(TEXTS))]] * text).sum(dim=-1).numpy()
    assert np.abs(scores.similarity - found).max() < 1e-5
    assert np.std(found) > 0.02  # texts differ to it, or the equality would say nothing
    assert set(scores.outcomes.tolist()) == {ScoreOutcome.SCORED}
    assert model.tokenizer.context_length == CONTEXT


@pytest.mark.parametrize("kind", ["siglip", "xlm-roberta"])
def test_half_precision_is_close(models: dict[str, tuple[str, str]], kind: str) -> None:
    exact, close = loaded(models[kind]), loaded(models[kind], precision="bf16")
    assert close.digest == exact.digest
    change = np.abs(close.score(IMAGES, TEXTS).similarity - exact.score(IMAGES, TEXTS).similarity)
    assert 0 < change.mean() < 4e-3  # small random towers: wider than a trained one's


@pytest.mark.parametrize("kind", ["siglip", "xlm-roberta"])
def test_tokens_are_counted_before_the_cut_and_without_padding(
    models: dict[str, tuple[str, str]], kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = loaded(models[kind]).tokenizer
    reference = plain(models[kind])[2]
    tokens = tokenizer(TEXTS)
    assert "maximum sequence length" not in caplog.text  # that is no news here
    assert torch.equal(tokens.ids, reference(TEXTS))
    inner = reference.tokenizer
    uncut = [len(inner.encode(reference.clean_fn(text))) for text in TEXTS]
    assert tokens.lengths.tolist() == uncut
    assert tokens.lengths[TEXTS.index("")] == (1 if kind == "siglip" else 2)
    assert tokens.lengths[TEXTS.index(LONG)] > CONTEXT
    assert tokens.lengths[TEXTS.index("<pad> " + "fox " * 40)] > CONTEXT
    assert (tokens.lengths > CONTEXT).sum() == 6
    assert tokenizer([]).ids.shape == (0, CONTEXT)


@pytest.mark.parametrize("kind", POOLERS)
def test_masked_padding_is_left_out_and_changes_nothing(
    models: dict[str, tuple[str, str]], kind: str
) -> None:
    towers, _, tokenize = plain(models[kind])
    ids = tokenize(TEXTS)
    needed = text_tower.needed(towers)(ids).tolist()
    assert needed[TEXTS.index("")] == 2
    assert needed[TEXTS.index(LONG)] == CONTEXT
    with torch.inference_mode():
        whole = towers.encode_text(ids)
        for row, columns in enumerate(needed):
            cut = towers.encode_text(ids[row : row + 1, :columns])[0]
            assert torch.allclose(cut, whole[row], rtol=1e-5, atol=1e-5), TEXTS[row]


def test_padding_that_counts_is_left_in(models: dict[str, tuple[str, str]]) -> None:
    towers, _, tokenize = plain(models["siglip"])
    ids = tokenize(TEXTS)
    assert set(text_tower.needed(towers)(ids).tolist()) == {CONTEXT}
    with torch.inference_mode():
        assert not torch.allclose(towers.encode_text(ids[:1, :-1]), towers.encode_text(ids[:1]))


def test_padding_on_the_left_is_left_in(models: dict[str, tuple[str, str]], folder: Path) -> None:
    towers, _, tokenize = plain(models["xlm-roberta"])
    tokenize.tokenizer.padding_side = "left"
    assert set(text_tower.needed(towers)(tokenize(TEXTS)).tolist()) == {CONTEXT}
    image, preprocess = torch.device("cpu"), clip.transform.image_transform(32, is_train=False)
    model = Model("left", None, towers, preprocess, tokenize, image)
    right = loaded(models["xlm-roberta"])
    lengths = model.tokenizer(TEXTS).lengths
    assert lengths.tolist() == right.tokenizer(TEXTS).lengths.tolist()


def test_threads_share_a_tokenizer(models: dict[str, tuple[str, str]]) -> None:
    """As the pipeline's do, where the texts of two parts wait at once."""
    tokenizer = loaded(models["xlm-roberta"]).tokenizer
    expected = tokenizer(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: tokenizer(TEXTS), range(60)):
            assert torch.equal(found.ids, expected.ids)
            assert (found.lengths == expected.lengths).all()


def test_checkpoint_has_the_names_that_published_ones_have(
    models: dict[str, tuple[str, str]],
) -> None:
    """Of transformers 4, which open_clip's multilingual models were saved with."""
    names = set(plain(models["xlm-roberta"])[0].state_dict())
    layer = "text.transformer.encoder.layer.0"
    assert names >= {
        "text.transformer.embeddings.word_embeddings.weight",
        "text.transformer.embeddings.position_embeddings.weight",
        "text.transformer.embeddings.token_type_embeddings.weight",
        "text.transformer.embeddings.LayerNorm.weight",
        f"{layer}.attention.self.query.weight",
        f"{layer}.attention.output.dense.weight",
        f"{layer}.attention.output.LayerNorm.bias",
        f"{layer}.intermediate.dense.weight",
        f"{layer}.output.dense.bias",
        "text.proj.0.weight",
        "text.proj.2.weight",
        "logit_scale",
    }
    assert not any("pooler" in name for name in names)


def test_position_numbers_in_an_older_checkpoint_do_no_harm(
    models: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    weights = torch.load(models["xlm-roberta"][1], weights_only=True)
    weights["text.transformer.embeddings.position_ids"] = torch.arange(CONTEXT + 2).unsqueeze(0)
    torch.save(weights, tmp_path / "older.pt")
    older = loaded((models["xlm-roberta"][0], str(tmp_path / "older.pt")))
    assert older.digest == loaded(models["xlm-roberta"]).digest


# ---- what cannot be had ------------------------------------------------------------------------


def changed(named: tuple[str, str], tmp_path: Path, **text: Any) -> tuple[str, str]:
    configuration = json.loads(Path(named[0]).read_text())
    configuration["text_cfg"] |= text
    file = tmp_path / f"changed-{abs(hash(str(tmp_path)))}.json"
    file.write_text(json.dumps(configuration))
    return str(file), named[1]


@pytest.mark.parametrize("key", ["hf_tokenizer_name", "hf_model_name"])
def test_names_that_would_be_downloaded(
    models: dict[str, tuple[str, str]], tmp_path: Path, key: str
) -> None:
    named = changed(models["xlm-roberta"], tmp_path, **{key: "nobody/nothing"})
    with pytest.raises(Refused, match=r"connect this machine .* or name folders that hold them"):
        loaded(named)


def test_tokenizer_with_code_of_its_own_is_refused(
    models: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    named = changed(models["siglip"], tmp_path, tokenizer_kwargs={"trust_remote_code": True})
    with pytest.raises(Refused, match="would run code of its own"):
        loaded(named)


@pytest.mark.parametrize("kind", ["siglip", "xlm-roberta"])
def test_missing_transformers_are_named(
    models: dict[str, tuple[str, str]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(Refused, match=r"not installed: pip install 'pairmill\[multilingual\]'"):
        loaded(models[kind])


# ---- a release by language ---------------------------------------------------------------------


class Once(Score):
    """Ends as an operator ends it, after one task."""

    async def work(self, job: daemon.Job) -> None:
        await super().work(job)
        os.kill(os.getpid(), signal.SIGTERM)


def test_release_by_language_of_two_models(
    db: Database, models: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    english = load(str(demo.PATH), device="cpu", threads=1)
    other = loaded(models["xlm-roberta"])
    texts = CAPTIONS[:20]
    images = IMAGES[: len(texts)]
    languages = [["en"] * 4, ["de"] * 4, ["fr"] * 4, ["ja"] * 4, [None] * 4]
    of_text = [language for four in languages for language in four]
    for model in (english, other):
        add_model(db, model)
    to_score(db, images, texts, of_text)
    for model in (english, other):
        daemon.run(partial(daemon.serve, Once(model), db.login("score")))
        db.accept_all()
    ours = {
        text: a if language == "en" else b
        for text, language, a, b in zip(
            texts, of_text, english.score(images, texts).similarity,
            other.score(images, texts).similarity, strict=True,
        )
    }  # fmt: skip
    ja = sorted(ours[text] for text in texts[12:16])
    recipe = Recipe(
        name="test", version=1, description="A test", licence="CC0-1.0", model=english.name,
        min_similarity=-1.0, min_bytes=0, multilingual_model=other.name,
        # between the second and the third, so that float rounding decides nothing
        min_similarity_by_language={"ja": float(ja[1] + ja[2]) / 2, "nolang": 1.0},
    )  # fmt: skip
    manifest = release.build(db.admin, recipe, tmp_path / "out")
    rows = pq.read_table([tmp_path / "out" / f["name"] for f in manifest.files]).to_pylist()
    assert manifest.kept_by_language == {"de": 4, "en": 4, "fr": 4, "ja": 2}
    assert manifest.excluded == {"similarity": 6}
    for row in rows:
        assert row["similarity"] == pytest.approx(float(ours[row["TEXT"]]), abs=1e-5)
    assert manifest.multilingual_model is not None
    assert manifest.multilingual_model["digest"] == other.digest
