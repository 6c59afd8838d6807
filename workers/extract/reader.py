"""Opening a WAT file where it lies: a path, or a file, http, https or s3 URL."""

import email.utils
import http.client
import os
import random
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
from pairmill.workers.extract.checksum import Checksum
from pairmill.workers.extract.records import Readable

MAX_BREAKS = 5  # of a connection, one after another without a byte between
STALL_SECONDS = 60.0  # to connect in, and without a byte; see the daemon's own of 300
# Statuses that ask to come again later (RFC 9110, 15.6.4; RFC 6585, 4); Common Crawl gives
# 503 to those who ask too often. We wait, longer each time; then the task waits its turn.
_SLOW_DOWN = frozenset({429, 503})
MAX_WAITS = 5
WAIT_SECONDS = 2.0  # the first time, doubled each further time, where no Retry-After says
MAX_WAIT_SECONDS = 120.0
Wait = Callable[[float], None]
_S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]+[a-z0-9])/(.+)", re.S)


@contextmanager
def open_wat(
    location: str, *, stall_seconds: float = STALL_SECONDS, wait: Wait = time.sleep
) -> Iterator[Readable]:
    """A WAT's bytes as they are stored (gzipped or not), as a stream in constant memory.

    location: a path; ``file://``, ``http://``, ``https://``; or ``s3://bucket/key``, which is
    read without credentials over https (Common Crawl's bucket from data.commoncrawl.org).
    Redirects are followed; the environment's proxies are not used; the User-Agent is
    ``pairmill/VERSION``, with what ``PAIRMILL_CONTACT`` says. There is one connection at a
    time. stall_seconds: how long the server may send nothing. wait: how to wait for so many
    seconds, where the server answers 429 or 503: as long as Retry-After says, up to two
    minutes, else 2, 4, 8, 16 and 32 s. A body that breaks off is gone on with where it broke, if
    the server gives an ETag and ranges.

    Raises TaskFailed, here and from ``read``, naming the location: without retry where the
    location can never be read (no such local file, not a URL), else with retry: a status that
    is no success (also 404 and 403: mirrors come and go, and S3 says 403 when it means
    later), a connection that is refused, broken or silent, a body that is shorter than
    announced or is not what its checksum says (``checksum.Checksum``).
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", location)
    match scheme and scheme[1].lower():
        case None:
            opened = _open_file(location, Path(location))
        case "file":
            opened = _open_file(location, _file_path(location))
        case "http" | "https":
            opened = _open_http(location, location, stall_seconds, wait)
        case "s3":
            opened = _open_http(location, _s3_url(location), stall_seconds, wait)
        case other:
            raise TaskFailed(f"{location} cannot be read: {other} is not supported", retry=False)
    try:
        yield opened
    finally:
        opened.close()


def is_remote(location: str) -> bool:
    """Does a location lie on another machine?"""
    return "://" in location and not location.lower().startswith("file:")


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


def _open_http(location: str, url: str, stall_seconds: float, wait: Wait) -> _Source:
    def get(**headers: str) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers=headers)
        return _patiently(lambda: _opener().open(request, timeout=stall_seconds), wait)

    try:
        response = get(**{"x-amz-checksum-mode": "ENABLED"} if location != url else {})
    except urllib.error.HTTPError as error:
        reason = f"{location} was answered with status {error.code} ({error.reason})"
        raise TaskFailed(reason) from None
    except (http.client.InvalidURL, UnicodeError, ValueError) as error:
        raise TaskFailed(f"{location} is not a valid URL: {error}", retry=False) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, str):  # "no host given"; else what the socket raised
            reason = f"{location} is not a valid URL: {error.reason}"
            raise TaskFailed(reason, retry=False) from None
        raise TaskFailed(f"{location} cannot be reached: {_said(error.reason)}") from None
    except (OSError, http.client.HTTPException) as error:
        raise TaskFailed(f"{location} cannot be reached: {_said(error)}") from None

    body = _Body(response, get, wait)
    return _Source(location, body.read, body.close)


def _patiently(ask: Callable[[], http.client.HTTPResponse], wait: Wait) -> http.client.HTTPResponse:
    """The answer, asked for again while the server asks for patience. Raises as ``ask`` does."""
    for number in range(MAX_WAITS + 1):
        try:
            return ask()
        except urllib.error.HTTPError as error:
            error.close()
            seconds = _retry_after(error.headers.get("Retry-After"))
            if seconds is None:
                seconds = WAIT_SECONDS * 2**number * random.uniform(0.75, 1.25)
            patient = error.code in _SLOW_DOWN and seconds <= MAX_WAIT_SECONDS
            if not patient or number == MAX_WAITS:
                raise
            wait(seconds)
    raise AssertionError("unreachable")


def _retry_after(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip()):
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())


class _Body:
    """A response's body, gone on with where it broke off (RFC 9110, 14: Range, If-Range).

    Only with a strong validator, which says that what follows is of the same file; only while
    something arrives between two breaks.
    """

    def __init__(
        self,
        response: http.client.HTTPResponse,
        get: Callable[..., http.client.HTTPResponse],
        wait: Wait,
    ) -> None:
        self._response = response
        self._get = get
        self._wait = wait
        etag = response.headers.get("ETag", "")
        self._validator = "" if etag.startswith("W/") else etag
        self._checksum = Checksum(response.headers)
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
                self._wait(min(4.0, 0.25 * 2**self._breaks))
                self._response = self._rest()
            else:
                self._checksum.update(data)
                if not data and not self._checksum.fits():
                    name = self._checksum.name
                    raise http.client.HTTPException(
                        f"what arrived has another {name} than announced"
                    )
                self._offset += len(data)
                self._breaks = 0 if data else self._breaks
                return data

    def close(self) -> None:
        self._response.close()

    def _rest(self) -> http.client.HTTPResponse:
        """The rest of the file; HTTPException where the server gives anything else."""
        response = self._get(**{"Range": f"bytes={self._offset}-", "If-Range": self._validator})
        rest = response.headers.get("Content-Range", "").startswith(f"bytes {self._offset}-")
        if response.status != 206 or not rest:
            response.close()
            raise http.client.HTTPException("it broke off, and the server does not give the rest")
        return response
