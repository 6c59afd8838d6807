"""Broken metadata cost no pixels; where they can be read, the image is turned as they say."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode
from tests.support.image_parts import (
    chunk,
    encoded,
    png,
    segment,
    tiff,
    with_chunks,
    with_segments,
)

PHOTO = photo_like(1, (96, 64))
JPEG, PNG, WEBP = (encoded(PHOTO, kind) for kind in ("JPEG", "PNG", "WEBP"))
NOTE = struct.pack(">HHI4s", 0x010E, 2, 4, b"abc")
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
BOMB = zlib.compress(bytes(80_000_000), 9)
TURNED = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def pixels(body: bytes) -> np.ndarray:
    decoded = decode(body)
    assert decoded.outcome is Outcome.SUCCESS
    return np.asarray(Image.open(io.BytesIO(decoded.thumbnail)).convert("RGB"), np.int16)


@pytest.mark.parametrize(
    "broken",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xE1, EXIF),
        segment(0xE1, EXIF + b"XX\0*\0\0\0\x08"),
        segment(0xE1, EXIF + b"MM\0*\xff\xff\xff\xff"),
        segment(0xE1, EXIF + tiff(None, claimed=900)),
        segment(0xE1, EXIF + tiff(1, [struct.pack(">HHII", 0x011A, 5, 1, 1 << 31)])),
        segment(0xE1, EXIF + tiff(1, [struct.pack(">HHII", 0x8769, 4, 1, 8)] * 3)),
        segment(0xE1, XMP + b"<x:xmpmeta" + b"\xff\xfe" * 50),
        segment(0xE2, b"MPF\0MM\0*\0\0\0\x08\0\x03\xb0\x01\0\x04\0\0\0\x01\0\0\0\x09"),
        segment(0xE2, b"MPF\0II*\0\x08"),
        segment(0xE2, b"MPF\0"),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE2, b"ICC_PROFILE\0\x07\x02garbage"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff"),
        segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x02ab"),
        segment(0xEE, b"Adobe"),
        segment(0xFE, b"\0\xff" * 300),
        b"\xff\xe1\0\0",  # a length that does not even count itself
        segment(0xFE, b"") + b"\0\x01junk between segments",
        b"\xff\xff\xff",
    ],
)
def test_a_jpegs_broken_metadata_cost_no_pixels(broken: bytes) -> None:
    """Pillow#3352, #1328: struct.error, SyntaxError or a warning of Pillow's reader of metadata."""
    assert np.array_equal(pixels(with_segments(JPEG, broken)), pixels(JPEG))


def text(keyword: bytes, rest: bytes) -> bytes:
    return keyword + b"\0" + rest


ANCILLARY = {
    "checksum of a text": chunk(b"tEXt", b"Title\0a", crc=1),
    "checksum of a profile": chunk(b"iCCP", text(b"icc", b"\0" + zlib.compress(b"x")), crc=1),
    "checksum of transparency": chunk(b"tRNS", bytes(6), crc=1),
    "large text": chunk(b"zTXt", text(b"Comment", b"\0" + BOMB)),
    "large international text": chunk(b"iTXt", text(b"Comment", b"\1\0\0\0" + BOMB)),
    "large profile": chunk(b"iCCP", text(b"icc", b"\0" + BOMB)),
    "large orientation": chunk(b"iTXt", text(b"XML:com.adobe.xmp", b"\1\0\0\0" + BOMB)),
    "large Exif as text": chunk(b"zTXt", text(b"Raw profile type exif", b"\0" + BOMB)),
    "text that does not inflate": chunk(b"zTXt", text(b"Comment", b"\0nonsense")),
    "text without an end": chunk(b"iTXt", b"XML:com.adobe.xmp"),
    "Exif that is no hexadecimal": chunk(b"tEXt", text(b"Raw profile type exif", b"\n\n\nzz")),
    "text of no method": chunk(b"zTXt", text(b"Comment", b"")),
    "Exif of nonsense": chunk(b"eXIf", b"nonsense"),
    "Exif without entries": chunk(b"eXIf", tiff(None, claimed=900)),
    "no frame": chunk(b"acTL", bytes(8)),
    "short animation": chunk(b"acTL", b"\0"),
    "frame beside": chunk(b"acTL", struct.pack(">II", 2, 0))
    + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 900, 900, 90, 90, 1, 1, 0, 0)),
    "frames out of order": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", bytes(26)) * 2,
    "short gamma": chunk(b"gAMA", b"\0"),
    "short chromaticities": chunk(b"cHRM", b"\0\0"),
    "no rendering intent": chunk(b"sRGB", b""),
    "short resolution": chunk(b"pHYs", b"\0"),
    "suggested palette of no length": chunk(b"PLTE", bytes(4)),
    "transparency of no length": chunk(b"tRNS", bytes(5)),
    "private": chunk(b"prVt", bytes(300)),
}


