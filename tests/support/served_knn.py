"""A small index, releases of its rows, and the service over both."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from pairmill.ops.vectors.arrays import ClipRetrieval
from pairmill.ops.vectors.index_build import build
from pairmill.ops.vectors.opened import Searcher
from pairmill.ops.vectors.shard import FoundVectors
from pairmill.ops.web.knn.encoder import Encoder
from pairmill.ops.web.knn.knn_app import make_knn
from pairmill.ops.web.knn.served import ServedIndexes
from pairmill.ops.web.knn.service import Allowed, KnnService
from pairmill.ops.web.knn.tags import TaggedReleases
from pairmill.ops.web.serve import serving
from pairmill.ops.web.uploads import Decoder

DIGEST = "d1"


def clustered(rows: int, dims: int, seed: int) -> np.ndarray:
    """float16[rows, dims], L2-normalised, around 12 centres, so near that many are duplicates."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, dims))[rng.integers(12, size=rows)]
    drawn = centres + rng.uniform(0.05, 0.9, (rows, 1)) * rng.standard_normal((rows, dims))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def built_index(
    folder: Path,
    ids: Sequence[int],
    images: np.ndarray,
    *,
    text: str = "text {}",
    url: str = "http://h.example/{}.jpg",
) -> Path:
    """An index of images under these SAMPLE_IDs, in folder/index."""
    export = folder / "export"
    export.mkdir(parents=True)
    pairs = pa.table(
        {
            "SAMPLE_ID": pa.array(ids, pa.int64()),
            "URL": [url.format(i) for i in ids],
            "TEXT": [text.format(i) for i in ids],
        }
    )
    shards = ClipRetrieval(export, images.shape[1], 1)
    with shards.shard():
        shards.write(pairs, images, images)
    manifest = {
        "format": "clip-retrieval", "dims": images.shape[1], "rows": len(images),
        "model": {"name": "made up", "pretrained": "", "digest": DIGEST}, "release": {"name": "test"},
        "files": [{"name": str(path.relative_to(export))} for path, _ in shards.files],
    }  # fmt: skip
    (export / "manifest.json").write_text(json.dumps(manifest))
    build(export, folder / "index", queries=0)
    return folder / "index"


class ExactSearch:
    """An opened index whose search misses nothing, so that an answer that falls short is the
    service's fault. The rest is the index's own."""

    def __init__(self, opened: Searcher, ids: Sequence[int], images: np.ndarray) -> None:
        self._opened = opened
        self._ids = np.array(ids, np.uint64)
        # of exact duplicates the index has the first
        _, first = np.unique(images, axis=0, return_index=True)
        self._rows = np.sort(first)
        self._unit = images.astype(np.float32)
        self._unit /= np.linalg.norm(self._unit, axis=1, keepdims=True)

    def found(self, vectors: np.ndarray, k: int, *, effort: int | None = None) -> Any:
        answers = []
        for vector in vectors:
            cosine = self._unit[self._rows] @ (vector / np.linalg.norm(vector))
            order = np.lexsort((self._rows, -cosine))[:k]
            rows = self._rows[order]
            answers.append(FoundVectors(self._ids[rows], cosine[order], self._unit[rows]))
        return answers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._opened, name)


@dataclass
class CountingModel:
    """Stands for a model: a text of number n is row n's own vector. batches: how many texts came
    together each time."""

    vectors: np.ndarray
    batches: list[int] = field(default_factory=list)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.batches.append(len(texts))
        return self.vectors[[int(text.rpartition(" ")[2]) for text in texts]].astype(np.float32)

    def score(self, images: list[bytes], texts: list[str]) -> Any:
        found = self.vectors[[len(image) % len(self.vectors) for image in images]]
        return SimpleNamespace(outcomes=np.zeros(len(images), np.int16), image_embedding=found)


def made_service(
    index: Path | Mapping[str, Path],
    releases: Sequence[Path] = (),
    *,
    model: Any = None,
    said: list[str] | None = None,
    allowed: Allowed | None = None,
    **more: Any,
) -> KnnService:
    said = [] if said is None else said
    folders = index if isinstance(index, Mapping) else {"a": index}
    return KnnService(
        ServedIndexes(folders, said.append),
        {} if model is None else {DIGEST: Encoder(model, **more.pop("encoder", {}))},
        TaggedReleases(list(releases), said.append),
        allowed or Allowed(),
        Decoder(1),
        **more,
    )


@contextmanager
def asking(service: KnnService, **options: Any) -> Iterator[httpx.Client]:
    """A client of a service without a limit of its rate."""
    made = make_knn(service, rate=None, **options)
    with serving(made) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def post(client: httpx.Client, **body: Any) -> httpx.Response:
    """As clip-retrieval's client posts: JSON, without its Content-Type."""
    return client.post("/knn-service", content=json.dumps(body))
