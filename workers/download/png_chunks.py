"""The chunks of a PNG (W3C, Portable Network Graphics, third edition).

Only those that its pixels need are handed to the decoder: Pillow refuses an image for a wrong
checksum, a bomb of text or an odd number in an ancillary chunk, where libpng and so a browser
passes over the chunk.
"""

import zlib
from collections.abc import Iterator
from contextlib import suppress

from pairmill.workers.download.contents import Contents

SIGNATURE = 8
FRAME = 12  # bytes of a chunk beside its data: length, type, CRC-32
METADATA = 1 << 20  # most bytes of a text that is inflated; Pillow's limit too
END = b"\0\0\0\0IEND\xaeB`\x82"
TEXTS = b"tEXt", b"zTXt", b"iTXt"
XMP = b"XML:com.adobe.xmp"
PROFILE = b"Raw profile type exif"  # ImageMagick's, as hexadecimal text
GREY, COLOUR, PALETTE = 0, 2, 3


def contents(body: bytes) -> Contents:
    """The chunks IHDR, PLTE, tRNS and IDAT, and an IEND; orientation from eXIf and from texts. Of
    an animation that is the default image. A chunk that is cut or has no possible type, and all
    behind it, is left as it is, for the decoder to name."""
    parts, exif = [body[:SIGNATURE]], b""
    xmp = profiled = None  # the first of each is read: thousands that inflate would take a minute
    header = palette = b""
    seen_image = clear = False
    end = SIGNATURE
    for kind, start, end in _chunks(body):
        whole, data = body[start:end], body[start + 8 : end - 4]
        if kind == b"IHDR" and not header:
            header = data
            parts.append(whole)
        elif kind == b"IDAT":
            seen_image = True
            parts.append(whole)
        elif kind == b"IEND" and seen_image:
            break
        elif kind == b"PLTE" and not (palette or seen_image):
            palette = data
            if header[9:10] == bytes([PALETTE]):  # elsewhere a suggestion
                parts.append(whole)
        elif kind == b"tRNS" and not (seen_image or clear) and _intact(whole):
            if transparency := _transparency(data, header, len(palette) // 3):
                clear = True
                parts.append(_chunk(b"tRNS", transparency))
        elif kind == b"eXIf" and not exif and _intact(whole):
            exif = data
        elif kind in TEXTS and xmp is None and data.startswith(XMP) and _intact(whole):
            xmp = _text(kind, data)
        elif kind in TEXTS and profiled is None and data.startswith(PROFILE) and _intact(whole):
            profiled = _profile(_text(kind, data))
    # cut, or without IEND: an image is missed only where one of its own chunks is
    rest = body[end:] if body[end + 4 : end + 8] == b"IDAT" or not seen_image else END
    return Contents(b"".join((*parts, rest)), exif or profiled or b"", xmp or b"")


def _chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, first byte and end of each whole chunk, in their order."""
    start = SIGNATURE
    while start + FRAME <= len(body):
        length = int.from_bytes(body[start : start + 4], "big")
        kind = body[start + 4 : start + 8]
        end = start + FRAME + length
        if end > len(body) or not kind.isalpha():
            return
        yield kind, start, end
        start = end


def _chunk(kind: bytes, data: bytes) -> bytes:
    named = kind + data
    return len(data).to_bytes(4, "big") + named + zlib.crc32(named).to_bytes(4, "big")


def _intact(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _transparency(data: bytes, header: bytes, colours: int) -> bytes:
    """A tRNS as Pillow compares it with the pixels: at 8 bits, which 2 and 4 bits of grey are
    scaled to and of 16 bits of colour only the high ones are kept; 16 bits of grey stay. Empty
    for one that is passed over."""
    if len(header) != 13:
        return b""
    depth, colour = header[8], header[9]
    if colour == PALETTE:
        return data[:colours]
    samples = {GREY: 1, COLOUR: 3}.get(colour, 0)
    if len(data) != 2 * samples:
        return b""
    values = [int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)]
    if depth == 16:
        values = values if colour == GREY else [value >> 8 for value in values]
    else:
        most = (1 << depth) - 1
        scale = 1 if depth == 1 else 255 // most
        values = [(value & most) * scale for value in values]
    return b"".join(value.to_bytes(2, "big") for value in values)


def _text(kind: bytes, data: bytes) -> bytes:
    """The text of a chunk that begins with its keyword; empty for one that does not inflate or is
    too large."""
    _, _, rest = data.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # language, translated keyword
    elif packed:
        rest = rest[1:]  # the method
    if packed:
        try:
            rest = zlib.decompressobj().decompress(rest, METADATA)
        except zlib.error:
            return b""
    return rest if len(rest) < METADATA else b""


def _profile(text: bytes) -> bytes:
    """Exif of lines: an empty one, its name, its length, then hexadecimal digits."""
    with suppress(ValueError):
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    return b""
