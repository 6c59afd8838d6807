"""What is done to be fast gives what a plain open_clip loop gives."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pairmill.ops.demo import model as demo
from pairmill.ops.demo.drawings import attributes, caption, photo_like
from pairmill.ops.demo.model.train import HELD_OUT, thumbnail
from pairmill.workers.errors import Refused
from pairmill.workers.score import compiled, text_tower
from pairmill.workers.score.batcher import by_length, gathered
from pairmill.workers.score.loading import dtype_of
from pairmill.workers.score.model import Model, load
from pairmill.workers.score.model import open_clip as clip
from pairmill.workers.score.preprocess import Preprocessor
from pairmill.workers.score.tokenizer import MOST, Tokenizer

CPU = torch.device("cpu")
IMAGES = [thumbnail(HELD_OUT + n) for n in range(40)]
TEXTS = [caption(HELD_OUT + n, attributes(HELD_OUT + n)) for n in range(36)] + [
    "", "a", "word " * 200, "so it <end_of_text> ends here"
]  # fmt: skip


def jpeg(size: tuple[int, int], mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    photo_like(3, size).convert(mode).save(out, "JPEG", quality=88)
    return out.getvalue()


THUMBNAILS = [*IMAGES[:3], jpeg((256, 600)), jpeg((900, 256)), jpeg((256, 256), "L"), jpeg((9, 5))]


@pytest.mark.parametrize(
    "transform",
    [
        clip.transform.image_transform(64, is_train=False, resize_mode="squash"),
        clip.transform.image_transform(224, is_train=False),
        clip.transform.image_transform((96, 64), is_train=False),
        clip.transform.image_transform(224, is_train=False, resize_mode="longest", fill_color=9),
        clip.transform.image_transform(
            32, is_train=False, interpolation="bilinear", mean=(0, 0, 0)
        ),
    ],
    ids=["squash", "shortest", "not square", "longest", "bilinear"],
)
def test_pixels_are_the_transforms_bit_by_bit(transform: Any) -> None:
    preprocess = Preprocessor(transform, CPU)
    pixels = preprocess.decode([b"", *THUMBNAILS, b"x"], start=100)
    assert pixels.rows == list(range(101, 101 + len(THUMBNAILS)))
    assert pixels.data.dtype == torch.uint8
    plain = torch.stack([transform(opened(data)) for data in THUMBNAILS])
    assert torch.equal(preprocess.normalised(pixels.data), plain)


def test_transform_of_another_shape_is_run_as_a_whole() -> None:
    def transform(image: Image.Image) -> torch.Tensor:
        return torch.from_numpy(np.array(image.resize((8, 8)))).float()

    preprocess = Preprocessor(transform, CPU)
    pixels = preprocess.decode(THUMBNAILS)
    plain = torch.stack([transform(opened(data)) for data in THUMBNAILS])
    assert torch.equal(preprocess.normalised(pixels.data), plain)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


# ---- texts -------------------------------------------------------------------------------------


def test_tokens_are_open_clips_and_their_number_is_that_before_the_cut() -> None:
    plain = clip.get_tokenizer("ViT-B-32")
    texts = [*TEXTS, "🦊 " * 100, "中文 текст عربي", "<start_of_text> twice", "&amp;amp; &lt;"]
    tokens = Tokenizer(plain)(texts)
    assert torch.equal(tokens.ids, plain(texts))
    assert tokens.lengths.dtype == np.int16
    assert tokens.lengths.tolist() == [len(plain.encode(text)) + 2 for text in texts]
    assert tokens.lengths[TEXTS.index("")] == 2
    assert tokens.lengths[TEXTS.index("word " * 200)] == 202
    assert Tokenizer(plain)(["a " * 40_000]).lengths.tolist() == [MOST]


# ---- the text tower ----------------------------------------------------------------------------


def towers(tmp_path: Path, **changes: Any) -> Any:
    configuration = json.loads((demo.PATH / "open_clip_config.json").read_text())["model_cfg"]
    configuration["text_cfg"] |= changes.pop("text_cfg", {})
    file = tmp_path / f"pairmill-{abs(hash(str(tmp_path)))}.json"
    file.write_text(json.dumps(configuration | changes))
    clip.add_model_config(file)
    torch.manual_seed(5)
    return clip.create_model(file.stem).eval()


CAUSAL = {
    "as CLIP's": {},
    "custom text": {"custom_text": True},
    "linear projection": {"custom_text": True, "text_cfg": {"proj_bias": True}},
    "no projection": {"custom_text": True, "text_cfg": {"proj_type": "none", "width": 64}},
}
OTHERS = {
    "SigLIP's": {"custom_text": True, "text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
    "last token": {"text_cfg": {"pool_type": "last"}},
    "class token": {"custom_text": True, "text_cfg": {"embed_cls": True, "output_tokens": False}},
    "not causal": {"custom_text": True, "text_cfg": {"no_causal_mask": True}},
}


@pytest.mark.parametrize("changes", CAUSAL.values(), ids=CAUSAL.keys())
def test_cut_columns_change_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = towers(tmp_path, **changes)
    assert text_tower.cuttable(model)
    ids = clip.get_tokenizer("ViT-B-32")(TEXTS, context_length=32)
    needed = text_tower.columns(ids)
    with torch.inference_mode():
        for row in range(len(TEXTS)):
            whole = model.encode_text(ids[row : row + 1])
            cut = text_tower.encode(model, ids[row : row + 1, : needed[row]])
            assert torch.allclose(cut, whole, rtol=0, atol=1e-5), TEXTS[row]
    assert needed[TEXTS.index("")] == 2
    assert needed[TEXTS.index("word " * 200)] == 32
    assert needed[-1] < 10  # the tower stops at the first end, also one that the text brought


@pytest.mark.parametrize("changes", OTHERS.values(), ids=OTHERS.keys())
def test_towers_in_which_later_columns_count_are_left_whole(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert not text_tower.cuttable(towers(tmp_path, **changes))


def test_tower_that_is_left_whole_scores_as_a_plain_loop(tmp_path: Path) -> None:
    plain = towers(tmp_path, **OTHERS["SigLIP's"])
    preprocess = clip.transform.image_transform(64, is_train=False)
    tokenize = clip.SimpleTokenizer(context_length=32)
    expected = plain_loop(plain, preprocess, tokenize)
    model = Model("small", None, plain, preprocess, tokenize, CPU)
    ours = model.score(IMAGES, TEXTS).similarity
    assert np.abs(ours - expected).max() < 1e-5


def plain_loop(model: Any, preprocess: Any, tokenize: Any) -> Any:
    with torch.no_grad():
        pixels = torch.stack([preprocess(opened(data)) for data in IMAGES])
        image = model.encode_image(pixels, normalize=True).double()
        text = model.encode_text(tokenize(TEXTS), normalize=True).double()
    return (image * text).sum(dim=-1).numpy()


# ---- precision and batches ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "mean", "most"), [("bf16", 1e-3, 5e-3), ("fp16", 3e-4, 1e-3)]
)
def test_half_precision_is_close_and_the_digest_is_the_same(
    precision: str, mean: float, most: float
) -> None:
    exact = load(str(demo.PATH), device="cpu")
    model = load(str(demo.PATH), device="cpu", precision=precision)
    assert model.digest == exact.digest
    # by which zero-shot taggers multiply: rounded to bf16 it would be up to 1.5 % off
    assert model.logit_scale == exact.logit_scale
    seeds = range(HELD_OUT, HELD_OUT + 64)  # 23 ms each without bf16 in the processor
    pairs = [thumbnail(n) for n in seeds], [caption(n, attributes(n)) for n in seeds]
    change = np.abs(model.score(*pairs).similarity - exact.score(*pairs).similarity)
    assert 0 < change.mean() <= mean
    assert change.max() <= most


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(Refused, match="unknown precision 'fp8': it is fp32, bf16, fp16 or auto"):
        load(str(demo.PATH), device="cpu", precision="fp8")


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_bf16_is_the_default_of_gpus_that_compute_in_it(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older ones take it too, and emulate it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert dtype_of("auto", torch.device("cuda")) == dtype
    assert dtype_of("auto", torch.device("cpu")) == torch.float32


def test_float32_is_not_the_short_one_of_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    load(str(demo.PATH), device="cpu", precision="fp16")
    assert torch.backends.cudnn.allow_tf32
    load(str(demo.PATH), device="cpu", precision="fp32")
    assert not torch.backends.cudnn.allow_tf32


def test_what_cannot_be_compiled_is_refused_before_a_task_is_claimed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each task would fail by it, and be tried on the next machine."""

    def compile_(_function: Any, *, dynamic: bool) -> Any:
        def compiled(_x: torch.Tensor) -> Any:
            raise RuntimeError("Failed to find C compiler")

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(Refused, match=r"leave --compile out \(RuntimeError: Failed to find C"):
        load(str(demo.PATH), device="cpu", compiled=True)


