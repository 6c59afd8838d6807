"""Pairs of 64-bit hashes within a Hamming distance, all of them, by sort-and-join.

Of ``2 r`` blocks of bits at least ``r`` are equal in two hashes that differ in ``r`` bits: each
choice of ``r`` blocks is a key, and hashes with an equal key are compared. r = 3: 6 blocks, 20 keys
of about 32 bits; r = 4: 70 keys. With four bands of 16 bits, of which one has to be equal, each of
10^9 hashes would have 61,000 candidates. A pair is found by the first of its keys alone, so that
nothing has to be made distinct.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import duckdb

from pairmill.ops.dedupe import tables

BITS = 64
MAX_RADIUS = 4  # 70 keys; 5 would be 252
# A key that so many hashes share is split by its other bits: m hashes are m²/2 comparisons. Such
# keys are looked for in one hash of 32: to count all costs as much as the join, and one that is
# overlooked costs time alone
HOT = 512
SAMPLE = 32


@dataclass(frozen=True)
class Key:
    """mask: bits that are equal. earlier: blocks that must differ, so that no key before this one
    finds the pair."""

    mask: int
    earlier: tuple[int, ...]

    def condition(self, a: str, b: str) -> str:
        """Of DuckDB: the pair is within this key, and in no earlier one."""
        x = f"xor({a}, {b})"
        return " AND ".join(f"{x} & {signed(block)} <> 0" for block in self.earlier) or "true"


def signed(bits: int) -> str:
    """An int64 literal of 64 bits."""
    value = bits - (1 << BITS) if bits >> (BITS - 1) else bits
    return "(-9223372036854775807 - 1)" if value == -(1 << 63) else f"({value})"


def blocks(mask: int, count: int) -> list[int]:
    """The bits of a mask in so many runs, as even as can be."""
    bits = [1 << n for n in range(BITS) if mask >> n & 1]
    edges = [len(bits) * n // count for n in range(count + 1)]
    return [sum(bits[low:high]) for low, high in pairwise(edges)]


def keys(radius: int, mask: int = (1 << BITS) - 1) -> Iterator[Key]:
    """The keys by which hashes that differ within ``mask`` in 0 to ``radius`` bits have an equal
    one."""
    if radius == 0:
        yield Key(mask, ())
        return
    parts = blocks(mask, 2 * radius)
    for chosen in combinations(range(2 * radius), radius):
        earlier = tuple(parts[n] for n in range(chosen[-1]) if n not in chosen)
        yield Key(sum(parts[n] for n in chosen), earlier)


def low_entropy(column: str, bits: int) -> str:
    """Of DuckDB: the hash is of an image without contrast. Flat images have hashes of few ones, or
    of few zeros where they brighten to the right: near one another, and of no meaning."""
    return f"(bit_count({column}) < {bits} OR bit_count({column}) > {BITS - bits})"


def near_pairs(
    db: duckdb.DuckDBPyConnection,
    hashes: str,
    radius: int,
    pairs: str,
    *,
    others: str | None = None,
    hot: int = HOT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Fill the table ``pairs`` (a BIGINT, b BIGINT) with the pairs of distinct hashes that differ
    in 1 to ``radius`` bits, each once, a < b.

    hashes: a table with a column dhash of distinct BIGINTs. others: another such table; the pairs
    are then of one of each, a of ``hashes``, and of 0 bits too. Nothing is missed, and nothing is
    kept in memory but what DuckDB keeps: its joins spill.
    """
    if not 0 <= radius <= MAX_RADIUS:
        raise ValueError(f"a radius of {radius}: 0 to {MAX_RADIUS} bits are compared")
    db.execute(f"CREATE OR REPLACE TABLE {pairs} (a BIGINT, b BIGINT)")
    if others is None and radius == 0:
        return
    every = list(keys(radius))
    db.execute(
        f"CREATE OR REPLACE TABLE {pairs}_sample AS"
        f" SELECT dhash FROM {hashes} WHERE hash(dhash) % {SAMPLE} = 0"
    )
    for number, key in enumerate(every):
        _by_key(db, hashes, others, radius, pairs, key, hot)
        progress(number + 1, len(every))
    db.execute(f"DROP TABLE {pairs}_sample")


def _by_key(
    db: duckdb.DuckDBPyConnection,
    hashes: str,
    others: str | None,
    radius: int,
    pairs: str,
    key: Key,
    hot: int,
) -> None:
    mask = signed(key.mask)
    shared = f"{pairs}_hot"
    db.execute(
        f"CREATE OR REPLACE TABLE {shared} AS SELECT dhash & {mask} AS key FROM {pairs}_sample"
        f" GROUP BY key HAVING count(*) > {hot // SAMPLE}"
    )
    some = tables.count(db, shared) > 0
    apart = f"AND a.dhash & {mask} NOT IN (FROM {shared})" if some else ""
    db.execute(
        f"INSERT INTO {pairs} {_join(hashes, others or hashes, mask)} {apart}"
        f" AND {_near(radius, others is None)} AND {key.condition('a.dhash', 'b.dhash')}"
    )
    if some:
        db.execute(
            f"CREATE OR REPLACE TABLE {shared} AS SELECT dhash FROM {hashes}"
            f" WHERE dhash & {mask} IN (FROM {shared})"
        )
        for inner in keys(radius, (1 << BITS) - 1 & ~key.mask):
            both = signed(key.mask | inner.mask)
            db.execute(
                f"INSERT INTO {pairs} {_join(shared, others or shared, both)}"
                f" AND {_near(radius, others is None)}"
                f" AND {key.condition('a.dhash', 'b.dhash')}"
                f" AND {inner.condition('a.dhash', 'b.dhash')}"
            )
    db.execute(f"DROP TABLE {shared}")


def _join(hashes: str, others: str, mask: str) -> str:
    return (
        f"SELECT a.dhash, b.dhash FROM {hashes} a JOIN {others} b"
        f" ON a.dhash & {mask} = b.dhash & {mask} WHERE true"
    )


def _near(radius: int, same: bool) -> str:
    near = f"bit_count(xor(a.dhash, b.dhash)) <= {radius}"
    return f"{near} AND a.dhash < b.dhash" if same else near
