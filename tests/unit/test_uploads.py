"""Images of visitors: decoded beside the page, bounded, and what is no image is said to be none."""

import hashlib
import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from starlette.exceptions import HTTPException

from pairmill.ops.demo.drawings import photo_like
from pairmill.ops.errors import UserError
from pairmill.ops.web.uploads import MAX_BYTES, Decoder
from pairmill.workers.download.decode import decode
from support.hostile_web import BOMBS
from support.image_parts import SIGNATURE, chunk, encoded

PHOTO = encoded(photo_like(3, (640, 480)))
HTML = b"<!doctype html><script>alert(1)</script>"
SILENT = (sys.executable, "-c", "import signal; signal.pause()")
# reads a body and answers with half of what it promises
LYING = (
    sys.executable,
    "-c",
    "import sys; sys.stdin.buffer.read(1); sys.stdout.buffer.write(b'x' * 9)",
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    made = Decoder(1, seconds=20)
    made.start()
    yield made
    made.stop()


def test_an_upload_has_the_hashes_of_a_download(decoder: Decoder) -> None:
    """Another way to hash would make "is mine in it?" answer no for ever."""
    found, downloaded = decoder.read(PHOTO), decode(PHOTO)
    assert found.sha256 == hashlib.sha256(PHOTO).digest()
    for name in ("md5", "sha1", "sha256", "dhash", "pdq", "width", "height", "thumbnail"):
        assert getattr(found, name) == getattr(downloaded, name)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (HTML, "no image"),
        (b"%PDF-1.7 " + PHOTO, "no image"),
        (SIGNATURE + chunk(b"IHDR", b"\0" * 13), "broken"),
        (PHOTO[:3000], "cut off"),
        (BOMBS["png"], "MB of memory"),
        (BOMBS["jpeg"], "MB of memory"),
        (encoded(Image.new("RGB", (2000, 20))), "ten times as long"),
        (b"II*\0" + bytes(100), "not read"),
        (bytes(MAX_BYTES + 1), "10,000,000"),
    ],
)
def test_what_is_no_image_is_a_sentence_and_the_next_is_read(
    decoder: Decoder, body: bytes, words: str
) -> None:
    """A fault that leaves an answer in the pipe would give it to the next visitor."""
    with pytest.raises(UserError, match=words):
        decoder.read(body)
    assert decoder.read(PHOTO).sha256 == hashlib.sha256(PHOTO).digest()


def test_a_polyglot_leaves_nothing_of_itself_in_what_is_shown(decoder: Decoder) -> None:
    """A page, script or archive behind an image's pixels or in its comments would be served."""
    out = io.BytesIO()
    photo_like(4, (300, 300)).save(out, "JPEG", comment=HTML)
    body = out.getvalue() + HTML + b"PK\x03\x04" + zlib.compress(HTML)
    found = decoder.read(body)
    assert found.sha256 == hashlib.sha256(body).digest()
    assert b"<script>" not in found.thumbnail
    assert b"PK\x03\x04" not in found.thumbnail
    assert found.thumbnail.endswith(b"\xff\xd9")


@pytest.mark.parametrize("command", [SILENT, LYING, (sys.executable, "-c", "")])
def test_a_decoder_that_hangs_lies_or_dies_is_replaced(command: tuple[str, ...]) -> None:
    """Else the first hostile image is the last image that the page reads."""
    made = Decoder(1, seconds=0.2, wait_seconds=10, command=command)
    made.start()
    try:
        for _ in range(2):
            with pytest.raises(UserError, match="could not be read within"):
                made.read(PHOTO)
        assert not made._all
    finally:
        made.stop()


def test_without_a_free_decoder_the_answer_is_later() -> None:
    """A queue without an end would hold every thread of the page."""
    made = Decoder(1, wait_seconds=0.01, command=SILENT)
    made.start()
    try:
        made._free.get()  # as one that is at work
        with pytest.raises(HTTPException) as refused:
            made.read(PHOTO)
        assert refused.value.status_code == 503
        assert refused.value.headers
        assert refused.value.headers["Retry-After"]
    finally:
        made.stop()


def test_stop_ends_the_processes_and_nothing_starts_after() -> None:
    made = Decoder(1)
    made.start()
    (process,) = made._all
    made.stop()
    assert process.returncode is not None
    made._free.put(None)
    with pytest.raises(UserError):
        made.read(PHOTO)


def test_the_decoder_is_not_told_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes it over by an image would have the page's login."""
    for name in ("PAIRMILL_WEB_DSN", "DATABASE_URL", "PGPASSWORD"):
        monkeypatch.setenv(name, "hunter-2")
    made = Decoder(1, command=SILENT)
    made.start()
    try:
        (process,) = made._all
        environ = Path(f"/proc/{process.pid}/environ")
        while not (told := environ.read_bytes()):  # empty until the kernel has laid it out
            assert process.poll() is None
        assert b"hunter-2" not in told
        assert os.environ["PATH"].encode() in told
    finally:
        made.stop()
