"""The difference hash of a thumbnail: a downloader reports it, and a scorer compares it."""

from PIL import Image


def dhash(image: Image.Image) -> int:
    """64-bit difference hash, as a signed integer.

    The thumbnail's pixels before it is encoded, as luma (ITU-R 601), resized to 9 x 8 by a
    bilinear filter; a bit for each pixel and its right neighbour, set where the neighbour is
    brighter; row by row, the first bit the highest (N. Krawetz, "Kind of Like That", 2013). Other
    decoders and filters differ by about 4 of 64 bits: this definition is part of the dataset.
    """
    luma = image.convert("L").resize((9, 8), Image.Resampling.BILINEAR).tobytes()
    bits = 0
    for row in range(8):
        for column in range(8):
            left, right = luma[9 * row + column], luma[9 * row + column + 1]
            bits = bits << 1 | (right > left)
    return bits - (1 << 64) if bits >> 63 else bits


def distance(a: int, b: int) -> int:
    """In how many of 64 bits two hashes differ."""
    return ((a ^ b) & (1 << 64) - 1).bit_count()
