"""From a body's bytes to its pixels, at the size that is wanted of them.

simplejpeg decodes JPEG, OpenCV still WebP, and Pillow all else; it reads every header too.
"""

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from pairmill.workers.download import contents, exif, jpeg_segments, png_chunks
from pairmill.workers.download.contents import Contents
from pairmill.workers.download.shrink import Size, shrunk

STRIP = 1 << 20  # pixels of a large image that are converted at a time
cv2.setNumThreads(1)  # a decoder is one process of several

# Bytes that a pixel takes until it is reduced, measured at 16 megapixels: a progressive JPEG's are
# all its coefficients, a baseline JPEG is reduced as it is read; Pillow keeps four copies of a
# WebP, and is needed where it moves or has transparency
PIXEL_BYTES = {
    "JPEG": 5,
    "PNG": 5,
    "GIF": 5,
    "PROGRESSIVE": 6,
    "PLAIN WEBP": 7,
    "AVIF": 10,
    "WEBP": 16,
}
READERS: dict[str, Callable[[bytes], Contents]] = {
    "JPEG": jpeg_segments.contents,
    "PNG": png_chunks.contents,
    "GIF": Contents,
    "WEBP": contents.webp,
    "AVIF": contents.avif,
}


@cache
def openable() -> frozenset[str]:
    """The formats that are decoded, of those that this Pillow has. Each plugin alone: all of them
    take 10 MB."""
    for plugin in ("Jpeg", "Png", "Gif", "WebP", "Avif"):
        with suppress(ImportError):
            import_module(f"PIL.{plugin}ImagePlugin")
    if avif := sys.modules.get("PIL.AvifImagePlugin"):
        avif.DEFAULT_MAX_THREADS = 1  # type: ignore[attr-defined]
    return frozenset(Image.OPEN) & READERS.keys()


@dataclass(frozen=True)
class Original:
    """An image whose header is read. name: ``signature.sniff``'s. body: what the decoder gets.
    exif, xmp: b"" if none."""

    name: str
    body: bytes
    image: Image.Image
    exif: bytes
    xmp: bytes

    @classmethod
    def read(cls, name: str, body: bytes) -> "Original":
        """Raises what Pillow does."""
        held = READERS[name](body)
        try:
            image = Image.open(io.BytesIO(held.image), formats=[name])
        except Exception:
            if name != "AVIF" or (bare := contents.without_exif(held.image)) == held.image:
                raise
            image = Image.open(io.BytesIO(bare), formats=[name])
        found = image.info.get("exif", b""), image.info.get("xmp", b"")
        return cls(name, held.image, image, held.exif or found[0], held.xmp or found[1])

    @cached_property
    def orientation(self) -> int:
        return exif.orientation(self.exif, self.xmp)

    @property
    def full_colour(self) -> bool:
        """Whether its chroma has the resolution of its brightness."""
        if self.name == "JPEG":
            layers = self.image.layer  # type: ignore[attr-defined]
            return len({layer[1:3] for layer in layers}) == 1
        return self.name in ("PNG", "GIF") or b"VP8L" in self.body[12:64]

    @property
    def memory(self) -> int:
        """Bytes that its pixels take. Of an animation only the first frame is decoded."""
        width, height = self.image.size
        name = self.name
        if self._plain_webp:
            name = "PLAIN WEBP"
        elif self.image.info.get("progressive"):
            name = "PROGRESSIVE"
        return width * height * PIXEL_BYTES[name]

    def pixels(self, size: Size) -> Image.Image:
        """RGB of this size, which is no larger than the image's, as it is stored: not turned.
        Transparency is over white. Raises what Pillow does."""
        if self.name == "JPEG":
            return self._jpeg(size)
        if self._plain_webp:
            return self._webp(size)
        return _resized(self.image, size)

    def _jpeg(self, size: Size) -> Image.Image:
        """Decoded at n/8, no smaller than the size, for half of the time. What libjpeg warns of is
        Pillow's to judge: it passes over all but a scan that ends too early."""
        fault = ""
        if self.image.mode in ("RGB", "L"):  # CMYK: Pillow converts it
            width, height = size
            try:
                pixels = simplejpeg.decode_jpeg(
                    self.body, "RGB", min_width=width, min_height=height
                )
                return shrunk(pixels, size, self._extent(pixels.shape[1]))
            except ValueError as error:  # strict: a warning of the library is an error
                fault = str(error)
        uncut = jpeg_segments.uncut(self.body)
        if uncut is None and "premature end" in fault.lower():
            raise OSError(fault)  # of several scans the last is cut, which Pillow cannot tell
        with Image.open(io.BytesIO(uncut or self.body), formats=["JPEG"]) as image:
            if jpeg_segments.scalable(self.body):
                image.draft(image.mode, size)
            return _resized(image, size, self._extent(image.width))

    def _extent(self, width: int) -> tuple[float, float]:
        """The image's size in pixels of itself at n/8, where it has so many, the last one cut."""
        scale = round(8 * width / self.image.width) / 8
        return self.image.width * scale, self.image.height * scale

    @cached_property
    def _plain_webp(self) -> bool:
        moves = getattr(self.image, "is_animated", False)
        return self.name == "WEBP" and self.image.mode == "RGB" and not moves

    def _webp(self, size: Size) -> Image.Image:
        pixels = cv2.imdecode(np.frombuffer(self.body, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3:
            return _resized(self.image, size)  # transparent, although its header says otherwise
        small = np.asarray(shrunk(pixels.astype(np.uint8, copy=False), size))
        return Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))


