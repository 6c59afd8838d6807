"""Preprocessing of thumbnails: the transform of the model's image tower, in two halves.

What PIL does (decode, resize, crop) runs ahead of the device in threads and leaves 8 bits a
channel, a quarter of what crosses to the device and waits in memory; scale and normalisation, the
transform's last two steps, are done on the device. Together they are the transform, bit by bit on
a CPU.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from pairmill.workers.dhash import dhash, distance
from pairmill.workers.score import torchvision_import as _before_torchvision  # noqa: F401

# isort: split
from torchvision import transforms

# Thumbnails come from volunteers. Of Pillow's readers only those of what a downloader makes see
# them (the one for EPS starts a program), and only up to what a thumbnail is at most: 256 x 2,560.
FORMATS = ("JPEG", "WEBP")
MAX_PIXELS = 1_000_000
# a downloader's thumbnail has at most 10; a strip of one pixel would be resized to gigabytes
MAX_ASPECT = 12
# of 64 bits. Encoding moved the hash of 53 real images by 0 to 3, and of faint noise by 16 at most;
# another picture's is 32 away on average
MAX_DISTANCE = 20


@dataclass
class PixelBatch:
    """Images that could be decoded. rows: which of those given, ascending. data: uint8[n, height,
    width, 3], or float32[n, 3, height, width] where the transform was run as a whole; pinned for
    a CUDA device. wrong: rows left out since they show something else than their hash says."""

    rows: list[int]
    data: torch.Tensor
    wrong: list[int] = field(default_factory=list)


class Preprocessor:
    """Encoded images to a PixelBatch (threads may share one), and that to the tower's input.

    transform: open_clip's for evaluation. One that does not end in "to tensor, normalise" of a
    PIL image is run as a whole.
    """

    def __init__(self, transform: Callable[[Any], Any], device: torch.device) -> None:
        self._transform = transform
        self._device = device
        self._pil: list[Callable[[Any], Any]] | None = None
        steps = getattr(transform, "transforms", [])
        if len(steps) > 2 and isinstance(steps[-2], transforms.ToTensor):
            *pil, _, last = steps
            if isinstance(last, transforms.Normalize):
                self._pil = pil
                shape = (-1, 1, 1)
                self._mean = torch.tensor(last.mean, device=device).view(shape)
                self._std = torch.tensor(last.std, device=device).view(shape)

    def decode(
        self, images: Sequence[bytes], start: int = 0, hashes: Sequence[int] | None = None
    ) -> PixelBatch:
        """Those that are thumbnails; the others' rows are left out. start: row of the first.
        hashes: their dHashes, from before they were encoded."""
        found: list[tuple[int, Any]] = []
        wrong: list[int] = []
        for i, image in enumerate(map(decoded, images)):
            if image is None:
                continue
            if hashes is not None and distance(dhash(image), hashes[i]) > MAX_DISTANCE:
                wrong.append(start + i)
            else:
                found.append((i, self._pixels(image)))
        rows = [start + i for i, _ in found]
        if not found:
            return PixelBatch([], torch.empty(0), wrong)
        shape = (len(found), *np.asarray(found[0][1]).shape)
        dtype = torch.float32 if self._pil is None else torch.uint8
        data = torch.empty(shape, dtype=dtype, pin_memory=self._device.type == "cuda")
        # by numpy: torch would give each of these copies to a team of threads
        for target, (_, pixels) in zip(data.numpy(), found, strict=True):
            target[...] = np.asarray(pixels)
        return PixelBatch(rows, data, wrong)

    def normalised(self, data: torch.Tensor) -> torch.Tensor:
        """float32[n, 3, height, width] on the device, of PixelBatch.data."""
        data = data.to(self._device, non_blocking=True)
        if data.dtype != torch.uint8:
            return data
        assert self._pil is not None
        scaled = data.permute(0, 3, 1, 2).contiguous().to(torch.float32).div_(255)
        return scaled.sub_(self._mean).div_(self._std)

    def _pixels(self, image: Image.Image) -> Any:
        """An image after the transform's steps in PIL, or a tensor after all."""
        if self._pil is None:
            return self._transform(image)
        for step in self._pil:
            image = step(image)
        return image


def decoded(data: bytes) -> Image.Image | None:
    """RGB; None for what is no thumbnail."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            short, long = sorted(image.size)
            if short * long > MAX_PIXELS or long > MAX_ASPECT * short:
                return None
            return image.convert("RGB")
    except Exception:
        # Pillow's readers raise nearly anything on hostile bytes (struct.error, IndexError …)
        return None
