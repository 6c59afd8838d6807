"""Images with known hashes, and lists of removals."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pairmill.ops.admin.removal_lists import Imported, RemovalList, import_list
from support.database import Database, outcomes_of

URLS = [f"http://h{i}.example/album/{i}.jpg" for i in range(6)]


def image(n: int) -> bytes:
    return hashlib.sha256(f"image {n}".encode()).digest()


def near(pdq: bytes, bits: int) -> bytes:
    """The same but for so many bits, which are spread over all of its words."""
    turned = int.from_bytes(pdq)
    for bit in range(bits):
        turned ^= 1 << 8 * bit
    return turned.to_bytes(32)


def download(db: Database, pdqs: dict[int, bytes] | None = None) -> None:
    """Download all that is asked for; of the pair of URL i the image i."""
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    asked = dict(queue.urls(claim.lease_id))
    which = [int(url.rpartition("/")[2].split(".")[0]) for url in asked.values()]
    sent = outcomes_of(list(asked), [image(i) for i in which])
    sent = replace(sent, pdq=[(pdqs or {}).get(i, image(i)) for i in which])
    queue.submit_download(claim.lease_id, 0, sent)
    queue.complete(claim.lease_id)
    db.accept_all()


def removed(db: Database) -> list[int]:
    """Which URLs' pairs are removed."""
    query = "select url from mill.pair join mill.removed using (batch_id, n) order by url"
    return [URLS.index(url) for (url,) in db.rows(query)]


def imported(db: Database, path: Path, lines: Sequence[str], **how: Any) -> Imported:
    path.write_text("\n".join(lines))
    given = {"source": "iwf", "format": "lines", "dated": datetime.now(UTC) - timedelta(hours=1)}
    given |= {key: how.pop(key) for key in list(how) if key in RemovalList.__annotations__}
    return import_list(db.admin, RemovalList(path, **given), **how)
