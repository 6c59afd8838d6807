"""The segments of a JPEG (ITU-T T.81, annex B).

The decoder gets those that its pixels need. Pillow refuses an image for a broken Exif or MPF
segment; libjpeg and so a browser passes over them.
"""

import re
from collections.abc import Iterator

from pairmill.workers.download.contents import Contents

SOS, EOI, DRI = 0xDA, 0xD9, 0xDD
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length: TEM, RST0 to RST7, SOI
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOFn; the others are DHT, JPG, DAC
LOSSLESS = 0xC3
# baseline, extended, progressive and lossless, by Huffman or arithmetic coding
DECODED = 0xC0, 0xC1, 0xC2, LOSSLESS, 0xC9, 0xCA
JFIF, EXIF, ADOBE = 0xE0, 0xE1, 0xEE
COMMENT = 0xFE
MOST_EXIF = 32  # segments, of up to 64 KiB
XMP = b"http://ns.adobe.com/xap/1.0/\0"
# What ends a scan: a marker but those of restarts. With restarts a decoder finds its way again
# behind a damaged marker, without them it gives up there
END, ANY_END = re.compile(rb"\xff\xd9"), re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
# More than the 64 bits that libjpeg reads ahead: an image that is whole needs no more of these, one
# that is not has them read within a few blocks and is found to be cut
FILLER = bytes(16)


def contents(body: bytes) -> Contents:
    """All segments but metadata and comments, without the bytes between them; JFIF's and Adobe's
    say what the colours are."""
    parts, exif, xmp, end = [body[:2]], [b""], b"", 2
    for marker, start, end in _segments(body):
        data = body[start + 4 : end]
        if marker == EXIF and data.startswith(b"Exif\0") and len(exif) < MOST_EXIF:
            exif.append(data[6:])  # what does not fit in one segment goes on in the next
        elif marker == EXIF and data.startswith(XMP):
            xmp = xmp or data[len(XMP) :]
        colours = (marker == JFIF and len(data) >= 14) or (marker == ADOBE and len(data) >= 12)
        if colours or not (JFIF <= marker <= 0xEF or marker == COMMENT):
            parts.append(body[start:end])
    return Contents(b"".join((*parts, body[end:])), b"".join(exif), xmp)


def uncut(image: bytes) -> bytes | None:
    """The image of one scan with zeros for its end, which Pillow decodes if the scan is whole, with
    an EOI or not, and calls truncated if it is cut, with an EOI or not. None: it has several scans,
    or none."""
    restarts = False
    for marker, _, end in _segments(image):
        restarts = restarts or marker == DRI
        if marker == SOS:
            if b"\xff\xda" in END.split(image[end:], 1)[0]:
                return None
            ends = END if restarts and END.search(image, end) else ANY_END
            found = ends.search(image, end)
            return (image[: found.start()] if found else image) + FILLER
    return None


def decoded(body: bytes) -> bool:
    """Whether its coding is one that is decoded: of 8 bits, with 1, 3 or 4 components, not
    hierarchical. True where no frame says so."""
    marker, precision, components = _frame(body)
    return marker in DECODED and precision == 8 and components in (1, 3, 4)


def scalable(body: bytes) -> bool:
    """Whether it can be decoded at n/8."""
    return _frame(body)[0] != LOSSLESS


def _frame(body: bytes) -> tuple[int, int, int]:
    """Marker, precision in bits and components of the first frame; a baseline's where none is."""
    for marker, start, end in _segments(body):
        if marker in FRAMES and end >= start + 10:
            return marker, body[start + 4], body[start + 9]
    return DECODED[0], 8, 3


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, its first byte and the segment's end, up to the first scan's header. Bytes between
    segments are passed over, as libjpeg does."""
    start = 2
    while (start := body.find(b"\xff", start)) >= 0 and start + 4 <= len(body):
        marker = body[start + 1]
        if marker in (0x00, 0xFF) or marker in ALONE:
            start += 1 if marker == 0xFF else 2
            continue
        if marker == EOI:
            return
        end = start + 2 + max(2, int.from_bytes(body[start + 2 : start + 4], "big"))
        if end > len(body):
            return
        yield marker, start, end
        if marker == SOS:
            return
        start = end
