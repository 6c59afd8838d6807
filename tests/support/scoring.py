"""Batches that wait to be scored, with thumbnails and texts of the caller's."""

import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from pairmill.workers.dhash import dhash
from pairmill.workers.score.model import Model
from pairmill.workers.score.preprocess import decoded
from support.database import Database, key, outcomes


@lru_cache(256)  # a bench repeats a few thumbnails many thousand times
def hash_of(thumbnail: bytes) -> int:
    """As an honest downloader says it, or nearly: it hashes before it encodes."""
    image = decoded(thumbnail)
    return dhash(image) if image else 0


def add_model(db: Database, model: Model) -> None:
    db.admin.execute(
        "select * from mill.add_model(%s, '', %s, %s)", (model.name, model.digest, model.dims)
    )


def to_score(
    db: Database,
    images: Sequence[bytes],
    texts: Sequence[str],
    languages: Sequence[str | None] | None = None,
) -> None:
    """As many batches as they fill, downloaded by real calls. The number in a URL, …/7.jpg, says
    which image and text of those given the row has. languages: of the texts; English by default."""
    languages = languages or ["en"] * len(texts)
    crawl = uuid.uuid4().hex[:8]  # a URL that is known already would be dropped
    db.add_wat(f"{crawl}.wat.gz")
    extract, _ = db.queue("extract")
    claim = db.claim("extract")
    assert claim is not None
    urls = [f"http://{crawl}.example/{i}.jpg" for i in range(len(images))]
    rows = [
        (claim.lease_id, i, key(url).bytes, url, text, language, 0.9, None, "image", None)
        for i, (url, text, language) in enumerate(zip(urls, texts, languages, strict=True))
    ]
    extract.copy_pairs(rows)
    counts = [("image", "links", "", len(rows)), ("", "records", "", 1)]
    extract.submit_extract(claim.lease_id, len(rows), counts)
    db.accept_all()
    db.close_batches()
    by_url = dict(zip(urls, images, strict=True))
    download, _ = db.queue("download")
    while (claim := db.claim("download")) is not None:
        listed = download.urls(claim.lease_id)
        for start in range(0, len(listed), 1000):
            part = listed[start : start + 1000]
            found = outcomes([n for n, _ in part])
            thumbnails = [by_url[url] for _, url in part]
            found = replace(found, thumbnails=thumbnails, dhash=[*map(hash_of, thumbnails)])
            download.submit_download(claim.lease_id, start, found)
        download.complete(claim.lease_id)
        db.accept_all()
