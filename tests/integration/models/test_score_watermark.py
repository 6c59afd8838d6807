"""The watermark tagger, with weights of the test's own: LAION's are the user's to bring."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pairmill.workers.errors import Refused, TaskFailed
from pairmill.workers.score import watermark
from pairmill.workers.score.digest import weights_digest
from pairmill.workers.score.watermark import architecture, load

# isort: split
import timm
import torchvision

# as LAION's inference.py
TRANSFORM = torchvision.transforms.Compose([
    torchvision.transforms.Resize((256, 256)),
    torchvision.transforms.ToTensor(),
    torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
])  # fmt: skip


def picture(seed: int, width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of the network, as it starts its training, with other statistics of the batches."""
    torch.manual_seed(seed)
    network = timm.create_model("efficientnet_b3", num_classes=2)
    network.classifier = torch.nn.Sequential(
        torch.nn.Linear(1536, 625), torch.nn.ReLU(), torch.nn.Dropout(0.3),
        torch.nn.Linear(625, 256), torch.nn.ReLU(), torch.nn.Linear(256, 2),
    )  # fmt: skip
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all passes
    # One pass in training's mode, over pictures like those that are asked about: with statistics of
    # others the values explode on their way, and differ with the number of threads.
    pictures = torch.stack([TRANSFORM(picture(100 + i, 256, 256)) for i in range(6)])
    with torch.no_grad():
        network.train()(pictures)
    network.classifier[-1].weight.data *= 10  # so that pictures differ
    return {name: tensor.detach() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return state()


PICTURES = [picture(i, 256 + 40 * i, 300 - 30 * i) for i in range(4)]


def test_values_equal_a_plain_loop(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    """As LAION's inference.py preprocesses and computes."""
    torch.save(weights, tmp_path / "w.pt")
    values = load(tmp_path / "w.pt").tag(PICTURES).values
    network = timm.create_model("efficientnet_b3", num_classes=2)
    network.classifier = architecture().classifier.to_empty(device="cpu")
    network.load_state_dict(weights)
    with torch.inference_mode():
        wanted = [network.eval()(TRANSFORM(p)[None]).softmax(dim=1)[0, 0].item() for p in PICTURES]
    assert values.dtype == np.float32
    assert values == pytest.approx(wanted, abs=1e-4)
    assert np.ptp(values) > 1e-3  # so that the order of the pictures is seen


def test_formats_of_file_and_pixels_do_not_matter(
    tmp_path: Path, weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    save_file(weights, tmp_path / "w.safetensors")
    one, other = load(tmp_path / "w.pt"), load(tmp_path / "w.safetensors")
    assert one.digest == other.digest
    assert one.kind == "pixels"
    whole = one.tag(PICTURES)
    assert whole.labels is None
    monkeypatch.setattr(watermark, "BATCH_SIZE", 3)
    arrays = [np.asarray(p) for p in PICTURES]
    assert other.tag(arrays).values == pytest.approx(whole.values, abs=1e-5)
    grey = PICTURES[0].convert("L")
    assert one.tag([grey]).values == pytest.approx(one.tag([grey.convert("RGB")]).values, abs=1e-6)
    assert one.tag([]).values.shape == (0,)


def test_digest_is_made_as_a_clip_models(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save(weights, tmp_path / "w.pt")
    network = architecture()
    network.load_state_dict(weights, assign=True)
    assert load(tmp_path / "w.pt").digest == weights_digest(network)
    other = weights | {"classifier.5.bias": weights["classifier.5.bias"] + 1}
    torch.save(other, tmp_path / "w.pt")
    assert load(tmp_path / "w.pt").digest != weights_digest(network)


def test_network_that_overflows_gives_nan(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    huge = weights | {"classifier.5.weight": torch.full((2, 256), 3e38)}
    torch.save(huge, tmp_path / "w.pt")
    assert np.isnan(load(tmp_path / "w.pt").tag(PICTURES[:2]).values).all()


@pytest.mark.parametrize("change", ["shape", "lacks", "more", "nan", "none"])
def test_checkpoint_of_another_network_is_refused(
    tmp_path: Path, weights: dict[str, torch.Tensor], change: str
) -> None:
    changed, sentence = {
        "shape": (
            weights | {"classifier.5.weight": torch.zeros(3, 256)},
            r"classifier.5.weight is \[3, 256\] instead of \[2, 256\]",
        ),
        "lacks": (
            {name: t for name, t in weights.items() if not name.startswith("bn2.")},
            r"it lacks 5 tensors \(bn2.bias, bn2.num_batches_tracked\) and has 0 others",
        ),
        "more": (
            weights | {"more": torch.zeros(1)},
            r"lacks 0 tensors \(\) and has 1 others \(more",
        ),
        "nan": (
            weights | {"conv_stem.weight": weights["conv_stem.weight"] * float("nan")},
            "the weights conv_stem.weight of .* are not finite",
        ),
        "none": ({"weight": torch.zeros(1, 512)}, "is not of the watermark tagger's network"),
    }[change]
    torch.save(changed, tmp_path / "w.pt")
    with pytest.raises(Refused, match=sentence):
        load(tmp_path / "w.pt")


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="there is no file"):
        load(tmp_path / "w.pt")
    for name in ("w.pt", "w.safetensors"):
        (tmp_path / name).write_bytes(b"no checkpoint")
        with pytest.raises(Refused, match=r"cannot read|no checkpoint"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_pixels_of_another_shape_are_an_error(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixels are uint8"):
        watermark.squeezed(pixels)


def test_memory_that_is_short_halves_the_batches(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    torch.save(weights, tmp_path / "w.pt")
    tagger = load(tmp_path / "w.pt")
    expected, plain, room = tagger.tag(PICTURES).values, tagger._network, 2

    def short(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > room:
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB. More words.")
        found: torch.Tensor = plain(batch)
        return found

    tagger._network = short  # type: ignore[assignment]
    assert tagger.tag(PICTURES).values == pytest.approx(expected, abs=1e-5)
    assert tagger.batch_size == 2
    room = 0
    with pytest.raises(TaskFailed, match=r"one image alone .*: Tried to allocate 20$"):
        tagger.tag(PICTURES)


def test_a_device_that_vanishes_ends_the_worker(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """Failed, its tasks would be discarded one after another."""
    torch.save(weights, tmp_path / "w.pt")
    tagger = load(tmp_path / "w.pt")

    def gone(_: torch.Tensor) -> torch.Tensor:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    tagger._network = gone  # type: ignore[assignment]
    with pytest.raises(Refused, match=r"the device cpu stopped working; .*unspecified launch"):
        tagger.tag(PICTURES)
