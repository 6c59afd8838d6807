"""Decoding: the right pixels, the right numbers, and a name for everything else."""

import hashlib
import io
import math
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pdqhash
import pytest
from PIL import Image, ImageDraw

from pairmill.ops.demo.drawings import draw, photo_like
from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import dhash
from pairmill.workers.download.decode import decode
from pairmill.workers.download.thumbnail import Decoded, ThumbnailSpec


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(decoded: Decoded) -> Image.Image:
    return Image.open(io.BytesIO(decoded.thumbnail))


PHOTO = photo_like(1, (640, 480))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_every_format_gives_a_thumbnail_and_the_originals_size(kind: str) -> None:
    decoded = decode(encoded(PHOTO, kind))
    assert (decoded.outcome, decoded.width, decoded.height) == (Outcome.SUCCESS, 640, 480)
    thumbnail = opened(decoded)
    assert (thumbnail.format, thumbnail.mode, thumbnail.size) == ("JPEG", "RGB", (341, 256))


def test_width_is_across_and_height_is_down() -> None:
    decoded = decode(encoded(photo_like(2, (300, 700))))
    assert (decoded.width, decoded.height) == (300, 700)
    assert opened(decoded).size == (256, 597)


def test_small_images_are_not_enlarged() -> None:
    assert opened(decode(encoded(photo_like(3, (60, 40))))).size == (60, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_no_exif_kept(orientation: int) -> None:
    """A mark in the corner that is upper left as seen must end there."""
    as_seen = Image.new("RGB", (600, 300), "white")
    ImageDraw.Draw(as_seen).rectangle((0, 0, 150, 100), fill="red")
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Transpose members that store it so
    stored = as_seen.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else as_seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a secret"
    decoded = decode(encoded(stored, exif=exif.tobytes()))
    assert (decoded.width, decoded.height) == (600, 300)
    thumbnail = opened(decoded)
    assert thumbnail.size == (512, 256)
    red, _, blue = thumbnail.getpixel((20, 20))
    assert red > 200 > 60 > blue
    assert min(thumbnail.getpixel((490, 240))) > 200
    assert b"secret" not in decoded.thumbnail
    assert not thumbnail.getexif()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("I;16", (300, 300)) if mode == "I;16" else PHOTO.convert(mode)
    decoded = decode(encoded(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert decoded.outcome is Outcome.SUCCESS
    assert opened(decoded).mode == "RGB"


def test_transparency_is_over_white() -> None:
    clear = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    assert min(opened(decode(encoded(clear, "PNG"))).getpixel((100, 100))) > 250


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (300, 300), colour) for colour in ("blue", "red", "red")]
    body = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    red, _, blue = opened(decode(body)).getpixel((100, 100))
    assert blue > 200 > red


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels, and which has none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = zlib.compress(b"\0" * 1000)
    parts = [struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))]
    chunk = b"IDAT" + data
    parts.append(struct.pack(">I", len(data)) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


JPEG, PNG = encoded(PHOTO), encoded(PHOTO, "PNG")
WEBP, GIF = encoded(PHOTO, "WEBP"), encoded(PHOTO, "GIF")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b"", Outcome.NOT_AN_IMAGE),
        (b"<!doctype html><html>", Outcome.NOT_AN_IMAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Outcome.NOT_AN_IMAGE),
        (b"%PDF-1.7", Outcome.NOT_AN_IMAGE),
        (encoded(PHOTO, "BMP"), Outcome.UNSUPPORTED_IMAGE),
        (encoded(PHOTO, "TIFF"), Outcome.UNSUPPORTED_IMAGE),
        (b"\0\0\0\x18ftypheic" + bytes(100), Outcome.UNSUPPORTED_IMAGE),
        (JPEG[: len(JPEG) // 2], Outcome.TRUNCATED_IMAGE),
        (PNG[: len(PNG) // 2], Outcome.TRUNCATED_IMAGE),
        (b"\xff\xd8\xff" + b"nonsense" * 50, Outcome.BROKEN_IMAGE),
        (b"GIF89a", Outcome.BROKEN_IMAGE),
        (b"RIFF\x10\0\0\0WEBPVP8 " + bytes(8), Outcome.BROKEN_IMAGE),
        (png_claiming(60_000, 60_000), Outcome.TOO_MANY_PIXELS),
        (png_claiming(5_000, 4_000), Outcome.TOO_MANY_PIXELS),
        (encoded(Image.new("RGBA", (2500, 2200)), "WEBP"), Outcome.TOO_MANY_PIXELS),  # 4 copies
        (encoded(PHOTO, "WEBP")[:9000], Outcome.TRUNCATED_IMAGE),
        (encoded(Image.new("RGB", (1100, 100)), "PNG"), Outcome.TOO_THIN),
    ],
)
def test_what_is_no_good_is_named(body: bytes, outcome: Outcome) -> None:
    assert decode(body) == Decoded(outcome)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_bytes_never_raise(seed: int) -> None:
    body = bytearray((JPEG, PNG, WEBP, GIF)[seed % 4])
    for i in range(1, 60):
        body[(i * 7919 * (seed + 1)) % len(body)] ^= 1 << (i % 8)
    assert isinstance(decode(bytes(body)).outcome, Outcome)


def test_thumbnails_stay_below_what_the_database_takes() -> None:
    noise = Image.frombytes("RGB", (2500, 256), random.Random(1).randbytes(2500 * 256 * 3))
    assert len(decode(encoded(noise, "PNG")).thumbnail) <= ThumbnailSpec().max_bytes


def psnr(a: Image.Image, b: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB; infinite for the same pixels."""
    assert (a.size, a.mode) == (b.size, b.mode)
    error = np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean()
    return 10 * math.log10(255**2 / error) if error else math.inf


@pytest.mark.parametrize("size", [(500, 400), (640, 480), (800, 600), (1100, 530), (2000, 1500)])
@pytest.mark.parametrize("kind", ["drawing", "photo"])
def test_thumbnail_is_close_to_a_plain_resize(kind: str, size: tuple[int, int]) -> None:
    """The scaled decoding of JPEG is worth half of the time; this is what it costs."""
    image = draw(5, size)[0] if kind == "drawing" else photo_like(5, size)
    body = encoded(image, quality=92)
    thumbnail = opened(decode(body))
    plain = Image.open(io.BytesIO(body)).resize(thumbnail.size, Image.Resampling.BICUBIC)
    assert psnr(thumbnail, plain) > 35  # of which the thumbnail's own JPEG is the most
    as_jpeg = Image.open(io.BytesIO(encoded(plain, quality=88)))
    assert psnr(thumbnail, plain) > psnr(as_jpeg, plain) - 3


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L"])
def test_large_image_is_converted_in_strips_to_the_same_pixels(mode: str) -> None:
    image = photo_like(6, (2311, 1733)).convert(mode)
    if mode in ("RGBA", "LA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    thumbnail = opened(decode(encoded(image, "PNG", compress_level=1)))
    assert thumbnail.size == (341, 256)
    flat = Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    plain = flat.convert("RGB").resize((341, 256), Image.Resampling.BICUBIC)
    assert psnr(thumbnail, plain) > 35


def test_dhash_vectors() -> None:
    """Fixed: the hashes of a dataset must not change with the code."""
    rising = Image.linear_gradient("L").rotate(90).resize((320, 240))
    assert dhash(rising) == -1  # every pixel is darker than its right neighbour: 64 ones
    assert dhash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0
    halves = Image.new("L", (90, 80))
    halves.paste(255, (50, 0, 90, 80))
    assert dhash(halves) == int.from_bytes(b"\x1c" * 8, "big")
    checks = Image.frombytes(
        "L", (9, 8), bytes((x * 37 + y * 91) % 256 for y in range(8) for x in range(9))
    )
    assert dhash(checks) == -146437365496284177


def test_nothing_is_written_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    decode(JPEG)
    assert list(tmp_path.iterdir()) == []


def test_hashes_are_of_the_body_and_memory_raises_the_limit() -> None:
    body = encoded(Image.new("L", (5000, 4000)), "PNG")
    assert decode(body).outcome is Outcome.TOO_MANY_PIXELS
    decoded = decode(body, ThumbnailSpec(memory=160_000_000))
    assert decoded.outcome is Outcome.SUCCESS
    assert decoded.md5 == hashlib.md5(body).digest()
    assert decoded.sha1 == hashlib.sha1(body).digest()
    assert decoded.sha256 == hashlib.sha256(body).digest()


def test_pdq_is_that_of_the_original_and_of_no_flat_image() -> None:
    """A PDQ of the wrong order of bits, or of other pixels, finds nothing on any list."""
    large = photo_like(5, (900, 700))
    bits, _ = pdqhash.compute(np.asarray(large.resize((512, 512), Image.Resampling.LANCZOS)))
    theirs = int("".join(str(bit) for bit in bits), 2)
    for image in (large, large.resize((400, 310))):
        found = decode(encoded(image, quality=70)).pdq
        assert len(found) == 32
        assert (int.from_bytes(found) ^ theirs).bit_count() <= 20
    other = decode(encoded(photo_like(6, (900, 700)))).pdq
    assert (int.from_bytes(other) ^ theirs).bit_count() > 80
    assert decode(encoded(Image.new("RGB", (300, 300), "grey"))).pdq == b""


def test_webp_is_the_image_that_it_is() -> None:
    large = photo_like(8, (2500, 2200))
    decoded = decode(encoded(large, "WEBP", quality=95))
    assert (decoded.outcome, decoded.width, decoded.height) == (Outcome.SUCCESS, 2500, 2200)
    plain = large.resize(opened(decoded).size, Image.Resampling.BICUBIC)
    assert psnr(opened(decoded), plain) > 35  # its colours in their order, too
    frames = [Image.new("RGB", (300, 300), colour) for colour in ("blue", "red")]
    moving = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    clear = encoded(Image.new("RGBA", (300, 300), (255, 0, 0, 0)), "WEBP")
    red, _, blue = opened(decode(moving)).getpixel((100, 100))
    assert blue > 200 > red
    assert min(opened(decode(clear)).getpixel((100, 100))) > 250


def test_another_size_may_be_wanted() -> None:
    assert opened(decode(JPEG, ThumbnailSpec(short_side=400, max_bytes=1 << 30))).size == (533, 400)


def test_jpeg_of_a_phone_with_a_second_picture_behind_it() -> None:
    body = encoded(PHOTO, "MPO", save_all=True, append_images=[photo_like(9, (64, 48))])
    decoded = decode(body)
    assert (decoded.outcome, decoded.width, decoded.height) == (Outcome.SUCCESS, 640, 480)
