"""The functions of schema ``api`` that a score worker calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pairmill.workers.queue import Queue

SCORE_TYPES = ("int8", "int4", "int4", "int2", "float4", "bytea", "bytea", "int2")
TAG_TYPES = ("int8", "int4", "int4", "int4", "int2", "float4")
COPY_SCORES = (
    "copy inbox.score (lease_id, part, n, outcome, similarity, image, text, text_tokens)"
    " from stdin (format binary)"
)
COPY_TAGS = "copy inbox.tag (lease_id, part, model_id, n, label, value) from stdin (format binary)"


@dataclass(frozen=True)
class RegisteredTagger:
    """A tagger of the scorer's clip model, as mill.model has it; kind: head, zero-shot or
    pixels."""

    model_id: int
    name: str
    kind: str
    digest: str


class ScoreQueue(Queue):
    """The queue as a score worker's login may use it."""

    def thumbnails(self, lease_id: int, start: int, stop: int) -> list[tuple[int, str, bytes, int]]:
        """(n, text, image, dHash of the image's original) of the positions from start up to, not
        including, stop."""
        types = ("int4", "text", "bytea", "int8")
        found = self._copy_out("thumbnails_v1", (lease_id, start, stop), types)
        return [(n, text, bytes(image), dhash) for n, text, image, dhash in found]

    def embeddings(self, lease_id: int, start: int, stop: int) -> list[tuple[int, bytes]]:
        """(n, image embedding: float16, little-endian) of these positions of a head's task."""
        found = self._copy_out("embeddings_v1", (lease_id, start, stop), ("int4", "bytea"))
        return [(n, bytes(image)) for n, image in found]

    def taggers(self, model_digest: str) -> list[RegisteredTagger]:
        rows = self._rows("select * from api.taggers_v1(%s)", (model_digest,))
        return [RegisteredTagger(*row) for row in rows]

    def weights(self, digest: str) -> bytes | None:
        """The safetensors file of a head or a zero-shot tagger; None where there is none."""
        row = self._row("select weights from api.weights_v1(%s)", (digest,))
        return bytes(row[0]) if row else None

    def copy_scores(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.score: (lease_id, part, n, outcome, similarity, image, text, tokens)."""
        self._copy_in(COPY_SCORES, SCORE_TYPES, rows)

    def copy_tags(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.tag: (lease_id, part, model_id, n, label, value)."""
        self._copy_in(COPY_TAGS, TAG_TYPES, rows)

    def submit_score(self, lease_id: int, part: int, scores: int, tags: int = 0) -> int:
        call = "select api.submit_score_v1(%s, %s, %s, %s)"
        return int(self._one(call, (lease_id, part, scores, tags))[0])
