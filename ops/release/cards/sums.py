"""SHA256SUMS, as ``sha256sum -c`` reads it."""

from collections.abc import Iterable, Mapping
from typing import Any


def sums(files: Iterable[Mapping[str, Any]]) -> str:
    """A line a file, of a manifest's entries."""
    return "".join(f"{each['sha256']}  {each['name']}\n" for each in files)
