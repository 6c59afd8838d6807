"""Faces blurred, as img2dataset blurs DataComp's boxes (after the ImageNet team's "A Study of Face
Obfuscation in ImageNet", 2022)."""

import math

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pairmill.workers.download.rendition import Box

MARGIN = SPREAD = 0.1  # of a box's longer side: what is added around it; the blur's sigma
REACH = 4  # sigmas
# Pixels of sigma above which the blur is of a smaller copy. A box of 4,000 pixels would take
# minutes, and the decoder is killed after 20 s
LARGE_SIGMA = 8.0


def blurred(image: Image.Image, boxes: tuple[Box, ...]) -> Image.Image:
    """The RGB image with each box, and a tenth of its longer side around it, blurred with sigma of
    a tenth of the longest side of all; where the blur begins, the two are mixed."""
    width, height = image.size
    longest, places = 0, []
    for box in boxes:
        left, top, right, bottom = (
            int(edge * side) for edge, side in zip(box, (width, height) * 2, strict=True)
        )
        longer = max(right - left, bottom - top)
        longest = max(longest, longer)
        margin = int(MARGIN * longer)
        places.append((left - margin, top - margin, right + margin - 1, bottom + margin - 1))
    if longest < 1:
        return image
    sigma = SPREAD * longest
    factor = max(1, int(sigma / LARGE_SIGMA))
    small = image.reduce(factor)
    mask = Image.new("L", small.size)
    for place in places:
        left, top, right, bottom = (edge // factor for edge in place)
        if left <= right and top <= bottom:
            ImageDraw.Draw(mask).rectangle((left, top, right, bottom), fill=255)
    both = [_gaussian(part, sigma / factor).resize(image.size) for part in (small, mask)]
    return Image.composite(both[0], image, both[1])


def _gaussian(image: Image.Image, sigma: float) -> Image.Image:
    across = 2 * math.ceil(REACH * sigma) + 1
    return Image.fromarray(cv2.GaussianBlur(np.asarray(image), (across, across), sigma))
