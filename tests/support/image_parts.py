"""Images taken apart and put together otherwise: segments of JPEG, chunks of PNG, boxes of AVIF."""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    """A PNG's chunk; crc: another than is right."""
    named = kind + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", crc or zlib.crc32(named))


def png(
    rows: npt.NDArray[np.uint8 | np.uint16],
    colour: int,
    depth: int,
    *before: bytes,
    after: Sequence[bytes] = (),
    between: bytes = b"",
) -> bytes:
    """A PNG of samples: (height, width) or (height, width, channels). colour: 0 grey, 2 RGB, 3
    palette, 4 grey and alpha, 6 RGBA. before, between, after: chunks, as IDAT has them."""
    height, width = rows.shape[:2]
    if depth < 8:
        bits = np.unpackbits(rows.reshape(height, -1, 1).astype(np.uint8), axis=2)[
            :, :, 8 - depth :
        ]
        lines = np.packbits(bits.reshape(height, -1), axis=1)
    else:
        lines = rows.reshape(height, -1).astype(">u2" if depth == 16 else np.uint8)
    data = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    half = len(data) // 2
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    images = (chunk(b"IDAT", data[:half]), between, chunk(b"IDAT", data[half:]))
    parts = (chunk(b"IHDR", header), *before, *images, *after, chunk(b"IEND", b""))
    return SIGNATURE + b"".join(parts)


def with_chunks(body: bytes, *chunks: bytes) -> bytes:
    """A PNG with chunks behind its IHDR."""
    return body[:33] + b"".join(chunks) + body[33:]


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def with_segments(body: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments behind its SOI."""
    return body[:2] + b"".join(segments) + body[2:]


def scan_of(body: bytes) -> int:
    """Where the entropy-coded data of a JPEG's first scan begin."""
    start = body.index(b"\xff\xda")
    return start + 2 + int.from_bytes(body[start + 2 : start + 4], "big")


def tiff(orientation: int | None, entries: Sequence[bytes] = (), *, claimed: int = 0) -> bytes:
    """Exif's TIFF of one directory. claimed: how many entries it says that it has, if not as many."""
    own = [struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)] if orientation else []
    every = b"".join((*own, *entries))
    count = claimed or len(own) + len(entries)
    return b"MM\0*" + struct.pack(">IH", 8, count) + every + (b"" if claimed else bytes(4))


def of_one_colour(
    across: int, down: int, sampling: tuple[int, int] = (1, 1), dc: tuple[int, int, int] = (0, 0, 0)
) -> bytes:
    """A baseline JPEG of one colour whose luma has these sampling factors and chroma 1 × 1; so many
    such units across and down. dc: of each component, at most 7 in either direction; a step is 16
    of 256."""
    luma = sampling[0] * sampling[1]
    # categories 0 to 3 of DC by codes of two bits, and the end of a block by one
    bits = ""
    for unit in range(across * down):
        for component, blocks in enumerate((luma, 1, 1)):
            for block in range(blocks):
                bits += _dc(dc[component] if unit == block == 0 else 0) + "0"
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(
        b"\xff", b"\xff\0"
    )
    width, height = across * sampling[0] * 8, down * sampling[1] * 8
    layers = bytes((1, sampling[0] << 4 | sampling[1], 0, 2, 0x11, 0, 3, 0x11, 0))
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, bytes((0, *[128] * 64))),
            segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + layers),
            segment(0xC4, bytes((0x00, 0, 3, 1, *[0] * 13)) + bytes((0, 1, 2, 3))),
            segment(0xC4, bytes((0x10, 1, *[0] * 15)) + b"\0"),
            segment(0xDA, bytes((3, 1, 0, 2, 0, 3, 0, 0, 63, 0))),
            scan,
            b"\xff\xd9",
        )
    )


def _dc(value: int) -> str:
    """By the codes 00, 01, 10 for the categories 0, 1, 2 and 110 for 3."""
    size = abs(value).bit_length()
    more = value if value >= 0 else value + (1 << size) - 1
    return ("00", "01", "10", "110")[size] + (f"{more:0{size}b}" if size else "")
