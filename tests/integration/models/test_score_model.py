"""The scorer: it scores as a plain open_clip loop does, and the demo's model tells pairs apart."""

import io
import json
import shutil
import socket
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import attributes, caption
from pairmill.ops.demo.model.train import HELD_OUT, auc, evaluate, thumbnail
from pairmill.schema.outcomes import ScoreOutcome
from pairmill.workers.errors import Refused
from pairmill.workers.score.model import Model, load
from pairmill.workers.score.model import open_clip as clip


@pytest.fixture(scope="module")
def model() -> Model:
    return load(str(demo.PATH), device="cpu")


SEEDS = range(HELD_OUT, HELD_OUT + 70)  # more than one batch of the scorer
IMAGES = [thumbnail(seed) for seed in SEEDS]
TEXTS = [caption(seed, attributes(seed)) for seed in SEEDS]


def test_model_tells_matching_captions_from_others() -> None:
    own, others = evaluate(demo.PATH, 400)
    assert auc(own, others) >= 0.95


def test_auc_is_what_it_says() -> None:
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([0.0]), np.array([1.0])) == 0.0
    assert auc(np.array([1.0, 1.0]), np.array([1.0])) == 0.5


def test_scores_equal_a_plain_loop(model: Model) -> None:
    scores = model.score(IMAGES, TEXTS)
    name = f"local-dir:{demo.PATH}"
    plain, _, preprocess = clip.create_model_and_transforms(name)
    tokenize = clip.get_tokenizer(name)
    plain.eval()
    for i, (image, text) in enumerate(zip(IMAGES, TEXTS, strict=True)):
        with torch.no_grad():
            pixels = preprocess(Image.open(io.BytesIO(image)).convert("RGB")).unsqueeze(0)
            a = plain.encode_image(pixels, normalize=True)[0].double()
            b = plain.encode_text(tokenize([text]), normalize=True)[0].double()
        assert scores.similarity[i] == pytest.approx(float(a @ b), abs=1e-5)
        assert np.abs(scores.image_embedding[i].astype(float) - a.numpy()).max() < 1e-3
        assert np.abs(scores.text_embedding[i].astype(float) - b.numpy()).max() < 1e-3
    assert set(scores.outcomes.tolist()) == {ScoreOutcome.SCORED}


