"""Decoding beside the event loop, in processes that may be killed."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.rendition import Box, RenditionSpec
from pairmill.workers.download.thumbnail import ANSWER, BOX, REQUEST, Decoded, ThumbnailSpec

SECONDS_PER_IMAGE = 20.0
AT_ONCE = 65_536  # bytes, of a pipe
Spec = ThumbnailSpec | RenditionSpec
# Pillow decodes 1.2 to 1.6 times as fast when memory is kept and not handed back after each image;
# PILLOW_BLOCKS_MAX counts 16 MB blocks, and a kept one is memory
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "8388608",
    "MALLOC_ARENA_MAX": "1",
    "OPENBLAS_NUM_THREADS": "1",  # numpy's; its threads' stacks would count as memory
}


class DecoderDied(Exception):
    """The decoder process ended, or took too long, with a body in it."""


class _Decoder:
    """One decoder process."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout

    @classmethod
    async def start(cls, spec: Spec) -> "_Decoder":
        command = [
            sys.executable,
            "-m",
            "pairmill.workers.download.decode_process",
            json.dumps([type(spec).__name__, asdict(spec)]),
        ]
        return cls(
            await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | ENVIRONMENT,
            )
        )

    async def decode(self, body: bytes, boxes: Sequence[Box]) -> Decoded:
        head = REQUEST.pack(len(body), len(boxes)) + b"".join(BOX.pack(*box) for box in boxes)
        try:
            with trio.fail_after(SECONDS_PER_IMAGE):
                if len(body) <= AT_ONCE:  # each write and read is a turn of the loop
                    await self._stdin.send_all(head + body)
                else:
                    await self._stdin.send_all(head)
                    await self._stdin.send_all(body)
                return await self._answer()
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise DecoderDied from None

    async def _answer(self) -> Decoded:
        data = bytearray()
        await self._read(data, ANSWER.size)
        *told, size, form, exif = ANSWER.unpack_from(data)
        await self._read(data, ANSWER.size + size + form + exif)
        outcome, width, height, dhash, md5, sha1, sha256, pdq = told
        hashes = dhash, md5, sha1, sha256, pdq if any(pdq) else b""
        made = bytes(data[ANSWER.size : ANSWER.size + size])
        texts = bytes(data[ANSWER.size + size :]).decode()  # form's is ASCII
        exif_text = texts[form:] or None
        return Decoded(Outcome(outcome), width, height, made, *hashes, texts[:form], exif_text)

    async def _read(self, data: bytearray, size: int) -> None:
        """Until there are so many bytes: nothing follows an answer."""
        while len(data) < size:
            more = await self._stdout.receive_some(AT_ONCE)
            if not more:
                raise DecoderDied
            data += more

    async def end(self) -> None:
        with trio.CancelScope(shield=True):
            self._process.kill()
            await self._process.wait()
            await self._stdin.aclose()
            await self._stdout.aclose()


class DecoderPool:
    """Decoder processes, each for one image at a time. Use ``decoder_pool``."""

    def __init__(
        self,
        free: trio.MemoryReceiveChannel[_Decoder | None],
        put: trio.MemorySendChannel[_Decoder | None],
        spec: Spec,
    ) -> None:
        self._free, self._put, self._spec = free, put, spec

    async def decode(self, body: bytes, boxes: Sequence[Box] = ()) -> Decoded:
        """Decode one body. boxes: to blur in a rendition, ``rendition.boxes_of``. A decoder that
        dies of it, or hangs, costs this image alone (INTERNAL_ERROR) and is replaced."""
        decoder = await self._free.receive()  # None: it died; another is started when needed
        whole = False
        try:
            decoder = decoder or await _Decoder.start(self._spec)
            decoded = await decoder.decode(body, boxes)
            whole = True
            return decoded
        except (DecoderDied, OSError):  # OSError: the machine has no room for a process just now
            return Decoded(Outcome.INTERNAL_ERROR)
        finally:
            if decoder and not whole:  # dead, or cancelled with an answer still to come
                await decoder.end()
                decoder = None
            self._put.send_nowait(decoder)


@asynccontextmanager
async def decoder_pool(
    processes: int,
    spec: Spec = ThumbnailSpec(),
) -> AsyncIterator[DecoderPool]:
    """A pool of so many decoder processes, ended with the block."""
    put, free = trio.open_memory_channel[_Decoder | None](processes)
    try:
        for _ in range(processes):
            put.send_nowait(await _Decoder.start(spec))
        yield DecoderPool(free, put, spec)
    finally:
        while True:
            try:
                if decoder := free.receive_nowait():
                    await decoder.end()
            except trio.WouldBlock:
                break
