"""The bodies of requests, as clip-retrieval's clients and front send them, and what is more here.

Every field is checked before anything is computed: what is wrong is a UserError with a sentence,
which the page answers as 400.
"""

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from pairmill.ops.errors import UserError

MOST_IMAGES, MOST_IDS = 3_000, 10_000  # of an answer
MOST_PARTS = 16  # of a combined query
MOST_TEXT = 10_000  # characters; a model reads some 77 tokens of them
MOST_METADATA = 1_000  # ids of one request of metadata
ALIKE_IDS = 100  # samples of one query by samples
LARGEST_ID = 2**63
WEIGHT = 100.0  # the largest of a part


@dataclass(frozen=True)
class QueryPart:
    """One of a query's parts; one of the first five is given. image: bytes of a file.
    embedding: float64[n], finite."""

    text: str | None = None
    image: bytes | None = None
    image_url: str | None = None
    embedding: npt.NDArray[np.float64] | None = None
    sample_id: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class KnnQuery:
    """A checked request of /knn-service. aesthetic: (score, weight), or None."""

    parts: tuple[QueryPart, ...]
    index: str | None = None
    images: int = 40
    ids: int = 40
    deduplicate: bool = True
    safe: bool = True
    peaceful: bool = True
    aesthetic: tuple[int, float] | None = None
    mclip: bool = False


class PartBody(msgspec.Struct, forbid_unknown_fields=True):
    text: str | None = None
    image: str | None = None
    image_url: str | None = None
    embedding_input: list[float] | None = None
    id: int | None = None
    weight: float = 1.0


class KnnBody(msgspec.Struct):
    """The JSON of /knn-service; fields that are not named here are passed over, as
    clip-retrieval does."""

    text: str | None = None
    image: str | None = None
    image_url: str | None = None
    embedding_input: list[float] | None = None
    id: int | None = None
    ids: list[int] | None = None
    queries: list[PartBody] | None = None
    modality: str | None = None
    num_images: int | None = None
    num_result_ids: int | None = None
    indice_name: str | None = None
    use_mclip: bool | None = None
    deduplicate: bool | None = None
    use_safety_model: bool | None = None
    use_violence_detector: bool | None = None
    aesthetic_score: Any = None
    aesthetic_weight: Any = None


class MetadataBody(msgspec.Struct):
    ids: list[int]
    indice_name: str | None = None


# not strict: the front sends numbers as texts
_KNN = msgspec.json.Decoder(KnnBody, strict=False)
_METADATA = msgspec.json.Decoder(MetadataBody, strict=False)


def knn_query(body: bytes) -> KnnQuery:
    """The query in a body, whatever its Content-Type. Raises UserError."""
    sent: KnnBody = _decoded(_KNN, body)
    if sent.modality not in (None, "", "image"):
        raise UserError(
            "modality is image: an index here is of images, which texts and images both find"
        )
    images = _number(sent.num_images, "num_images", 40, MOST_IMAGES)
    return KnnQuery(
        parts=_parts(sent),
        index=sent.indice_name or None,
        images=images,
        ids=max(images, _number(sent.num_result_ids, "num_result_ids", images, MOST_IDS)),
        deduplicate=sent.deduplicate is not False,
        safe=sent.use_safety_model is not False,
        peaceful=sent.use_violence_detector is not False,
        aesthetic=_aesthetic(sent.aesthetic_score, sent.aesthetic_weight),
        mclip=bool(sent.use_mclip),
    )


def metadata_query(body: bytes) -> tuple[list[int], str | None]:
    """The SAMPLE_IDs and the index's name in a body of /metadata. Raises UserError."""
    sent: MetadataBody = _decoded(_METADATA, body)
    if len(sent.ids) > MOST_METADATA:
        raise UserError(f"ids are {MOST_METADATA:,} at most in one request")
    return [sample_id(each) for each in sent.ids], sent.indice_name or None


