"""The search itself: candidates of the index, filtered and without duplicates, until there are as
many answers as were asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pairmill.ops.vectors.opened import Searcher
from pairmill.ops.vectors.recall import NOTHING
from pairmill.ops.web.knn.tags import Flags, Ids, KnnTags

DUPLICATE = 0.94  # inner product from which clip-retrieval takes two images for one
CANDIDATES = 12_000  # of one query, at most; 25 MB of vectors of 512 dims
GROWTH = 4  # of the candidates, where too few answers are left of them
BLOCK = 512  # rows compared at once with all before them
Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Filters:
    """What an answer must be. safe, peaceful: as of KnnTags. left_out: SAMPLE_IDs
    that are no answer, nor are their exact duplicates."""

    deduplicate: bool = True
    safe: bool = True
    peaceful: bool = True
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Answers:
    """ids, similarities: nearest first. candidates: images that were looked at, exhausted: whether
    these are all that the index has, or all that a query may look at were enough."""

    ids: list[int] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)
    candidates: int = 0
    exhausted: bool = True


def search(
    index: Searcher, vector: Floats, wanted: int, filters: Filters, tags: KnnTags
) -> Answers:
    """The ``wanted`` nearest samples to a vector (float32[dims]) that pass the filters.

    Of images that are too near one another (inner product 0.94) the nearest to the query is the
    answer, and so is the first SAMPLE_ID that passes of exact duplicates; without ``deduplicate``
    all of them are. An image is left out where it is too near to one before it that passes, be this
    an answer or left out itself: as in clip-retrieval, whose groups are connected components,
    except that an image further away never takes back an answer.
    """
    k = min(CANDIDATES, wanted + wanted // 2 + 8 + len(filters.left_out))
    while True:
        keys, near = index.search(vector[None, :], k)
        found = keys[0] != NOTHING
        held, cosine = keys[0][found], near[0][found]
        groups = _groups(index, held, filters, tags)
        chosen = [i for i, group in enumerate(groups) if group]
        if filters.deduplicate:
            chosen = _apart(index.vectors(held[chosen]), chosen)
            ids = [groups[i][0] for i in chosen]
            rows = chosen
        else:
            ids = [sample for i in chosen for sample in groups[i]]
            rows = [i for i in chosen for _ in groups[i]]
        whole = len(held) < k
        if len(ids) >= wanted or whole or k == CANDIDATES:
            similarities = cosine[rows[:wanted]].tolist()
            enough = len(ids) >= wanted or whole
            return Answers(ids[:wanted], similarities, len(held), enough)
        k = min(CANDIDATES, GROWTH * k)


def _groups(index: Searcher, keys: Keys, filters: Filters, tags: KnnTags) -> list[list[int]]:
    """Of each key the samples with its embedding that may be shown, its own first; where duplicates
    are left out, the first of them alone."""
    own = keys.astype(np.int64)
    passes = _passes(own, filters, tags)
    # its duplicates are looked up where they matter alone: that is half of a query's time
    if filters.deduplicate and not filters.left_out:
        groups = [[key] for key in own.tolist()]
        looked = np.flatnonzero(~passes).tolist()
    else:
        groups, looked = [[] for _ in own], list(range(len(own)))
    found = [[int(own[i]), *index.duplicates(int(own[i]))] for i in looked]
    flat = np.array([sample for group in found for sample in group], np.int64)
    good, at = _passes(flat, filters, tags), 0
    for i, group in zip(looked, found, strict=True):
        kept = good[at : at + len(group)].tolist()
        at += len(group)
        if filters.left_out.isdisjoint(group):
            groups[i] = [sample for sample, one in zip(group, kept, strict=True) if one]
    return groups


def _passes(ids: Ids, filters: Filters, tags: KnnTags) -> Flags:
    passes = np.ones(len(ids), bool)
    if filters.safe:
        passes &= tags.safe(ids)
    if filters.peaceful:
        passes &= tags.peaceful(ids)
    return passes


def _apart(vectors: Floats, rows: Sequence[int]) -> list[int]:
    """Those of the rows whose vector is not too near to one before it. vectors: float32[n, dims]
    of any length."""
    if not len(rows):
        return []
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    kept: list[int] = []
    for start in range(0, len(unit), BLOCK):
        block = unit[start : start + BLOCK]
        alike = block @ unit[: start + len(block)].T >= DUPLICATE
        # of each row, those before it
        before = np.tril(alike, start - 1)
        kept += [rows[start + i] for i in np.flatnonzero(~before.any(axis=1)).tolist()]
    return kept
