"""From a body's bytes to a thumbnail or a rendition, or to the outcome that names their fault.

Formats are told by content, never by name or Content-Type. Nothing of the original but its
pixels is kept in what is drawn: no EXIF, no ICC profile, no text chunks.
"""

import hashlib
import io
import struct
import warnings

from PIL import Image

from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import dhash
from pairmill.workers.download import contents, exif, jpeg_segments, redraw
from pairmill.workers.download.pdq import pdq
from pairmill.workers.download.pixels import Original, openable
from pairmill.workers.download.rendition import Box, RenditionSpec
from pairmill.workers.download.signature import sniff
from pairmill.workers.download.thumbnail import Decoded, ThumbnailSpec

MAX_ASPECT = 10
QUALITIES = (88, 75, 60, 40)  # 88 gives about 8 KB on photographs; the next only if too large
# Chroma's resolution. Of an image that is not reduced and has all of it, half would be a loss: 10
# to 73 of 255 in small drawings and coloured letters, and 2 to 8 with all of it. Most JPEGs have
# half, and their thumbnails would be half as large again
FULL, HALF = "4:4:4", "4:2:0"
TINY = 64 * 64  # pixels
TRUNCATED = "truncated", "premature end"  # Pillow's and libavif's word, and libjpeg-turbo's


def decode(
    body: bytes,
    spec: ThumbnailSpec | RenditionSpec = ThumbnailSpec(),
    boxes: tuple[Box, ...] = (),
) -> Decoded:
    """Decode, check, and make what the spec says. boxes: to blur in a rendition. Never raises for
    anything that a body can hold."""
    name = sniff(body)
    if name is None:
        return Decoded(Outcome.NOT_AN_IMAGE)
    if not name or name not in openable():
        return Decoded(Outcome.UNSUPPORTED_IMAGE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _drawn(Original.read(name, body), spec, boxes, body)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Decoded(Outcome.TOO_MANY_PIXELS)
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's readers raise nearly anything on hostile bytes (KeyError, OverflowError …)
        return Decoded(_fault(name, body, error))


def _fault(name: str, body: bytes, error: Exception) -> Outcome:
    if name == "JPEG" and not jpeg_segments.decoded(body):
        return Outcome.UNSUPPORTED_IMAGE
    truncated = any(word in str(error).lower() for word in TRUNCATED)
    early = isinstance(error, EOFError | struct.error)
    if truncated or early or contents.is_cut(name, body):
        return Outcome.TRUNCATED_IMAGE
    return Outcome.BROKEN_IMAGE


def _drawn(
    original: Original, spec: ThumbnailSpec | RenditionSpec, boxes: tuple[Box, ...], body: bytes
) -> Decoded:
    width, height = original.image.size
    if not width or not height:
        return Decoded(Outcome.BROKEN_IMAGE)
    if original.memory > spec.memory:
        return Decoded(Outcome.TOO_MANY_PIXELS)
    tags, look = None, b""
    if isinstance(spec, RenditionSpec):
        if refused := redraw.refused(original, spec):
            return Decoded(refused)
        made, form, bits = redraw.redrawn(original, spec, boxes, body)
        tags = exif.as_json(original.exif) if spec.exif else None
    else:
        if max(width, height) > MAX_ASPECT * min(width, height):
            return Decoded(Outcome.TOO_THIN)
        small = _thumbnail(original, spec)
        whole = small.size in ((width, height), (height, width))
        colours = FULL if whole and (original.full_colour or width * height <= TINY) else HALF
        made, form, bits = _encoded(small, spec.max_bytes, colours), "jpg", dhash(small)
        look = pdq(small)
    if original.orientation in exif.ACROSS:
        width, height = height, width
    md5 = hashlib.md5(body, usedforsecurity=False).digest()
    sha1 = hashlib.sha1(body, usedforsecurity=False).digest()
    sha256 = hashlib.sha256(body).digest()
    hashes = bits, md5, sha1, sha256, look
    return Decoded(Outcome.SUCCESS, width, height, made, *hashes, form, tags)


def _thumbnail(original: Original, spec: ThumbnailSpec) -> Image.Image:
    width, height = original.image.size
    scale = min(1.0, spec.short_side / min(width, height))
    small = original.pixels((max(1, round(width * scale)), max(1, round(height * scale))))
    turn = exif.TURNS.get(original.orientation)
    return small if turn is None else small.transpose(turn)  # FLIP_LEFT_RIGHT is 0


def _encoded(image: Image.Image, max_bytes: int, colours: str) -> bytes:
    """JPEG of at most so many bytes: by a lower quality first, then, for a long strip of noise, by
    a smaller size."""
    while True:
        for quality in QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, subsampling=colours, exif=b"")
            if out.tell() <= max_bytes:
                return out.getvalue()
        image = image.reduce(2)