@pytest.mark.parametrize("name", ANCILLARY)
def test_a_pngs_ancillary_chunks_cost_no_pixels(name: str) -> None:
    """Pillow#8363, #5528: one of them broken, before the image or after it."""
    assert np.array_equal(pixels(with_chunks(PNG, ANCILLARY[name])), pixels(PNG))
    behind = PNG[:-12] + ANCILLARY[name] + PNG[-12:]
    assert np.array_equal(pixels(behind), pixels(PNG))


def test_what_follows_a_pngs_image_may_be_cut_or_missing() -> None:
    whole = PNG[:-12]
    for end in (b"", b"\0\0", chunk(b"tEXt", bytes(300))[:50], b"\0\0\1\0IE", b"\r\n"):
        assert np.array_equal(pixels(whole + end), pixels(PNG)), end
    assert decode(with_chunks(PNG, b"")[:-40]).outcome is Outcome.TRUNCATED_IMAGE


def test_a_png_is_refused_for_its_critical_chunks_as_libpng_does() -> None:
    rows = np.arange(64, dtype=np.uint8).reshape(8, 8) % 4
    palette = chunk(b"PLTE", bytes(range(12)), crc=1)
    assert decode(png(rows, 3, 8, palette)).outcome is Outcome.BROKEN_IMAGE
    assert decode(PNG[:29] + b"\0\0\0\0" + PNG[33:]).outcome is Outcome.BROKEN_IMAGE  # IHDR's


def test_an_apng_shows_its_default_image() -> None:
    frames = [Image.new("RGB", (60, 60), colour) for colour in ("blue", "red")]
    body = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert b"acTL" in body
    assert pixels(body)[30, 30].tolist() == pytest.approx([0, 0, 255], abs=4)


WIDE = Image.new("RGB", (80, 40), "white")
WIDE.paste("red", (0, 0, 20, 20))


def profile(data: bytes) -> bytes:
    """Exif as ImageMagick writes it into a PNG's text."""
    return f"\nexif\n{len(data):8}\n".encode() + data.hex().encode() + b"\n"


