"""A body as its decoder gets it, and the metadata that turn it: broken metadata cost no pixel.

PNG and JPEG have modules of their own."""

import re
from dataclasses import dataclass

from pairmill.workers.download.signature import AVIF

# an item's entry and its type (ISO/IEC 14496-12, 8.11.6), of version 2 or, with longer numbers, 3
EXIF_ITEM = re.compile(rb"(infe(?:\x02.{7}|\x03.{9}))Exif", re.DOTALL)


@dataclass(frozen=True)
class Contents:
    """What a body holds. image: the body without metadata, or with only those that its decoder
    passes over. exif: from its TIFF header on, or from "Exif" before it; xmp: XML. Both are empty
    where there are none, and where the decoder hands them out itself (WebP, AVIF)."""

    image: bytes
    exif: bytes = b""
    xmp: bytes = b""


def webp(body: bytes) -> Contents:
    """A RIFF file says at its start how long it is (RFC 9649, 2.4). One that says more than it has
    is cut, unless its one image is whole: then its length is mended, as browsers pass over it."""
    if int.from_bytes(body[4:8], "little") + 8 <= len(body):
        return Contents(body)
    start = 12
    while start + 8 <= len(body):
        kind = body[start : start + 4]
        end = start + 8 + int.from_bytes(body[start + 4 : start + 8], "little")
        if kind in (b"VP8 ", b"VP8L") and end <= len(body):
            image = body[8:end] + bytes(end % 2)
            return Contents(b"RIFF" + len(image).to_bytes(4, "little") + image)
        start = end + end % 2
    return Contents(body)


def avif(body: bytes) -> Contents:
    """With the major brand avif: Pillow looks at no other."""
    return Contents(body if body[8:12] in AVIF else body[:8] + AVIF[0] + body[12:])


def without_exif(image: bytes) -> bytes:
    """An AVIF whose Exif has a type of items that nobody knows: Pillow refuses a broken one."""
    return EXIF_ITEM.sub(rb"\1none", image)


def is_cut(name: str, body: bytes) -> bool:
    """Whether a RIFF file or a box (ISO/IEC 14496-12, 4.2) says that it is longer than the body."""
    if name == "WEBP":
        return int.from_bytes(body[4:8], "little") + 8 > len(body)
    start = 0
    while name == "AVIF" and start + 8 <= len(body):
        size = int.from_bytes(body[start : start + 4], "big")
        if size == 1:
            size = int.from_bytes(body[start + 8 : start + 16], "big")
        if size < 8:
            return False
        start += size
    return start > len(body)
