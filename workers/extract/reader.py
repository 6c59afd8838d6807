"""Opening a WAT file where it lies: a path, or a file, http, https or s3 URL."""

import functools
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pairmill import __version__
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract.records import Readable

MAX_BREAKS = 5  # of a connection, one after another without a byte between
STALL_SECONDS = 60.0  # to connect in, and without a byte; see the daemon's own of 300
# Statuses after which the same request may succeed later: RFC 9110 §15, RFC 6585 §4.
_LATER = frozenset({408, 425, 429, *range(500, 600)})
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]+[a-z0-9])/(.+)", re.S)


@contextmanager
def open_wat(location: str, *, stall_seconds: float = STALL_SECONDS) -> Iterator[Readable]:
    """A WAT's bytes as they are stored (gzipped or not), as a stream in constant memory.

    location: a path; ``file://``, ``http://``, ``https://``; or ``s3://bucket/key``, which is
    read without credentials over https (Common Crawl's bucket from data.commoncrawl.org).
    Redirects are followed; the environment's proxies are not used; the User-Agent is
    ``pairmill/VERSION``, with what ``PAIRMILL_CONTACT`` says. stall_seconds: how long the
    server may send nothing.

    Raises TaskFailed, here and from ``read``, naming the location: without retry where the
    file is not there or not for us (404, 410, 403, and other statuses that time does not
    change), with retry where another try may help (5xx, 429, a connection that is
    refused, broken or silent, a body that is shorter than announced). A body that breaks off is
    gone on with where it broke, if the server gives an ETag and ranges.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", location)
    match scheme and scheme[1].lower():
        case None:
            opened = _open_file(location, Path(location))
        case "file":
            opened = _open_file(location, _file_path(location))
        case "http" | "https":
            opened = _open_http(location, location, stall_seconds)
        case "s3":
            opened = _open_http(location, _s3_url(location), stall_seconds)
        case other:
            raise TaskFailed(f"{location} cannot be read: {other} is not supported", retry=False)
    try:
        yield opened
    finally:
        opened.close()


class _Source:
    """A stream whose errors are TaskFailed and name the location."""

    def __init__(self, location: str, read: Callable[[int], bytes], close: Callable[[], None]):
        self._location = location
        self._read = read
        self.close = close

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except (OSError, http.client.HTTPException) as error:
            raise TaskFailed(f"{self._location} broke off: {_said(error)}") from error


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "nothing was received for too long"
    return str(error) or type(error).__name__


def _open_file(location: str, path: Path) -> _Source:
    try:
        if path.is_file() or not path.exists():
            file = path.open("rb")
            return _Source(location, file.read, file.close)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise TaskFailed(f"{location} cannot be opened: {reason}", retry=False) from None
    raise TaskFailed(f"{location} is not a file", retry=False)


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


def _opener() -> urllib.request.OpenerDirector:
    # no ProxyHandler, FileHandler or FTPHandler, which build_opener would add
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    contact = " ".join(os.environ.get("PAIRMILL_CONTACT", "").split())
    contact = contact.encode("ascii", "replace").decode()  # a header's value is ASCII, one line
    agent = f"pairmill/{__version__}" + (f" ({contact})" if contact else "")
    opener.addheaders = [("User-Agent", agent)]
    return opener


def _open_http(location: str, url: str, stall_seconds: float) -> _Source:
    try:
        response: http.client.HTTPResponse = _opener().open(url, timeout=stall_seconds)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"{location} was answered with status {error.code} ({error.reason})"
        raise TaskFailed(reason, retry=error.code in _LATER) from None
    except (http.client.InvalidURL, UnicodeError, ValueError) as error:
        raise TaskFailed(f"{location} is not a valid URL: {error}", retry=False) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, str):  # "no host given"; else what the socket raised
            reason = f"{location} is not a valid URL: {error.reason}"
            raise TaskFailed(reason, retry=False) from None
        raise TaskFailed(f"{location} cannot be reached: {_said(error.reason)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TaskFailed(f"{location} cannot be reached: {_said(error)}") from None

    body = _Body(response, functools.partial(_continued, url, stall_seconds))
    return _Source(location, body.read, body.close)


class _Body:
    """A response's body, gone on with where it broke off (RFC 9110, 14: Range, If-Range).

    Only with a strong validator, which says that what follows is of the same file; only while
    something arrives between two breaks.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        go_on: Callable[[int, str], http.client.HTTPResponse],
    ) -> None:
        self._response = response
        self._go_on = go_on
        etag = response.headers.get("ETag", "")
        self._validator = "" if etag.startswith("W/") else etag
        self._offset = 0
        self._breaks = 0

    def read(self, size: int) -> bytes:
        while True:
            try:
                data = self._response.read1(size)  # read() would wait until it has all of size
                if not data and self._response.length:
                    raise http.client.IncompleteRead(b"", self._response.length)
            except (OSError, http.client.HTTPException):
                self.close()
                if not self._validator or self._breaks == MAX_BREAKS:
                    raise
                self._breaks += 1
                time.sleep(min(4.0, 0.25 * 2**self._breaks))
                self._response = self._go_on(self._offset, self._validator)
            else:
                self._offset += len(data)
                self._breaks = 0 if data else self._breaks
                return data

    def close(self) -> None:
        self._response.close()


def _continued(
    url: str, stall_seconds: float, offset: int, validator: str
) -> http.client.HTTPResponse:
    """The rest of a file from ``offset``; HTTPException where the server gives anything else."""
    headers = {"Range": f"bytes={offset}-", "If-Range": validator}
    request = urllib.request.Request(url, headers=headers)
    response: http.client.HTTPResponse = _opener().open(request, timeout=stall_seconds)
    rest = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
    if response.status != 206 or not rest:
        response.close()
        raise http.client.HTTPException("it broke off, and the server does not give the rest")
    return response