def sample_id(value: int) -> int:
    """Raises UserError for what cannot be a SAMPLE_ID."""
    if not 0 <= value < LARGEST_ID:
        raise UserError("an id is a SAMPLE_ID: a whole number from 0 on")
    return value


def _decoded(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        # msgspec's sentences name fields and types, and nothing of the values
        raise UserError(f"the body is no JSON of this request: {error}") from None


def _number(value: int | None, name: str, usual: int, most: int) -> int:
    if value is None:
        return usual
    if not 1 <= value <= most:
        raise UserError(f"{name} is from 1 to {most:,}")
    return value


def _aesthetic(score: Any, weight: Any) -> tuple[int, float] | None:
    """As clip-retrieval reads them: "" and null are off; of a weight alone nothing is asked."""
    if score in ("", None) or weight in ("", None):
        return None
    try:
        number, factor = int(score), float(weight)
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            "aesthetic_score is a whole number, and aesthetic_weight a number"
        ) from None
    if not 0 <= number <= 9 or not math.isfinite(factor) or abs(factor) > WEIGHT:
        raise UserError("aesthetic_score is from 0 to 9, and aesthetic_weight from -100 to 100")
    return (number, factor) if factor else None


def _parts(sent: KnnBody) -> tuple[QueryPart, ...]:
    """As in clip-retrieval a text that is not empty wins, then an image, its URL, an embedding."""
    if sent.queries is not None:
        if sent.text or sent.image or sent.image_url or sent.embedding_input or sent.ids:
            raise UserError("queries are the whole query: name nothing beside them")
        if not 1 <= len(sent.queries) <= MOST_PARTS:
            raise UserError(f"queries are from 1 to {MOST_PARTS} parts")
        return tuple(_part(each) for each in sent.queries)
    if sent.text:
        return (QueryPart(text=_text(sent.text)),)
    if sent.image:
        return (QueryPart(image=_image(sent.image)),)
    if sent.image_url:
        return (QueryPart(image_url=sent.image_url),)
    if sent.embedding_input:
        return (QueryPart(embedding=_embedding(sent.embedding_input)),)
    ids = [*([] if sent.id is None else [sent.id]), *(sent.ids or [])]
    if not ids:
        raise UserError(
            "nothing is asked: give text, image, image_url, embedding_input, id, ids or queries"
        )
    if len(ids) > ALIKE_IDS:
        raise UserError(f"ids are {ALIKE_IDS} at most in one query")
    return tuple(QueryPart(sample_id=sample_id(each)) for each in dict.fromkeys(ids))


def _part(sent: PartBody) -> QueryPart:
    given = (sent.text, sent.image, sent.image_url, sent.embedding_input, sent.id)
    if sum(each is not None for each in given) != 1:
        raise UserError("each of the queries is one of text, image, image_url, embedding_input, id")
    if not math.isfinite(sent.weight) or abs(sent.weight) > WEIGHT:
        raise UserError("a weight is a number from -100 to 100")
    return QueryPart(
        None if sent.text is None else _text(sent.text),
        None if sent.image is None else _image(sent.image),
        sent.image_url,
        None if sent.embedding_input is None else _embedding(sent.embedding_input),
        None if sent.id is None else sample_id(sent.id),
        sent.weight,
    )


def _text(text: str) -> str:
    if not text.strip():
        raise UserError("text is empty")
    if len(text) > MOST_TEXT:
        raise UserError(f"text has {MOST_TEXT:,} characters at most")
    return text


def _image(encoded: str) -> bytes:
    # a data: URL, as a page's FileReader makes it, is base64 after its comma
    head, comma, tail = encoded.partition(",")
    if comma and head.startswith("data:"):
        encoded = tail
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise UserError("image is a file in base64") from None


def _embedding(values: list[float]) -> npt.NDArray[np.float64]:
    numbers = np.array(values, np.float64)
    if not np.isfinite(numbers).all():
        raise UserError("embedding_input is a list of finite numbers")
    return numbers
