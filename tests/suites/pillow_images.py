"""The decoder over a folder of images, beside Pillow: the images of Pillow's own tests, or any others.

    pip download --no-binary :all: --no-deps pillow && tar xf pillow-*.tar.gz
    python tests/suites/pillow_images.py pillow-*/Tests/images

What Pillow opens and loads must be a success of the same size; its thumbnail must be that of Pillow's
whole image, turned and over white, to a mean of 8 of 255; and its dHash within 4 bits of the whole
image's. Pillow reduces by its filter BOX, the mean of the pixels below each, which is what a thumbnail
is said to be; LANCZOS, which sharpens, is 1 or 2 of 255 away from that on its own. Nothing may crash a
decoder or take it 20 s.
"""

import io
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import trio
from PIL import Image, ImageOps

from pairmill.schema.outcomes import Outcome
from pairmill.workers.dhash import dhash, distance
from pairmill.workers.download.pool import DecoderPool, decoder_pool

FORMATS = "JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF"
MOST_DIFFERENCE = 8.0
MOST_BITS = 4
# file: what is otherwise, and why that is right
THIN = "an aspect above 10 is refused"
LINES = "lines of one pixel, reduced to 0.48: Pillow's own LANCZOS is 14 of 255 from its BOX"
LISTED = {
    "bw_gradient.png": THIN,
    "courB08.pbm": THIN,
    "high_ascii_chars.png": THIN,
    "padded_idat.png": THIN,
    "imagedraw_ellipse_various_sizes.png": LINES,
    "imagedraw_ellipse_various_sizes_filled.png": LINES,
    "radial_gradients.png": "one brightness, 127 to 128, at 9 × 8 pixels: Pillow's reduced image too",
}


def whole(body: bytes) -> Image.Image | None:
    """RGB as Pillow has it, turned, over white; None where Pillow does not decode it, or we never
    do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(body)) as opened:
                if opened.format not in FORMATS:
                    return None
                opened.load()
                image = ImageOps.exif_transpose(opened)
    except Exception:
        return None
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.uint16)
        high = (grey >> 8).astype(np.uint8)
        high[grey == image.info.get("transparency")] = 255
        return Image.fromarray(high).convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")


async def fault(body: bytes, pool: DecoderPool) -> tuple[str | None, str]:
    """How the decoder's answer is wrong, if it is, and its kind: judged, or what Pillow says."""
    ours = await pool.decode(body)
    if ours.outcome is Outcome.INTERNAL_ERROR:
        return "the decoder died", "judged"
    theirs = await trio.to_thread.run_sync(whole, body)
    if theirs is None:
        return None, "none for Pillow"
    if ours.outcome is not Outcome.SUCCESS:
        return ours.outcome.name.lower(), "judged"
    if (ours.width, ours.height) != theirs.size:
        return f"{ours.width}×{ours.height}, not {theirs.width}×{theirs.height}", "judged"
    thumbnail = Image.open(io.BytesIO(ours.thumbnail))
    reduced = theirs.resize(thumbnail.size, Image.Resampling.BOX)
    difference = np.abs(np.asarray(thumbnail, np.int16) - np.asarray(reduced, np.int16)).mean()
    if difference > MOST_DIFFERENCE:
        return f"differs by {difference:.1f} of 255", "judged"
    if (bits := distance(ours.dhash, dhash(theirs))) > MOST_BITS:
        return f"dHash differs in {bits} bits", "judged"
    return None, "judged"


async def judged(folder: Path, files: list[Path]) -> int:
    counts: Counter[str] = Counter()
    unlisted = 0
    async with decoder_pool(1) as pool:
        for path in files:
            name = path.relative_to(folder).as_posix()
            wrong, kind = await fault(path.read_bytes(), pool)
            counts[kind] += 1
            if wrong is None:
                counts["right"] += kind == "judged"
                continue
            reason = LISTED.get(name)
            unlisted += reason is None
            print(f"{name}: {wrong}: {reason or 'NOT LISTED'}")
    print(f"{folder}: {len(files)} files, Pillow decodes {counts['judged']} of our formats")
    print(f"{counts['right']}/{counts['judged']} as Pillow, {unlisted} not listed")
    return 1 if unlisted or not counts["judged"] else 0


if __name__ == "__main__":
    root = Path(sys.argv[1])
    found = sorted(path for path in root.rglob("*") if path.is_file())
    sys.exit(trio.run(judged, root, found))