def _resized(
    image: Image.Image, size: Size, extent: tuple[float, float] | None = None
) -> Image.Image:
    """RGB of this size. A large image of another mode is converted strip by strip, and each strip
    reduced: a whole copy of 16 megapixels would take 64 MB more. extent: ``shrunk``'s."""
    drawn = _drawn(image)
    image.load()
    width, height = image.size
    across, down = extent or image.size
    plain = image.mode == "RGB" and "transparency" not in image.info
    factor = max(1, min(width // size[0], height // size[1]) // 2)
    if plain or factor == 1 or width * height <= STRIP:
        return shrunk(np.asarray(_rgb(image, drawn)), size, (across, down))
    # rows and columns of no whole block are cut off: less than one pixel of the thumbnail
    width, height = width // factor * factor, height // factor * factor
    reduced = Image.new("RGB", (width // factor, height // factor))
    step = factor * max(1, STRIP // (width * factor))
    for top in range(0, height, step):
        strip = image.crop((0, top, width, min(height, top + step)))
        reduced.paste(_rgb(strip, drawn, top).reduce(factor), (0, top // factor))
    return shrunk(np.asarray(reduced), size, (across / factor, down / factor))


def _drawn(image: Image.Image) -> tuple[int, int, int, int] | None:
    """The part that a GIF's first frame draws, if not all: a browser shows nothing around it, and
    Pillow the palette's first colour."""
    if image.format != "GIF" or not image.tile:  # type: ignore[attr-defined]
        return None
    left, top, right, bottom = image.tile[0][1]  # type: ignore[attr-defined]
    whole = left <= 0 >= top and right >= image.width and bottom >= image.height
    return None if whole else (left, top, right, bottom)


def _rgb(
    image: Image.Image, drawn: tuple[int, int, int, int] | None = None, above: int = 0
) -> Image.Image:
    """RGB, with transparency over white, and white around what is drawn. above: rows of the whole
    image above this strip."""
    if drawn:
        left, top, right, bottom = drawn
        box = left, max(0, top - above), right, min(image.height, bottom - above)
        white = Image.new("RGB", image.size, "white")
        if box[1] < box[3] and left < right:
            white.paste(_rgb(image.crop(box)), box)
        return white
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """The high byte of grey, as OpenCV and browsers show it; Pillow's convert would cut all above
    255 to white."""
    grey = np.asarray(image).astype(np.uint16)
    high = (grey >> 8).astype(np.uint8)
    if (clear := image.info.get("transparency")) is not None:
        high[grey == clear] = 255
    return Image.fromarray(high).convert("RGB")
