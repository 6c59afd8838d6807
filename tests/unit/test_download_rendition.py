"""The image that ``pairmill fetch`` writes: img2dataset's modes, formats, limits and blurred faces."""

import io
import json
import math
import struct

import cv2
import numpy as np
import pytest
import trio
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from pairmill.ops.demo.drawings import photo_like
from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import distance
from pairmill.workers.download.decode import decode
from pairmill.workers.download.exif import as_json
from pairmill.workers.download.pool import decoder_pool
from pairmill.workers.download.rendition import RenditionSpec, boxes_of
from pairmill.workers.download.thumbnail import Decoded
from tests.support.image_parts import encoded, segment, tiff, with_segments

# those of img2dataset's own test images, and such as have the size already
SHAPES = [(123, 456), (208, 495), (321, 421), (416, 264), (524, 316), (256, 300), (300, 256)]
BODIES = {shape: encoded(Image.new("RGB", shape, "teal")) for shape in SHAPES}
PHOTO = photo_like(3, (320, 200))


def drawn(decoded: Decoded) -> Image.Image:
    assert decoded.outcome is Outcome.SUCCESS
    image = Image.open(io.BytesIO(decoded.thumbnail))
    image.load()
    return image


def expected(shape: tuple[int, int], mode: str, size: int, *, enlarge: bool) -> tuple[int, int]:
    short, long = min(shape), max(shape)
    side = short if mode in ("keep_ratio", "crop") else long
    if mode == "no" or (not enlarge and side < size):
        return shape
    if mode in ("border", "crop"):
        return size, size
    return round(shape[0] * size / side), round(shape[1] * size / side)


@pytest.mark.parametrize("mode", ["border", "keep_ratio", "crop", "largest", "no"])
@pytest.mark.parametrize("enlarge", [False, True])
def test_sizes_are_those_of_img2dataset(mode: str, enlarge: bool) -> None:
    """Its test_resizer, by mode and resize_only_if_bigger, with skip_reencode or not."""
    for shape, body in BODIES.items():
        wanted = expected(shape, mode, 256, enlarge=enlarge)
        for skip in (False, True):
            spec = RenditionSpec(mode=mode, enlarge=enlarge, skip_reencode=skip)
            decoded = decode(body, spec)
            assert (decoded.width, decoded.height) == shape
            assert drawn(decoded).size == wanted
            assert (decoded.thumbnail == body) == (skip and wanted == shape)


def test_a_border_is_white_and_the_image_in_its_middle() -> None:
    image = Image.new("RGB", (400, 100), "red")
    found = np.asarray(drawn(decode(encoded(image), RenditionSpec(mode="border", format="png"))))
    assert found[0, 0].tolist() == found[255, 255].tolist() == [255, 255, 255]
    rows = np.flatnonzero((found[:, 128] < 255).any(axis=1))
    assert (rows[0], rows[-1]) == (96, 159)


def test_a_crop_is_of_the_middle_and_of_the_image_as_it_is_seen() -> None:
    image = Image.new("RGB", (600, 200), "red")
    image.paste("blue", (200, 0, 400, 200))
    found = np.asarray(
        drawn(decode(encoded(image, quality=95), RenditionSpec("crop", 200))), np.int16
    )
    assert np.abs(found[:, 3:-3] - np.array((0, 0, 255))).max() < 12
    turned = with_segments(encoded(image), segment(0xE1, b"Exif\0\0" + tiff(6)))
    assert drawn(decode(turned, RenditionSpec("largest", 300))).size == (100, 300)


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
def test_formats_and_their_quality(form: str) -> None:
    body = encoded(PHOTO, "PNG")
    best, worst = {"jpg": (95, 10), "png": (0, 9), "webp": (95, 10)}[form]
    sizes = {}
    for quality in (None, best, worst):
        decoded = decode(body, RenditionSpec("no", format=form, quality=quality))
        assert decoded.format == form
        assert drawn(decoded).format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[form]
        sizes[quality] = len(decoded.thumbnail)
    assert sizes[best] > sizes[None] >= sizes[worst]
    if form == "png":
        assert np.array_equal(np.asarray(drawn(decoded)), np.asarray(PHOTO))


