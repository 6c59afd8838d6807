"""The checksum that a server gives with a file, against what arrived."""

import base64
import binascii
import hashlib
import re
from email.message import Message

# Strongest first; md5 only tells accidents.
_ALGORITHMS = {"sha-512": "sha512", "sha-256": "sha256", "md5": "md5"}
_MEMBER = re.compile(r"([A-Za-z0-9-]+)=:?([A-Za-z0-9+/]+={0,2}):?")
# Header fields that hold one value: RFC 1864, Amazon S3 (a "-3" at the end would mean: of parts)
_SINGLE = {"x-amz-checksum-sha256": "sha-256", "Content-MD5": "md5"}
# and those that hold several: RFC 9530, RFC 3230 (which it replaced), Google Cloud Storage
_SEVERAL = ("Repr-Digest", "Digest", "x-goog-hash")


class Checksum:
    """The strongest checksum that a response's headers give of the file; ``name`` is empty, and
    nothing is checked, where they give none that is known and well formed."""

    def __init__(self, headers: Message) -> None:
        found = {name: headers.get(field, "") for field, name in _SINGLE.items()}
        for field in _SEVERAL:
            for member in ",".join(headers.get_all(field, [])).split(","):
                if match := _MEMBER.fullmatch(member.strip()):
                    found[match[1].lower()] = match[2]
        self.name = ""
        for name, function in _ALGORITHMS.items():
            expected = _decoded(found.get(name, ""))
            hasher = hashlib.new(function, usedforsecurity=False)
            if len(expected) == hasher.digest_size:
                self.name, self._expected, self._hasher = name, expected, hasher
                return

    def update(self, data: bytes) -> None:
        if self.name:
            self._hasher.update(data)

    def fits(self) -> bool:
        """Is what arrived what was announced?"""
        return not self.name or self._hasher.digest() == self._expected


def _decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""
