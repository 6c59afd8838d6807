"""Images as the web has them, from a seed: noise of several octaves, which JPEG finds as hard as
photographs, and flat drawings."""

import io
import random

from PIL import Image, ImageDraw

SIZES = ((640, 480), (800, 600), (1024, 768), (720, 960))
FALL = 0.55  # of an octave beside the one before
QUALITIES = (90, 85, 80, 75, 70, 60, 50, 40)


def images(jpeg: int = 48, png: int = 6, webp: int = 6) -> dict[str, bytes]:
    """Name and bytes. JPEG of 30 to 80 KB and WebP of less, a quarter of the JPEGs progressive, and
    drawings as PNG."""
    made = {f"p{n}.jpg": _sized(n, "JPEG", progressive=n % 4 == 0) for n in range(jpeg)}
    made |= {f"d{n}.png": _drawing(n) for n in range(png)}
    return made | {f"w{n}.webp": _sized(1000 + n, "WEBP") for n in range(webp)}


def photo(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    """Each octave twice as fine as the one before, and about half as strong; the fine ones grey."""
    picture = _noise(rng, 4, size, "RGB")
    total = strength = 1.0
    for octave in range(1, 8):
        strength *= FALL
        total += strength
        noise = _noise(rng, 4 << octave, size, "RGB" if octave < 4 else "L").convert("RGB")
        picture = Image.blend(picture, noise, strength / total)
    return picture


def _noise(rng: random.Random, cells: int, size: tuple[int, int], mode: str) -> Image.Image:
    rows = max(2, cells * size[1] // size[0])
    data = rng.randbytes(cells * rows * len(mode))
    return Image.frombytes(mode, (cells, rows), data).resize(size, Image.Resampling.BICUBIC)


def _sized(seed: int, name: str, **options: bool) -> bytes:
    """The best quality that gives no more than a size that the seed says, at most 80 KB."""
    rng = random.Random(f"photo {seed}")
    picture = photo(rng, rng.choice(SIZES))
    most = rng.randint(40_000, 80_000)
    for quality in QUALITIES:
        out = io.BytesIO()
        picture.save(out, name, quality=quality, **options)
        if out.tell() <= most:
            break
    return out.getvalue()


def _drawing(seed: int) -> bytes:
    rng = random.Random(f"drawing {seed}")
    width, height = rng.choice(SIZES)
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for _ in range(120):
        x, y, r = rng.randrange(width), rng.randrange(height), rng.randint(5, 60)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(rng.randbytes(3)))
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()
