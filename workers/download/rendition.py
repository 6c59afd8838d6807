"""The image that ``pairmill fetch`` writes; a volunteer has ``thumbnail.ThumbnailSpec``."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

MODES = "keep_ratio", "largest", "border", "crop", "no"
QUALITIES = {"jpg": (1, 100), "png": (0, 9), "webp": (1, 100)}  # png: zlib's level
DEFAULT_QUALITY = {"jpg": 88, "png": 6, "webp": 88}

Box = tuple[float, float, float, float]  # left, top, right, bottom, as parts of width and height


def boxes_of(rows: Iterable[Iterable[float]]) -> tuple[Box, ...]:
    """Boxes to blur from a column's lists of [left, top, right, bottom]: of edges in the wrong
    order the right one, and of one beyond the image the part within. Raises ValueError for anything
    else, NaN among it: an image whose face cannot be blurred is not to be written."""
    boxes = []
    try:
        for row in rows:
            edges = [float(edge) for edge in row]
            if any(map(math.isnan, edges)):
                raise ValueError("NaN is no edge")
            left, top, right, bottom = (min(1.0, max(0.0, edge)) for edge in edges)
            boxes.append((min(left, right), min(top, bottom), max(left, right), max(top, bottom)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"no list of [left, top, right, bottom]: {error}") from None
    return tuple(boxes)


@dataclass(frozen=True)
class RenditionSpec:
    """The properties of a rendition.

    mode: what ``size`` pixels are: the short side (keep_ratio), the long side (largest), both,
    with a white border (border) or a cut from the centre (crop), or nothing (no). enlarge: also
    an image that is smaller. format: jpg, png, webp. quality: ``QUALITIES``; None:
    ``DEFAULT_QUALITY``. skip_reencode: the body as it came, where it has that format and not one
    pixel changed. min_side, max_area, max_aspect: an original beyond them is TOO_SMALL,
    TOO_MANY_PIXELS, TOO_THIN; a max_aspect of None is none. exif: read it. memory: bytes for a
    decoded original, as ``ThumbnailSpec`` has them.

    Raises ValueError for a mode, a format or a number that there is not.
    """

    mode: str = "keep_ratio"
    size: int = 256
    enlarge: bool = False
    format: str = "jpg"
    quality: int | None = None
    skip_reencode: bool = False
    min_side: int = 0
    max_area: int | None = None
    max_aspect: float | None = None
    exif: bool = False
    memory: int = 80_000_000

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode is one of {', '.join(MODES)}, not {self.mode}")
        if self.format not in QUALITIES:
            raise ValueError(f"format is one of {', '.join(QUALITIES)}, not {self.format}")
        lowest, highest = QUALITIES[self.format]
        if self.quality is not None and not lowest <= self.quality <= highest:
            raise ValueError(f"quality of {self.format} is {lowest} to {highest}")
        if self.size < 1:
            raise ValueError("size is at least 1")
