"""What Exif says of an image: how it is turned, and on demand all of it as text.

It is read here and not by Pillow, whose reader copies each value (5,000 that overlap are 300 MB)
and gives up at the first broken one."""

import json
import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from PIL import ExifTags, Image

# the transposition that turns an image upright, by its orientation (Exif 2.32, 4.6.4)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
ACROSS = 5, 6, 7, 8  # those that swap width and height
IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
ORIENTATION = 0x0112
ASCII, RATIONAL, UNDEFINED, SIGNED_RATIONAL = 2, 5, 7, 10
# struct's letter of a value by its type (TIFF 6.0, section 2); a rational is two
LETTERS = {1: "B", ASCII: "c", 3: "H", 4: "I", RATIONAL: "I", 6: "b", UNDEFINED: "c", 8: "h",
           9: "i", SIGNED_RATIONAL: "i", 11: "f", 12: "d"}  # fmt: skip
# the first directory's tags that name another, and the names of exifread, which img2dataset uses
DIRECTORIES = {0x8769: ("EXIF", ExifTags.TAGS), 0x8825: ("GPS", ExifTags.GPSTAGS)}
MOST_TAGS = 512  # of a directory
MOST_BYTES = 1000  # of a value; larger ones are makers' notes and thumbnails

Value = tuple[int | float | bytes, ...]


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """1 to 8 (Exif 2.32, 4.6.4), and 1 where neither says so. Of Exif the first directory is read
    as far as it goes: what is behind the tag may be broken."""
    found: object = None
    for tag, _, values in _directory(exif.removeprefix(b"Exif\0\0")):
        if tag == ORIENTATION and len(values) == 1:
            found = values[0]
    if found is None and (match := IN_XMP.search(xmp)):
        found = int(match[1])
    return found if isinstance(found, int) and found in TURNS else 1


def as_json(exif: bytes) -> str | None:
    """A JSON object of tags to their values as text ("EXIF ExposureTime": "1/60"), named as
    exifread names them: Image, EXIF or GPS, and the tag. What cannot be read is left out, and so
    are values of more than ``MOST_BYTES``; None where nothing is left."""
    tiff = exif.removeprefix(b"Exif\0\0")
    tags: dict[str, str] = {}
    others = []
    for tag, kind, values in _directory(tiff):
        if tag in DIRECTORIES and isinstance(values[0], int):
            others.append((*DIRECTORIES[tag], values[0]))
        else:
            tags[f"Image {ExifTags.TAGS.get(tag, f'Tag 0x{tag:04X}')}"] = _text(kind, values)
    for prefix, names, start in others[: len(DIRECTORIES)]:
        for tag, kind, values in _directory(tiff, start):
            tags[f"{prefix} {names.get(tag, f'Tag 0x{tag:04X}')}"] = _text(kind, values)
    return json.dumps(tags) if tags else None


def _directory(tiff: bytes, start: int | None = None) -> Iterator[tuple[int, int, Value]]:
    """Tag, type and values of each entry that can be read; the first directory's, or of the one
    that starts there."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return
    if start is None:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
    if not 0 <= start <= len(tiff) - 2:
        return
    (entries,) = struct.unpack_from(order + "H", tiff, start)
    end = min(start + 2 + 12 * entries, len(tiff) - 11)
    for place in islice(range(start + 2, end, 12), MOST_TAGS):
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, place)
        if kind not in LETTERS or not count:
            continue
        pairs = 2 if kind in (RATIONAL, SIGNED_RATIONAL) else 1
        size = struct.calcsize(LETTERS[kind]) * count * pairs
        where = place + 8
        if size > 4:
            (where,) = struct.unpack_from(order + "I", tiff, where)
        if size > MOST_BYTES or where + size > len(tiff):
            continue
        if kind in (ASCII, UNDEFINED):
            yield tag, kind, (tiff[where : where + size],)
        else:
            form = f"{order}{count * pairs}{LETTERS[kind]}"
            yield tag, kind, struct.unpack_from(form, tiff, where)


def _text(kind: int, values: Value) -> str:
    if isinstance(values[0], bytes):
        text = values[0].strip(b"\0") if kind == UNDEFINED else values[0].partition(b"\0")[0]
        return text.decode("utf-8", "replace").replace("\0", "").strip()
    if kind in (RATIONAL, SIGNED_RATIONAL):
        pairs = zip(values[::2], values[1::2], strict=True)
        texts = [str(Fraction(int(a), int(b))) if b else f"{int(a)}/0" for a, b in pairs]
    else:
        texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
