"""The embeddings of rated samples: the training data of a head."""

from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text
from pairmill.ops.taggers.ratings import Ratings

IDS_AT_ONCE = 10_000


def rated_embeddings(
    connection: psycopg.Connection, base: dict[str, Any], ratings: Ratings
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], int]:
    """The image embeddings of rated samples that have one: float32[n, dims] and their ratings, in
    the order of their ids; and how many samples have none, or none that is finite: one scorer's
    nonsense must not stop the training."""
    order = np.argsort(ratings.sample_ids)  # the same split, however the file is sorted
    ids, wanted = ratings.sample_ids[order], ratings.ratings[order]
    query = query_text("taggers", "rated_embeddings")
    images: list[npt.NDArray[np.float16]] = []
    kept: list[int] = []
    for start in range(0, len(ids), IDS_AT_ONCE):
        some = ids[start : start + IDS_AT_ONCE].tolist()
        for place, image in connection.execute(
            query, {"sample_ids": some, "model_id": base["model_id"]}
        ):
            vector = np.frombuffer(image, "<f2")
            if np.isfinite(vector).all():
                images.append(vector)
                kept.append(start + place - 1)
    missing = len(ids) - len(kept)
    if not kept:
        raise UserError(f"none of the rated samples has an embedding of {base['name']}")
    return np.stack(images).astype(np.float32), wanted[kept], missing
