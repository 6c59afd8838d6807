"""The search for near hashes, the choice of who stays, and cosines, against brute force."""

from itertools import combinations
from random import Random

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pairmill.ops.dedupe import components, confirm
from pairmill.ops.dedupe.near_hashes import blocks, keys, near_pairs

ALL = (1 << 64) - 1


def signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def distance(a: int, b: int) -> int:
    return ((a ^ b) & ALL).bit_count()


def near(
    hashes: set[int], radius: int, others: set[int] | None = None, hot: int = 512
) -> list[tuple[int, int]]:
    db = duckdb.connect(config={"threads": 1})
    for name, values in (("hashes", hashes), ("others", others or set())):
        db.register("given", pa.table({"dhash": pa.array(sorted(values), pa.int64())}))
        db.execute(f"CREATE TABLE {name} AS FROM given")
    near_pairs(db, "hashes", radius, "pairs", others="others" if others else None, hot=hot)
    return sorted(db.execute("FROM pairs").fetchall())


@pytest.mark.parametrize(("radius", "number"), [(0, 1), (1, 2), (2, 6), (3, 20), (4, 70)])
def test_some_key_of_any_two_near_hashes_is_equal(radius: int, number: int) -> None:
    """Would catch: blocks that leave a bit out, or too few of them."""
    made = list(keys(radius))
    assert len(made) == number
    parts = blocks(ALL, max(1, 2 * radius))
    assert sum(parts) == ALL
    worst = [sum(some) for some in combinations(parts, radius)]  # a bit in each of r blocks
    assert all(any(not key.mask & flipped for key in made) for flipped in worst)


@pytest.mark.parametrize(("radius", "hot"), [(1, 512), (2, 0), (3, 512)])
def test_every_pair_within_the_radius_is_found_once(radius: int, hot: int) -> None:
    """Would catch: a pair that only one key finds, one found twice, a split of crowded keys that
    loses some, a sign bit."""
    random = Random(radius)
    hashes = set()
    for _ in range(30):  # of few bases and few flips: pairs at all small distances
        base = random.getrandbits(64)
        for _ in range(20):
            flipped = random.sample(range(64), random.randint(0, 5))
            hashes.add(signed(base ^ sum(1 << bit for bit in flipped)))
    wanted = [(a, b) for a, b in combinations(sorted(hashes), 2) if distance(a, b) <= radius]
    assert len(wanted) > 20
    assert near(hashes, radius, hot=hot) == wanted


@pytest.mark.parametrize("flipped", [0, 1 << 63 | 3, 1 << 40 | 1 << 20])
def test_hashes_of_another_set_are_found_equal_ones_too(flipped: int) -> None:
    """Would catch: an evaluation image that is in the pool bit by bit, and is taken for none."""
    mine = {signed(0x8F3A5C7E9B2D4F61), 5}
    other = {signed(0x8F3A5C7E9B2D4F61 ^ flipped)}
    assert near(mine, 3, other) == [(min(mine), *other)]


def test_a_radius_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 4"):
        near({1, 2}, 5)


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def grouped(
    db: duckdb.DuckDBPyConnection, edges: set[tuple[int, int]], removed: set[int], in_memory: int
) -> dict[int, int]:
    pairs = ", ".join(str(pair) for pair in edges)
    ranks = ", ".join(str((n, n + (n not in removed) * components.KEPT)) for n in range(12))
    db.execute(
        f"CREATE OR REPLACE TABLE pairs AS SELECT b AS a, a AS b FROM (VALUES {pairs}) t(a, b)"
    )
    db.execute(f"CREATE OR REPLACE TABLE ranks AS FROM (VALUES {ranks}) t(sample_id, rank)")
    components.group(db, "pairs", "ranks", "found", in_memory=in_memory)
    return dict(db.execute("FROM found").fetchall())


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    edges=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=25),
    removed=st.sets(st.integers(0, 11), max_size=3),
    in_memory=st.sampled_from([0, 1000]),
)
def test_each_that_goes_is_next_to_its_representative(
    db: duckdb.DuckDBPyConnection, edges: set[tuple[int, int]], removed: set[int], in_memory: int
) -> None:
    """Would catch: chains that join what is not near, representatives that went themselves,
    neighbours that both stay, removed rows that go for one another, and an answer by DuckDB's
    rounds that is not the one in memory."""
    next_to = {(a, b) for x, y in edges for a, b in ((x, y), (y, x)) if a != b}
    next_to = {(a, b) for a, b in next_to if not {a, b} <= removed}
    order = sorted(range(12), key=lambda n: (n not in removed, n))
    wanted: dict[int, int] = {}
    for place, n in enumerate(order):
        if first := [m for m in order[:place] if (m, n) in next_to and m not in wanted]:
            wanted[n] = first[0]
    assert grouped(db, edges, removed, in_memory) == wanted


@pytest.mark.parametrize(("count", "block", "removed"), [(40, 7, 0), (40, 1024, 0), (40, 7, 6)])
def test_blocks_of_a_cluster_are_compared_like_all_pairs(
    count: int, block: int, removed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch: pairs across two blocks that are not compared, or compared with what went."""
    monkeypatch.setattr(confirm, "BLOCK", block)
    random = np.random.default_rng(3)
    centres = random.standard_normal((6, 8))
    noise = 0.25 * random.standard_normal((count, 8))
    values = (centres[random.integers(0, 6, count)] + noise).astype(np.float16)
    full = confirm.unit(values)
    wanted = np.arange(count)
    for n in range(removed, count):
        before = [m for m in range(n) if wanted[m] == m and full[m] @ full[n] >= 0.9]
        wanted[n] = before[0] if before else n
    assert 0 < (wanted != np.arange(count)).sum() < count - 6
    assert confirm.near_first(values, 0.9, removed).tolist() == wanted.tolist()
