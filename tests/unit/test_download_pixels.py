"""The pixels that a browser shows: depths, transparency, colours, first frames."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from pairmill.ops.demo.drawings import photo_like
from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import dhash, distance
from pairmill.workers.download.decode import decode
from pairmill.workers.download.rendition import RenditionSpec
from tests.support.image_parts import chunk, encoded, of_one_colour, png, segment, with_segments

AS_IT_IS = RenditionSpec(mode="no", format="png")
RAMP = np.arange(64 * 64).reshape(64, 64) * 16  # 0 to 65,520


def pixels(body: bytes) -> np.ndarray:
    """(height, width, 3), without a thumbnail's losses."""
    decoded = decode(body, AS_IT_IS)
    assert decoded.outcome is Outcome.SUCCESS
    return np.asarray(Image.open(io.BytesIO(decoded.thumbnail)), np.int16)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., np.newaxis], 3, axis=2).astype(np.int16)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_of_any_depth_is_what_it_is(depth: int, clear: bool) -> None:
    """Pillow#3011, #2574: 16 bits of grey, all above 255 white; and a transparent sample compared at
    another depth."""
    samples = RAMP >> (16 - depth)
    one = int(samples[20, 20])
    chunks = [chunk(b"tRNS", struct.pack(">H", one))] if clear else []
    expected = samples >> 8 if depth == 16 else samples * 255 // ((1 << depth) - 1)
    if clear:
        expected = np.where(samples == one, 255, expected)
    body = png(samples.astype(np.uint16), 0, depth, *chunks)
    assert np.array_equal(pixels(body), grey(expected))


def test_16_bits_of_grey_have_a_dhash_like_that_of_8() -> None:
    photo = np.asarray(photo_like(4, (400, 300)).convert("L"))
    deep, plain = (
        decode(png(p, 0, d)) for p, d in ((photo.astype(np.uint16) * 257, 16), (photo, 8))
    )
    assert distance(deep.dhash, plain.dhash) <= 1
    assert deep.thumbnail == plain.thumbnail


def test_a_large_image_of_16_bits_is_converted_in_strips_to_the_same_pixels() -> None:
    down, across = np.mgrid[:1100, :1400]
    photo = (128 + 127 * np.sin(down / 90) * np.cos(across / 70 + down / 200)).astype(np.uint16)
    deep = decode(png(photo * 257, 0, 16, chunk(b"tRNS", b"\0\0")))
    plain = Image.fromarray(np.where(photo == 0, 255, photo).astype(np.uint8)).convert("RGB")
    found = np.asarray(Image.open(io.BytesIO(deep.thumbnail)), np.int16)
    resized = np.asarray(plain.resize((326, 256), Image.Resampling.BICUBIC), np.int16)
    assert np.abs(found - resized).mean() < 3
    assert distance(deep.dhash, dhash(plain)) <= 1


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_16_bits_of_colour_and_alpha_keep_their_high_byte(colour: int) -> None:
    channels = {2: 3, 4: 2, 6: 4}[colour]
    samples = np.stack([np.roll(RAMP, 9 * i, 1) for i in range(channels)], axis=2)
    if colour != 2:
        samples[..., -1] = 65_535
    body = png(samples.astype(np.uint16), colour, 16)
    high = samples[..., : channels - (colour != 2)] >> 8
    assert np.abs(pixels(body) - high).max() <= 1


@pytest.mark.parametrize("depth", [8, 16])
def test_one_transparent_colour_is_white_and_no_other(depth: int) -> None:
    samples = np.zeros((8, 8, 3), np.uint16)
    samples[:4], samples[4:] = (0x12, 0x34, 0x56), (0x12, 0x34, 0x57)
    samples <<= depth - 8
    clear = struct.pack(">3H", *(value << depth - 8 for value in (0x12, 0x34, 0x56)))
    found = pixels(png(samples, 2, depth, chunk(b"tRNS", clear)))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[7, 7].tolist() == [0x12, 0x34, 0x57]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_may_be_transparent_in_part(depth: int) -> None:
    colours = chunk(b"PLTE", bytes((255, 0, 0, 0, 0, 255)))
    samples = np.tile(np.array([[0, 1]], np.uint8), (4, 4))
    solid = [[255, 0, 0], [0, 0, 255]]
    assert pixels(png(samples, 3, depth, colours))[0, :2].tolist() == solid
    for alphas, expected in (
        (b"\0", [[255, 255, 255], solid[1]]),
        (b"\xff\0", [solid[0], [255, 255, 255]]),
        (b"\x80\xff", [[255, 127, 127], solid[1]]),
        (b"\xff\0" + bytes(300), [solid[0], [255, 255, 255]]),  # more than there are colours
    ):
        found = pixels(png(samples, 3, depth, colours, chunk(b"tRNS", alphas)))
        assert np.abs(found[0, :2] - np.array(expected)).max() <= 1, alphas


def test_chunks_that_are_not_allowed_where_they_are_change_nothing() -> None:
    """As libpng has it: a second tRNS, one behind the image, one beside alpha; a palette of grey."""
    rows = np.full((8, 8), 7, np.uint8)
    seven, eight = (chunk(b"tRNS", bytes((0, value))) for value in (7, 8))
    assert pixels(png(rows, 0, 8, eight, seven))[0, 0, 0] == 7
    assert pixels(png(rows, 0, 8, after=[seven]))[0, 0, 0] == 7
    assert pixels(png(rows, 0, 8, chunk(b"PLTE", bytes(6))))[0, 0, 0] == 7
    assert pixels(png(rows, 0, 8, between=chunk(b"tEXt", b"a\0b")))[0, 0, 0] == 7
    both = np.full((8, 8, 2), 255, np.uint8)
    both[..., 0] = 7
    assert pixels(png(both, 4, 8, seven))[0, 0, 0] == 7


