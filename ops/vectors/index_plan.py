"""The structure of an index that is to be built, its shards, and the reason for them."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.hnsw import OF_NODE

KINDS = ("auto", "hnsw", "ivfpq")
LARGEST = 20_000_000  # vectors of a shard: the training's time grows with their square
FEWEST = 1_000  # vectors: of fewer no quantiser is trained


@dataclass(frozen=True)
class IndexPlan:
    """kind: hnsw or ivfpq. why: the reason, a sentence. shards: first row and the one after the
    last, of each."""

    kind: str
    why: str
    shards: list[tuple[int, int]]


def half_of_memory() -> int:
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def plan(rows: int, dims: int, kind: str, memory: int, part: tuple[int, int] = (1, 1)) -> IndexPlan:
    """The plan for an export of so many rows, within ``memory`` bytes, or for the i-th of n parts
    of it, from 1. Raises UserError for a kind that is unknown, or what cannot be had."""
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}: it is {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    number, parts = part
    if not 1 <= number <= parts:
        raise UserError(f"there is no part {number} of {parts}: --shard 1/{parts} is the first")
    first, last = ((number - 1) * rows // parts, number * rows // parts)
    kind, why = _chosen(rows, dims, kind, memory)
    if _need(kind, 1, dims) > memory:
        least = _size(_need(kind, 1, dims))
        raise UserError(f"a build of {kind} takes {least} at the least: give --memory more")
    wanted = max(1, -(-_need(kind, last - first, dims) // max(1, memory)))
    while wanted < last - first and (
        (last - first) // wanted > LARGEST or _need(kind, (last - first) // wanted, dims) > memory
    ):
        wanted += 1
    starts = [first + n * (last - first) // wanted for n in range(wanted + 1)]
    return IndexPlan(kind, why, list(pairwise(starts)))


def _chosen(rows: int, dims: int, kind: str, memory: int) -> tuple[str, str]:
    graph = _need("hnsw", rows, dims)
    takes = f"a graph of {rows:,} vectors of {dims} dims takes {_size(graph)}"
    if kind != "auto":
        return kind, f"asked for; {takes}, and the memory is {_size(memory)}"
    if graph <= memory:
        return "hnsw", f"{takes}, within the memory of {_size(memory)}, and is the fastest to ask"
    beyond = f"{takes}, beyond the memory of {_size(memory)}"
    if find_spec("faiss") is None:
        return "hnsw", (
            f"{beyond}, and faiss is not installed (pip install 'pairmill[index,ivfpq]'), so the"
            " graph is in shards, which are read from the disk"
        )
    return "ivfpq", f"{beyond}; inverted lists are read from the disk, {dims // 8 + 8} bytes each"


def _need(kind: str, rows: int, dims: int) -> int:
    """Memory at the peak of a build, bytes."""
    if kind == "hnsw":
        return rows * (2 * dims + OF_NODE)
    from pairmill.ops.vectors.ivfpq import training_bytes

    return training_bytes(rows, dims)


def _size(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def parsed_size(text: str) -> int:
    """8GB, 500 MB or a number of bytes. Raises UserError for another."""
    units = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "": 1}
    number = text.strip().lower().rstrip("kmgtb").strip()
    unit = text.strip().lower()[len(number) :].strip()
    unit = unit + "b" if unit in ("k", "m", "g", "t") else unit
    try:
        size = float(number) * units[unit]
        if not 1e6 <= size < 1e18:
            raise ValueError
    except (ValueError, KeyError):
        raise UserError(f"{text!r} is no size of memory: 8GB, or 500MB; 1 MB at least") from None
    return int(size)