CLEAR = Image.new("RGBA", (90, 60), (255, 0, 0, 0))


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (encoded(PHOTO), True),
        (encoded(PHOTO, progressive=True), True),
        (encoded(PHOTO, exif=b"Exif\0\0" + tiff(1)), True),
        (encoded(PHOTO, exif=b"Exif\0\0" + tiff(6)), False),  # turned
        (encoded(PHOTO, "PNG"), False),  # of another format than the spec's
        (encoded(PHOTO)[:-2000], None),
    ],
)
def test_what_changes_nothing_is_not_encoded_again(body: bytes, kept: bool | None) -> None:
    decoded = decode(body, RenditionSpec("no", skip_reencode=True))
    if kept is None:
        assert decoded == Decoded(Outcome.TRUNCATED_IMAGE)
        return
    assert (decoded.thumbnail == body) == kept
    assert decoded.format == "jpg"
    assert decode(body, RenditionSpec("no")).thumbnail != body
    boxes = ((0.2, 0.2, 0.5, 0.5),)
    assert decode(body, RenditionSpec("no", skip_reencode=True), boxes).thumbnail != body


def test_transparency_is_not_kept_although_the_format_is() -> None:
    body = encoded(CLEAR, "PNG")
    found = drawn(decode(body, RenditionSpec("no", format="png", skip_reencode=True)))
    assert (found.mode, found.getpixel((5, 5))) == ("RGB", (255, 255, 255))
    plain = encoded(CLEAR.convert("RGB"), "PNG")
    assert decode(plain, RenditionSpec("no", format="png", skip_reencode=True)).thumbnail == plain


@pytest.mark.parametrize(
    ("shape", "spec", "outcome"),
    [
        ((300, 99), RenditionSpec(min_side=100), Outcome.TOO_SMALL),
        ((300, 100), RenditionSpec(min_side=100), Outcome.SUCCESS),
        ((300, 100), RenditionSpec(max_area=29_999), Outcome.TOO_MANY_PIXELS),
        ((300, 100), RenditionSpec(max_area=30_000), Outcome.SUCCESS),
        ((301, 100), RenditionSpec(max_aspect=3.0), Outcome.TOO_THIN),
        ((300, 100), RenditionSpec(max_aspect=3.0), Outcome.SUCCESS),
        ((2000, 20), RenditionSpec(), Outcome.SUCCESS),  # a thumbnail's limit of 10 is not fetch's
        ((4000, 1), RenditionSpec(enlarge=True), Outcome.TOO_MANY_PIXELS),  # 1,024,000 × 256
        ((4000, 1), RenditionSpec("largest", enlarge=True), Outcome.SUCCESS),
        (
            (17_000, 20),
            RenditionSpec(format="webp"),
            Outcome.TOO_MANY_PIXELS,
        ),  # its longest is 16,383
        ((4000, 4001), RenditionSpec(), Outcome.TOO_MANY_PIXELS),
    ],
)
def test_limits_have_outcomes(
    shape: tuple[int, int], spec: RenditionSpec, outcome: Outcome
) -> None:
    assert decode(encoded(Image.new("L", shape), "PNG"), spec).outcome is outcome


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "fill"},
        {"format": "gif"},
        {"quality": 0},
        {"format": "png", "quality": 10},
        {"size": 0},
    ],
)
def test_a_spec_that_cannot_be_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        RenditionSpec(**fields)  # type: ignore[arg-type]


