"""Scores of texts by a classifier, as Parquet beside a release, and the recipe's bound on them.

A classifier of texts takes some milliseconds a text, a thousand times what a recipe takes: so it
runs over the texts that a first build keeps, and the next build reads its scores.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pd
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import sha256

MANIFEST = "manifest.json"
AT_ONCE = 256  # texts; padded to the longest of them
Progress = Callable[[int, int], None]
IDS, TEXTS = ("SAMPLE_ID", "sample_id"), ("TEXT", "text", "caption")


class Classifier(Protocol):
    """labels: names; digest: sha256 of the weights; probabilities: float32[texts, labels]."""

    labels: list[str]
    digest: str

    def probabilities(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


class TextSafety(msgspec.Struct, frozen=True):
    """A recipe's table ``[text_safety]``. scores: a folder that ``score`` wrote, beside the recipe;
    sha256: of its manifest; max: the highest probability that is kept, by label."""

    scores: str
    sha256: str
    max: dict[str, float]


def score(
    parts: Sequence[Path],
    classifier: Classifier,
    out: Path,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write a file of scores for each Parquet file of texts, and the manifest last.

    A file has SAMPLE_ID int64, in the order of the texts, and a float32 column a label. A file that
    is there already, by the same weights, is kept: so a run that was cut off goes on. Returns the
    manifest: labels, weights (their digest), and name, rows and sha256 of each file.
    """
    out.mkdir(parents=True, exist_ok=True)
    total, done = sum(pq.read_metadata(part).num_rows for part in parts), 0
    entries = []
    for part in parts:
        path, rows = out / part.name, pq.read_metadata(part).num_rows
        if not _is_scored(path, classifier, rows):
            half = path.with_suffix(".unfinished")
            _score_file(part, classifier, half, _from(progress, done, total))
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


def _is_scored(path: Path, classifier: Classifier, rows: int) -> bool:
    if not path.is_file():
        return False
    try:
        found = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    by = (found.metadata or {}).get(b"weights", b"").decode()
    return bool(by == classifier.digest and found.num_rows == rows)


def _score_file(
    part: Path, classifier: Classifier, out: Path, progress: Callable[[int], None]
) -> None:
    columns = [("SAMPLE_ID", pa.int64()), *((name, pa.float32()) for name in classifier.labels)]
    schema = pa.schema(columns, {"weights": classifier.digest})
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
    """An annotator: 1 where a text is above one of the recipe's bounds, else 0; null: no scores."""

    column = "text_unsafe"
    kind = pa.int16()
    needs = ("sample_id",)

    def __init__(self, wanted: TextSafety, beside: Path) -> None:
        """beside: the folder of the recipe. Raises UserError for scores that are not those."""
        folder = beside / wanted.scores
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise UserError(
                f"there are no text scores {folder}: `pairmill text-safety score` makes them"
            )
        if sha256(manifest) != wanted.sha256:
            raise UserError(f"{manifest} is not the one that the recipe's text_safety.sha256 names")
        found = json.loads(manifest.read_text("utf-8"))
        if unknown := sorted(set(wanted.max) - set(found["labels"])):
            known = ", ".join(found["labels"])
            raise UserError(f"the text scores {folder} have no {unknown[0]!r}: they have {known}")
        for entry in found["files"]:
            if not (folder / entry["name"]).is_file() or (
                sha256(folder / entry["name"]) != entry["sha256"]
            ):
                raise UserError(f"{folder / entry['name']} is not the file that its manifest names")
        self._max = wanted.max
        self._scores = pd.dataset([folder / entry["name"] for entry in found["files"]])

    def annotate(self, rows: pa.RecordBatch) -> pa.Array:
        ids = rows["sample_id"].to_numpy()
        unsafe = np.full(len(ids), -1, np.int16)
        if len(ids):
            field = pd.field("SAMPLE_ID")
            near = self._scores.to_table(
                ["SAMPLE_ID", *self._max],
                filter=(field >= int(ids.min())) & (field <= int(ids.max())),
            )
            known = near["SAMPLE_ID"].to_numpy()
            above = np.zeros(len(known), bool)
            for label, bound in self._max.items():
                above |= near[label].to_numpy() > np.float32(bound)
            # a pair of two releases is there twice: unsafe once is unsafe
            order = np.lexsort((~above, known))
            known, above = known[order], above[order]
            at = np.searchsorted(known, ids)
            hit = (
                (at < len(known)) & (known[np.minimum(at, len(known) - 1)] == ids)
                if len(known)
                else np.zeros(len(ids), bool)
            )
            unsafe[hit] = above[at[hit]]
        return pa.array(unsafe, self.kind, mask=unsafe < 0)
