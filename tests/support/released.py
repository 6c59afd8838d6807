"""A dozen pairs in all that a release may find, and a recipe for them."""

from typing import Any

from pairmill.ops.release.recipe import Recipe
from pairmill.schema.outcomes import Outcome
from support.database import Database, outcomes, pair_rows, score_rows

LANGUAGES = ["en", "en", "en", "de", "de", None]
URLS = [f"http://h{i}.example/{i}.jpg" for i in range(12)]
SIMILARITY = [0.3, 0.2999, 0.5, 0.9, 0.26, 0.4]


def recipe(**values: Any) -> Recipe:
    base = {
        "name": "test", "version": 1, "description": "A test", "licence": "CC0-1.0",
        "model": "model-d1", "min_similarity": 0.3, "languages": ["en"],
    }  # fmt: skip
    return Recipe(**(base | values))


def add_scored_pairs(db: Database) -> Database:
    """12 pairs: six downloaded and scored as above, three dead, three that did not answer."""
    db.add_model()
    db.add_wat()
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    rows = []
    for i, row in enumerate(pair_rows(claim.lease_id, URLS)):
        licence = "http://licence/" if i % 2 else None
        rows.append((*row[:4], f"text number {i}", LANGUAGES[i % 6], 0.9, licence, *row[8:]))
    queue.copy_pairs(rows)
    queue.submit_extract(claim.lease_id, 12, [("image", "links", "", 12)])
    db.accept_all()
    db.close_batches()
    # n is by the order of keys: put the rows where this test counts on them
    place = dict(db.rows("select url, n from mill.pair"))
    at = [place[url] for url in URLS]
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    queue.submit_download(claim.lease_id, 0, outcomes(at[:6]))
    queue.submit_download(claim.lease_id, 1, outcomes(at[6:9], Outcome.HTTP_ERROR))
    queue.submit_download(claim.lease_id, 2, outcomes(at[9:], Outcome.TIMEOUT))
    queue.complete(claim.lease_id)
    db.accept_all()
    claim = db.claim("score", digest="d1")
    assert claim
    queue, _ = db.queue("score")
    for part, n in enumerate(at[:6]):
        queue.copy_scores(score_rows(claim.lease_id, part, [n], SIMILARITY[part]))
        queue.submit_score(claim.lease_id, part, 1)
    queue.complete(claim.lease_id)
    db.accept_all()
    return db