def as_img2dataset_blurs(image: Image.Image, boxes: list[list[float]]) -> np.ndarray:
    """The same in floats over the whole image, written from its description."""
    pixels = np.asarray(image, np.float32)
    height, width = pixels.shape[:2]
    mask = np.zeros_like(pixels)
    longest = 0
    for box in boxes:
        left, top, right, bottom = (
            int(e * s) for e, s in zip(box, (width, height) * 2, strict=True)
        )
        side = max(right - left, bottom - top)
        longest = max(longest, side)
        rows = slice(max(0, int(top - 0.1 * side)), int(bottom + 0.1 * side))
        mask[rows, max(0, int(left - 0.1 * side)) : int(right + 0.1 * side)] = 1
    sigma = 0.1 * longest
    across = 2 * math.ceil(4 * sigma) + 1
    soft, where = (cv2.GaussianBlur(part, (across, across), sigma) for part in (pixels, mask))
    return pixels * (1 - where) + soft * where


@pytest.mark.parametrize(
    "boxes",
    [
        [[0.4, 0.3, 0.6, 0.6]],
        [[0.1, 0.1, 0.2, 0.3], [0.7, 0.6, 0.95, 0.9]],
        [[0.0, 0.0, 1.0, 1.0]],
        [[0.9, 0.9, 1.0, 1.0]],
        [[0.25, 0.25, 0.25, 0.25]],  # of no area
    ],
)
@pytest.mark.parametrize("shape", [(160, 100), (440, 330)])
def test_faces_are_blurred_as_img2dataset_blurs_them(
    boxes: list[list[float]], shape: tuple[int, int]
) -> None:
    """The larger one by a smaller copy."""
    photo = PHOTO.resize(shape)
    found = drawn(decode(encoded(photo, "PNG"), RenditionSpec("no", format="png"), boxes_of(boxes)))
    apart = np.abs(np.asarray(found, np.float32) - as_img2dataset_blurs(photo, boxes))
    assert apart.mean() < 1
    assert apart.max() < 16


def test_faces_are_where_they_are_in_the_image_as_it_is_stored() -> None:
    """Would catch: a face that stays sharp since the image is turned, resized or cut."""
    noise = np.random.default_rng(1).integers(0, 256, (300, 500, 3), np.uint8)
    body = encoded(Image.fromarray(noise), quality=95)
    turned = with_segments(body, segment(0xE1, b"Exif\0\0" + tiff(6)))
    found = np.asarray(
        drawn(decode(turned, RenditionSpec("no"), boxes_of([[0, 0, 0.3, 0.4]]))), float
    )
    assert found.shape[:2] == (500, 300)
    assert found[20:100, -80:-20].std() < 15  # what was upper left is upper right
    assert min(found[200:, :].std(), found[:100, :100].std()) > 40
    cut = np.asarray(
        drawn(decode(body, RenditionSpec("crop", 150), boxes_of([[0.3, 0, 0.7, 1]]))), float
    )
    assert cut.std() < 30


@pytest.mark.parametrize(
    ("rows", "boxes"),
    [
        ([], ()),
        ([[0.1, 0.2, 0.3, 0.4]], ((0.1, 0.2, 0.3, 0.4),)),
        (np.array([[0.5, 0.5, 1, 1]]), ((0.5, 0.5, 1, 1),)),
        ([[0.3, 0.4, 0.1, 0.2]], ((0.1, 0.2, 0.3, 0.4),)),
        ([[-1, -math.inf, 7, 1e300]], ((0, 0, 1, 1),)),
    ],
)
def test_boxes_are_brought_within_the_image(rows: object, boxes: object) -> None:
    assert boxes_of(rows) == boxes  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rows",
    [[[0.1, 0.2, 0.3]], [0.1, 0.2, 0.3, 0.4], None, [["a"] * 4], [[math.nan, 0, 1, 1]], "[]"],
)
def test_what_is_no_box_is_refused(rows: object) -> None:
    with pytest.raises(ValueError):
        boxes_of(rows)  # type: ignore[arg-type]


