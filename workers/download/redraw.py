"""From an original to the rendition that ``pairmill fetch`` writes, as img2dataset resizes."""

import io

import cv2
import numpy as np
from PIL import Image

from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import dhash
from pairmill.workers.download import exif
from pairmill.workers.download.blur import blurred
from pairmill.workers.download.pixels import PIXEL_BYTES, Original
from pairmill.workers.download.rendition import DEFAULT_QUALITY, Box, RenditionSpec
from pairmill.workers.download.shrink import Size

NAMES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "AVIF": "avif"}
# the longest side that each format's header can say
LONGEST = {"jpg": 65_500, "png": (1 << 31) - 1, "webp": 16_383}


def refused(original: Original, spec: RenditionSpec) -> Outcome | None:
    """Whether it is beyond the limits of the spec, or what is made of it would be beyond those of
    the memory or of the format. Before a pixel is decoded."""
    width, height = original.image.size
    if min(width, height) < spec.min_side:
        return Outcome.TOO_SMALL
    if spec.max_area is not None and width * height > spec.max_area:
        return Outcome.TOO_MANY_PIXELS
    if spec.max_aspect is not None and max(width, height) > spec.max_aspect * min(width, height):
        return Outcome.TOO_THIN
    resized = _size(original.image.size, spec)
    if resized[0] * resized[1] * PIXEL_BYTES["PNG"] > spec.memory:
        return Outcome.TOO_MANY_PIXELS  # a thin one whose short side is enlarged
    if spec.mode != "crop" and max(resized) > LONGEST[spec.format]:
        return Outcome.TOO_MANY_PIXELS
    return None


def redrawn(
    original: Original, spec: RenditionSpec, boxes: tuple[Box, ...], body: bytes
) -> tuple[bytes, str, int]:
    """The rendition's bytes, their format and the dhash of the image before it is blurred, bordered
    or cut, which is comparable with a thumbnail's. boxes: of the image as it is stored, before it
    is turned, as those that detect faces with OpenCV or img2dataset have it."""
    stored = original.image.size
    size = _size(stored, spec)
    turn = exif.TURNS.get(original.orientation)
    smaller = min(size[0], stored[0]), min(size[1], stored[1])
    image = original.pixels(smaller)
    if size != smaller:
        larger = cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_LANCZOS4)
        image = Image.fromarray(larger)
    bits = dhash(_upright(image, turn))
    drawn = blurred(image, boxes) if boxes else image
    drawn = _upright(drawn, turn)
    if _resizes(stored, spec) and spec.mode == "crop":
        drawn = _cropped(drawn, spec.size)
    elif _resizes(stored, spec) and spec.mode == "border":
        drawn = _bordered(drawn, spec.size)
    name = NAMES[original.name]
    same = drawn.size == stored and turn is None and drawn is image and not _clear(original)
    if spec.skip_reencode and same and name == spec.format:
        return body, name, bits
    return _encoded(drawn, spec), spec.format, bits


def _resizes(stored: Size, spec: RenditionSpec) -> bool:
    """Whether it is resized, and gets its border or its cut: if it is as large as is wanted, or
    images are enlarged."""
    if spec.mode == "no":
        return False
    side = min(stored) if spec.mode in ("keep_ratio", "crop") else max(stored)
    return spec.enlarge or side >= spec.size


def _size(stored: Size, spec: RenditionSpec) -> Size:
    """Of the whole image once it is resized, before a border or a cut."""
    if not _resizes(stored, spec):
        return stored
    side = min(stored) if spec.mode in ("keep_ratio", "crop") else max(stored)
    scale = spec.size / side
    return max(1, round(stored[0] * scale)), max(1, round(stored[1] * scale))


def _upright(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)  # FLIP_LEFT_RIGHT is 0


def _cropped(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _bordered(image: Image.Image, side: int) -> Image.Image:
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _clear(original: Original) -> bool:
    """Whether it may have transparent pixels, which a rendition has over white."""
    image = original.image
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _encoded(image: Image.Image, spec: RenditionSpec) -> bytes:
    quality = DEFAULT_QUALITY[spec.format] if spec.quality is None else spec.quality
    out = io.BytesIO()
    if spec.format == "png":
        image.save(out, "PNG", compress_level=quality)
    elif spec.format == "webp":
        image.save(out, "WEBP", quality=quality, exif=b"")
    else:
        image.save(out, "JPEG", quality=quality, exif=b"")
    return out.getvalue()
