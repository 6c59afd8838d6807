"""The watermark tagger: a classifier on pixels, as LAION ran it over LAION-5B.

EfficientNet-B3 (Tan and Le, 2019; timm's) with the classifier of
https://github.com/LAION-AI/LAION-5B-WatermarkDetection, inference.py: images of 256 x 256, class 0
is a watermark. The weights are the user's: ``watermark_model_v1.pt`` of that project.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from pairmill.workers.errors import Refused, TaskFailed
from pairmill.workers.score import device_lost
from pairmill.workers.score import torchvision_import as _before_timm  # noqa: F401
from pairmill.workers.score.digest import weights_digest
from pairmill.workers.score.heads import Tags
from pairmill.workers.score.state_dict import load_tensors

# isort: split
import timm

SIDE = 256  # pixels; the whole image is squeezed into the square, as in training
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
WATERMARK = 0
BATCH_SIZE = 64
MAX_FILE = 2**30

RgbArray = npt.NDArray[np.uint8]


class WatermarkTagger:
    """digest: of its weights, as a CLIP model's. kind: ``pixels``. batch_size: images that go
    through the network at once; halved where memory is short."""

    kind = "pixels"

    def __init__(self, network: torch.nn.Module, device: torch.device) -> None:
        self.digest = weights_digest(network)
        self._network = network.eval().to(device)
        self._device = device
        self.batch_size = BATCH_SIZE
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(MEAN, device=device).view(shape)
        self._deviation = torch.tensor(DEVIATION, device=device).view(shape)

    @staticmethod
    def squeezed(image: Image.Image) -> RgbArray:
        """What ``tag`` makes of an image first; threads may do it ahead."""
        return squeezed(image)

    @torch.inference_mode()
    def tag(self, images: Sequence[Image.Image | RgbArray]) -> Tags:
        """The probability of a watermark of each image: RGB, of Pillow or uint8[height, width, 3].

        In float32. Where memory is short, in smaller batches from then on. Raises TaskFailed where
        one image alone does not fit into it, Refused where the device does not answer any more,
        ValueError for an array of another shape or type.
        """
        values = np.empty(len(images), np.float32)
        start = 0
        while start < len(images):
            some = images[start : start + self.batch_size]
            try:
                with device_lost.noticed(self._device):
                    found = self._probabilities(np.stack([squeezed(image) for image in some]))
            except RuntimeError as error:
                if not device_lost.short_of_memory(error):
                    raise
                if len(some) == 1:
                    raise TaskFailed(
                        f"one image alone does not fit into memory of {self._device}, for the"
                        f" watermark tagger: {str(error).partition('.')[0]}"
                    ) from None
                self.batch_size = len(some) // 2
                continue
            values[start : start + len(found)] = np.where(np.isfinite(found), found, np.nan)
            start += len(found)
        return Tags(values)

    def _probabilities(self, batch: RgbArray) -> npt.NDArray[np.float32]:
        pixels = torch.from_numpy(batch).to(self._device).permute(0, 3, 1, 2).float() / 255
        logits = self._network((pixels - self._mean) / self._deviation)
        found: npt.NDArray[np.float32] = logits.float().softmax(dim=1)[:, WATERMARK].cpu().numpy()
        return found


def squeezed(image: Image.Image | RgbArray) -> RgbArray:
    """uint8[256, 256, 3]: the whole image in a square, as torchvision's Resize((256, 256)) does."""
    if not isinstance(image, Image.Image):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"pixels are uint8[height, width, 3], not {image.dtype}{image.shape}")
        if image.shape[:2] == (SIDE, SIDE):  # squeezed ahead
            return image
        image = Image.fromarray(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def load(path: Path, *, device: torch.device | str = "cpu") -> WatermarkTagger:
    """The tagger with the weights of a state dict: .safetensors, or as torch.save writes it.

    Raises Refused, with a sentence, for a file that is absent, no state dict, or another network's.
    """
    if not path.is_file():
        raise Refused(f"there is no file {path}")
    if path.stat().st_size > MAX_FILE:
        raise Refused(f"the watermark tagger {path} is larger than its network can be")
    if path.suffix == ".safetensors":
        try:
            tensors = load_file(path)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise Refused(f"cannot read {path}: {error}") from None
    else:
        tensors = load_tensors(path)
    network = architecture()
    _check(path, network.state_dict(), tensors)
    network.load_state_dict(tensors, assign=True)
    return WatermarkTagger(network.float(), torch.device(device))


def architecture() -> torch.nn.Module:
    """The network without weights, on torch's device ``meta``."""
    with torch.device("meta"):
        network: torch.nn.Module = timm.create_model("efficientnet_b3", num_classes=2)
        network.classifier = torch.nn.Sequential(
            torch.nn.Linear(1536, 625),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
            torch.nn.Linear(625, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, 2),
        )
    return network


def _check(path: Path, wanted: dict[str, Any], found: dict[str, torch.Tensor]) -> None:
    missing, other = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or other:
        raise Refused(
            f"{path} is not of the watermark tagger's network: it lacks {len(missing)} tensors"
            f" ({', '.join(missing[:2])}) and has {len(other)} others ({', '.join(other[:2])})"
        )
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape:
            raise Refused(
                f"{path} is not of the watermark tagger's network: {name} is"
                f" {list(tensor.shape)} instead of {list(wanted[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise Refused(f"the weights {name} of {path} are not finite")