def test_the_hash_is_of_the_image_and_not_of_its_border_cut_or_blur() -> None:
    body = encoded(photo_like(5, (500, 300)))
    plain = decode(body).dhash
    for mode in ("keep_ratio", "border", "crop", "largest", "no"):
        spec = RenditionSpec(mode, 128)
        for boxes in ((), ((0.1, 0.1, 0.9, 0.9),)):
            assert distance(decode(body, spec, boxes).dhash, plain) <= 3


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(">HHI", tag, kind, count) + value.ljust(4, b"\0")


def test_exif_is_a_json_object_of_names_and_texts() -> None:
    image = Image.Exif()
    image[0x010F], image[0x0112], image[0x011A] = "Maker\u00e9", 1, 72.5
    image.get_ifd(0x8769).update({0x829A: IFDRational(1, 60), 0x9000: b"0232", 0x8827: (100, 200)})
    image.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5)})
    body = encoded(PHOTO, exif=image.tobytes())
    assert decode(body, RenditionSpec()).exif is None
    found = json.loads(decode(body, RenditionSpec(exif=True)).exif or "")
    assert found["Image Orientation"] == "1"
    assert found["Image XResolution"] == "145/2"
    assert found["EXIF ExposureTime"] == "1/60"
    assert found["EXIF ExifVersion"] == "0232"
    assert found["EXIF ISOSpeedRatings"] == "[100, 200]"
    assert (found["GPS GPSLatitudeRef"], found["GPS GPSLatitude"]) == ("N", "[48, 51, 59/2]")
    assert decode(encoded(PHOTO), RenditionSpec(exif=True)).exif is None
    for kind in ("PNG", "WEBP"):
        again = decode(encoded(PHOTO, kind, exif=image.tobytes()), RenditionSpec(exif=True))
        assert json.loads(again.exif or "") == found


@pytest.mark.parametrize(
    ("exif", "found"),
    [
        (b"", None),
        (b"nonsense", None),
        (b"MM\0*\0\0\0\x08\0\x05", None),
        (b"MM\0*\xff\xff\xff\xff", None),
        (tiff(6, claimed=900), {"Image Orientation": "6"}),
        (
            tiff(None, [entry(0x010E, 2, 3, b"ab\0"), entry(0x010F, 2, 1 << 31, b"")]),
            {"Image ImageDescription": "ab"},
        ),
        (
            tiff(1, [entry(0x8769, 4, 1, b"\0\0\0\x08")] * 400),
            None,
        ),  # directories within themselves
        (tiff(None, [entry(0x8769, 9, 1, b"\xff\xff\xff\xff")]), None),
        (tiff(None, [entry(0x011A, 5, 1, b"\xff\xff")]), None),
        (tiff(None, [entry(0x9999, 3, 1, b"\0\7")]), {"Image Tag 0x9999": "7"}),
        (tiff(None, [entry(0x010E, 77, 1, b"a")]), None),
    ],
)
def test_of_broken_exif_there_is_what_can_be_read(
    exif: bytes, found: dict[str, str] | None
) -> None:
    read = as_json(exif)
    if found is not None:
        assert json.loads(read or "null") == found
    assert read is None or len(read) < 100_000


def test_a_pool_makes_renditions() -> None:
    """Would catch: a spec, boxes, a format's name or Exif that is lost on a decoder's pipes."""
    body = encoded(photo_like(6, (300, 200)), exif=b"Exif\0\0" + tiff(6))
    spec = RenditionSpec("border", 64, format="webp", quality=50, exif=True, max_aspect=3.5)
    boxes = ((0.1, 0.2, 0.3, 0.4), (0.5, 0.5, 0.75, 0.75))

    async def asked() -> list[Decoded]:
        async with decoder_pool(1, spec) as pool:
            return [
                await pool.decode(body, boxes),
                await pool.decode(body),
                await pool.decode(b"?"),
            ]

    found = trio.run(asked)
    assert found[:2] == [decode(body, spec, boxes), decode(body, spec)]
    assert found[2].outcome is Outcome.NOT_AN_IMAGE
    assert (found[0].format, json.loads(found[0].exif or "")) == (
        "webp",
        {"Image Orientation": "6"},
    )
