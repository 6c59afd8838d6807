"""Near-duplicate images: dHash within a radius, confirmed by the cosine of the embeddings; what is
near a removed image goes by dHash alone."""

from collections.abc import Callable, Sequence
from pathlib import Path

import duckdb
import numpy as np

from pairmill.ops.archive.facts import Facts
from pairmill.ops.dedupe import components, confirm, tables
from pairmill.ops.dedupe.exact import equal
from pairmill.ops.dedupe.near_hashes import low_entropy, near_pairs
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.dedupe.vectors import Vectors, extracted

Progress = Callable[[int, int], None]
# Rounds in which rows of one hash are compared with their first row, all hashes at once. Images of
# one hash are of one to three kinds, nearly always; groups with more are finished one by one
ROUNDS = 6


def near(
    db: duckdb.DuckDBPyConnection,
    rows: str,
    spec: Dedupe,
    facts: Sequence[Facts],
    model_id: int | None,
    work: Path,
    found: str,
    progress: Progress,
) -> None:
    """Make the table ``found`` (sample_id, of): rows that go by dHash. rows: as ``make_rows``."""
    has_meaning = f"NOT {low_entropy('dhash', spec.low_entropy)}"
    if spec.min_cosine == 0 or model_id is None:
        _by_hash_alone(db, rows, spec.dhash_radius, has_meaning, found, progress)
        return
    db.execute(
        f"CREATE OR REPLACE TABLE {found}_hash AS SELECT dhash, count(*) AS rows FROM {rows}"
        f" WHERE {has_meaning} GROUP BY dhash"
    )
    near_pairs(db, f"{found}_hash", spec.dhash_radius, f"{found}_near", progress=progress)
    # only rows that share a hash, or have a near one, are compared
    db.execute(
        f"CREATE OR REPLACE TABLE {found}_row AS SELECT sample_id, rank, dhash FROM {rows}"
        f" WHERE dhash IN (SELECT dhash FROM {found}_hash WHERE rows > 1"
        f" UNION SELECT a FROM {found}_near UNION SELECT b FROM {found}_near)"
    )
    _taken_along(db, f"{found}_row", f"{found}_near", f"{found}_taken")
    wanted = db.execute(f"SELECT sample_id FROM {found}_row ORDER BY sample_id").fetchnumpy()
    file = work / "dedupe-vectors.f16"
    try:
        vectors = extracted(facts, model_id, np.asarray(wanted["sample_id"], np.int64), file)
        _equal_hashes(db, f"{found}_row", vectors, spec.min_cosine, f"{found}_same")
        db.execute(
            f"DELETE FROM {found}_row WHERE sample_id IN (SELECT sample_id FROM {found}_same)"
        )
        db.execute(
            f"CREATE OR REPLACE TABLE {found}_pair AS SELECT x.sample_id AS a, y.sample_id AS b"
            f" FROM {found}_near p JOIN {found}_row x ON x.dhash = p.a"
            f" JOIN {found}_row y ON y.dhash = p.b"
        )
        confirm.confirmed(db, f"{found}_pair", vectors, spec.min_cosine, f"{found}_sure", progress)
    finally:
        file.unlink(missing_ok=True)
    components.group(db, f"{found}_sure", f"{found}_row", found)
    merge(db, f"{found}_same", found)
    db.execute(f"INSERT INTO {found} FROM {found}_taken")
    tables.drop(db, found, "hash", "near", "row", "same", "pair", "sure", "taken")


def _taken_along(db: duckdb.DuckDBPyConnection, rows: str, near: str, taken: str) -> None:
    """Move the rows that go with removed ones out of ``rows`` into ``taken`` (sample_id, of), and
    drop the removed ones. By hash alone: a removal deletes the embedding, so that a cosine would
    let everything near a removed image stay, or only what is near one still in the archive."""
    db.execute(
        f"CREATE OR REPLACE TABLE {taken} AS"
        f" WITH lost AS (SELECT dhash, min(rank) AS rank FROM {rows}"
        f" WHERE rank < {components.KEPT} GROUP BY dhash),"
        " reached AS (SELECT dhash, min(rank) AS rank FROM (FROM lost"
        f" UNION ALL SELECT p.b, l.rank FROM {near} p JOIN lost l ON l.dhash = p.a"
        f" UNION ALL SELECT p.a, l.rank FROM {near} p JOIN lost l ON l.dhash = p.b"
        ") GROUP BY dhash)"
        " SELECT r.sample_id, (l.rank % 9223372036854775808)::BIGINT AS of"
        f" FROM {rows} r JOIN reached l USING (dhash) WHERE r.rank >= {components.KEPT}"
    )
    db.execute(
        f"DELETE FROM {rows} WHERE rank < {components.KEPT}"
        f" OR sample_id IN (SELECT sample_id FROM {taken})"
    )


