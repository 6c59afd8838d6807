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


def sniff(body: bytes) -> str | None:
    """Pillow's name of the format, by the first bytes; "" for an image of another format, None
    for bytes of no image."""
    for signature, name in SIGNATURES:
        if body.startswith(signature):
            return name
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return "WEBP"
    if body[4:8] == b"ftyp":
        return "AVIF" if body[8:12] in (b"avif", b"avis") else ""
    return "" if body.startswith(UNSUPPORTED) else None