def test_shapes_and_types(model: Model) -> None:
    scores = model.score(IMAGES[:3], TEXTS[:3])
    assert model.dims == 64
    assert (scores.outcomes.dtype, scores.outcomes.shape) == (np.int16, (3,))
    assert (scores.similarity.dtype, scores.similarity.shape) == (np.float32, (3,))
    for embedding in (scores.image_embedding, scores.text_embedding):
        assert (embedding.dtype, embedding.shape) == (np.float16, (3, 64))
        assert np.linalg.norm(embedding.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    assert model.score([], []).similarity.shape == (0,)


def test_broken_thumbnail_costs_its_row_only(model: Model) -> None:
    whole = model.score(IMAGES[:4], TEXTS[:4])
    broken = [IMAGES[0], b"no image", IMAGES[2][:500], IMAGES[3]]
    scores = model.score(broken, TEXTS[:4])
    assert scores.outcomes.tolist() == [
        0,
        ScoreOutcome.BROKEN_THUMBNAIL,
        ScoreOutcome.BROKEN_THUMBNAIL,
        0,
    ]
    assert np.isnan(scores.similarity[1:3]).all()
    assert scores.similarity[[0, 3]] == pytest.approx(whole.similarity[[0, 3]], abs=1e-5)
    assert model.score([b"", b"x"], ["a", "b"]).outcomes.tolist() == [1, 1]


def test_long_and_empty_and_odd_texts_are_scored(model: Model) -> None:
    texts = ["", "word " * 1000, "🦊 " * 100, "中文 текст عربي"]
    assert model.score(IMAGES[:4], texts).outcomes.tolist() == [0, 0, 0, 0]


def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(demo.PATH / name, folder)
    return folder


def test_model_that_gives_nan_is_a_named_outcome(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["text_projection"] = torch.full_like(weights["text_projection"], float("nan"))
    save_file(weights, folder / "open_clip_model.safetensors")
    scores = load(str(folder), device="cpu").score(IMAGES[:2], TEXTS[:2])
    assert scores.outcomes.tolist() == [ScoreOutcome.NOT_FINITE] * 2


def test_digest_is_of_the_weights(model: Model, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    assert load(str(folder), device="cpu").digest == model.digest
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["logit_scale"] = weights["logit_scale"] + 1
    save_file(weights, folder / "open_clip_model.safetensors")
    assert load(str(folder), device="cpu").digest != model.digest


def test_configuration_file_and_checkpoint_make_the_same_model(
    model: Model, tmp_path: Path
) -> None:
    configuration = tmp_path / "pairmill-small.json"
    configuration.write_text(json.dumps(small_configuration()))
    weights = load_file(demo.PATH / "open_clip_model.safetensors")
    torch.save(weights, tmp_path / "weights.pt")
    for checkpoint in (demo.PATH / "open_clip_model.safetensors", tmp_path / "weights.pt"):
        loaded = load(str(configuration), str(checkpoint), device="cpu")
        assert (loaded.name, loaded.pretrained) == (str(configuration), str(checkpoint))
        assert (loaded.dims, loaded.digest) == (model.dims, model.digest)
        # the text tower alone: a bare configuration has open_clip's usual preprocessing
        ours = model.score(IMAGES[:2], TEXTS[:2]).text_embedding
        assert (loaded.score(IMAGES[:2], TEXTS[:2]).text_embedding == ours).all()


def test_model_of_a_folder_asks_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def connect(_: socket.socket, address: object) -> None:
        asked.append(address)
        raise OSError("no network in this test")

    def getaddrinfo(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    scores = load(str(demo.PATH), device="cpu").score(IMAGES[:1], TEXTS[:1])
    assert scores.outcomes.tolist() == [ScoreOutcome.SCORED]
    assert asked == []


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(Refused, match=r"cannot download .* give --pretrained the path"):
        load("ViT-B-32", "laion2b_s34b_b79k", device="cpu")


def test_unequal_numbers_are_refused(model: Model) -> None:
    with pytest.raises(ValueError, match="2 images cannot be paired with 1 texts"):
        model.score(IMAGES[:2], TEXTS[:1])


def test_what_no_downloader_makes_is_no_thumbnail(model: Model) -> None:
    picture = Image.open(io.BytesIO(IMAGES[0]))
    images = [
        encoded(picture, "WEBP"),
        encoded(picture, "EPS"),  # its reader starts a program
        encoded(picture, "TIFF"),
        encoded(Image.new("RGB", (1001, 1000)), "WEBP"),  # few bytes, many pixels
        encoded(Image.new("RGB", (1, 60_000)), "JPEG"),  # resized it would fill the memory
        encoded(picture.convert("L"), "JPEG"),
    ]
    broken = ScoreOutcome.BROKEN_THUMBNAIL
    outcomes = model.score(images, TEXTS[:6]).outcomes.tolist()
    assert outcomes == [0, broken, broken, broken, broken, 0]


def encoded(image: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def small_configuration() -> dict[str, Any]:
    """The demo model's, in the shape of open_clip's own."""
    file = demo.PATH / "open_clip_config.json"
    configuration: dict[str, Any] = json.loads(file.read_text())["model_cfg"]
    return configuration


def test_what_cannot_be_loaded_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no model 'ViT-B-23'.*ViT-B-32"):
        load("ViT-B-23", "openai")
    with pytest.raises(Refused, match="'opennai' is no file and no weights of ViT-B-32"):
        load("ViT-B-32", "opennai")
    with pytest.raises(Refused, match="ViT-B-32 needs weights"):
        load("ViT-B-32")
    with pytest.raises(Refused, match="has no open_clip_config"):
        load(str(tmp_path))
    with pytest.raises(Refused, match="leave --pretrained out"):
        load(str(demo.PATH), "openai")
    with pytest.raises(Refused, match="unknown device 'tpu9'"):
        load(str(demo.PATH), device="tpu9")
    with pytest.raises(Refused, match="there is no device cuda:99"):
        load(str(demo.PATH), device="cuda:99")


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 65},
        {
            "text_cfg": {
                "context_length": 16,
                "vocab_size": 49408,
                "width": 64,
                "heads": 2,
                "layers": 2,
            }
        },
        {
            "vision_cfg": {
                "image_size": 64,
                "layers": 5,
                "width": 96,
                "head_width": 24,
                "patch_size": 8,
            }
        },
        {"vision_cfg": {"image_size": 64, "layerz": 4}},
        {"text_cfg": None},
    ],
    ids=["dims", "text width", "layers", "unknown option", "nothing"],
)
def test_checkpoint_of_another_model_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    configuration = tmp_path / "pairmill-other.json"
    configuration.write_text(json.dumps(small_configuration() | change))
    weights = str(demo.PATH / "open_clip_model.safetensors")
    with pytest.raises(Refused, match=r"cannot load model .*pairmill-other.json"):
        load(str(configuration), weights, device="cpu")


def test_configuration_file_that_is_none_is_refused(tmp_path: Path) -> None:
    weights = str(demo.PATH / "open_clip_model.safetensors")
    with pytest.raises(Refused, match=r"cannot read .*nothing.json"):
        load(str(tmp_path / "nothing.json"), weights)
    file = tmp_path / "pairmill-bad.json"
    for content in (b"{", b"\xff", b"[]", b'{"model_cfg": {}}'):
        file.write_bytes(content)
        with pytest.raises(Refused, match=r"pairmill-bad.json"):
            load(str(file), weights)
    file.write_text(json.dumps(small_configuration()))
    with pytest.raises(Refused, match="needs weights: --pretrained with a checkpoint's path"):
        load(str(file))
    with pytest.raises(Refused, match="needs weights: --pretrained with a checkpoint's path"):
        load(str(file), str(tmp_path / "nothing.pt"))


class Code:
    """What a hostile checkpoint could hold: a call that is made as it is read."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def test_checkpoint_that_holds_code_is_not_run(tmp_path: Path) -> None:
    configuration = tmp_path / "pairmill-small.json"
    configuration.write_text(json.dumps(small_configuration()))
    torch.save({"weights": Code(tmp_path / "ran")}, tmp_path / "code.pt")
    (tmp_path / "text.pt").write_bytes(b"no checkpoint")
    for name in ("code.pt", "text.pt"):
        with pytest.raises(Refused, match=f"{name} is no checkpoint of plain tensors"):
            load(str(configuration), str(tmp_path / name), device="cpu")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "code.pt", weights_only=False)  # it would have run
    assert (tmp_path / "ran").exists()
    (tmp_path / "cut.safetensors").write_bytes(
        (demo.PATH / "open_clip_model.safetensors").read_bytes()[:5000]
    )
    with pytest.raises(Refused, match="cannot load model"):
        load(str(configuration), str(tmp_path / "cut.safetensors"), device="cpu")