@pytest.mark.parametrize("context", [1, 16, 32, 64, 77, 128, 248, 512])
def test_texts_of_any_length_are_few_programs(context: int) -> None:
    """Past 8 shapes of one function torch runs it uncompiled."""
    step = compiled.column_step(context)
    columns = {min(context, -(-needed // step) * step) for needed in range(1, context + 1)}
    assert len(columns) <= compiled.PROGRAMS
    assert step % 8 == 0


def test_a_compiled_model_sees_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled is torch's: here it is only looked at what it would get."""
    shapes = set()

    def compile_(function: Any, *, dynamic: bool) -> Any:
        assert not dynamic

        def compiled(x: torch.Tensor) -> Any:
            shapes.add(tuple(x.shape))
            return function(x)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    expected = load(str(demo.PATH), device="cpu").score(IMAGES, TEXTS)
    model = load(str(demo.PATH), device="cpu", compiled=True)
    size = model.batch_size
    every = {(size, 3, 64, 64), (size, 16), (size, 32)}
    assert shapes == every  # before the first task: compiling takes longer than a lease may idle
    scores = model.score(IMAGES, TEXTS)
    assert np.abs(scores.similarity - expected.similarity).max() < 1e-5
    assert shapes == every


def test_batches_by_length_hold_every_row_once_and_what_it_needs() -> None:
    needed = [(7 * n) % 77 + 1 for n in range(100)]
    batches = list(by_length(needed, 32, 8, 77))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(100))
    for batch in batches:
        longest = max(needed[row] for row in batch.rows)
        assert longest <= batch.columns <= min(77, longest + 7)
    assert [len(batch.rows) for batch in batches] == [32, 32, 32, 4]
    assert [batch.columns for batch in batches] == sorted(batch.columns for batch in batches)
    assert list(by_length([], 32, 8, 77)) == []


def test_chunks_are_gathered_in_order() -> None:
    chunks = [torch.arange(10), torch.arange(10, 75), torch.arange(75, 77)]
    found = list(gathered(chunks, 32))
    assert [len(batch) for batch in found] == [32, 32, 13]
    assert torch.equal(torch.cat(found), torch.arange(77))
    assert list(gathered([], 32)) == []
