"""Exports of made-up embeddings, as `pairmill embeddings export` writes them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from pairmill.ops.vectors.arrays import ClipRetrieval


def vectors(rows: int, seed: int, dims: int = 32) -> np.ndarray:
    """float16[rows, dims], L2-normalised, around 50 centres: neighbours that mean something."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((50, dims))[rng.integers(50, size=rows)]
    drawn = drawn + 0.5 * rng.standard_normal((rows, dims))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


def sample_ids(rows: int) -> list[int]:
    """Of batches of 1,000, as in a release: in order, with holes."""
    return [(i // 1000) << 14 | (i % 1000) * 3 for i in range(rows)]


def exported(
    folder: Path, images: np.ndarray, texts: np.ndarray, shard: int = 600, digest: str = "d1"
) -> Path:
    """A folder as `embeddings.export` writes it."""
    folder.mkdir()
    ids = sample_ids(len(images))
    pairs = pa.table(
        {
            "SAMPLE_ID": pa.array(ids, pa.int64()),
            "URL": [f"http://h.example/{i}.jpg" for i in ids],
            "TEXT": [f"text {i}" for i in ids],
        }
    )
    starts = range(0, max(1, len(images)), shard)
    shards = ClipRetrieval(folder, images.shape[1], len(starts))
    for start in starts:
        rows = slice(start, start + shard)
        with shards.shard():
            shards.write(pairs.slice(start, shard), images[rows], texts[rows])
    manifest = {
        "format": "clip-retrieval", "dims": images.shape[1], "rows": len(images),
        "model": {"name": "model-d1", "pretrained": "", "digest": digest}, "release": {"name": "test"},
        "files": [{"name": str(path.relative_to(folder))} for path, _ in shards.files],
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
