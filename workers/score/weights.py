"""Weights by URL: downloaded once, and kept only if they have the expected sha256."""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from pairmill.workers.errors import Refused
from pairmill.workers.http.remote_file import RequestFailed, Wait, open_remote_file

CHUNK = 1 << 20
ReportProgress = Callable[[int, int | None], None]


def nothing(done: int, total: int | None) -> None:
    """A ReportProgress that shows none."""


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def folder() -> Path:
    """Where downloaded weights are kept, by their sha256: below XDG_CACHE_HOME, or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pairmill" / "weights"


def local(
    source: str, sha256: str | None, progress: ReportProgress = nothing, *, wait: Wait = time.sleep
) -> str:
    """The path of weights given by path or URL; anything else, as open_clip's tag, as it is.

    sha256: hexadecimal, of the file; needed for a URL, compared for a path. progress: called with
    bytes so far, and of all if that is known. wait: how to wait for so many seconds, where a server
    is busy. Raises Refused, with a sentence, for other bytes, and for a file that cannot be had;
    then nothing is kept.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise Refused(f"{sha256[:80]!r} is no sha256: 64 hexadecimal digits in lower case")
    if not is_url(source):
        if sha256 is not None:
            _compare(source, _digest_of(Path(source)), sha256)
        return source
    if sha256 is None:
        raise Refused("weights from a URL need --sha256, or anybody on the way could change them")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.partition("?")[0].rpartition("/")[2])[-100:]
    target = folder() / f"{sha256}-{name}"
    if target.is_file():
        _compare(str(target), _digest_of(target), sha256)
        return str(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=".unfinished-") as file:
        _compare(source, _download(source, file, progress, wait), sha256)
        file.flush()
        with suppress(FileExistsError):  # another process was quicker
            os.link(file.name, target)
    return str(target)


def _compare(source: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise Refused(f"{source} has sha256 {found}, and {wanted} was asked for")


def _digest_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refused(f"cannot read the weights {path}: {error.strerror}") from None


def _download(url: str, file: IO[bytes], progress: ReportProgress, wait: Wait) -> str:
    digest, done = hashlib.sha256(), 0
    try:
        with open_remote_file(url, proxies=True, wait=wait) as weights:
            while chunk := weights.read(CHUNK):
                digest.update(chunk)
                file.write(chunk)
                done += len(chunk)
                progress(done, weights.length)
    except (OSError, RequestFailed) as error:
        reason = error.detail if isinstance(error, RequestFailed) else error
        raise Refused(f"cannot download the weights {url}: {reason}") from None
    return digest.hexdigest()
