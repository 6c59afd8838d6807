"""Tensors out of TensorFlow's files, without TensorFlow: a checkpoint's and a graph's constants.

A checkpoint is two files: ``variables.index``, a table in LevelDB's format
(https://github.com/google/leveldb/blob/main/doc/table_format.md) of BundleEntryProto
(tensorflow/core/protobuf/tensor_bundle.proto), and ``variables.data-00000-of-00001``, the tensors'
own bytes. What is neither float32, int64 nor text, compressed, or in several files, is refused.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pairmill.ops.taggers.protobuf import Message, integer, many, message, octets, varint
from pairmill.workers.errors import Refused

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48
BLOCK_TRAILER = 5  # the compression, and a checksum: the zip file around it has one of its own
FLOAT32, TEXT, INT64 = 1, 7, 9  # of tensorflow/core/framework/types.proto
NUMBERS: dict[int, np.dtype[Any]] = {FLOAT32: np.dtype("<f4"), INT64: np.dtype("<i8")}
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def checkpoint(index: bytes, data: bytes) -> dict[str, npt.NDArray[Any]]:
    """The variables of a Keras model by their path, such as ``layer_with_weights-2/kernel``."""
    entries = dict(_table(index))
    header = message(entries.pop(b"", b""))
    if integer(header, 1) != 1 or integer(header, 2) != 0:
        raise Refused("the checkpoint is not in one little-endian file")
    variables = {}
    for key, value in entries.items():
        name = key.decode(errors="replace")
        entry = message(value)
        if not name.endswith(SUFFIX) or integer(entry, 1) not in NUMBERS:
            continue  # an optimizer's, the object graph, a table that is empty
        kind, start, size = NUMBERS[integer(entry, 1)], integer(entry, 4), integer(entry, 5)
        shape = _shape(octets(entry, 2))
        if integer(entry, 3) or entry.get(7) or start + size > len(data):
            raise Refused(f"the checkpoint's variable {name} is in another file")
        variables[name.removesuffix(SUFFIX)] = _array(data[start : start + size], kind, shape)
    return variables


def constant(tensor: Message) -> npt.NDArray[Any] | list[bytes]:
    """A TensorProto (tensorflow/core/framework/tensor.proto): an array, or a list of texts."""
    kind, shape = integer(tensor, 1), _shape(octets(tensor, 2))
    if kind == TEXT:
        texts = many(tensor, 8)
        if len(shape) != 1 or len(texts) != shape[0]:
            raise Refused(f"a constant of {shape} texts has {len(texts)}")
        return texts
    if kind not in NUMBERS or not tensor.get(4):
        raise Refused(f"a constant is of the type {kind}, or not stored as its bytes")
    return _array(octets(tensor, 4), NUMBERS[kind], shape)


def _array(data: bytes, kind: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    wanted = kind.itemsize
    for size in shape:  # not numpy's product, which overflows silently
        wanted *= size
    if wanted != len(data):
        raise Refused(f"a tensor of the shape {list(shape)} has {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape)


def _shape(data: bytes) -> tuple[int, ...]:
    return tuple(integer(message(size), 1) for size in many(message(data), 2))


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    footer = data[-FOOTER:]
    if len(footer) < FOOTER or not footer.endswith(MAGIC):
        raise Refused("the checkpoint's index is no table")
    at = 0
    for _ in range(2):  # past the handle of the index of metadata
        _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, at = varint(footer, at)
    for _, handle in _block(data, offset, size):
        offset, at = varint(handle, 0)
        size, at = varint(handle, at)
        yield from _block(data, offset, size)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of a block: each shares the start of its key with the one before."""
    block, trailer = data[offset : offset + size], data[offset + size :][:BLOCK_TRAILER]
    if size < 4 or len(block) < size or len(trailer) < BLOCK_TRAILER:
        raise Refused("the checkpoint's index breaks off")
    if trailer[0]:
        raise Refused("the checkpoint's index is compressed")
    end = size - 4 - 4 * int.from_bytes(block[-4:], "little")  # of the restart points
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise Refused("the checkpoint's index is broken")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length
