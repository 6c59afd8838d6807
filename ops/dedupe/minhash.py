"""Near texts: MinHash over character 4-grams, bands, then the Jaccard similarity itself.

Captions average 67 characters and often have under five words, so that word n-grams would leave
nothing to compare. Broder, "On the resemblance and containment of documents" (1997); bands as in
Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4.
"""

from collections.abc import Callable

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pairmill.ops.dedupe import components, tables
from pairmill.ops.dedupe.texts import bands_of, register
from pairmill.ops.errors import extra

GRAM = 4
ONE = np.uint64(1)
SEED = 1
ROWS = 65_536  # texts at a time: about 100 MB of 4-grams and signatures
# A bucket of more rows is compared with its first alone: a template of 10^5 texts would be 5·10^9
# pairs, and has ten buckets to find its first in
SMALL = 16
Words = npt.NDArray[np.uint64]
Progress = Callable[[int, int], None]


def near_texts(
    db: duckdb.DuckDBPyConnection,
    pool: str,
    rows: str,
    min_jaccard: float,
    found: str,
    progress: Progress = lambda done, total: None,
) -> None:
    """Make the table ``found`` (sample_id, of) of the rows whose text is near that of one that
    stays. rows: as ``make_rows``; those with a key_text are compared. pool: has their texts."""
    register(db)
    db.execute(
        f"CREATE OR REPLACE TABLE {found}_text AS SELECT r.sample_id, r.rank,"
        f" folded_text(p.text) AS text FROM {rows} r JOIN {pool} p USING (sample_id)"
        " WHERE r.key_text IS NOT NULL"
    )
    bands, width = bands_of(min_jaccard)
    _signed(db, f"{found}_text", bands, width, f"{found}_band", progress)
    _proposed(db, f"{found}_band", bands, f"{found}_pair")
    _compared(db, f"{found}_pair", f"{found}_text", min_jaccard, f"{found}_sure")
    components.group(db, f"{found}_sure", rows, found)
    tables.drop(db, found, "text", "band", "pair", "sure")


def _signed(
    db: duckdb.DuckDBPyConnection, texts: str, bands: int, width: int, into: str, progress: Progress
) -> None:
    """A row a text: its sample_id, rank, and a key a band (band_0 …)."""
    names = [f"band_{n}" for n in range(bands)]
    db.execute(
        f"CREATE OR REPLACE TABLE {into} (sample_id BIGINT, rank HUGEINT,"
        f" {', '.join(f'{name} UBIGINT' for name in names)})"
    )
    total = tables.count(db, texts)
    done = 0
    query = f"SELECT sample_id, text FROM {texts} ORDER BY sample_id"
    db.execute(f"CREATE OR REPLACE TABLE {into}_key AS SELECT * EXCLUDE (rank) FROM {into}")
    for batch in tables.read(db, query, ROWS):
        keys = band_keys(signatures(batch.column(1), bands * width), bands)
        columns = {name: keys[:, n] for n, name in enumerate(names)}
        tables.insert(db, f"{into}_key", {"sample_id": batch.column(0).to_numpy(), **columns})
        done += batch.num_rows
        progress(done, total)
    db.execute(
        f"INSERT INTO {into} SELECT k.sample_id, t.rank, {', '.join(names)}"
        f" FROM {into}_key k JOIN {texts} t USING (sample_id)"
    )
    db.execute(f"DROP TABLE {into}_key")


def _proposed(db: duckdb.DuckDBPyConnection, keys: str, bands: int, into: str) -> None:
    """Pairs that share a band: of a small bucket all, of a larger one those with its first."""
    db.execute(f"CREATE OR REPLACE TABLE {into}_all (a BIGINT, b BIGINT)")
    for band in range(bands):
        db.execute(
            f"CREATE OR REPLACE TABLE {into}_bucket AS SELECT band_{band} AS key,"
            " arg_min(sample_id, rank) AS first, count(*) AS rows"
            f" FROM {keys} GROUP BY key HAVING count(*) > 1"
        )
        db.execute(
            f"INSERT INTO {into}_all SELECT first, sample_id FROM {keys} k"
            f" JOIN {into}_bucket g ON g.key = k.band_{band} WHERE first <> sample_id"
        )
        db.execute(
            f"INSERT INTO {into}_all SELECT x.sample_id, y.sample_id FROM {into}_bucket g"
            f" JOIN {keys} x ON x.band_{band} = g.key JOIN {keys} y ON y.band_{band} = g.key"
            f" WHERE g.rows <= {SMALL} AND x.rank < y.rank AND x.sample_id <> g.first"
        )
    db.execute(f"CREATE OR REPLACE TABLE {into} AS SELECT DISTINCT a, b FROM {into}_all")
    db.execute(f"DROP TABLE {into}_all")
    db.execute(f"DROP TABLE {into}_bucket")


