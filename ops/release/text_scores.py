"""Scores of texts by a classifier, as Parquet beside a release, and the recipe's bound on them.

A classifier of texts takes some milliseconds a text, a thousand times what a recipe takes: so it
runs over the texts that a first build keeps, and the next build reads its scores.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256
from pairmill.ops.release.recipe import Recipe
from pairmill.ops.release.recipe_checks import file_of

MANIFEST = "manifest.json"
AT_ONCE = 256  # texts; padded to the longest of them
Progress = Callable[[int, int], None]
IDS, TEXTS = ("SAMPLE_ID", "sample_id"), ("TEXT", "text", "caption")


class Classifier(Protocol):
    """labels: names; digest: sha256 of the weights; probabilities: float32[texts, labels]."""

    labels: list[str]
    digest: str

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


def score(
    parts: Sequence[Path],
    classifier: Classifier,
    out: Path,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write a file of scores for each Parquet file of texts, and the manifest last.

    A file has SAMPLE_ID int64, in the order of the texts, and a float32 column a label. A file that
    is there already, of the same texts by the same weights, is kept: so a run that was cut off goes
    on. Returns the manifest: labels, weights (their digest), and each file's name, rows and sha256.
    """
    out.mkdir(parents=True, exist_ok=True)
    total, done = sum(pq.read_metadata(part).num_rows for part in parts), 0
    entries = []
    for part in parts:
        path, rows = out / part.name, pq.read_metadata(part).num_rows
        texts = sha256(part)  # parts of other releases have these names, and as many rows
        if not _is_scored(path, classifier, rows, texts):
            half = path.with_suffix(".unfinished")
            _score_file(part, classifier, half, texts, _from(progress, done, total))
            half.replace(path)
        done += rows
        progress(done, total)
        entries.append({"name": path.name, "rows": rows, "sha256": sha256(path)})
    manifest = {"labels": classifier.labels, "weights": classifier.digest, "files": entries}
    half = out / f".{MANIFEST}.unfinished"
    half.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    half.replace(out / MANIFEST)
    return manifest


def _from(progress: Progress, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)


def _is_scored(path: Path, classifier: Classifier, rows: int, texts: str) -> bool:
    if not path.is_file():
        return False
    try:
        found = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    by, of = ((found.metadata or {}).get(key, b"").decode() for key in (b"weights", b"texts"))
    return bool(by == classifier.digest and of == texts and found.num_rows == rows)


def _score_file(
    part: Path,
    classifier: Classifier,
    out: Path,
    texts_sha256: str,
    progress: Callable[[int], None],
) -> None:
    columns = [("SAMPLE_ID", pa.int64()), *((name, pa.float32()) for name in classifier.labels)]
    schema = pa.schema(columns, {"weights": classifier.digest, "texts": texts_sha256})
    done = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for ids, texts in _texts(part):
            found = [
                classifier.probabilities(texts[i : i + AT_ONCE])
                for i in range(0, len(texts), AT_ONCE)
            ]
            values = np.concatenate(found) if found else np.empty((0, len(classifier.labels)))
            if not np.isfinite(values).all():
                raise UserError(f"the classifier gives numbers for {part} that are none: {out}")
            arrays = [ids, *(pa.array(values[:, i], pa.float32()) for i in range(values.shape[1]))]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
            done += len(texts)
            progress(done)


def _texts(part: Path) -> Iterator[tuple[pa.Array, list[str]]]:
    with pq.ParquetFile(part) as file:
        names = file.schema_arrow.names
        chosen = [next((n for n in known if n in names), None) for known in (IDS, TEXTS)]
        if None in chosen:
            raise UserError(f"{part} has no column {IDS[0]} with a column {TEXTS[0]}")
        for batch in file.iter_batches(AT_ONCE * 16, columns=chosen):
            yield batch[chosen[0]].cast(pa.int64()), pc.fill_null(batch[chosen[1]], "").to_pylist()


class TextBound:
    """An annotator: whether a text is above one of the recipe's bounds; null without scores."""

    column = "text_unsafe"
    kind = pa.bool_()
    needs: tuple[str, ...] = ("sample_id",)

    def __init__(self, manifest: Path, bounds: dict[str, float]) -> None:
        """Raises UserError for a manifest that is none, lacks a label, or names other files."""
        try:
            found = json.loads(manifest.read_text("utf-8"))
            labels, files = (
                list(found["labels"]),
                [(f["name"], f["sha256"]) for f in found["files"]],
            )
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{manifest} is no manifest of `pairmill text-safety score`") from None
        if unknown := sorted(set(bounds) - set(labels)):
            known = ", ".join(labels)
            raise UserError(f"the scores of {manifest} have no {unknown[0]!r}: they have {known}")
        for name, digest in files:
            path = manifest.parent / name
            if not path.is_file() or sha256(path) != digest:
                raise UserError(f"{path} is not the file that its manifest names")
        self._bounds = bounds
        self._scores = pd.dataset([manifest.parent / name for name, _ in files])

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        ids = rows["sample_id"].to_numpy()
        if not len(ids):
            return pa.array([], self.kind)
        field = pd.field("SAMPLE_ID")
        near = self._scores.to_table(
            ["SAMPLE_ID", *self._bounds],
            filter=(field >= int(ids.min())) & (field <= int(ids.max())),
        )
        known, above = near["SAMPLE_ID"].to_numpy(), np.zeros(len(near), bool)
        for label, bound in self._bounds.items():
            above |= near[label].to_numpy() > np.float32(bound)
        # a sample that is there twice is unsafe where it is unsafe once
        order = np.lexsort((~above, known))
        known, above = known[order], above[order]
        at = np.searchsorted(known, ids)
        there = np.append(known, -1)[at] == ids
        return pa.array(np.append(above, False)[at], self.kind, mask=~there)


def of_recipe(recipe: Recipe) -> TextBound | None:
    if not recipe.text_safety:
        return None
    wanted = recipe.text_safety
    return TextBound(file_of(recipe, "text_safety.scores", wanted.scores), wanted.max)
