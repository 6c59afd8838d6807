"""DataComp's image-based filter: of the clusters of a pool those near to images that one wants.

An image stays where the centroid that has the highest dot product with its embedding has that with
one of the wanted embeddings too, say ImageNet-1k's (https://github.com/mlfoundations/datacomp,
baselines/apply_filter.py). Products are float32, whose last bits depend on the BLAS: of two
centroids that are as near another may win on another machine.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmill.ops.errors import UserError
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.recipe_checks import file_of

Vectors = npt.NDArray[np.float32]
ROWS, CENTROIDS = 2048, 8192  # at once: a product of 64 MB


class NearClusters:
    """An annotator: whether an image's nearest centroid is a wanted one; null without an embedding.

    centroids: float32[k, dims]; wanted: bool[k].
    """

    column = "cluster"
    kind = pa.bool_()
    needs: tuple[str, ...] = ("image",)

    def __init__(self, centroids: Vectors, wanted: npt.NDArray[np.bool_]) -> None:
        self._centroids, self._wanted = centroids, wanted

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        images = rows["image"]
        if images.null_count == len(images):
            return pa.nulls(len(images), self.kind)
        dims = images.type.list_size
        if dims != self._centroids.shape[1]:
            raise UserError(
                f"the recipe's centroids have {self._centroids.shape[1]} numbers each, and the"
                f" model's embeddings {dims}: they are of another model"
            )
        known = np.asarray(images.is_valid())
        found = np.zeros(len(images), bool)
        values = images.drop_null().flatten().to_numpy(zero_copy_only=False)
        found[known] = self._wanted[nearest(values.reshape(-1, dims), self._centroids)]
        return pa.array(found, pa.bool_(), mask=~known)


def nearest(vectors: npt.NDArray[np.floating], centroids: Vectors) -> npt.NDArray[np.int64]:
    """int64[n]: of each vector the centroid with the highest dot product, of equals the first."""
    found = np.zeros(len(vectors), np.int64)
    for start in range(0, len(vectors), ROWS):
        part = np.asarray(vectors[start : start + ROWS], np.float32)
        best = np.full(len(part), -np.inf, np.float32)
        for first in range(0, len(centroids), CENTROIDS):
            products = part @ centroids[first : first + CENTROIDS].T
            at = products.argmax(axis=1)
            value = products[np.arange(len(part)), at]
            better = value > best
            best[better] = value[better]
            found[start : start + ROWS][better] = first + at[better]
    return found


def of_recipe(recipe: Recipe) -> NearClusters | None:
    """Raises UserError for a file that is absent, or of another shape."""
    clusters = recipe.clusters
    if clusters is None:
        return None
    centroids = _vectors(file_of(recipe, "clusters.centroids", clusters.centroids))
    wanted = np.zeros(len(centroids), bool)
    if clusters.near:
        near = _vectors(file_of(recipe, "clusters.near", clusters.near))
        if near.shape[1] != centroids.shape[1]:
            raise UserError(
                f"recipe {recipe.name}: clusters.near has {near.shape[1]} numbers a row, and"
                f" clusters.centroids {centroids.shape[1]}"
            )
        wanted[nearest(near, centroids)] = True
    elif clusters.ids:
        path = file_of(recipe, "clusters.ids", clusters.ids)
        ids = _array(path)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise UserError(f"{path} is no list of whole numbers")
        if len(ids) and not 0 <= ids.min() <= ids.max() < len(centroids):
            raise UserError(f"{path} names a centroid beyond the {len(centroids):,} that there are")
        wanted[ids] = True
    return NearClusters(centroids, wanted)


def _vectors(path: Path) -> Vectors:
    found = _array(path)
    if found.ndim != 2 or found.dtype.kind != "f" or not len(found):
        raise UserError(f"{path} holds {found.dtype}{list(found.shape)}, and not float[rows, dims]")
    vectors: Vectors = np.ascontiguousarray(found, np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"{path} has a number that is not finite")
    return vectors


def _array(path: Path) -> npt.NDArray[np.generic]:
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is no .npy file: {error}") from None
    if not isinstance(found, np.ndarray):
        raise UserError(f"{path} holds several arrays, and not one: save it as .npy")
    return found