def _compared(
    db: duckdb.DuckDBPyConnection, pairs: str, texts: str, min_jaccard: float, into: str
) -> None:
    db.execute(f"CREATE OR REPLACE TABLE {into} (a BIGINT, b BIGINT)")
    query = (
        f"SELECT a, b, x.text, y.text FROM {pairs} p JOIN {texts} x ON x.sample_id = p.a"
        f" JOIN {texts} y ON y.sample_id = p.b"
    )
    for batch in tables.read(db, query, ROWS):
        near = jaccard(batch.column(2), batch.column(3)) >= min_jaccard - 1e-9
        a, b = (batch.column(n).to_numpy()[near] for n in (0, 1))
        tables.insert(db, into, {"a": a, "b": b})


def jaccard(one: pa.Array, other: pa.Array) -> npt.NDArray[np.float64]:
    """float64[n]: of each pair of texts the share of 4-grams that both have."""
    (x, x_ends), (y, y_ends) = grams(one), grams(other)
    pair = [np.repeat(np.arange(len(one)), np.diff(e).astype(np.int64)) for e in (x_ends, y_ends)]
    ids = np.concatenate(pair)
    # one key a gram and pair, the text as its last bit: what both have, is there twice
    words = (np.concatenate([x, y]) + ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) & ~ONE
    order = np.argsort(words | np.repeat(np.array([0, 1], np.uint64), [len(x), len(y)]))
    second = order >= len(x)
    ids, words = ids[order], words[order]
    same = words[1:] == words[:-1]
    fresh = np.concatenate([[True], ~(same & (second[1:] == second[:-1]))])
    both = np.concatenate([[False], same & (second[1:] & ~second[:-1])])
    each = np.bincount(ids[fresh], minlength=len(one))
    shared = np.bincount(ids[both], minlength=len(one))
    return np.asarray(shared / (each - shared), np.float64)


def grams(texts: pa.Array) -> tuple[Words, Words]:
    """Hashes of the character 4-grams of texts, one after the other (uint64[m]), and where each
    text ends among them (uint64[n + 1], from 0). A text of under four characters is one gram."""
    strings = [text or "\0" for text in texts.to_pylist()]
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    padded = np.maximum(lengths, GRAM)  # a shorter one is filled up with zeros
    ends = np.concatenate([[0], np.cumsum(padded)])
    points = np.zeros(int(ends[-1]) + GRAM - 1, np.uint64)
    flat = np.frombuffer("".join(strings).encode("utf-32-le", "surrogatepass"), "<u4")
    shift = np.repeat(ends[:-1] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    points[shift + np.arange(len(flat))] = flat
    hashed = points[: 1 - GRAM].copy()
    for n in range(1, GRAM):  # 21 bits a character, mixed by the constants of splitmix64
        hashed *= np.uint64(0x9E3779B97F4A7C15)
        hashed ^= points[n : len(hashed) + n]
    hashed ^= hashed >> np.uint64(30)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    hashed ^= hashed >> np.uint64(27)
    hashed *= np.uint64(0x94D049BB133111EB)
    hashed ^= hashed >> np.uint64(31)
    inside = np.ones(len(hashed), np.bool_)
    for n in range(1, GRAM):  # grams that begin in a text and end in the next
        inside[ends[1:] - n] = False
    counts = np.concatenate([[0], np.cumsum(padded - GRAM + 1)])
    return hashed[inside], counts.astype(np.uint64)


def signatures(texts: pa.Array, permutations: int) -> npt.NDArray[np.uint32]:
    """MinHash signatures by rensa: uint32[n, permutations]."""
    with extra("ops"):
        from rensa import RMinHash
    flat, offsets = grams(texts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, permutations, SEED)
    return np.asarray(matrix.to_rows(), np.uint32).reshape(len(texts), permutations)


def band_keys(signed: npt.NDArray[np.uint32], bands: int) -> Words:
    """uint64[n, bands]: a key a band. Keys of two bands are never compared."""
    parts = signed.reshape(len(signed), bands, -1).astype(np.uint64)
    keys = np.zeros(parts.shape[:2], np.uint64)
    for n in range(parts.shape[2]):
        keys = (keys ^ parts[:, :, n]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys
