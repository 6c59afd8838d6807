"""Formats of images by their first bytes, never by a name or a Content-Type; imports nothing."""

SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
# images that are known and not decoded: BMP, TIFF, icons, JPEG 2000, JPEG XL, Photoshop
UNSUPPORTED = (
    b"BM", b"II*\x00", b"MM\x00*", b"\x00\x00\x01\x00", b"\x00\x00\x00\x0cjP  ",
    b"\xff\x0a", b"\x00\x00\x00\x0cJXL ", b"8BPS",
)  # fmt: skip
AVIF = b"avif", b"avis"  # a still image, a sequence (AV1 Image File Format, 6)
MOST_BRANDS = 4096  # bytes of a file type box that are looked at; real ones have 24 to 48


def sniff(body: bytes) -> str | None:
    """Pillow's name of the format, by the first bytes; "" for an image of another format, None
    for bytes of no image."""
    for signature, name in SIGNATURES:
        if body.startswith(signature):
            return name
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    if body[4:8] == b"ftyp":
        return "AVIF" if not _brands(body).isdisjoint(AVIF) else ""
    return "" if body.startswith(UNSUPPORTED) else None


def _brands(body: bytes) -> set[bytes]:
    """The major brand and the compatible ones of the file type box that a body begins with (ISO/IEC
    14496-12, 4.3). The major one alone says little: of AVIF it may be mif1, msf1 or miaf."""
    size, start = int.from_bytes(body[:4], "big"), 8
    if size == 1:  # the size is one of 64 bits, behind the type
        size, start = int.from_bytes(body[8:16], "big"), 16
    end = min(size or len(body), len(body), MOST_BRANDS)
    places = (start, *range(start + 8, end - 3, 4))  # between them the minor version
    return {body[place : place + 4] for place in places}
