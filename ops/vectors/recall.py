"""Recall of an index: the share of the true nearest neighbours that it finds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.duplicates import Keys
from pairmill.ops.vectors.export_reader import ExportReader

K = 10
BLOCK = 10_000  # vectors compared at once
SAME = 1e-3  # similarities of float16 vectors that differ by less are a tie
NOTHING = np.iinfo(np.uint64).max  # no sample's key
Floats = npt.NDArray[np.float32]
StepProgress = Callable[[str, int, int], None]


@contextmanager
def usearch_errors() -> Iterator[None]:
    """For calls of usearch: its error after Ctrl-C becomes KeyboardInterrupt, others UserError."""
    try:
        yield
    except RuntimeError as error:
        if "terminated" in str(error):
            raise KeyboardInterrupt from None
        raise UserError(f"the index cannot go on: {error}") from None


@dataclass(frozen=True)
class Recall:
    """Recall@10 against exact search, 0 to 1, of queries by an image (which is no neighbour of
    itself) and by a text; null where there are no more than 10 vectors. queries: of each kind."""

    image: float | None
    text: float | None
    queries: int

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)


def measure(index: Index, export: ExportReader, queries: int, progress: StepProgress) -> Recall:
    """Ask the index for the neighbours of every so-manyth of its vectors, at least ``queries`` of
    them, and compare with all. The same for the same export."""
    if len(index) <= K or queries < 1:
        return Recall(None, None, 0)
    step = max(1, len(index) // queries)
    own, images, texts = [], [], []
    first = 0
    for shard in export.shards():
        distinct = np.flatnonzero(held(index, shard.keys))
        chosen = distinct[-first % step :: step]
        own.append(shard.keys[chosen])
        images.append(shard.images[chosen].astype(np.float32))
        texts.append(shard.texts[chosen].astype(np.float32))
        first += len(distinct)
    keys = np.concatenate(own)
    asked = np.concatenate([*images, *texts])
    left_out = np.concatenate([keys, np.full(len(keys), NOTHING)])
    shares = found(index, asked, left_out, exact(index, export, asked, left_out, progress))
    return Recall(float(shares[: len(keys)].mean()), float(shares[len(keys) :].mean()), len(keys))


def exact(
    index: Index, export: ExportReader, asked: Floats, left_out: Keys, progress: StepProgress
) -> Floats:
    """Similarity of the 10th nearest image to each query, of those in the index: float32[n].

    asked: float32[n, dims], L2-normalised. left_out: uint64[n], a key that is no answer.
    """
    best = np.full((len(asked), K), -np.inf, np.float32)
    done = 0
    for shard in export.shards():
        for start in range(0, len(shard.keys), BLOCK):
            progress("exact search", done + start, export.rows)
            keys, images = shard.keys[start : start + BLOCK], shard.images[start : start + BLOCK]
            distinct = held(index, keys)
            keys = keys[distinct]
            near = asked @ images[distinct].astype(np.float32).T
            near[left_out[:, None] == keys[None, :]] = -np.inf
            both = np.concatenate([best, near], axis=1)
            best = np.partition(both, both.shape[1] - K, axis=1)[:, -K:]
        done += len(shard.keys)
    tenth: Floats = best.min(axis=1)
    return tenth


def found(index: Index, asked: Floats, left_out: Keys, tenth: Floats) -> Floats:
    """Of each query: the share of the index's 10 answers that are as near as the true tenth.

    By similarity, as ann-benchmarks counts (Aumüller, Bernhardsson and Faithfull 2018), since
    images that are nearly the same may swap places. tenth: as ``exact`` gives it. Returns
    float32[n].
    """
    with usearch_errors():
        answers: Any = index.search(asked, K + 1)
    shares = np.zeros(len(asked), np.float32)
    for i in range(len(asked)):
        keys = answers[i].keys
        keys = keys[keys != left_out[i]][:K]
        shares[i] = (vectors(index, keys) @ asked[i] >= tenth[i] - SAME).sum() / K
    return shares


def held(index: Index, keys: Keys) -> npt.NDArray[np.bool_]:
    """Of each key whether it is in the index: bool[n]."""
    return np.asarray(index.contains(keys), np.bool_).reshape(len(keys))


def vectors(index: Index, keys: Keys) -> Floats:
    """float32[n, dims] of keys that are in the index."""
    if not len(keys):
        return np.zeros((0, index.ndim), np.float32)
    return np.asarray(index.get(keys), np.float32).reshape(len(keys), -1)
