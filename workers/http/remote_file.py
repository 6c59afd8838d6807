"""One large file by HTTP, as a stream: waits for a busy server, goes on where a connection broke.

Blocking and for one file at a time, for threads and commands. Images, thousands at once from hosts
that nobody vouches for, have a client of their own in ``download/client.py``.
"""

import http.client
import random
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pairmill.workers.http.checksum import Checksum
from pairmill.workers.http.headers import retry_after, user_agent

MAX_BREAKS = 5  # of a connection, one after another without a byte between
STALL_SECONDS = 60.0  # to connect in, and without a byte; see the daemon's own of 300
# Statuses that ask to come again later (RFC 9110, 15.6.4; RFC 6585, 4); Common Crawl gives
# 503 to those who ask too often.
SLOW_DOWN = frozenset({429, 503})
MAX_WAITS = 5
WAIT_SECONDS = 2.0  # the first time, doubled each further time, where no Retry-After says
MAX_WAIT_SECONDS = 120.0  # a server that asks for more has failed this request
Wait = Callable[[float], None]


class RequestFailed(Exception):
    """A file could not be had. problem and detail make a sentence after the file's name, as in
    "was answered with status 404: Not Found". permanent: no later try can succeed, since the URL
    is none. status: the HTTP status of an answer that is no success, else None."""

    def __init__(
        self, problem: str, detail: str, *, permanent: bool = False, status: int | None = None
    ) -> None:
        super().__init__(f"{problem}: {detail}")
        self.problem = problem
        self.detail = detail
        self.permanent = permanent
        self.status = status


@contextmanager
def open_remote_file(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    contact: str = "",
    proxies: bool = False,
    stall_seconds: float = STALL_SECONDS,
    wait: Wait = time.sleep,
) -> Iterator["RemoteFile"]:
    """The body of a GET, in constant memory and as it is sent (no Content-Encoding is asked for).

    headers: of the first request, beside the User-Agent, which names ``contact``. proxies: whether
    the environment's are used. stall_seconds: how long the server may take to connect, and send
    nothing. wait: how to wait for so many seconds, where the server answers 429 or 503: as long as
    Retry-After says, up to two minutes, else 2, 4, 8, 16 and 32 s. Redirects are followed, to http
    and https only.

    Raises RequestFailed, here and from ``RemoteFile.read``: a URL that is none, a status that is no
    success, a connection that is refused, broken or silent, a body that is shorter than announced
    or differs from its checksum (``Checksum``).
    """
    requests = _Requests(url, user_agent(contact), proxies, stall_seconds, wait)
    body = RemoteFile(requests, requests.get(headers or {}))
    try:
        yield body
    finally:
        body.close()


class RemoteFile:
    """A response's body, gone on with where it broke off (RFC 9110, 14: Range, If-Range).

    Only with a strong validator, which says that the rest is of the same file; only while
    something arrives between two breaks. length: bytes of all of it, None where the server does
    not say.
    """

    def __init__(self, requests: "_Requests", response: http.client.HTTPResponse) -> None:
        self._requests = requests
        self._response = response
        etag = response.headers.get("ETag", "")
        self._validator = "" if etag.startswith("W/") else etag
        self._checksum = Checksum(response.headers)
        self._offset = 0
        self._breaks = 0
        self.length = response.length

    def read(self, size: int, /) -> bytes:
        """The next bytes, at most ``size``; none at the end. Raises RequestFailed."""
        try:
            return self._read(size)
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailed("broke off", _reason(error)) from error

    def close(self) -> None:
        self._response.close()

    def _read(self, size: int) -> bytes:
        while True:
            try:
                data = self._response.read1(size)  # read() would wait until it has all of size
                if not data and self._response.length:
                    came = f"{self._offset} of {self.length} bytes came"
                    raise http.client.HTTPException(came)
            except (OSError, http.client.HTTPException):
                self.close()
                if not self._validator or self._breaks == MAX_BREAKS:
                    raise
                self._breaks += 1
                self._requests.wait(min(4.0, 0.25 * 2**self._breaks))
                self._response = self._rest()
                continue
            self._checksum.update(data)
            if not data and not self._checksum.fits():
                name = self._checksum.name
                raise http.client.HTTPException(f"what arrived has another {name} than announced")
            self._offset += len(data)
            self._breaks = 0 if data else self._breaks
            return data

    def _rest(self) -> http.client.HTTPResponse:
        """The rest of the file; HTTPException where the server gives anything else."""
        headers = {"Range": f"bytes={self._offset}-", "If-Range": self._validator}
        response = self._requests.answer(headers)
        rest = response.headers.get("Content-Range", "").startswith(f"bytes {self._offset}-")
        if response.status != 206 or not rest:
            response.close()
            raise http.client.HTTPException("it broke off, and the server does not give the rest")
        return response


class _Requests:
    """GETs of one URL, each asked again while the server asks for patience."""

    def __init__(
        self, url: str, agent: str, proxies: bool, stall_seconds: float, wait: Wait
    ) -> None:
        self._url = url
        self._opener = _opener(agent, proxies)
        self._stall_seconds = stall_seconds
        self.wait = wait

    def get(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The first answer. Raises RequestFailed."""
        try:
            return self.answer(headers)
        except urllib.error.HTTPError as error:
            problem = f"was answered with status {error.code}"
            detail = str(error.reason) or "no reason is given"
            raise RequestFailed(problem, detail, status=error.code) from None
        except (http.client.InvalidURL, UnicodeError, ValueError) as error:
            raise RequestFailed("is not a valid URL", str(error), permanent=True) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, str):  # "no host given"; else what the socket raised
                raise RequestFailed("is not a valid URL", error.reason, permanent=True) from None
            raise RequestFailed("cannot be reached", _reason(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise RequestFailed("cannot be reached", _reason(error)) from None

    def answer(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """An answer that is a success. Raises as urllib does."""
        request = urllib.request.Request(self._url, headers=dict(headers))
        for number in range(MAX_WAITS + 1):
            try:
                answered: http.client.HTTPResponse = self._opener.open(
                    request, timeout=self._stall_seconds
                )
                return answered
            except urllib.error.HTTPError as error:
                error.close()
                seconds = retry_after(error.headers.get("Retry-After"))
                if seconds is None:
                    seconds = WAIT_SECONDS * 2**number * random.uniform(0.75, 1.25)
                patient = error.code in SLOW_DOWN and seconds <= MAX_WAIT_SECONDS
                if not patient or number == MAX_WAITS:
                    raise
                self.wait(seconds)
        raise AssertionError("unreachable")


def _opener(agent: str, proxies: bool) -> urllib.request.OpenerDirector:
    # build_opener would add handlers of files and FTP, which a redirect must not lead to
    opener = urllib.request.OpenerDirector()
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.UnknownHandler(),
    ]
    if proxies:
        handlers.append(urllib.request.ProxyHandler())
    for handler in handlers:
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", agent)]
    return opener


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "nothing was received for too long"
    return str(error) or type(error).__name__
