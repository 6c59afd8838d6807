"""Keys of URLs and texts, and MinHash, against what they are to tell apart."""

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pairmill.ops.dedupe import minhash
from pairmill.ops.dedupe.texts import bands_of, chance, folded
from pairmill.ops.dedupe.url_keys import normalised

SAME = "a.example/I/x.jpg?a=1&b=2"


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://a.example/I/x.jpg?a=1&b=2", SAME),
        ("HTTPS://WWW.A.example:443/I/x.jpg?b=2&a=1#top", SAME),
        ("http://a.example:80/I/x.jpg?utm_source=n&a=1&fbclid=q&b=2", SAME),
        ("http://a.example/I/x.jpg?&a=1&&b=2", SAME),
        ("http://a.example/i/x.jpg?a=1&b=2", "a.example/i/x.jpg?a=1&b=2"),  # a server may tell
        ("http://a.example:8080/x.jpg", "a.example:8080/x.jpg"),
        ("http://a.example/x.jpg?", "a.example/x.jpg"),
        ("http://a.example/x.jpg?gclid=1", "a.example/x.jpg"),
        ("http://a.example/x.jpg?gclid2=1", "a.example/x.jpg?gclid2=1"),
        ("http://a.example/x.jpg#a?b", "a.example/x.jpg"),
        ("http://wwwa.example/x?www.y", "wwwa.example/x?www.y"),
        ("ftp://www.a.example/x", "ftp://www.a.example/x"),
        (None, None),
    ],
)
def test_spellings_of_one_url_have_one_key(
    db: duckdb.DuckDBPyConnection, url: str | None, key: str | None
) -> None:
    """Would catch: a tracking parameter that hides a copy, and a path's case that is folded."""
    query = f"SELECT {normalised('url')} FROM (SELECT ?::VARCHAR AS url)"
    assert db.execute(query, [url]).fetchall() == [(key,)]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("A  Red\tHouse ", "a red house"),
        ("Straße", "strasse"),
        ("ﬁne \u00a0 Ａｒｔ", "fine art"),
        ("Σίσυφος", "σίσυφοσ"),
        ("e\u0301", "é"),
        ("", ""),
        (None, None),
    ],
)
def test_texts_are_folded(text: str | None, key: str | None) -> None:
    """Would catch: lower case for case folding, and a compatibility form that is another text."""
    assert folded(pa.array(["ascii", text], pa.string())).to_pylist()[1] == key


def gram_set(text: str) -> set[str]:
    padded = text.ljust(4, "\0")
    return {padded[n : n + 4] for n in range(len(padded) - 3)}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.text("abé😀", max_size=12), st.text("abé😀", max_size=12)), min_size=1)
)
def test_jaccard_is_that_of_the_sets_of_grams(pairs: list[tuple[str, str]]) -> None:
    """Would catch: grams that reach into the next text, repeated ones, characters beyond 16 bits."""
    one, other = (pa.array(side, pa.string()) for side in zip(*pairs, strict=True))
    wanted = [len(gram_set(a) & gram_set(b)) / len(gram_set(a) | gram_set(b)) for a, b in pairs]
    assert minhash.jaccard(one, other).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("threshold", "bands", "rows"), [(0.5, 32, 2), (0.7, 16, 4), (0.8, 10, 6), (1.0, 1, 64)]
)
def test_bands_find_19_of_20_pairs_at_the_threshold(
    threshold: float, bands: int, rows: int
) -> None:
    """Would catch: bands chosen by a curve that is even on both sides, which finds half of them."""
    assert bands_of(threshold) == (bands, rows)
    assert chance(threshold, bands, rows) >= 0.95


def test_signatures_agree_as_often_as_texts_do() -> None:
    """Would catch: a signature of the order of the grams, or of their hashes' low bits."""
    base = "the old lighthouse above the harbour of a small town in the north"
    texts = pa.array([base, base + " at night", "another sentence altogether, on cats"])
    one, near, far = minhash.signatures(texts, 1024)
    true = minhash.jaccard(texts.take([0]), texts.take([1]))[0]
    assert np.mean(one == near) == pytest.approx(true, abs=0.06)
    assert np.mean(one == far) < 0.06


def test_near_texts_go_for_the_first(db: duckdb.DuckDBPyConnection) -> None:
    """Would catch: a crowded band of which only some are compared with its first, and texts below
    the threshold that a band proposes."""
    base = "a photo of the old lighthouse above the harbour of a small town"
    near = [f"{base} {n}" for n in range(40)]  # more than a bucket compares with one another
    texts = [base, *near, base[: len(base) // 2], "something else that is long enough to compare"]
    made = {"sample_id": np.arange(len(texts)), "text": texts}
    db.register("pool", pa.table(made))
    db.execute(
        "CREATE OR REPLACE TABLE rows AS SELECT sample_id, sample_id::HUGEINT AS rank,"
        " 1 AS key_text FROM pool"
    )
    db.execute("UPDATE rows SET rank = rank + (1::HUGEINT << 95)")
    minhash.near_texts(db, "pool", "rows", 0.8, "found")
    assert dict(db.execute("FROM found").fetchall()) == dict.fromkeys(range(1, 41), 0)
