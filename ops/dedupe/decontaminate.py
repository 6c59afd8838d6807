"""Decontamination: rows near an image of an evaluation set, which no training set may hold.

An evaluation set is a Parquet file of ``write_set`` (name, dhash, and image, the embedding, where a
model made one), or a folder of images, whose dHashes are then computed here.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.archive.facts import Facts
from pairmill.ops.dedupe import confirm, tables
from pairmill.ops.dedupe.near_hashes import low_entropy, near_pairs
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.dedupe.vectors import stored
from pairmill.ops.errors import UserError
from pairmill.schema.outcomes import Outcome

Progress = Callable[[int, int], None]
ROWS = 256  # images at a time
KEY = b"pairmill.evaluation"


def images(folder: Path) -> Iterator[tuple[str, int, bytes]]:
    """Name, dHash and thumbnail of the images of a folder and those below it, in order of name.
    Raises UserError for a folder without images, and for an image that cannot be decoded."""
    from pairmill.workers.download.decode import decode

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    some = False
    for path in files:
        decoded = decode(path.read_bytes())
        if decoded.outcome == Outcome.NOT_AN_IMAGE:  # labels, licences
            continue
        name = str(path.relative_to(folder))
        if decoded.outcome != Outcome.SUCCESS:
            raise UserError(
                f"{path} cannot be compared ({decoded.outcome.name.lower()}): mend it, or move it"
                " out of the evaluation set"
            )
        some = True
        yield name, decoded.dhash, decoded.thumbnail
    if not some:
        raise UserError(f"{folder} has no images: name a folder of an evaluation set's images")


def write_set(folder: Path, out: Path, model: Any | None = None) -> int:
    """Write the set of a folder of images, and return their number. model: a loaded
    ``workers.score.model.Model``, for embeddings; without one there are dHashes alone."""
    rows = list(images(folder))
    columns: dict[str, Any] = {
        "name": [name for name, _, _ in rows],
        "dhash": pa.array([dhash for _, dhash, _ in rows], pa.int64()),
    }
    about = {"name": folder.resolve().name, "images": len(rows)}
    if model is not None:
        about["model"] = model.digest
        vectors = np.concatenate(
            [
                model.score(
                    [image for _, _, image in rows[n : n + ROWS]], ["image"] * len(some)
                ).image_embedding
                for n in range(0, len(rows), ROWS)
                if (some := rows[n : n + ROWS])
            ]
        )
        field = pa.field("item", pa.float16(), nullable=False)
        columns["image"] = pa.FixedSizeListArray.from_arrays(
            pa.array(vectors.ravel()), type=pa.list_(field, vectors.shape[1])
        )
    table = pa.table(columns).replace_schema_metadata({KEY: json.dumps(about)})
    pq.write_table(table, out, compression="zstd")
    return len(rows)


def read_set(given: str) -> tuple[str, pa.Table]:
    """The name of an evaluation set and its table. Raises UserError, which names it."""
    path = Path(given)
    if path.is_dir():
        rows = [(name, dhash) for name, dhash, _ in images(path)]
        names, hashes = zip(*rows, strict=True)
        table = pa.table({"name": list(names), "dhash": pa.array(hashes, pa.int64())})
        return path.resolve().name, table
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[KEY])
    except FileNotFoundError:
        raise UserError(f"there is no evaluation set {given}: a folder or a file") from None
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):
        raise UserError(
            f"{given} is no evaluation set: pairmill dedupe evaluation makes one of a folder"
        ) from None
    return str(about["name"]), table


def digest(given: str) -> str:
    """sha256 of what a set is compared by, for the manifest."""
    _, table = read_set(given)
    hashed = hashlib.sha256()
    for name in ("name", "dhash", *(["image"] if "image" in table.column_names else [])):
        hashed.update(repr(table[name].to_pylist()).encode())
    return hashed.hexdigest()


def near(
    db: duckdb.DuckDBPyConnection,
    rows: str,
    spec: Dedupe,
    facts: Sequence[Facts],
    model_id: int | None,
    found: str,
    progress: Progress = lambda done, total: None,
) -> None:
    """Make the table ``found`` (sample_id, evaluation, image): rows near an image of a set, and
    that image; of several the first by name."""
    db.execute(
        f"CREATE OR REPLACE TABLE {found} (sample_id BIGINT, evaluation VARCHAR, image VARCHAR)"
    )
    for number, given in enumerate(spec.decontaminate):
        name, table = read_set(given)
        db.register("dedupe_evaluation", table.select(["name", "dhash"]))
        db.execute(
            f"CREATE OR REPLACE TABLE {found}_set AS SELECT '{_quoted(name)}' AS evaluation,"
            " name AS image, dhash FROM dedupe_evaluation"
        )
        db.unregister("dedupe_evaluation")
        if spec.decontaminate_radius >= 0:
            _by_dhash(db, rows, spec, found)
        if spec.decontaminate_cosine > 0 and "image" in table.column_names and model_id is not None:
            _by_cosine(db, table, name, spec.decontaminate_cosine, facts, model_id, found)
        progress(number + 1, len(spec.decontaminate))
        db.execute(f"DROP TABLE {found}_set")
    db.execute(
        f"CREATE OR REPLACE TABLE {found} AS SELECT sample_id, unnest(arg_min("
        "{'evaluation': evaluation, 'image': image}, (evaluation, image)))"
        f" FROM {found} JOIN {rows} USING (sample_id) GROUP BY sample_id"
    )


def _by_dhash(db: duckdb.DuckDBPyConnection, rows: str, spec: Dedupe, found: str) -> None:
    for name, source in (("own", rows), ("other", f"{found}_set")):
        db.execute(
            f"CREATE OR REPLACE TABLE {found}_{name} AS SELECT DISTINCT dhash FROM {source}"
            f" WHERE NOT {low_entropy('dhash', spec.low_entropy)}"
        )
    near_pairs(
        db, f"{found}_own", spec.decontaminate_radius, f"{found}_pair", others=f"{found}_other"
    )
    db.execute(
        f"INSERT INTO {found} SELECT r.sample_id, s.evaluation, s.image FROM {found}_pair p"
        f" JOIN {rows} r ON r.dhash = p.a JOIN {found}_set s ON s.dhash = p.b"
    )
    tables.drop(db, found, "own", "other", "pair")


def _by_cosine(
    db: duckdb.DuckDBPyConnection,
    table: pa.Table,
    name: str,
    min_cosine: float,
    facts: Sequence[Facts],
    model_id: int,
    found: str,
) -> None:
    """Every row's embedding with every image's: rows x images x dims multiplications."""
    image = table["image"].combine_chunks()
    dims = image.type.list_size
    wanted = confirm.unit(image.values.to_numpy(zero_copy_only=False).reshape(-1, dims))
    names = table["name"].to_pylist()
    for ids, values in stored(facts, model_id):
        if values.shape[1] != dims:
            raise UserError(
                f"evaluation set {name} has embeddings of {dims} dims, and the recipe's model of"
                f" {values.shape[1]}: make the set again with that model"
            )
        product = confirm.unit(values) @ wanted.T
        best = product.argmax(axis=1)
        near_rows = np.flatnonzero(product[np.arange(len(ids)), best] >= min_cosine)
        if len(near_rows):
            some = pa.table(
                {
                    "sample_id": ids[near_rows],
                    "evaluation": [name] * len(near_rows),
                    "image": [names[n] for n in best[near_rows]],
                }
            )
            tables.insert(db, found, some)


def _quoted(text: str) -> str:
    return text.replace("'", "''")
