"""The search itself: candidates of the index, filtered and without duplicates, until there are as
many answers as were asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pairmill.ops.vectors.opened import Searcher
from pairmill.ops.vectors.shard import FoundVectors
from pairmill.ops.web.knn.tags import Flags, Ids, KnnTags

DUPLICATE = 0.94  # inner product from which clip-retrieval takes two images for one
CANDIDATES = 12_000  # of one query, at most; 25 MB of vectors of 512 dims
GROWTH = 4  # of the candidates, where too few answers are left of them
BLOCK = 512  # rows compared at once with all before them
Floats = npt.NDArray[np.float32]
Keys = npt.NDArray[np.uint64]
_BEFORE = np.tri(BLOCK, k=-1, dtype=bool)


@dataclass(frozen=True)
class Filters:
    """What an answer must be. safe, peaceful: as of KnnTags. left_out: SAMPLE_IDs
    that are no answer, nor are their exact duplicates."""

    deduplicate: bool = True
    safe: bool = True
    peaceful: bool = True
    left_out: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Question:
    """What is searched for: the ``wanted`` nearest samples to a vector (float32[dims]) that pass
    the filters."""

    vector: Floats
    wanted: int
    filters: Filters = field(default_factory=Filters)

    def candidates(self) -> int:
        """Images to ask the index for at first. A few more than are wanted: where filters take
        many, a second search costs less than larger ones for all."""
        return min(CANDIDATES, self.wanted + self.wanted // 8 + 8 + len(self.filters.left_out))


@dataclass(frozen=True)
class Answers:
    """ids, similarities: nearest first. candidates: images that were looked at. enough: whether
    there are as many as were wanted, or the index has no more. exhausted: enough, or the most that
    a query may look at were looked at."""

    ids: list[int] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)
    candidates: int = 0
    enough: bool = True

    @property
    def exhausted(self) -> bool:
        return self.enough or self.candidates >= CANDIDATES


def search(
    index: Searcher, question: Question, tags: KnnTags, before: Answers | None = None
) -> Answers:
    """Of images that are too near one another (inner product 0.94) the nearest to the query is the
    answer, and so is the first SAMPLE_ID that passes of exact duplicates; without ``deduplicate``
    all of them are. An image is left out where it is too near to one before it that passes, be this
    an answer or left out itself: as in clip-retrieval, whose groups are connected components,
    except that an image further away never takes back an answer.

    before: answers of ``search_together``, after which more candidates are asked for.
    """
    k = question.candidates()
    while before is None or not before.exhausted:
        if before is not None:
            k = min(CANDIDATES, GROWTH * max(k, before.candidates))
        before = search_together(index, [question], k, tags)[0]
    return before


def search_together(
    index: Searcher, questions: Sequence[Question], k: int, tags: KnnTags
) -> list[Answers]:
    """The answers to several questions among the k nearest images to each, in one search."""
    found = index.found(np.stack([each.vector for each in questions]), k)
    passes = _passes(questions, found, tags)
    return [
        _answers(index, question, k, one, good, tags)
        for question, one, good in zip(questions, found, passes, strict=True)
    ]


def _passes(
    questions: Sequence[Question], found: Sequence[FoundVectors], tags: KnnTags
) -> list[Flags]:
    """Of each question which of its images pass by their own tags; looked up for all at once."""
    ids = np.concatenate([one.keys for one in found]).astype(np.int64)
    filters = [question.filters for question in questions]
    nothing = np.ones(len(ids), bool)
    safe = tags.safe(ids) if any(each.safe for each in filters) else nothing
    peaceful = tags.peaceful(ids) if any(each.peaceful for each in filters) else nothing
    passes, at = [], 0
    for each, one in zip(filters, found, strict=True):
        own = slice(at, at + len(one.keys))
        at += len(one.keys)
        passes.append(
            (safe[own] if each.safe else nothing[own])
            & (peaceful[own] if each.peaceful else nothing[own])
        )
    return passes


def _answers(
    index: Searcher,
    question: Question,
    k: int,
    found: FoundVectors,
    passes: Flags,
    tags: KnnTags,
) -> Answers:
    filters, wanted = question.filters, question.wanted
    own = found.keys.astype(np.int64)
    whole = len(own) < k
    if filters.deduplicate and not filters.left_out and passes.all():
        rows = _apart(found.units, np.arange(len(own)))
        ids = own[rows].tolist()
    else:
        groups = _groups(index, own, passes, filters, tags)
        chosen = np.array([i for i, group in enumerate(groups) if group], np.int64)
        if filters.deduplicate:
            rows = _apart(found.units[chosen], chosen)
            ids = [groups[i][0] for i in rows.tolist()]
        else:
            ids = [sample for i in chosen.tolist() for sample in groups[i]]
            rows = np.repeat(chosen, [len(groups[i]) for i in chosen.tolist()])
    similarities = found.cosines[rows[:wanted]].tolist()
    return Answers(ids[:wanted], similarities, len(own), len(ids) >= wanted or whole)


def _groups(
    index: Searcher, own: Ids, passes: Flags, filters: Filters, tags: KnnTags
) -> list[list[int]]:
    """Of each key the samples with its embedding that may be shown, its own first; where duplicates
    are left out, the first of them alone."""
    # its duplicates are looked up where they matter alone: that is half of a query's time
    if filters.deduplicate and not filters.left_out:
        groups = [[key] for key in own.tolist()]
        looked = np.flatnonzero(~passes).tolist()
    else:
        groups, looked = [[] for _ in own], list(range(len(own)))
    found = [[int(own[i]), *index.duplicates(int(own[i]))] for i in looked]
    flat = np.array([sample for group in found for sample in group], np.int64)
    good, at = np.ones(len(flat), bool), 0
    if filters.safe:
        good &= tags.safe(flat)
    if filters.peaceful:
        good &= tags.peaceful(flat)
    for i, group in zip(looked, found, strict=True):
        kept = good[at : at + len(group)].tolist()
        at += len(group)
        groups[i] = []
        if filters.left_out.isdisjoint(group):
            groups[i] = [sample for sample, one in zip(group, kept, strict=True) if one]
    return groups


def _apart(units: Floats, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Those of the rows whose vector is not too near to one before it. units: float32[n, dims],
    L2-normalised."""
    kept = np.ones(len(units), bool)
    for start in range(0, len(units), BLOCK):
        block = units[start : start + BLOCK]
        alike = block @ units[: start + len(block)].T >= DUPLICATE
        # of each row, those before it
        alike[:, start:] &= _BEFORE[: len(block), : len(block)]
        kept[start : start + len(block)] = ~alike.any(axis=1)
    chosen: npt.NDArray[np.int64] = rows[kept]
    return chosen
