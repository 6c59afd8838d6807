"""Queries whose vectors are known, searched for many at once, and their rows as the API answers
them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
import numpy as np

from pairmill.ops.vectors.opened import Searcher
from pairmill.ops.web.knn.encoder import Vector
from pairmill.ops.web.knn.knn_search import Answers, Question, search, search_together
from pairmill.ops.web.knn.request import KnnQuery
from pairmill.ops.web.knn.served import ServedIndexes
from pairmill.ops.web.knn.tags import Flags, KnnTags, TaggedReleases

Row = dict[str, Any]
ModelOfIndex = tuple[str, int]  # its digest, and dims


@dataclass(frozen=True)
class AskedVectors:
    """The vectors of a query, float32[dims], L2-normalised. vector: of what the user asked, to
    which similarities are; ranked: the same, moved towards beauty if that was asked for."""

    vector: Vector
    ranked: Vector
    left_out: frozenset[int]


@dataclass(frozen=True)
class KnnJob:
    """A query whose vector is known. query: without its parts, which may be large. model: that made
    the vector."""

    query: KnnQuery
    model: ModelOfIndex
    asked: AskedVectors
    question: Question


Found = tuple[Answers, bytes]  # with the rows, a list in JSON


class Searches(Protocol):
    """Where searches are made. at_once: batches that may be asked for side by side."""

    at_once: int

    def start(self) -> None:
        """Raises UserError."""

    def stop(self) -> None: ...

    def found(self, jobs: Sequence[KnnJob]) -> list[Found | None]:
        """Of each job its answers among the first candidates, with rows if these are enough; None
        where the index is of another model by now."""

    def to_the_end(self, job: KnnJob, before: Answers | None) -> Found | None:
        """The same, until there are enough. before: of ``found``."""


@dataclass(frozen=True)
class SearchSetup:
    """What a search is made in: folders of indexes by name, of releases. unsafe: as of Allowed."""

    indexes: Mapping[str, Path]
    releases: Sequence[Path]
    unsafe: bool


class BatchSearch:
    """Searches in this process: one batch at a time, since its threads share an interpreter (two at
    once took 4.0 ms of CPU an answer, one 3.8)."""

    at_once = 1

    def __init__(self, indexes: ServedIndexes, releases: TaggedReleases, *, unsafe: bool) -> None:
        self._indexes, self.releases, self._unsafe = indexes, releases, unsafe

    @classmethod
    def of(cls, setup: SearchSetup, trouble: Callable[[str], None]) -> Self:
        """With one processor for each search. Raises UserError."""
        return cls(
            ServedIndexes(setup.indexes, trouble, threads=1),
            TaggedReleases(setup.releases, trouble),
            unsafe=setup.unsafe,
        )

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def found(self, jobs: Sequence[KnnJob]) -> list[Found | None]:
        # those of one index and as many candidates are one search
        alike: dict[tuple[str | None, ModelOfIndex, int], list[int]] = {}
        for i, job in enumerate(jobs):
            key = job.query.index, job.model, job.question.candidates()
            alike.setdefault(key, []).append(i)
        tags = self.releases.tags
        answers: dict[int, Found] = {}
        for (name, model, k), places in alike.items():
            own, opened = [jobs[i] for i in places], self._indexes.get(name).current()
            if model_of(opened) != model:
                continue
            found = search_together(opened, [job.question for job in own], k, tags)
            # those that fall short are asked again: no rows yet
            told = [each if each.exhausted else Answers() for each in found]
            rows = self._rows(opened, tags, own, told)
            answers.update(zip(places, zip(found, rows, strict=True), strict=True))
        return [answers.get(i) for i in range(len(jobs))]

    def to_the_end(self, job: KnnJob, before: Answers | None) -> Found | None:
        opened, tags = self._indexes.get(job.query.index).current(), self.releases.tags
        if model_of(opened) != job.model:
            return None
        found = search(opened, job.question, tags, before)
        return found, self._rows(opened, tags, [job], [found])[0]

    def _rows(
        self, opened: Searcher, tags: KnnTags, jobs: Sequence[KnnJob], found: Sequence[Answers]
    ) -> list[bytes]:
        """The rows of each job's answers; of one index, and looked up for all at once."""
        firsts = [each.ids[: job.query.images] for job, each in zip(jobs, found, strict=True)]
        flat = [sample for first in firsts for sample in first]
        pairs = opened.pairs(flat)
        # one whose URL is gone was removed while this query was under way
        kept = [sample for sample in flat if sample in pairs]
        columns: list[Row] = []
        for sample in kept:
            url, text = pairs[sample]
            columns.append({"url": url, "caption": text})
        tags.add_columns(kept, columns)
        rows, at = [], iter(columns)
        for job, each, first in zip(jobs, found, firsts, strict=True):
            hidden: frozenset[int] = frozenset()
            if not (job.query.safe and job.query.peaceful):
                may = shown(first, tags, unsafe=self._unsafe).tolist()
                hidden = frozenset(one for one, yes in zip(first, may, strict=True) if not yes)
            own: list[Row] = []
            cosines = np.array(_similarities(opened, job.asked, each), np.float64)
            similarities = np.round(cosines, 6).tolist()
            for i, sample in enumerate(each.ids):
                row: Row = {}
                if i < len(first):
                    if sample not in pairs:
                        continue
                    row = next(at)
                    if sample in hidden:
                        row = {}
                row["id"], row["similarity"] = sample, similarities[i]
                own.append(row)
            rows.append(msgspec.json.encode(own))
        return rows


def model_of(opened: Searcher) -> ModelOfIndex:
    return opened.info.model["digest"], opened.info.dims


def shown(ids: Sequence[int], tags: KnnTags, *, unsafe: bool) -> Flags:
    """Whether URL and text of each sample may be told, whatever a request asks for: bool[n]."""
    if unsafe:
        return np.ones(len(ids), bool)
    asked = np.array(ids, np.int64)
    return tags.safe(asked) & tags.peaceful(asked)


def _similarities(opened: Searcher, asked: AskedVectors, found: Answers) -> list[float]:
    """To what was asked, where the order is by something else."""
    if asked.ranked is asked.vector or not found.ids:
        return found.similarities
    vectors = opened.vectors(np.array(found.ids, np.uint64))
    cosines: list[float] = (vectors @ asked.vector / np.linalg.norm(vectors, axis=1)).tolist()
    return cosines
