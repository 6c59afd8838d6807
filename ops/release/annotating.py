"""Annotators' columns of a file of candidates, batch by batch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pd
import pyarrow.parquet as pq

from pairmill.ops.archive.facts import file_system
from pairmill.ops.errors import UserError
from pairmill.ops.release.annotators import Annotator
from pairmill.ops.release.candidates import Candidates

ROWS = 10_000  # at once: with embeddings of 768 float16, 15 MB
IMAGE = "image"


def annotate(
    survivors: Sequence[str], annotators: Sequence[Annotator], candidates: Candidates, out: Path
) -> None:
    """Write sample_id and each annotator's column of the rows of ``survivors``, in their order."""
    schema = pa.schema(
        [("sample_id", pa.int64()), *((each.column, each.kind) for each in annotators)]
    )
    needs = sorted({need for each in annotators for need in each.needs} - {IMAGE, "sample_id"})
    images = any(IMAGE in each.needs for each in annotators)
    embeddings = _embeddings(candidates) if images else None
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for path in survivors:
            with pq.ParquetFile(path) as file:
                for rows in file.iter_batches(ROWS, columns=["sample_id", *needs]):
                    if images:
                        rows = rows.append_column(IMAGE, images_of(rows["sample_id"], embeddings))
                    made = [_made(each, rows) for each in annotators]
                    arrays = [rows["sample_id"], *made]
                    writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))


def _made(annotator: Annotator, rows: pa.RecordBatch) -> pa.Array:
    made = annotator.annotate(rows)
    if len(made) != len(rows):
        raise UserError(f"{annotator.column}: {len(made)} values for {len(rows)} rows")
    return made


def _embeddings(candidates: Candidates) -> pd.Dataset | None:
    """The embeddings by the recipe's model, or None where there are none."""
    model, facts = candidates.selection.model, candidates.facts
    if model is None:
        raise UserError(f"recipe {candidates.selection.recipe.name}: clusters need a model")
    if not facts.has("embedding", model["model_id"]):
        return None
    path = facts.path("embedding", model["model_id"])
    if "://" in path:
        return pd.dataset(path.partition("://")[2], filesystem=file_system(path))
    return pd.dataset(path)


def images_of(samples: pa.Array, embeddings: pd.Dataset | None) -> pa.Array:
    """The embeddings of images by sample, in order of SAMPLE_ID; null where there is none."""
    if embeddings is None or not len(samples):
        return pa.nulls(len(samples), pa.list_(pa.float16(), 1))
    ids, at = samples.to_numpy(), pd.field("sample_id")
    found = embeddings.to_table(
        ["sample_id", IMAGE],
        filter=pd.field("counts") & (at >= int(ids[0])) & (at <= int(ids[-1])),
    )
    known = found["sample_id"].to_numpy()
    place = np.minimum(np.searchsorted(known, ids), max(len(known) - 1, 0))
    missing = known[place] != ids if len(known) else np.ones(len(ids), bool)
    return found[IMAGE].combine_chunks().take(pa.array(place, mask=missing))
