"""The request to a decoder process and its answer, without the 45 MB of libraries it needs."""

import struct
from dataclasses import dataclass

from pairmill.schema.outcomes import Outcome

# on a decoder's pipes: before a body its length and the number of boxes to blur; a box; before a
# thumbnail outcome, width, height, dhash, md5, sha1, sha256, pdq (zeros: none), and the lengths of
# the thumbnail, of its format's name and of exif, 0 for none
REQUEST = struct.Struct(">IH")
BOX = struct.Struct(">4d")
ANSWER = struct.Struct(">hIIq16s20s32s32sIBI")


@dataclass(frozen=True)
class ThumbnailSpec:
    """The properties of a thumbnail. short_side: pixels; an image is never enlarged. max_bytes: of
    its JPEG; the database refuses more. memory: bytes for a decoded original, by
    ``pixels.PIXEL_BYTES``; 80 MB are 16 megapixels, 8 of AVIF, 11 of WebP or 5 with
    transparency."""

    short_side: int = 256
    max_bytes: int = 128 * 1024
    memory: int = 80_000_000


@dataclass(frozen=True)
class Decoded:
    """A body once it is decoded. width, height: pixels of the original as it is meant to be seen
    (EXIF orientation applied). thumbnail: JPEG, or a rendition's bytes, of this format (jpg, png,
    webp, …). dhash, pdq: see ``pairmill.workers.dhash`` and ``pdq``; pdq of a thumbnail alone,
    and empty of a flat image. md5, sha1, sha256: of the body. exif: a JSON object of tag names to
    text, where it was asked for and there is any. All zero or empty unless outcome is SUCCESS."""

    outcome: Outcome
    width: int = 0
    height: int = 0
    thumbnail: bytes = b""
    dhash: int = 0
    md5: bytes = b""
    sha1: bytes = b""
    sha256: bytes = b""
    pdq: bytes = b""
    format: str = ""
    exif: str | None = None