DRAWN = Image.new("RGB", (96, 64), (204, 51, 51))
DRAWN.paste((0, 153, 102), (0, 0, 48, 64))


def as_cmyk(image: Image.Image) -> Image.Image:
    """Without black, so that the colours are the complements."""
    return Image.merge(
        "CMYK", (*image.point(lambda v: 255 - v).split(), Image.new("L", image.size))
    )


@pytest.mark.parametrize(
    "body",
    [
        encoded(as_cmyk(DRAWN), quality=95),  # Adobe's, inverted, as Photoshop writes it
        encoded(DRAWN, quality=95, progressive=True),
        encoded(DRAWN, quality=95, subsampling="4:1:1"),
        encoded(DRAWN, quality=95, keep_rgb=True),  # no YCbCr
        encoded(DRAWN, quality=95, restart_marker_blocks=2),
        encoded(DRAWN, "WEBP", quality=95),
        encoded(DRAWN.convert("RGBA"), "WEBP", lossless=True),
        encoded(DRAWN, "AVIF", quality=95),
        encoded(DRAWN.convert("P"), "PNG"),
        encoded(DRAWN, "GIF"),
    ],
)
def test_colours_are_those_that_were_drawn(body: bytes) -> None:
    found = pixels(body)
    assert np.abs(found[32, 20] - np.array((0, 153, 102))).max() < 12
    assert np.abs(found[32, 80] - np.array((204, 51, 51))).max() < 12


@pytest.mark.parametrize("sampling", [(1, 1), (3, 1), (1, 3), (4, 1), (1, 4), (3, 2), (4, 2)])
def test_odd_sampling_of_colour_is_decoded(sampling: tuple[int, int]) -> None:
    """libjpeg-turbo#436: turbojpeg knows no name for it, libjpeg decodes it."""
    body = of_one_colour(12, 12, sampling, (1, 0, 5))
    expected = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    found = pixels(body)
    assert found.shape == (96 * sampling[1], 96 * sampling[0], 3)
    assert np.abs(found - expected).max() <= 1
    assert expected[50, 50, 0] > expected[50, 50, 1] + 60  # it is red
    reduced = decode(of_one_colour(36, 36, sampling, (1, 0, 5)))
    assert min(Image.open(io.BytesIO(reduced.thumbnail)).size) == 256


def gif(frame: tuple[int, int, int, int], *, clear: bool) -> bytes:
    """A screen of 40 × 40 whose first frame is blue, drawn from (left, top) on; the palette's first
    colour, which is also its background, is red."""
    left, top, width, height = frame
    image = Image.new("P", (width, height), 1)
    image.putpalette(bytes((255, 0, 0, 0, 0, 255)))
    body = encoded(image, "GIF", optimize=False)
    place = body.index(b",\0\0\0\0" + struct.pack("<HH", width, height))
    control = b"!\xf9\x04\x01\0\0\0\0" if clear else b""
    described = b"," + struct.pack("<HHHH", left, top, width, height)
    start = body[:6] + struct.pack("<HH", 40, 40) + body[10:place].split(b"!")[0]
    return start + control + described + body[place + 9 :]


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("frame", [(10, 20, 20, 10), (0, 0, 40, 39), (1, 0, 39, 40)])
def test_around_a_gifs_first_frame_there_is_nothing(
    frame: tuple[int, int, int, int], clear: bool
) -> None:
    """As browsers have it; Pillow fills the screen with the palette's first colour."""
    left, top, width, height = frame
    found = pixels(gif(frame, clear=clear))
    assert found.shape == (40, 40, 3)
    expected = np.full((40, 40, 3), 255)
    expected[top : top + height, left : left + width] = (0, 0, 255)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("JPEG", (538, 439)), ("PNG", (1031, 767)), ("WEBP", (1031, 767))],
)
def test_a_thumbnail_of_an_odd_size_is_not_shifted(kind: str, shape: tuple[int, int]) -> None:
    """Would catch: a part of a pixel at the end that is left out, or taken for a whole one, so that
    all before it drifts by up to a pixel."""
    stripes = (np.arange(shape[0]) // (shape[0] / 43) % 2).astype(np.uint8) * 255
    image = Image.fromarray(np.tile(stripes, (shape[1], 1))).convert("RGB")
    thumbnail = Image.open(io.BytesIO(decode(encoded(image, kind)).thumbnail))
    plain = image.resize(thumbnail.size, Image.Resampling.BICUBIC)
    apart = np.abs(np.asarray(thumbnail, np.int16) - np.asarray(plain, np.int16))
    assert apart[:, 250:].mean() < 8  # 9 to 21 if it is shifted


def test_small_drawings_keep_their_colours() -> None:
    """Would catch: coloured letters of one pixel's width, their colour halved."""
    lines = np.zeros((60, 90, 3), np.uint8)
    lines[:, ::2] = (255, 0, 0)
    lines[:, 1::2] = (0, 0, 255)
    for kind in ("PNG", "GIF"):
        thumbnail = decode(encoded(Image.fromarray(lines), kind)).thumbnail
        found = np.asarray(Image.open(io.BytesIO(thumbnail)), np.int16)
        assert np.abs(found - lines).mean() < 10


def test_an_ultra_hdr_photo_is_its_first_image() -> None:
    image = encoded(DRAWN, quality=95)
    second = encoded(Image.new("L", (10, 10)))
    body = with_segments(image, segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0 hdrgm:Version="1"'))
    assert pixels(body + second).shape == (64, 96, 3)
