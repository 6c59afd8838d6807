"""Nearest neighbours in SQL: the same answers as comparing with every vector."""

from importlib.resources import files

import numpy as np
import psycopg
import pytest

from pairmill.ops.admin import removal
from support.database import Database, pair_rows

ROWS, DIMS = 600, 24
SQL = (files("pairmill.ops.vectors") / "sql" / "nearest.sql").read_text("utf-8")


def vectors(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((20, DIMS))[rng.integers(20, size=ROWS)]
    drawn = drawn + 0.5 * rng.standard_normal((ROWS, DIMS))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)


IMAGES, TEXTS = vectors(1), vectors(2)


@pytest.fixture
def searched(db: Database) -> Database:
    """ROWS scored pairs; the embeddings of position n are row n."""
    there = db.value("select count(*) from pg_available_extensions where name = 'vector'")
    if not there:
        pytest.skip("this server has no pgvector; the embedded one has")
    db.admin.execute("update mill.setting set open_batches_max = 1")
    db.admin.execute("select * from mill.add_model('model-d1', '', 'd1', %s)", (DIMS,))
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    queue.copy_pairs(pair_rows(claim.lease_id, [f"http://h.example/{i}.jpg" for i in range(ROWS)]))
    queue.submit_extract(claim.lease_id, ROWS, [("image", "links", "", ROWS)])
    db.accept_all()
    db.close_batches()
    db.download()
    claim = db.claim("score", digest="d1")
    assert claim
    queue, _ = db.queue("score")
    rows = [
        (claim.lease_id, 0, n, 0, 0.5, IMAGES[n].tobytes(), TEXTS[n].tobytes(), 5)
        for n, *_ in queue.thumbnails(claim.lease_id, 0, 20_000)
    ]
    queue.copy_scores(rows)
    queue.submit_score(claim.lease_id, 0, len(rows))
    queue.complete(claim.lease_id)
    db.accept_all()
    db.admin.execute(SQL)
    db.admin.execute("insert into nearest.sample select sample_id from report.pair")
    return db


def text(vector: np.ndarray) -> str:
    return "[" + ",".join(str(float(x)) for x in vector) + "]"


def nearest(query: np.ndarray, k: int, left: np.ndarray | None = None) -> np.ndarray:
    images = IMAGES if left is None else IMAGES[left]
    return np.sort(images.astype(np.float32) @ query.astype(np.float32))[::-1][:k]


def test_a_half_is_the_same_number(searched: Database) -> None:
    """Every finite half, the smallest ones too."""
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    for start in range(0, len(halves), 16_000):
        some = halves[start : start + 16_000]
        found = searched.value("select nearest.to_halfvec(%s)::real[]", some.tobytes())
        assert np.array_equal(np.array(found, np.float16), some)


def test_answers_are_those_of_exact_search(searched: Database) -> None:
    assert searched.value("select nearest.build('d1')") == ROWS
    searched.admin.execute("set enable_seqscan = off")  # so few rows would not need the index
    good = 0
    for query in TEXTS[:100]:
        found = searched.rows("select * from nearest.search(%s::halfvec, 10)", text(query))
        similarities = [row[1] for row in found]
        assert similarities == sorted(similarities, reverse=True)
        good += (np.array(similarities) >= nearest(query, 10)[-1] - 1e-3).sum()
        assert all(row[2].startswith("http://h.example/") for row in found)
    assert good >= 0.97 * 1000
    first = searched.rows("select * from nearest.search(nearest.image_of(7), 1)")[0]
    assert (first[0], round(first[1], 3)) == (7, 1.0)


def test_the_index_is_what_answers(searched: Database) -> None:
    searched.value("select nearest.build('d1')")
    searched.admin.execute("set enable_seqscan = off")
    searched.rows("select * from nearest.search(nearest.image_of(7), 10)")
    searched.admin.execute("select pg_stat_force_next_flush()")
    scans = "select idx_scan from pg_stat_user_indexes where indexrelname = 'embedding_image_idx'"
    assert searched.value(scans) >= 1


def test_what_is_removed_is_no_answer_at_once(searched: Database) -> None:
    searched.value("select nearest.build('d1')")
    searched.admin.execute("set enable_seqscan = off")
    query = IMAGES[7]
    ask = "select sample_id from nearest.search(nearest.image_of(7), 40)"
    before = [row[0] for row in searched.rows(ask)]
    urls = [searched.value("select url from report.pair where n = %s", n) for n in before[:20]]
    vector = text(query)
    removal.add(searched.admin, urls, "", False)
    found = searched.rows("select * from nearest.search(%s::halfvec, 40)", vector)
    assert len(found) == 40
    assert not {row[0] for row in found} & set(before[:20])
    assert searched.value("select nearest.remove()") == 20
    assert searched.value("select count(*) from nearest.embedding") == ROWS - 20
    assert searched.value("select nearest.remove()") == 0
    # what is removed when it is built is not in it
    assert searched.value("select nearest.build('d1')") == ROWS - 20
    assert searched.value("select count(*) from nearest.embedding") == ROWS - 20


def test_an_unknown_model_is_said(searched: Database) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="no model with the weights d2"):
        searched.value("select nearest.build('d2')")


def test_what_is_not_finite_is_left_out(searched: Database) -> None:
    """Of a scorer that lies; pgvector takes no such number."""
    for n, half in enumerate(("007e", "00fc")):
        nonsense = bytes.fromhex(half) + IMAGES[n].tobytes()[2:]
        searched.admin.execute("update mill.embedding set image = %s where n = %s", (nonsense, n))
    assert searched.value("select nearest.build('d1')") == ROWS - 2
    assert searched.value("select nearest.image_of(0)") is None
