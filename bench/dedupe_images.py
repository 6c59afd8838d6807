"""Real images out of packages, and near-duplicates of them: what bench/dedupe.py plants."""

import hashlib
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.decode import decode

# Debian's; drawings, photographs (stamps cut out, wallpapers whole), and a game's textures
PACKAGES = {
    "openclipart-png": "6,900 drawings",
    "tuxpaint-stamps-default": "800 photographs and drawings, cut out",
    "supertuxkart-data": "2,700 textures and photographs",
}
# series drawn by a program, 1,378 rings and rays among them, each a near-duplicate of others
SERIES = "/shapes/stars/", "/special/gradients/", "/special/patterns/"
CACHE = Path(__file__).parents[1] / "build" / "dedupe-images"
SIDE = 384  # pixels of the longer side that originals are reduced to
SMALL = 32  # of the square that says whether two images are the same to the eye


def files(only: tuple[str, ...] = tuple(PACKAGES)) -> list[Path]:
    """The image files of packages that are downloaded once, below build/."""
    found: list[Path] = []
    for package in only:
        folder = CACHE / package
        if not folder.is_dir():
            CACHE.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", package], cwd=CACHE, check=True, stdout=2)
            for deb in CACHE.glob(f"{package}_*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(deb), str(folder)], check=True)
                deb.unlink()
        found += [
            path
            for path in folder.rglob("*")
            if path.suffix in (".png", ".jpg") and not any(part in str(path) for part in SERIES)
        ]
    # in an order that has some of all
    return sorted(
        found, key=lambda path: hashlib.md5(str(path.relative_to(CACHE)).encode()).digest()
    )


def _resized(image: Image.Image, share: float) -> Image.Image:
    size = (max(16, round(image.width * share)), max(16, round(image.height * share)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _crop(image: Image.Image) -> Image.Image:
    x, y = round(image.width * 0.025), round(image.height * 0.025)
    return image.crop((x, y, image.width - x, image.height - y))


def _border(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, max(2, round(min(image.size) * 0.03)), "black")


def _watermark(image: Image.Image) -> Image.Image:
    layer = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(layer)
    font = ImageFont.load_default(max(10, image.height // 8))
    draw.text((image.width // 8, image.height * 7 // 16), "EXAMPLE", (255, 255, 255, 110), font)
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def _caption(image: Image.Image) -> Image.Image:
    copy = image.copy()
    draw = ImageDraw.Draw(copy)
    font = ImageFont.load_default(max(10, image.height // 10))
    below = round(image.height * 0.86)
    draw.rectangle((0, below, image.width, image.height), "black")
    draw.text((image.width // 20, below), "when it is Monday again", "white", font)
    return copy


def _jpeg(quality: int) -> Callable[[Image.Image], bytes]:
    return lambda image: encoded(image, quality)


TRANSFORMS: dict[str, Callable[[Image.Image], Image.Image | bytes]] = {
    "resize_75": lambda image: _resized(image, 0.75),
    "resize_50": lambda image: _resized(image, 0.5),
    "jpeg_90": _jpeg(90),
    "jpeg_70": _jpeg(70),
    "jpeg_40": _jpeg(40),
    "crop_5": _crop,
    "border_3": _border,
    "grey": lambda image: image.convert("L").convert("RGB"),
    "watermark": _watermark,
    "caption": _caption,
    "flip": ImageOps.mirror,
}


def encoded(image: Image.Image, quality: int = 95) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


@dataclass(frozen=True)
class Made:
    """An image, or a transformed one of it. original: number of the image. transform: "" of the
    image itself. small: uint8[32 * 32 * 3], to compare by eye's measure."""

    original: int
    transform: str
    dhash: int
    width: int
    height: int
    thumbnail: bytes
    small: bytes


def made(paths: list[Path], count: int, processes: int = 2) -> Iterator[Made]:
    """So many images and all their transforms, in order; images that do not decode are left out, as
    a downloader would."""
    number = 0
    with ProcessPoolExecutor(processes) as pool:
        for start in range(0, len(paths), 64):
            for variants in pool.map(_of_file, paths[start : start + 64], chunksize=8):
                if variants:
                    yield from (Made(number, *rest) for rest in variants)
                    number += 1
                if number == count:
                    return


def _of_file(path: Path) -> list[tuple[str, int, int, int, bytes, bytes]]:
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (SIDE, SIDE))  # of a large JPEG fewer pixels
            # as a browser shows it: what is transparent is white
            rgba = opened.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError):
        return []
    rgba.thumbnail((SIDE, SIDE), reducing_gap=2)
    white = Image.new("RGBA", rgba.size, "white")
    image = Image.alpha_composite(white, rgba).convert("RGB")
    if min(image.size) < 64:
        return []
    found = []
    for name, body in [("", encoded(image)), *((n, t(image)) for n, t in TRANSFORMS.items())]:
        data = body if isinstance(body, bytes) else encoded(body)
        decoded = decode(data)
        if decoded.outcome != Outcome.SUCCESS:
            return []
        with Image.open(io.BytesIO(decoded.thumbnail)) as thumbnail:
            small = thumbnail.convert("RGB").resize((SMALL, SMALL)).tobytes()
        found.append((name, decoded.dhash, decoded.width, decoded.height, decoded.thumbnail, small))
    return found


def same_to_the_eye(a: bytes, b: bytes) -> bool:
    """Whether two images differ by under 12 of 255 (root mean square of 32 x 32 pixels): what
    tells images of a set that are the same without having been planted from false pairs."""
    x, y = (np.frombuffer(each, np.uint8).astype(np.float32) for each in (a, b))
    return bool(np.sqrt(np.mean((x - y) ** 2)) < 12)


if __name__ == "__main__":
    sys.stdout.write(f"{len(files())} files\n")
