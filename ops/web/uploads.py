"""Images that come from visitors: decoded in processes that may be killed, and kept nowhere.

A page has one ``Decoder``, started and stopped by its lifespan; its ``read`` blocks, and is for
``def`` endpoints, which run in threads.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Self

from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.pool import ENVIRONMENT, SECONDS_PER_IMAGE
from pairmill.workers.download.thumbnail import ANSWER, REQUEST, ThumbnailSpec

MAX_BYTES = 10_000_000  # as a download has them: what is larger is in no release
# of a decoded upload: 32 megapixels of JPEG, twice a download's, since a phone's own picture has
# more than the copy of it on the web
MEMORY = 160_000_000
PROCESSES = 2
WAIT_SECONDS = 5.0  # for a free process; then 503, so that a queue of slow images holds no threads
FORMATS = "JPEG, PNG, GIF, WebP and AVIF"


@dataclass(frozen=True)
class UploadedImage:
    """What is known of an image. width, height: pixels as it is meant to be seen. dhash: signed 64
    bits. md5, sha1, sha256: of its bytes, 16, 20 and 32. pdq: 32 bytes, empty of a flat image.
    thumbnail: JPEG, the short side 256 pixels at most, no metadata."""

    md5: bytes
    sha1: bytes
    sha256: bytes
    dhash: int
    pdq: bytes
    width: int
    height: int
    thumbnail: bytes


class Decoder:
    """Decoder processes for uploads, each for one image at a time.

    processes: how many. max_bytes: of a body. seconds: that a process may take for an image before
    it is killed. memory: bytes of a decoded original. command: of a process, for tests.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        *,
        max_bytes: int = MAX_BYTES,
        seconds: float = SECONDS_PER_IMAGE,
        memory: int = MEMORY,
        wait_seconds: float = WAIT_SECONDS,
        command: Sequence[str] | None = None,
    ) -> None:
        spec = ThumbnailSpec(memory=memory)
        self.max_bytes = max_bytes
        self._memory, self._seconds, self._wait_seconds = memory, seconds, wait_seconds
        self._command = command or (
            sys.executable,
            "-m",
            "pairmill.workers.download.decode_process",
            json.dumps([type(spec).__name__, asdict(spec)]),
        )
        # None: it died, or was not started yet; another is started when it is needed
        self._free: queue.LifoQueue[subprocess.Popen[bytes] | None] = queue.LifoQueue()
        self._all: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._processes = processes
        self._stopped = True

    def start(self) -> None:
        """Start one process, so that the first image need not wait for it."""
        self._stopped = False
        for _ in range(self._processes - 1):
            self._free.put(None)
        self._free.put(self._begin())

    def stop(self) -> None:
        """End all processes, those with an image in them too."""
        with self._lock:
            self._stopped = True
            left = list(self._all)
        for process in left:
            self._end(process)
        while True:
            try:
                self._free.get_nowait()
            except queue.Empty:
                return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def read(self, body: bytes) -> UploadedImage:
        """Decode a body. Raises UserError, whose sentence is for the visitor, where it is no image
        that is read, or too large; HTTPException 503 where no process is free."""
        if not body:
            raise UserError("the file is empty: choose an image")
        if len(body) > self.max_bytes:
            raise UserError(
                f"the image has {len(body):,} bytes, and {self.max_bytes:,} are read at most:"
                " send a smaller copy"
            )
        try:
            process = self._free.get(timeout=self._wait_seconds)
        except queue.Empty:
            raise HTTPException(
                503, "all decoders are busy: try again", headers={"Retry-After": "5"}
            ) from None
        try:
            process = process or self._begin()
            found = self._decode(process, body)
        except (OSError, EOFError, ValueError):  # it died, or was killed; ValueError: by ``stop``
            found = None
        finally:
            if process and process.poll() is not None:
                self._end(process)
                process = None
            self._free.put(process)
        if found is None:
            raise UserError(self._sentence(Outcome.INTERNAL_ERROR))
        outcome, image = found
        if image is None:
            raise UserError(self._sentence(outcome))
        return image

    def _begin(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._stopped:
                raise OSError("the decoder was stopped")
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=without_secrets(os.environ) | ENVIRONMENT,
                start_new_session=True,  # Ctrl-C at the terminal is the page's to handle
            )
            self._all.add(process)
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                if pipe:
                    pipe.close()
        with self._lock:
            self._all.discard(process)

    def _decode(
        self, process: "subprocess.Popen[bytes]", body: bytes
    ) -> tuple[Outcome, UploadedImage | None]:
        """Raises OSError or EOFError where the process died, and leaves it dead whatever else
        went wrong: half an answer would be the next image's."""
        assert process.stdin is not None
        assert process.stdout is not None
        # its death ends the write and the read below, whichever waits
        timer = threading.Timer(self._seconds, process.kill)
        timer.daemon = True
        timer.start()
        whole = False
        try:
            process.stdin.write(REQUEST.pack(len(body), 0))
            process.stdin.write(body)
            process.stdin.flush()
            *told, size, form, exif = ANSWER.unpack(_exactly(process.stdout, ANSWER.size))
            made = _exactly(process.stdout, size + form + exif)[:size]
            whole = True
        finally:
            timer.cancel()
            if not whole:
                process.kill()
                process.wait()
        outcome, width, height, dhash, md5, sha1, sha256, pdq = told
        if outcome != Outcome.SUCCESS:
            return Outcome(outcome), None
        look = pdq if any(pdq) else b""
        return Outcome.SUCCESS, UploadedImage(md5, sha1, sha256, dhash, look, width, height, made)

    def _sentence(self, outcome: Outcome) -> str:
        return {
            Outcome.NOT_AN_IMAGE: f"the file is no image: {FORMATS} are read",
            Outcome.UNSUPPORTED_IMAGE: f"the image has a format that is not read: {FORMATS} are",
            Outcome.TRUNCATED_IMAGE: "the image is cut off: send the whole file",
            Outcome.BROKEN_IMAGE: "the image is broken: no program of ours can open it",
            Outcome.TOO_MANY_PIXELS: (
                f"the image needs more than {self._memory // 10**6:,} MB of memory once it is"
                " decoded: send a smaller copy"
            ),
            Outcome.TOO_THIN: "the image is more than ten times as long as wide: none such is kept",
        }.get(outcome, f"the image could not be read within {self._seconds:g} seconds: send a copy")


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without DSNs and passwords: the decoder's input is hostile."""
    secret = "PAIRMILL_", "PG", "DATABASE_URL"
    return {key: value for key, value in environment.items() if not key.startswith(secret)}