@pytest.mark.parametrize(
    "body",
    [
        with_segments(encoded(WIDE), segment(0xE1, EXIF + tiff(6))),
        with_segments(encoded(WIDE), segment(0xE1, EXIF + tiff(6, claimed=900))),
        with_segments(encoded(WIDE), segment(0xE1, XMP + TURNED)),
        with_segments(
            encoded(WIDE), segment(0xE2, b"MPF\0II*\0\x08"), segment(0xE1, EXIF + tiff(6))
        ),
        with_segments(
            encoded(WIDE),
            segment(0xE1, EXIF + tiff(6, [struct.pack(">HHII", 0x010E, 2, 1 << 31, 8)])),
        ),
        with_chunks(encoded(WIDE, "PNG"), chunk(b"eXIf", tiff(6))),
        encoded(WIDE, "PNG")[:-12] + chunk(b"eXIf", tiff(6)) + chunk(b"IEND", b""),
        with_chunks(encoded(WIDE, "PNG"), chunk(b"eXIf", tiff(6)), chunk(b"tEXt", b"a\0", crc=1)),
        with_chunks(
            encoded(WIDE, "PNG"),
            chunk(b"iTXt", text(b"XML:com.adobe.xmp", b"\0\0\0\0" + TURNED)),
        ),
        with_chunks(
            encoded(WIDE, "PNG"),
            chunk(b"zTXt", text(b"Raw profile type exif", b"\0" + zlib.compress(profile(tiff(6))))),
        ),
        encoded(WIDE, "WEBP", exif=EXIF + tiff(6), quality=95),
        encoded(WIDE, "WEBP", exif=tiff(6), quality=95),
        encoded(WIDE, "AVIF", exif=tiff(6), quality=95),  # which becomes irot
    ],
)
def test_an_image_is_turned_where_its_orientation_can_be_read(body: bytes) -> None:
    """Would catch: an image on its side since something else of its metadata is broken."""
    decoded = decode(body)
    assert (decoded.outcome, decoded.width, decoded.height) == (Outcome.SUCCESS, 40, 80)
    found = pixels(body)
    assert found[10, 30].tolist() == pytest.approx([255, 0, 0], abs=40)  # upper right
    assert found[70, 10].min() > 240


def test_an_avif_is_shown_although_its_exif_is_not_read() -> None:
    """Pillow's plugin refuses the whole image ("Invalid Exif payload", or a struct.error)."""
    body = encoded(PHOTO, "AVIF", exif=EXIF + tiff(None, [NOTE]))
    start = body.index(b"MM\0*", body.index(b"mdat"))
    for broken in (b"XXXX", b"MM\0*\xff\xff\xff\xff", b"II*\0\x01\0\0\0"):
        changed = body[:start] + broken + body[start + len(broken) :]
        assert np.abs(pixels(changed) - pixels(encoded(PHOTO, "AVIF"))).mean() < 3, broken


def riff(*chunks: tuple[bytes, bytes], size: int | None = None) -> bytes:
    parts = [k + struct.pack("<I", len(d)) + d + bytes(len(d) % 2) for k, d in chunks]
    data = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(data) if size is None else size) + data


def test_a_webps_metadata_and_length_cost_no_pixels() -> None:
    """Would catch: a file without its last padding byte, as some writers leave it, called cut."""
    image = WEBP[20:] if WEBP[12:16] == b"VP8 " else b""
    assert image
    header = struct.pack("<IHBHB", 0x2C, 95, 0, 63, 0)  # says that it has all of them
    bodies = [
        riff((b"VP8 ", image), size=len(image) + 999),
        riff((b"VP8 ", image + b"\0"), size=len(image) + 14)[:-1],
        riff((b"VP8X", header), (b"ICCP", b"bad"), (b"VP8 ", image), (b"EXIF", b"bad")),
        riff((b"VP8X", header), (b"VP8 ", image), (b"XMP ", b"\xff"), (b"EXIF", b"II"))[:-1],
    ]
    for body in bodies:
        assert np.array_equal(pixels(body), pixels(WEBP))
    cut = riff((b"VP8 ", image))[:-60]
    assert decode(cut).outcome is Outcome.TRUNCATED_IMAGE


def test_metadata_in_plenty_take_no_time() -> None:
    """Would catch: each of thousands inflated, or joined to all before it: a minute, a GB of copies."""
    packed = chunk(b"zTXt", text(b"Raw profile type exif", b"\0" + BOMB[:3000]))
    assert np.array_equal(pixels(with_chunks(PNG, packed * 3000)), pixels(PNG))
    many = with_segments(JPEG, segment(0xE1, EXIF + bytes(40)) * 100_000)
    assert np.array_equal(pixels(many), pixels(JPEG))
