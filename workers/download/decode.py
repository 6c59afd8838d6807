"""From a body's bytes to a thumbnail, or to the outcome that names their fault.

Formats are told by content, never by name or Content-Type. Nothing of the original but its
pixels is kept: no EXIF, no ICC profile, no text chunks.
"""

import hashlib
import io
import struct
import sys
import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import dhash
from pairmill.workers.download.signature import sniff
from pairmill.workers.download.thumbnail import Decoded, ThumbnailSpec

MAX_ASPECT = 10
QUALITIES = (88, 75, 60, 40)  # 88 gives about 8 KB on photographs; the next only if too large
STRIP = 1 << 20  # pixels of a large image that are converted at a time
TRUNCATED = "truncated", "premature end"  # Pillow's word, and libjpeg-turbo's
ORIENTATION = 0x0112
# the transposition that turns an image upright, by its orientation (Exif 2.32, 4.6.4)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
PixelArray = npt.NDArray[np.uint8]
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


def decode(body: bytes, spec: ThumbnailSpec = ThumbnailSpec()) -> Decoded:
    """Decode, check, and make the thumbnail. Never raises for anything that a body can hold."""
    name = sniff(body)
    if name is None:
        return Decoded(Outcome.NOT_AN_IMAGE)
    if not name or name not in _openable():
        return Decoded(Outcome.UNSUPPORTED_IMAGE)
    if name == "WEBP" and int.from_bytes(body[4:8], "little") + 8 > len(body):
        return Decoded(Outcome.TRUNCATED_IMAGE)  # a RIFF file says at its start how long it is
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of bombs and of broken metadata
            with Image.open(io.BytesIO(body), formats=[name]) as image:
                if refused := _too_much(name, image, spec):
                    return Decoded(refused)
                return _thumbnail(name, image, spec, body)
    except (EOFError, struct.error):
        return Decoded(Outcome.TRUNCATED_IMAGE)
    except UnidentifiedImageError:
        return Decoded(Outcome.BROKEN_IMAGE)
    except OSError as error:
        truncated = any(word in str(error).lower() for word in TRUNCATED)
        return Decoded(Outcome.TRUNCATED_IMAGE if truncated else Outcome.BROKEN_IMAGE)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Decoded(Outcome.TOO_MANY_PIXELS)
    except MemoryError:
        raise
    except Exception:
        # Pillow's readers raise nearly anything on hostile bytes (KeyError, OverflowError …)
        return Decoded(Outcome.BROKEN_IMAGE)


@cache
def _openable() -> frozenset[str]:
    """The formats that are decoded, of those that this Pillow has. Each plugin alone: all of them
    take 10 MB."""
    for plugin in ("Jpeg", "Png", "Gif", "WebP", "Avif"):
        with suppress(ImportError):
            import_module(f"PIL.{plugin}ImagePlugin")
    if avif := sys.modules.get("PIL.AvifImagePlugin"):
        avif.DEFAULT_MAX_THREADS = 1  # type: ignore[attr-defined]
    return frozenset(Image.OPEN) & {"JPEG", "PNG", "GIF", "WEBP", "AVIF"}


def _too_much(name: str, image: Image.Image, spec: ThumbnailSpec) -> Outcome | None:
    """Before a pixel is decoded. Of an animation only the first frame ever is."""
    width, height = image.size
    if _plain_webp(image):
        name = "PLAIN WEBP"
    elif image.info.get("progressive"):
        name = "PROGRESSIVE"
    if width * height * PIXEL_BYTES[name] > spec.memory:
        return Outcome.TOO_MANY_PIXELS
    if max(width, height) > MAX_ASPECT * min(width, height):
        return Outcome.TOO_THIN
    return None


def _thumbnail(name: str, image: Image.Image, spec: ThumbnailSpec, body: bytes) -> Decoded:
    width, height = image.size
    orientation = image.getexif().get(ORIENTATION, 1)
    scale = min(1.0, spec.short_side / min(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if name == "JPEG":  # Pillow's own name may be MPO, which phones write
        small = _jpeg(image, size, body)
    elif _plain_webp(image):
        small = _webp(size, body)
    else:
        small = _resized(image, size)
    if (turn := TURNS.get(orientation)) is not None:  # FLIP_LEFT_RIGHT is 0
        small = small.transpose(turn)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return Decoded(
        Outcome.SUCCESS,
        width,
        height,
        _encode(small, spec.max_bytes),
        dhash(small),
        hashlib.md5(body, usedforsecurity=False).digest(),
        hashlib.sha256(body).digest(),
    )


def _jpeg(image: Image.Image, size: tuple[int, int], body: bytes) -> Image.Image:
    """RGB of this size. Decoded at n/8, no smaller than the thumbnail, for half of the time."""
    if image.mode not in ("RGB", "L"):  # CMYK: Pillow converts it
        image.draft(image.mode, size)
        return _resized(image, size)
    try:
        pixels = simplejpeg.decode_jpeg(body, "RGB", min_width=size[0], min_height=size[1])
    except ValueError as error:  # strict: a warning of the library is an error
        raise OSError(str(error)) from None
    return _scaled(pixels, size)


def _plain_webp(image: Image.Image) -> bool:
    moves = getattr(image, "is_animated", False)
    return image.format == "WEBP" and image.mode == "RGB" and not moves


def _webp(size: tuple[int, int], body: bytes) -> Image.Image:
    """RGB of this size."""
    pixels = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise OSError("not the WebP that its header says")
    small = _shrunk(pixels.astype(np.uint8, copy=False), size)
    return Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGB of this size. A large image of another mode is converted strip by strip, and each strip
    reduced: a whole copy of 16 megapixels would take 64 MB more."""
    image.load()
    width, height = image.size
    plain = image.mode == "RGB" and "transparency" not in image.info
    factor = max(1, min(width // size[0], height // size[1]) // 2)
    if plain or factor == 1 or width * height <= STRIP:
        return _scaled(np.asarray(_rgb(image)), size)
    # rows and columns of no whole block are cut off: less than one pixel of the thumbnail
    width, height = width // factor * factor, height // factor * factor
    reduced = Image.new("RGB", (width // factor, height // factor))
    step = factor * max(1, STRIP // (width * factor))
    for top in range(0, height, step):
        strip = _rgb(image.crop((0, top, width, min(height, top + step))))
        reduced.paste(strip.reduce(factor), (0, top // factor))
    return _scaled(np.asarray(reduced), size)


def _scaled(pixels: PixelArray, size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(_shrunk(pixels, size))


def _shrunk(pixels: PixelArray, size: tuple[int, int]) -> PixelArray:
    """pixels: (height, width, 3), uint8; the result (size[1], size[0], 3).

    First by a whole number, to the mean of each block, then between neighbours: 0.24 ms from
    800×600. The mean of each pixel's own area takes 1.44, and is used where the rest is large.
    """
    height, width = pixels.shape[:2]
    factor = min(width // size[0], height // size[1])
    if factor > 1:
        width, height = width // factor, height // factor
        blocks = pixels[: height * factor, : width * factor]
        pixels = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if (width, height) == size:
        return pixels
    close = width < 1.3 * size[0]
    how = cv2.INTER_LINEAR if close else cv2.INTER_AREA
    return cv2.resize(pixels, size, interpolation=how)  # type: ignore[return-value]


def _rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency over white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _encode(image: Image.Image, max_bytes: int) -> bytes:
    """JPEG of at most so many bytes: by a lower quality first, then, for a long strip of noise, by
    a smaller size."""
    while True:
        for quality in QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, exif=b"")
            if out.tell() <= max_bytes:
                return out.getvalue()
        image = image.reduce(2)
