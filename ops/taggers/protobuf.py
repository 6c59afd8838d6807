"""Protocol Buffers' wire format, as far as reading one message without its schema goes.

https://protobuf.dev/programming-guides/encoding/. TensorFlow's files are such messages, and
reading a few fields of them takes neither TensorFlow nor its generated classes.
"""

from collections import defaultdict

from pairmill.workers.errors import Refused

Message = dict[int, list[int | bytes]]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The unsigned integer at ``at``, and where it ends."""
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise Refused("the file breaks off within a number")


def varints(data: bytes) -> list[int]:
    """A packed repeated field of integers."""
    found, at = [], 0
    while at < len(data):
        value, at = varint(data, at)
        found.append(value)
    return found


def message(data: bytes) -> Message:
    """The values of a message by field number: int for a varint, else bytes."""
    fields: Message = defaultdict(list)
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value: int | bytes
            value, at = varint(data, at)
        elif kind in (1, 2, 5):
            size, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + size], at + size
        else:
            raise Refused(f"the file has a field of the unknown wire type {kind}")
        if at > len(data):
            raise Refused("the file breaks off within a field")
        fields[tag >> 3].append(value)
    return fields


def integer(fields: Message, number: int) -> int:
    """The last value of an integer field; 0 where it is absent, as proto3 has it."""
    value = fields[number][-1] if fields.get(number) else 0
    if not isinstance(value, int):
        raise Refused(f"the file's field {number} is no integer")
    return value


def octets(fields: Message, number: int) -> bytes:
    """The last value of a field of bytes, text or a message; b"" where it is absent."""
    return (many(fields, number) or [b""])[-1]


def many(fields: Message, number: int) -> list[bytes]:
    """All values of a repeated field of bytes, texts or messages."""
    values = fields.get(number, [])
    found = [value for value in values if isinstance(value, bytes)]
    if len(found) < len(values):
        raise Refused(f"the file's field {number} is no bytes")
    return found
