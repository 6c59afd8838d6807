"""Opening a WAT file where it lies: a path, or a file, http, https or s3 URL."""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.gzip_members import Readable
from pairmill.workers.http.remote_file import (
    STALL_SECONDS,
    RequestFailed,
    Wait,
    open_remote_file,
)

_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]+[a-z0-9])/(.+)", re.S)


@contextmanager
def open_wat(
    location: str, *, stall_seconds: float = STALL_SECONDS, wait: Wait = time.sleep
) -> Iterator[Readable]:
    """A WAT's bytes as they are stored (gzipped or not), as a stream in constant memory.

    location: a path; ``file://``, ``http://``, ``https://``; or ``s3://bucket/key``, which is
    read without credentials over https (Common Crawl's bucket from data.commoncrawl.org). By HTTP
    as ``http.remote_file`` reads: there is one connection at a time, the environment's proxies are
    not used, and the User-Agent names ``PAIRMILL_CONTACT``. stall_seconds, wait: see there.

    Raises TaskFailed, here and from ``read``, naming the location: without retry where the
    location can never be read (no such local file, not a URL), else with retry: a status that
    is no success (also 404 and 403: mirrors come and go, and S3 says 403 when it means
    later), a connection that is refused, broken or silent, a body that is shorter than
    announced or differs from its checksum.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", location)
    match scheme and scheme[1].lower():
        case None:
            opening = _open_file(location, Path(location))
        case "file":
            opening = _open_file(location, _file_path(location))
        case "http" | "https":
            opening = _open_http(location, location, {}, stall_seconds, wait)
        case "s3":
            headers = {"x-amz-checksum-mode": "ENABLED"}
            opening = _open_http(location, _s3_url(location), headers, stall_seconds, wait)
        case other:
            raise TaskFailed(f"{location} cannot be read: {other} is not supported", retry=False)
    with opening as stream:
        yield stream


def is_remote(location: str) -> bool:
    """Does a location lie on another machine?"""
    return "://" in location and not location.lower().startswith("file:")


class _Source:
    """A stream whose errors are TaskFailed and name the location."""

    def __init__(self, location: str, read: Callable[[int], bytes]) -> None:
        self._location = location
        self._read = read

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except RequestFailed as failed:
            raise TaskFailed(f"{self._location} {failed}") from failed
        except OSError as error:
            raise TaskFailed(f"{self._location} broke off: {error}") from error


@contextmanager
def _open_file(location: str, path: Path) -> Iterator[Readable]:
    try:
        if path.exists() and not path.is_file():
            raise TaskFailed(f"{location} is not a file", retry=False)
        file = path.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise TaskFailed(f"{location} cannot be opened: {reason}", retry=False) from None
    with file:
        yield _Source(location, file.read)


@contextmanager
def _open_http(
    location: str, url: str, headers: dict[str, str], stall_seconds: float, wait: Wait
) -> Iterator[Readable]:
    contact = os.environ.get("PAIRMILL_CONTACT", "")
    with ExitStack() as stack:
        try:
            remote = open_remote_file(
                url, headers=headers, contact=contact, stall_seconds=stall_seconds, wait=wait
            )
            opened = stack.enter_context(remote)
        except RequestFailed as failed:
            raise TaskFailed(f"{location} {failed}", retry=not failed.permanent) from None
        yield _Source(location, opened.read)


def _file_path(location: str) -> Path:
    parts = urlsplit(location)
    if parts.netloc not in ("", "localhost"):
        raise TaskFailed(f"{location} lies on another machine ({parts.netloc})", retry=False)
    return Path(unquote(parts.path))


def _s3_url(location: str) -> str:
    s3 = _S3.fullmatch(location)
    if s3 is None:
        raise TaskFailed(f"{location} is not of the form s3://bucket/key", retry=False)
    host = "data.commoncrawl.org" if s3[1] == "commoncrawl" else f"{s3[1]}.s3.amazonaws.com"
    return f"https://{host}/{quote(s3[2])}"
