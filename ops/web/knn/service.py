"""The service: a query from its body to its answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.opened import Searcher
from pairmill.ops.web.knn.encoder import Encoder, Vector
from pairmill.ops.web.knn.knn_search import (
    CANDIDATES,
    Answers,
    Filters,
    Question,
    search,
    search_together,
)
from pairmill.ops.web.knn.request import KnnQuery, QueryPart
from pairmill.ops.web.knn.served import ServedIndex, ServedIndexes
from pairmill.ops.web.knn.tags import Flags, KnnTags, TaggedReleases
from pairmill.ops.web.knn.together import Together
from pairmill.ops.web.limits import Gate
from pairmill.ops.web.outside import fetch_image
from pairmill.ops.web.uploads import Decoder

LARGE = 500  # result ids of a query that is let in by a gate of its own
RATINGS = 10  # files rating0.npy to rating9.npy of LAION's aesthetic-predictor
Row = dict[str, Any]
RowsOf = Callable[[Sequence[int]], Mapping[int, Row]]


@dataclass(frozen=True)
class Allowed:
    """What the admin allows. unsafe: a request may switch safety off. image_url: the service
    fetches URLs for its visitors."""

    unsafe: bool = False
    image_url: bool = False


@dataclass(frozen=True)
class KnnResult:
    """rows: as the API answers them. notes: what became of what was asked, for X-Query."""

    rows: list[Row]
    notes: list[str]


@dataclass(frozen=True)
class AskedVectors:
    """The vectors of a query, float32[dims], L2-normalised. vector: of what the user asked, to
    which similarities are; ranked: the same, moved towards beauty if that was asked for."""

    vector: Vector
    ranked: Vector
    left_out: frozenset[int]


@dataclass(frozen=True)
class KnnJob:
    """A query whose vector is known, the index and the tags that it began with."""

    query: KnnQuery
    opened: Searcher
    asked: AskedVectors
    question: Question
    tags: KnnTags


@dataclass
class KnnService:
    """Indexes, the encoders of their models (by digest), and the tags of releases.

    aesthetics: by dims, ten vectors. rows_of: rows of the releases by SAMPLE_ID, for /metadata.
    """

    indexes: ServedIndexes
    encoders: Mapping[str, Encoder]
    releases: TaggedReleases
    allowed: Allowed
    decoder: Decoder
    aesthetics: Mapping[int, Sequence[Vector]] = field(default_factory=dict)
    rows_of: RowsOf | None = None
    large: Gate = field(default_factory=lambda: Gate(2, 6))

    def __post_init__(self) -> None:
        self.together: Together[KnnJob, tuple[Answers, list[Row]]] = Together(self._found)

    async def knn(self, query: KnnQuery) -> KnnResult:
        """Raises UserError for a query that cannot be asked, HTTPException 404 for an index or a
        sample that is not there, 503 where too much waits."""
        served = self.indexes.get(query.index)
        opened = served.unchanged()
        if opened is None:
            opened = await run_in_threadpool(served.current)
        notes: list[str] = []
        asked = await self._asked(query, served, opened, notes)
        tags = self.releases.tags
        self._say_filters(query, tags, notes)
        filters = Filters(query.deduplicate, query.safe, query.peaceful, asked.left_out)
        job = KnnJob(query, opened, asked, Question(asked.ranked, query.ids, filters), tags)
        if query.ids > LARGE:
            async with self.large:
                found, rows = await run_in_threadpool(self._to_the_end, job, None)
        else:
            found, rows = await self.together.ask(job)
            if not found.exhausted:  # in a thread of its own: the others go on
                found, rows = await run_in_threadpool(self._to_the_end, job, found)
        if not found.enough:
            notes.append(f"partial: {len(found.ids)} of {query.ids} among the nearest {CANDIDATES}")
        if query.safe and not tags.tagged:
            notes.append("nothing is shown: no release here has a tag of safety")
        return KnnResult(rows, notes)

    async def _asked(
        self, query: KnnQuery, served: ServedIndex, opened: Searcher, notes: list[str]
    ) -> AskedVectors:
        encoder = self.encoders.get(served.model["digest"])
        total = np.zeros(served.dims, np.float32)
        for part in query.parts:
            total += part.weight * await self._vector(part, opened, encoder)
        vector = _unit(total)
        if query.mclip:
            notes.append("use_mclip ignored: the model of the index reads all texts")
        ranked = self._ranked(query, vector, notes)
        own = (part.sample_id for part in query.parts)
        return AskedVectors(vector, ranked, frozenset(each for each in own if each is not None))

    async def _vector(self, part: QueryPart, opened: Searcher, encoder: Encoder | None) -> Vector:
        if part.sample_id is not None:
            return await run_in_threadpool(_of_sample, opened, part.sample_id)
        if part.embedding is not None:
            return _of_embedding(part.embedding, opened.info.dims)
        if part.image_url is not None and not self.allowed.image_url:
            raise UserError(
                "this service fetches no URLs: send the image itself, in base64, as image"
            )
        if encoder is None:
            raise UserError("this service has no model: ask by embedding_input, id or ids")
        if part.text is not None:
            return await encoder.text(part.text)
        body = part.image
        if body is None:
            body = await run_in_threadpool(fetch_image, part.image_url or "")
        return await encoder.image((await run_in_threadpool(self.decoder.read, body)).thumbnail)

    def _ranked(self, query: KnnQuery, vector: Vector, notes: list[str]) -> Vector:
        if query.aesthetic is None:
            return vector
        score, weight = query.aesthetic
        ratings = self.aesthetics.get(len(vector))
        if ratings is None:
            notes.append(f"aesthetic {score} * {weight:g} ignored: no embeddings of ratings here")
            return vector
        notes.append(f"aesthetic {score} * {weight:g} in the order; similarity is without it")
        return _unit(vector + weight * ratings[score])

    def _say_filters(self, query: KnnQuery, tags: KnnTags, notes: list[str]) -> None:
        if not (query.safe and query.peaceful) and not self.allowed.unsafe:
            notes.append("safety off shows ids alone of what is not known to be safe")
        if query.peaceful and not tags.has_violence:
            notes.append("violence: no release here has a column of it")

    def _found(self, jobs: Sequence[KnnJob]) -> list[tuple[Answers, list[Row]]]:
        """Of each job its answers among the first candidates, and their rows if these are enough.
        Those of one index and as many candidates are one search."""
        alike: dict[tuple[int, int, int], list[int]] = {}
        for i, job in enumerate(jobs):
            key = id(job.opened), id(job.tags), job.question.candidates()
            alike.setdefault(key, []).append(i)
        answers: dict[int, tuple[Answers, list[Row]]] = {}
        for (_, _, k), places in alike.items():
            own = [jobs[i] for i in places]
            first = own[0]
            found = search_together(first.opened, [job.question for job in own], k, first.tags)
            # those that fall short are asked again: no rows yet
            told = [each if each.exhausted else Answers() for each in found]
            rows = self._rows(own, told)
            answers.update(zip(places, zip(found, rows, strict=True), strict=True))
        return [answers[i] for i in range(len(jobs))]

    def _to_the_end(self, job: KnnJob, before: Answers | None) -> tuple[Answers, list[Row]]:
        found = search(job.opened, job.question, job.tags, before)
        return found, self._rows([job], [found])[0]

    def _rows(self, jobs: Sequence[KnnJob], found: Sequence[Answers]) -> list[list[Row]]:
        """The rows of each job's answers; of one index, and looked up for all at once."""
        firsts = [each.ids[: job.query.images] for job, each in zip(jobs, found, strict=True)]
        flat = [sample for first in firsts for sample in first]
        pairs = jobs[0].opened.pairs(flat)
        # one whose URL is gone was removed while this query was under way
        kept = [sample for sample in flat if sample in pairs]
        columns: list[Row] = []
        for sample in kept:
            url, text = pairs[sample]
            columns.append({"url": url, "caption": text})
        jobs[0].tags.add_columns(kept, columns)
        rows, at = [], iter(columns)
        for job, each, first in zip(jobs, found, firsts, strict=True):
            hidden: frozenset[int] = frozenset()
            if not (job.query.safe and job.query.peaceful):
                may = self._shown(first).tolist()
                hidden = frozenset(one for one, yes in zip(first, may, strict=True) if not yes)
            own: list[Row] = []
            similarities = np.round(np.array(_similarities(job, each), np.float64), 6).tolist()
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
            rows.append(own)
        return rows

    def _shown(self, ids: Sequence[int]) -> Flags:
        """Whether URL and text of each sample may be told, whatever a request asks for: bool[n]."""
        if self.allowed.unsafe:
            return np.ones(len(ids), bool)
        asked, tags = np.array(ids, np.int64), self.releases.tags
        return tags.safe(asked) & tags.peaceful(asked)

    def metadata(self, ids: Sequence[int], index: str | None) -> list[Row]:
        """Of each id its row: url, caption, the releases that it is in, and their columns. A sample
        that is not in the index, or that may not be shown, has an empty one, and ``why``."""
        opened = self.indexes.get(index).current()
        pairs = opened.pairs(ids)
        columns = self.releases.tags.columns(ids)
        more = self.rows_of(ids) if self.rows_of else {}
        answers: list[Row] = []
        for sample, own, may in zip(ids, columns, self._shown(ids), strict=True):
            if sample not in pairs:
                answers.append({"id": sample, "metadata": {}, "why": "not in this index"})
            elif not may:
                why = "withheld: no release says that it is safe"
                answers.append({"id": sample, "metadata": {}, "why": why})
            else:
                url, text = pairs[sample]
                row = dict(more.get(sample, {})) | {"url": url, "caption": text} | own
                answers.append({"id": sample, "metadata": row})
        return answers


