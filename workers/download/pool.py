"""Decoding beside the event loop, in processes that may be killed."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from pairmill.schema.outcomes import Outcome
from pairmill.workers.download.thumbnail import ANSWER, LENGTH, Decoded, ThumbnailSpec

SECONDS_PER_IMAGE = 20.0
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
    async def start(cls, spec: ThumbnailSpec) -> "_Decoder":
        numbers = spec.short_side, spec.max_bytes, spec.memory
        command = [
            sys.executable,
            "-m",
            "pairmill.workers.download.decode_process",
            *map(str, numbers),
        ]
        return cls(
            await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | ENVIRONMENT,
            )
        )

    async def decode(self, body: bytes) -> Decoded:
        try:
            with trio.fail_after(SECONDS_PER_IMAGE):
                await self._stdin.send_all(LENGTH.pack(len(body)))
                await self._stdin.send_all(body)
                answer = ANSWER.unpack(await self._read(ANSWER.size))
                outcome, width, height, dhash, md5, sha256, size = answer
                thumbnail = await self._read(size)
        except (trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            raise DecoderDied from None
        return Decoded(Outcome(outcome), width, height, thumbnail, dhash, md5, sha256)

    async def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await self._stdout.receive_some(size - len(data))
            if not more:
                raise DecoderDied
            data += more
        return bytes(data)

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
        spec: ThumbnailSpec,
    ) -> None:
        self._free, self._put, self._spec = free, put, spec

    async def decode(self, body: bytes) -> Decoded:
        """Decode one body. A decoder that dies of it, or hangs, costs this image alone
        (INTERNAL_ERROR) and is replaced."""
        decoder = await self._free.receive()  # None: it died; another is started when needed
        whole = False
        try:
            decoder = decoder or await _Decoder.start(self._spec)
            decoded = await decoder.decode(body)
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
    spec: ThumbnailSpec = ThumbnailSpec(),
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