def _by_hash_alone(
    db: duckdb.DuckDBPyConnection,
    rows: str,
    radius: int,
    has_meaning: str,
    found: str,
    progress: Progress,
) -> None:
    equal(db, rows, "dhash", f"{found}_same", [has_meaning])
    db.execute(
        f"CREATE OR REPLACE TABLE {found}_row AS SELECT sample_id, rank, dhash FROM {rows}"
        f" WHERE {has_meaning} AND sample_id NOT IN (SELECT sample_id FROM {found}_same)"
    )
    near_pairs(db, f"{found}_row", radius, f"{found}_near", progress=progress)
    db.execute(
        f"CREATE OR REPLACE TABLE {found}_pair AS SELECT x.sample_id AS a, y.sample_id AS b"
        f" FROM {found}_near p JOIN {found}_row x ON x.dhash = p.a"
        f" JOIN {found}_row y ON y.dhash = p.b"
    )
    components.group(db, f"{found}_pair", f"{found}_row", found)
    merge(db, f"{found}_same", found)
    tables.drop(db, found, "same", "row", "near", "pair")


def merge(db: duckdb.DuckDBPyConnection, earlier: str, found: str) -> None:
    """Add to ``found`` the rows of an earlier step, whose representatives may have gone since."""
    db.execute(
        f"INSERT INTO {found} SELECT e.sample_id, coalesce(f.of, e.of)"
        f" FROM {earlier} e LEFT JOIN {found} f ON f.sample_id = e.of"
    )


def _equal_hashes(
    db: duckdb.DuckDBPyConnection, rows: str, vectors: Vectors, min_cosine: float, found: str
) -> None:
    """Make ``found`` (sample_id, of) of rows that have the hash of an earlier one and are near it
    by cosine."""
    open_rows = f"{found}_open"
    db.execute(f"CREATE OR REPLACE TABLE {found} (sample_id BIGINT, of BIGINT)")
    db.execute(f"CREATE OR REPLACE TABLE {open_rows} AS FROM {rows}")
    for _ in range(ROUNDS):
        equal(db, open_rows, "dhash", f"{found}_first")
        db.execute(
            f"CREATE OR REPLACE TABLE {found}_pair AS SELECT of AS a, sample_id AS b"
            f" FROM {found}_first"
        )
        confirm.confirmed(db, f"{found}_pair", vectors, min_cosine, f"{found}_sure")
        # a removed row stays, to take along what is near it alone
        db.execute(
            f"DELETE FROM {found}_sure WHERE b IN"
            f" (SELECT sample_id FROM {rows} WHERE rank < {components.KEPT})"
        )
        db.execute(f"INSERT INTO {found} SELECT b, a FROM {found}_sure")
        # what was compared in vain is compared again, with the next
        db.execute(
            f"CREATE OR REPLACE TABLE {open_rows} AS FROM {open_rows} WHERE sample_id IN"
            f" (SELECT b FROM {found}_pair EXCEPT SELECT b FROM {found}_sure)"
        )
    query = (
        f"SELECT dhash, sample_id, rank < {components.KEPT} FROM {open_rows} WHERE dhash IN"
        f" (SELECT dhash FROM {open_rows} GROUP BY dhash HAVING count(*) > 1) ORDER BY dhash, rank"
    )
    for ids, removed in tables.groups(db, query):
        at, there = vectors.of(ids)
        ids, at = ids[there], at[there]
        of = confirm.near_first(vectors.values[at], min_cosine, int(removed[there].sum()))
        goes = of != np.arange(len(of))
        if goes.any():
            tables.insert(db, found, {"sample_id": ids[goes], "of": ids[of[goes]]})
    tables.drop(db, found, "open", "first", "pair", "sure")
