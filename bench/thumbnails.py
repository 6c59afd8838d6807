"""Thumbnails of made images, as a downloader makes them."""

import io

from images import images
from PIL import Image


def thumbnails(jpeg: int, png: int = 0, webp: int = 0) -> list[bytes]:
    """By the downloader's own code; where its libraries are not installed, as on a machine that
    only scores, by Pillow: the smaller side 256 pixels, JPEG of quality 88."""
    bodies = images(jpeg, png, webp).values()
    try:
        from pairmill.workers.download.decode import decode
    except ModuleNotFoundError:
        return [_by_pillow(body) for body in bodies]
    return [decode(body).thumbnail for body in bodies]


def _by_pillow(body: bytes) -> bytes:
    image = Image.open(io.BytesIO(body)).convert("RGB")
    width, height = image.size
    scale = 256 / min(width, height)
    out = io.BytesIO()
    image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC).save(
        out, "JPEG", quality=88
    )
    return out.getvalue()
