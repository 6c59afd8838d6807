"""WAT files opened where they lie; HTTP from a real server on loopback."""

import base64
import email.utils
import functools
import hashlib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from pairmill import __version__
from pairmill.workers.errors import TaskFailed
from pairmill.workers.extract import reader
from pairmill.workers.extract.extract import Counts, LinkCounts, extract
from pairmill.workers.extract.reader import open_wat
from pairmill.workers.http import remote_file
from support.wats import image, packed, page

WAT = packed([page("http://p.example/", [image(f"{n}.jpg", f"Apple {n}")]) for n in range(400)])
Answer = Callable[[BaseHTTPRequestHandler], None]


def whole(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(WAT)))
    handler.end_headers()
    handler.wfile.write(WAT)


def status(code: int, location: str = "") -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        if location:
            handler.send_header("Location", location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(WAT)))
    handler.end_headers()
    handler.wfile.write(WAT[: len(WAT) // 2])


def cut_chunk(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n" % len(WAT) + WAT[: len(WAT) // 2])


def chunked(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    for at in range(0, len(WAT), 1000):
        piece = WAT[at : at + 1000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def reset(handler: BaseHTTPRequestHandler) -> None:
    cut(handler)
    handler.wfile.flush()
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, 0 s: close sends RST
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def in_pieces(size: int, etag: str = '"v1"', *, ranges: bool = True) -> Answer:
    """A server that breaks every connection after ``size`` bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range") if ranges else None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and handler.headers.get("If-Range") == etag:
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(WAT) - 1}/{len(WAT)}")
        else:
            start = 0
            handler.send_response(200)
        handler.send_header("ETag", etag)
        handler.send_header("Content-Length", str(len(WAT) - start))
        handler.end_headers()
        handler.wfile.write(WAT[start : start + size])

    return answer


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


class Server(ThreadingHTTPServer):
    """Answers every request by ``answers[path]``; ``seen`` holds the requests' headers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {"/whole": whole}
        self.seen: list[dict[str, str]] = []
        self.silence_ends = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def serve(self, answer: Answer) -> str:
        self.answers["/a.wat.gz"] = answer
        return f"{self.url}/a.wat.gz"

    def silent(self, handler: BaseHTTPRequestHandler) -> None:
        cut(handler)
        handler.wfile.flush()
        self.silence_ends.wait()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.close_connection = True
        self.server.seen.append(dict(self.headers))
        self.server.answers[self.path](self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def finish(self) -> None:
        if self.connection.fileno() >= 0:
            super().finish()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.silence_ends.set()
        running.shutdown()
        thread.join()


def read(location: str, waits: list[float] | None = None) -> bytes:
    """The file; ``waits`` takes the seconds that were to be waited, none of which is."""
    waits = [] if waits is None else waits
    with open_wat(location, stall_seconds=20, wait=waits.append) as stream:
        return b"".join(iter(functools.partial(stream.read, 65_536), b""))


@contextmanager
def failing(*, retry: bool, saying: str) -> Iterator[None]:
    with pytest.raises(TaskFailed) as caught:
        yield
    assert saying in caught.value.reason
    assert caught.value.retry is retry


def test_a_file_is_read_by_path_and_by_url(tmp_path: Path) -> None:
    path = tmp_path / "a file %41.wat.gz"
    path.write_bytes(WAT)
    assert read(str(path)) == WAT
    assert read(path.as_uri()) == WAT
    assert read(path.as_uri().replace("file://", "FILE://localhost")) == WAT


def test_a_file_that_cannot_be_opened_fails_for_good(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.wat.gz")
    with failing(retry=False, saying=f"{missing} cannot be opened: No such file"):
        read(missing)
    with failing(retry=False, saying=f"{tmp_path} is not a file"):
        read(str(tmp_path))
    with failing(retry=False, saying="lies on another machine"):
        read("file://elsewhere.example/a.wat.gz")
    with failing(retry=False, saying="cannot be opened"):
        read("nul\0.wat.gz")
    with failing(retry=False, saying="ftp is not supported"):
        read("ftp://127.0.0.1/a.wat.gz")
    with failing(retry=False, saying="is not of the form s3://bucket/key"):
        read("s3://Bucket")


@pytest.mark.parametrize(
    ("location", "url"),
    [
        (
            "s3://commoncrawl/crawl-data/CC-MAIN-2024-22/a.warc.wat.gz",
            "https://data.commoncrawl.org/crawl-data/CC-MAIN-2024-22/a.warc.wat.gz",
        ),
        (
            "s3://my.bucket-1/a b/ä+?.gz",
            "https://my.bucket-1.s3.amazonaws.com/a%20b/%C3%A4%2B%3F.gz",
        ),
    ],
)
def test_an_s3_location_is_read_over_https(location: str, url: str) -> None:
    assert reader._s3_url(location) == url


@pytest.mark.parametrize("answer", [whole, chunked])
def test_a_body_is_read_as_it_is_stored(server: Server, answer: Answer) -> None:
    assert read(server.serve(answer)) == WAT


def test_a_request_says_who_asks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAIRMILL_CONTACT", raising=False)
    read(server.serve(whole))
    monkeypatch.setenv("PAIRMILL_CONTACT", " mail@mill.example\r\nX-Evil: 1, Zoë ")
    read(server.serve(whole))
    agents = [headers["User-Agent"] for headers in server.seen]
    named = f"pairmill/{__version__}"
    assert agents == [named, f"{named} (+mail@mill.example X-Evil: 1, Zo?)"]
    assert {headers["Accept-Encoding"] for headers in server.seen} == {"identity"}


def test_the_proxies_of_the_environment_are_not_used(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert read(server.serve(whole)) == WAT


def test_redirects_are_followed_to_http_only(server: Server, tmp_path: Path) -> None:
    assert read(server.serve(status(302, f"{server.url}/whole"))) == WAT
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with failing(retry=True, saying="status 302"):
        read(server.serve(status(302, secret.as_uri())))
    with failing(retry=True, saying="status 301"):
        read(server.serve(status(301, "/a.wat.gz")))


@pytest.mark.parametrize("code", [400, 401, 403, 404, 408, 410, 500, 502, 504])
def test_a_refusal_is_tried_again_another_time(server: Server, code: int) -> None:
    url = server.serve(status(code))
    waits: list[float] = []
    with failing(retry=True, saying=f"{url} was answered with status {code}"):
        read(url, waits)
    assert (len(server.seen), waits) == (1, [])


def busy(times: int, code: int = 503, retry_after: str | None = None) -> Answer:
    """A server that asks for patience so many times, then gives the file."""
    left = iter(range(times))

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if next(left, None) is None:
            whole(handler)
            return
        handler.send_response(code)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_is_busy_is_asked_again_after_longer_waits(server: Server, code: int) -> None:
    waits: list[float] = []
    assert read(server.serve(busy(remote_file.MAX_WAITS, code)), waits) == WAT
    assert len(waits) == remote_file.MAX_WAITS
    for number, seconds in enumerate(waits):
        assert 0.75 <= seconds / (remote_file.WAIT_SECONDS * 2**number) <= 1.25
    with failing(retry=True, saying=f"status {code}"):
        read(server.serve(busy(remote_file.MAX_WAITS + 1, code)))


def test_retry_after_is_kept(server: Server) -> None:
    waits: list[float] = []
    assert read(server.serve(busy(1, retry_after="7")), waits) == WAT
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert read(server.serve(busy(1, retry_after=in_a_minute)), waits) == WAT
    assert read(server.serve(busy(1, retry_after="Thu, 01 Jan 1970 00:00:00 GMT")), waits) == WAT
    assert read(server.serve(busy(1, retry_after="soon")), waits) == WAT
    assert waits[0] == 7
    assert 55 < waits[1] <= 60
    assert waits[2] == 0
    assert 1.5 <= waits[3] <= 2.5
    with failing(retry=True, saying="status 503"):
        read(server.serve(busy(1, retry_after="3600")), waits)
    assert len(waits) == 4


@pytest.mark.parametrize(
    "year", ["999999", "99999999999999999999999999"]
)  # no datetime holds either; the second is no C integer
def test_an_absurd_retry_after_is_none(server: Server, year: str) -> None:
    absurd, waits = f"Fri, 31 Dec {year} 23:59:59 GMT", list[float]()
    assert read(server.serve(busy(1, 429, absurd)), waits) == WAT
    assert [0.75 <= seconds / remote_file.WAIT_SECONDS <= 1.25 for seconds in waits] == [True]
    with failing(retry=True, saying="was answered with status 429"):
        read(server.serve(busy(remote_file.MAX_WAITS + 1, 429, absurd)), waits)
    with failing(retry=True, saying="was answered with status 429"):
        read(server.serve(busy(1, 429, "Fri, 31 Dec 9999 23:59:59 GMT")), waits)
    assert len(waits) == 1 + remote_file.MAX_WAITS


def announcing(field: str, value: str, size: int | None = None) -> Answer:
    """A server that gives a checksum, and breaks off after ``size`` bytes."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Range", f"bytes {start}-{len(WAT) - 1}/{len(WAT)}")
        handler.send_header("ETag", '"v1"')
        handler.send_header(field, value)
        handler.send_header("Content-Length", str(len(WAT) - start))
        handler.end_headers()
        handler.wfile.write(WAT[start : start + (size or len(WAT))])

    return answer


def digest(algorithm: str, data: bytes = WAT) -> str:
    return base64.b64encode(hashlib.new(algorithm, data).digest()).decode()


@pytest.mark.parametrize(
    ("field", "form", "algorithm"),
    [
        ("Repr-Digest", "md5=:AAAA:, sha-512=:{}:", "sha512"),
        ("repr-digest", "sha-256=:{}:", "sha256"),
        ("Digest", "SHA-256={},unixsum=30637", "sha256"),
        ("Content-MD5", "{}", "md5"),
        ("x-amz-checksum-sha256", "{}", "sha256"),
        ("x-goog-hash", "crc32c=n03x6A==,md5={}", "md5"),
    ],
)
def test_a_checksum_is_kept(server: Server, field: str, form: str, algorithm: str) -> None:
    right, wrong = form.format(digest(algorithm)), form.format(digest(algorithm, b"else"))
    assert read(server.serve(announcing(field, right))) == WAT
    assert read(server.serve(announcing(field, right, len(WAT) // 3))) == WAT  # in pieces
    with failing(retry=True, saying="than announced"):
        read(server.serve(announcing(field, wrong)))


@pytest.mark.parametrize("value", ["", "sha-256", "sha-256=:!!:", "sha-256=:AAAA:", "x=:AAAA:"])
def test_a_checksum_that_is_none_checks_nothing(server: Server, value: str) -> None:
    assert read(server.serve(announcing("Repr-Digest", value))) == WAT
    assert read(server.serve(announcing("x-amz-checksum-sha256", digest("sha256") + "-3"))) == WAT


@pytest.mark.parametrize("answer", [cut, cut_chunk, reset])
def test_a_body_that_breaks_off_is_worth_another_try(server: Server, answer: Answer) -> None:
    url = server.serve(answer)
    counts = Counts()
    with failing(retry=True, saying=f"{url} broke off"), open_wat(url) as stream:
        list(extract(stream, counts))
    assert counts.ended_early is None  # it is no damage of the file's


def test_a_body_that_breaks_off_is_gone_on_with_where_it_broke(server: Server) -> None:
    size = len(WAT) // 5
    assert read(server.serve(in_pieces(size))) == WAT
    assert [h.get("Range") for h in server.seen] == [None] + [
        f"bytes={n}-" for n in range(size, len(WAT), size)
    ]
    assert all(h["User-Agent"].startswith("pairmill/") for h in server.seen)


@pytest.mark.parametrize(
    "answer",
    [
        in_pieces(1000, ranges=False),  # the whole file again
        in_pieces(1000, 'W/"weak"'),
        in_pieces(0),  # nothing, again and again
    ],
)
def test_a_body_that_cannot_be_gone_on_with_is_worth_another_try(
    server: Server, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_file, "MAX_BREAKS", 2)
    with failing(retry=True, saying="broke off"):
        read(server.serve(answer))
    assert len(server.seen) <= 3


def test_a_file_that_changed_meanwhile_is_not_mixed(server: Server) -> None:
    etags = iter(['"v1"', '"v2"'])

    def changing(handler: BaseHTTPRequestHandler) -> None:
        in_pieces(1000, next(etags))(handler)

    with failing(retry=True, saying="does not give the rest"):
        read(server.serve(changing))


def test_a_server_that_falls_silent_is_worth_another_try(server: Server) -> None:
    url = server.serve(server.silent)
    got = 0
    with (
        failing(retry=True, saying="nothing was received for too long"),
        open_wat(url, stall_seconds=1) as stream,
    ):
        while data := stream.read(1000):
            got += len(data)
    assert got == len(WAT) // 2


def test_what_is_no_http_or_nobody_is_worth_another_try(server: Server) -> None:
    with failing(retry=True, saying="cannot be reached"):
        read(server.serve(nonsense))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with failing(retry=True, saying=f"http://127.0.0.1:{port}/a cannot be reached"):
        read(f"http://127.0.0.1:{port}/a")


def test_https_is_verified(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = server.url.replace("http://127.0.0.1", "https://localhost")
    with failing(retry=True, saying="certificate verify failed"):
        read(server.serve(whole))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert read(server.serve(whole)) == WAT


def test_a_url_that_is_none_fails_for_good(server: Server) -> None:
    port = urlsplit(server.url).port
    for url in (
        "http://",
        "http://127.0.0.1:port/a",
        f"http://127.0.0.1:{port}/a b",
        "http://[::1",
    ):
        with failing(retry=False, saying=f"{url} is not a valid URL"):
            read(url)


def test_a_wat_is_extracted_while_it_arrives(server: Server) -> None:
    counts = Counts()
    with open_wat(server.serve(chunked)) as stream:
        pairs = list(extract(stream, counts))
    assert [pair.text for pair in pairs] == [f"Apple {n}" for n in range(400)]
    images = LinkCounts(links=400, kept=400, attributes=Counter(src=400))
    assert counts == Counts(records=400, kinds={"image": images})
