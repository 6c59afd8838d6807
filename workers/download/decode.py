"""From a body's bytes to a thumbnail, or to the name of what is wrong with them.

Formats are told by content, never by name or Content-Type. Nothing of the original but its
pixels is kept: no EXIF, no ICC profile, no text chunks.
"""

import io
import struct
import warnings
from collections.abc import Collection
from dataclasses import dataclass

from PIL import Image, ImageOps

from pairmill.schema.outcomes import Outcome

SHORT_SIDE = 256
MAX_PIXELS = 16_000_000  # 48 MB as RGB: what a decoder of a small node can hold
MAX_ASPECT = 10
MAX_THUMBNAIL = 128 * 1024  # bytes; the database refuses more
QUALITIES = (88, 75, 60, 40)  # 88 gives about 8 KB on photographs; the next only if too large
ORIENTATION = 0x0112
SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
# images that are known and not decoded: BMP, TIFF, icons, JPEG 2000, JPEG XL, Photoshop
UNSUPPORTED = (
    b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x01\x00", b"\x00\x00\x00\x0cjP  ",
    b"\xff\x0a", b"\x00\x00\x00\x0cJXL ", b"8BPS",
)  # fmt: skip


@dataclass(frozen=True)
class Decoded:
    """What became of a body. width, height: pixels of the original as it is meant to be seen
    (EXIF orientation applied). thumbnail: JPEG, short side 256 at most, never enlarged. dhash:
    see ``dhash``. All zero or empty unless outcome is SUCCESS."""

    outcome: Outcome
    width: int = 0
    height: int = 0
    thumbnail: bytes = b""
    dhash: int = 0


def sniff(body: bytes) -> str | None:
    """Pillow's name of the format, by the first bytes; "" for an image of another format, None
    for what is no image."""
    for signature, name in SIGNATURES:
        if body.startswith(signature):
            return name
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    if body[4:8] == b"ftyp":
        return "AVIF" if body[8:12] in (b"avif", b"avis") else ""
    return "" if body.startswith(UNSUPPORTED) else None


def decode(body: bytes) -> Decoded:
    """Decode, check, and make the thumbnail. Never raises for anything that a body can hold."""
    name = sniff(body)
    if name is None:
        return Decoded(Outcome.NOT_AN_IMAGE)
    if name not in ("JPEG", "PNG", "WEBP", "GIF", "AVIF") or name not in _openable():
        return Decoded(Outcome.UNSUPPORTED_IMAGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow warns of bombs and of broken metadata
            with Image.open(io.BytesIO(body), formats=[name]) as image:
                return _thumbnail(image)
    except (EOFError, struct.error):
        return Decoded(Outcome.TRUNCATED_IMAGE)
    except OSError as error:
        truncated = "truncated" in str(error).lower()
        return Decoded(Outcome.TRUNCATED_IMAGE if truncated else Outcome.BROKEN_IMAGE)
    except Image.DecompressionBombError:
        return Decoded(Outcome.TOO_MANY_PIXELS)
    except Exception:
        # Pillow's readers raise nearly anything on hostile bytes (KeyError, OverflowError …)
        return Decoded(Outcome.BROKEN_IMAGE)


def _openable() -> Collection[str]:
    Image.preinit()
    Image.init()
    return Image.OPEN


def _thumbnail(image: Image.Image) -> Decoded:
    width, height = image.size
    if width * height > MAX_PIXELS:
        return Decoded(Outcome.TOO_MANY_PIXELS)
    if max(width, height) > MAX_ASPECT * min(width, height):
        return Decoded(Outcome.TOO_THIN)
    turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
    scale = min(1.0, SHORT_SIDE / min(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # JPEG only: decoded at 1/2, 1/4 or 1/8, no smaller than twice the thumbnail
    image.draft("RGB", (2 * size[0], 2 * size[1]))
    image.load()
    small = _rgb(image).resize(size, Image.Resampling.BICUBIC)
    small.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    small = ImageOps.exif_transpose(small)
    if turned:
        width, height = height, width
    return Decoded(Outcome.SUCCESS, width, height, _encode(small), dhash(small))


def _rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparency over white."""
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, clear).convert("RGB")
    return image.convert("RGB")


def _encode(image: Image.Image) -> bytes:
    """JPEG of at most MAX_THUMBNAIL: by a lower quality first, then, for a long strip of noise, by
    a smaller size."""
    while True:
        for quality in QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, exif=b"")
            if out.tell() <= MAX_THUMBNAIL:
                return out.getvalue()
        image = image.reduce(2)


def dhash(image: Image.Image) -> int:
    """64-bit difference hash, as a signed integer.

    The thumbnail's pixels before it is encoded, as luma (ITU-R 601), resized to 9 x 8 by a
    bilinear filter; a bit for each pixel and its right neighbour, set where the neighbour is
    brighter; row by row, the first bit the highest (N. Krawetz, "Kind of Like That", 2013). Other
    decoders and filters differ by about 4 of 64 bits: this definition is part of the dataset.
    """
    luma = image.convert("L").resize((9, 8), Image.Resampling.BILINEAR).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            left, right = luma[9 * row + column], luma[9 * row + column + 1]
            bits = bits << 1 | (right > left)
    return bits - (1 << 64) if bits >> 63 else bits
