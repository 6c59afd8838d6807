"""The service: a query from its body to its answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.ops.vectors.opened import Searcher
from pairmill.ops.web.knn.batch_search import (
    AskedVectors,
    BatchSearch,
    Found,
    KnnJob,
    Row,
    Searches,
    model_of,
    shown,
)
from pairmill.ops.web.knn.encoder import Encoder, Vector
from pairmill.ops.web.knn.knn_search import CANDIDATES, Filters, Question
from pairmill.ops.web.knn.request import KnnQuery, QueryPart
from pairmill.ops.web.knn.served import ServedIndex, ServedIndexes
from pairmill.ops.web.knn.tags import KnnTags, TaggedReleases
from pairmill.ops.web.knn.together import Together
from pairmill.ops.web.limits import Gate
from pairmill.ops.web.outside import fetch_image
from pairmill.ops.web.uploads import Decoder

LARGE = 500  # result ids of a query that is let in by a gate of its own
RATINGS = 10  # files rating0.npy to rating9.npy of LAION's aesthetic-predictor
RowsOf = Callable[[Sequence[int]], Mapping[int, Row]]


@dataclass(frozen=True)
class Allowed:
    """What the admin allows. unsafe: a request may switch safety off. image_url: the service
    fetches URLs for its visitors."""

    unsafe: bool = False
    image_url: bool = False


@dataclass(frozen=True)
class KnnResult:
    """body: the rows as the API answers them, JSON. notes: what became of what was asked, for
    X-Query."""

    body: bytes
    notes: list[str]

    @property
    def rows(self) -> list[Row]:
        found: list[Row] = msgspec.json.decode(self.body)
        return found


@dataclass
class KnnService:
    """Indexes, the encoders of their models (by digest), and the tags of releases.

    aesthetics: by dims, ten vectors. rows_of: rows of the releases by SAMPLE_ID, for /metadata.
    searches: where searches are made; in this process by default.
    """

    indexes: ServedIndexes
    encoders: Mapping[str, Encoder]
    releases: TaggedReleases
    allowed: Allowed
    decoder: Decoder
    aesthetics: Mapping[int, Sequence[Vector]] = field(default_factory=dict)
    rows_of: RowsOf | None = None
    searches: Searches | None = None
    large: Gate = field(default_factory=lambda: Gate(2, 6))

    def __post_init__(self) -> None:
        self._own = BatchSearch(self.indexes, self.releases, unsafe=self.allowed.unsafe)
        self._searches: Searches = self.searches or self._own
        self._together: Together[KnnJob, Found | None] = Together(
            self._searches.found, threads=self._searches.at_once
        )

    def start(self) -> None:
        """What waits for queries. Raises UserError."""
        self.decoder.start()
        for encoder in self.encoders.values():
            encoder.start()
        self._searches.start()

    def stop(self) -> None:
        """End it, after the batch that is at work in this process."""
        for encoder in self.encoders.values():
            encoder.stop()
        self.decoder.stop()
        self._searches.stop()  # first: its batches end by that
        self._together.close()

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
        question = Question(asked.ranked, query.ids, filters)
        job = KnnJob(replace(query, parts=()), model_of(opened), asked, question)
        if query.ids > LARGE:  # in this process: a few would hold all others
            async with self.large:
                told = await run_in_threadpool(self._own.to_the_end, job, None)
        else:
            told = await self._together.ask(job)
            if told and not told[0].exhausted:  # in a thread of its own: the others go on
                told = await run_in_threadpool(self._searches.to_the_end, job, told[0])
        if told is None:
            why = "the index was replaced at this moment: ask again"
            raise HTTPException(503, why, headers={"Retry-After": "1"})
        found, body = told
        if not found.enough:
            notes.append(f"partial: {len(found.ids)} of {query.ids} among the nearest {CANDIDATES}")
        if query.safe and not tags.tagged:
            notes.append("nothing is shown: no release here has a tag of safety")
        return KnnResult(body, notes)

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

    def metadata(self, ids: Sequence[int], index: str | None) -> list[Row]:
        """Of each id its row: url, caption, the releases that it is in, and their columns. A sample
        that is not in the index, or that may not be shown, has an empty one, and ``why``."""
        opened = self.indexes.get(index).current()
        pairs = opened.pairs(ids)
        columns = self.releases.tags.columns(ids)
        more = self.rows_of(ids) if self.rows_of else {}
        answers: list[Row] = []
        may_show = shown(ids, self.releases.tags, unsafe=self.allowed.unsafe)
        for sample, own, may in zip(ids, columns, may_show, strict=True):
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
