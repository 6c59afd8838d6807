"""Which damage a browser passes over, and how the other is named."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode
from pairmill.workers.download.signature import MOST_BRANDS, sniff
from tests.support.image_parts import encoded, of_one_colour, scan_of, segment, with_segments

PHOTO = photo_like(1, (160, 120))
JPEG, CMYK, PROGRESSIVE = (
    encoded(PHOTO, quality=88, restart_marker_rows=1),
    encoded(PHOTO.convert("CMYK"), quality=88),
    encoded(PHOTO, progressive=True),
)
PLAIN = encoded(PHOTO, quality=88)
AVIF, GIF = encoded(PHOTO, "AVIF"), encoded(PHOTO, "GIF")
EOI = b"\xff\xd9"


def thumbnail(body: bytes) -> np.ndarray:
    decoded = decode(body)
    assert decoded.outcome is Outcome.SUCCESS
    return np.asarray(Image.open(io.BytesIO(decoded.thumbnail)), np.int16)


def with_odd_scan(body: bytes) -> bytes:
    """Its scan's header has Ss, Se and A of a progressive one."""
    scan = scan_of(body)
    return body[: scan - 3] + b"\x01\x05\x21" + body[scan:]


def half(body: bytes) -> bytes:
    scan = scan_of(body)
    return body[: scan + (len(body) - scan) // 2]


@pytest.mark.parametrize("whole", [PLAIN, JPEG, CMYK], ids=["plain", "restarts", "cmyk"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda body: body[:-2],
        lambda body: body[:-1],
        lambda body: body[:-2] + b"\0" + EOI,
        lambda body: body[:-2] + bytes(40) + EOI,
        lambda body: body[:-2] + b"\xff\xff" + EOI,
        lambda body: body[:-2] + b"\xff\xdb",  # another marker for its end
        lambda body: body + b"\r\n<!-- cached -->",
        lambda body: body + body,
        with_odd_scan,
        lambda body: with_odd_scan(body)[:-2] + b"\0" + EOI,
        lambda body: with_segments(body, segment(0xFE, b"") + b"\0junk"),
    ],
    ids=range(11),
)
def test_a_jpeg_whose_scan_is_whole_is_shown(whole: bytes, damage) -> None:  # type: ignore[no-untyped-def]
    """OpenImageIO#2837, sharp#3488, opencv#9477: libjpeg warns, browsers show it."""
    assert np.abs(thumbnail(damage(whole)) - thumbnail(whole)).max() <= 2


@pytest.mark.parametrize(
    "body",
    [
        half(PLAIN),
        half(JPEG),
        half(CMYK),
        half(PROGRESSIVE),
        half(PLAIN) + EOI,
        half(JPEG) + EOI,
        half(CMYK) + EOI,
        half(PROGRESSIVE) + EOI,
        with_odd_scan(half(PLAIN)) + EOI,
        with_odd_scan(half(CMYK)) + EOI + PLAIN,
        half(PLAIN) + EOI + PLAIN,
        with_segments(half(PLAIN) + EOI, segment(0xFE, b"") + b"\0junk"),
        of_one_colour(40, 40, (3, 1), (3, 0, 0))[:-90] + EOI,
        PLAIN[: scan_of(PLAIN) - 40],
        encoded(PHOTO, "PNG")[:2000],
        encoded(PHOTO, "WEBP")[:2000],
        GIF[: len(GIF) // 2],
        AVIF[: len(AVIF) // 2],
        AVIF[:-9],
    ],
)
def test_half_an_image_is_truncated(body: bytes) -> None:
    """Would catch: a lower half of grey counted a success, where another warning comes first or the
    server closes the scan."""
    assert decode(body).outcome is Outcome.TRUNCATED_IMAGE


def test_a_scan_with_restarts_goes_on_behind_a_damaged_place() -> None:
    scan = scan_of(JPEG)
    place = JPEG.index(b"\xff\xd2", scan) - 20
    damaged = thumbnail(JPEG[:place] + b"\xff\xae" + JPEG[place + 2 :])
    assert np.abs(damaged - thumbnail(JPEG)).mean() < 30
    assert np.array_equal(damaged[100:], thumbnail(JPEG)[100:])


FRAME = PLAIN.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (PLAIN[: FRAME + 4] + b"\x0c" + PLAIN[FRAME + 5 :], Outcome.UNSUPPORTED_IMAGE),  # 12 bits
        (PLAIN[: FRAME + 9] + b"\2" + PLAIN[FRAME + 10 :], Outcome.UNSUPPORTED_IMAGE),  # 2 layers
        (PLAIN[: FRAME + 1] + b"\xc5" + PLAIN[FRAME + 2 :], Outcome.UNSUPPORTED_IMAGE),
        (
            PLAIN[: FRAME + 5] + b"\0\0" + PLAIN[FRAME + 7 :],
            Outcome.BROKEN_IMAGE,
        ),  # no height (DNL)
        (PLAIN[:20] + PLAIN, Outcome.SUCCESS),  # two SOIs: the second is passed over
        (b"\r\n" + PLAIN, Outcome.NOT_AN_IMAGE),
        (GIF[:-1], Outcome.SUCCESS),
        (GIF + b"\0" * 30, Outcome.SUCCESS),
    ],
)
def test_other_damage_has_the_name_that_it_has(body: bytes, outcome: Outcome) -> None:
    assert decode(body).outcome is outcome


def ftyp(major: bytes, *brands: bytes, size: int | None = None, long: bool = False) -> bytes:
    data = major + b"\0\0\0\0" + b"".join(brands)
    if long:
        return b"\0\0\0\1ftyp" + struct.pack(">Q", len(data) + 16) + data
    return struct.pack(">I", len(data) + 8 if size is None else size) + b"ftyp" + data


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (ftyp(b"avif"), "AVIF"),
        (ftyp(b"avis", b"avis"), "AVIF"),
        (ftyp(b"mif1", b"mif1", b"avif"), "AVIF"),
        (ftyp(b"msf1", b"avis"), "AVIF"),
        (ftyp(b"miaf", b"mif1", b"MA1B", b"avif"), "AVIF"),
        (ftyp(b"mif1", b"miaf", b"avif", long=True), "AVIF"),
        (ftyp(b"mif1", *[b"iso8"] * 50, b"avif"), "AVIF"),
        (ftyp(b"mif1", b"avif", size=0), "AVIF"),  # to the end of the file
        (ftyp(b"heic", b"mif1", b"heic"), ""),
        (ftyp(b"mif1", b"heic"), ""),
        (ftyp(b"isom", b"mp42"), ""),
        (ftyp(b"mif1", size=16) + b"avif", ""),  # behind the box
        (ftyp(b"heic", *[b"iso8"] * MOST_BRANDS, b"avif"), ""),
        (b"\0\0\0\x08ftyp", ""),
        (b"\0\0\0\x1cftypmif", ""),
        (ftyp(b"mif1", size=(1 << 32) - 1), ""),
    ],
)
def test_an_avif_is_known_by_any_of_its_brands(head: bytes, name: str) -> None:
    """pillow-avif-plugin#5: the major brand alone says little; HEIC has the same ones."""
    assert sniff(head) == name


@pytest.mark.parametrize("major", [b"mif1", b"msf1", b"miaf", b"heic"])
def test_an_avif_of_any_major_brand_is_decoded(major: bytes) -> None:
    body = AVIF[:8] + major + AVIF[12:]
    assert np.array_equal(thumbnail(body), thumbnail(AVIF))
