"""Pixels at a smaller size."""

import math

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Size = tuple[int, int]  # width and height
PixelArray = npt.NDArray[np.uint8]
# Pixels that a side may be longer, so that it and what is made of it are both whole; and the drift
# at the far end, in pixels of the result, that is let pass
MOST_ADDED = 16
DRIFT = 0.2


def shrunk(
    pixels: PixelArray, size: Size, extent: tuple[float, float] | None = None
) -> Image.Image:
    """pixels: (height, width, channels), uint8; the result of this size. extent: width and height
    of the image in these pixels, of which the last ones may lie partly beyond it or be missing;
    None: theirs.

    First by a whole number, to the mean of each block, then between neighbours: 0.24 ms from
    800×600. The mean of each pixel's own area takes 1.44, and is used where the rest is large.
    A part of a pixel at the end would shift all before it, by 0.7 pixels at most, which can be as
    much of a difference as 9 of 255: so both sides are lengthened to where they fit, and cut.
    """
    height, width = pixels.shape[:2]
    across, down = extent or (width, height)
    factor = min(int(across // size[0]), int(down // size[1]), width, height)
    if factor > 1:
        width, height = width // factor, height // factor
        blocks = pixels[: height * factor, : width * factor]
        pixels = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        across, down = across / factor, down / factor
    columns, wide = _fitting(across, size[0])
    rows, high = _fitting(down, size[1])
    if (rows, columns) != (height, width):
        added = max(0, rows - height), max(0, columns - width)
        if any(added):
            pixels = cv2.copyMakeBorder(pixels, 0, added[0], 0, added[1], cv2.BORDER_REPLICATE)  # type: ignore[assignment]
        pixels = pixels[:rows, :columns]
    if (rows, columns) != (high, wide):
        close = across < 1.3 * size[0]
        how = cv2.INTER_LINEAR if close else cv2.INTER_AREA
        pixels = cv2.resize(pixels, (wide, high), interpolation=how)  # type: ignore[assignment]
    return Image.fromarray(pixels[: size[1], : size[0]])


def _fitting(extent: float, side: int) -> tuple[int, int]:
    """Pixels from and to, in whole numbers, as extent is to side; no fewer than these."""
    best = math.inf, 0, 0
    for whole in range(math.ceil(extent), math.ceil(extent) + MOST_ADDED):
        made = whole * side / extent
        drift = abs(round(made) - made) * side / made
        if round(made) >= side and drift < best[0]:
            best = drift, whole, round(made)
        if best[0] < DRIFT:
            break
    return best[1:]