def _similarities(job: KnnJob, found: Answers) -> list[float]:
    """To what was asked, where the order is by something else."""
    asked = job.asked
    if asked.ranked is asked.vector or not found.ids:
        return found.similarities
    vectors = job.opened.vectors(np.array(found.ids, np.uint64))
    cosines: list[float] = (vectors @ asked.vector / np.linalg.norm(vectors, axis=1)).tolist()
    return cosines


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-6:
        raise UserError("the query has no direction: its parts cancel each other out")
    unit: Vector = (vector / length).astype(np.float32)
    return unit


def _of_sample(opened: Searcher, sample: int) -> Vector:
    try:
        return _unit(opened.vector(sample))
    except UserError:  # its sentence names the folder, which is no visitor's business
        raise HTTPException(404, f"{sample} is not in this index") from None


def _of_embedding(vector: npt.NDArray[np.float64], dims: int) -> Vector:
    if len(vector) != dims:
        raise UserError(f"embedding_input has {len(vector)} numbers, and the index {dims} dims")
    # in float32 1e300 has no length
    largest = float(np.abs(vector).max(initial=0.0))
    if not largest:
        raise UserError("embedding_input has no direction: all of it is 0")
    return _unit((vector / largest).astype(np.float32))


def read_ratings(folder: Path) -> list[Vector]:
    """The embeddings of aesthetic ratings 0 to 9, L2-normalised: rating0.npy to rating9.npy, as
    LAION's aesthetic-predictor has them for a model. Raises UserError."""
    found: list[Vector] = []
    for score in range(RATINGS):
        path = folder / f"rating{score}.npy"
        try:
            vector = np.asarray(np.load(path, allow_pickle=False), np.float32).reshape(-1)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} is no embedding of a rating: {error}; --aesthetic names a folder with"
                " rating0.npy to rating9.npy"
            ) from None
        if found and len(vector) != len(found[0]):
            raise UserError(f"{path} has {len(vector)} dims, and rating0.npy {len(found[0])}")
        found.append(_unit(vector))
    return found


def header_text(notes: Sequence[str]) -> str:
    """Notes as the value of a header: ASCII, no line ends."""
    return re.sub(r"[^ -~]", "?", "; ".join(notes))
