"""Pairs whose page opts out: refused at the merge, with the page's words, and never asked for."""

import pytest

from pairmill.schema.outcomes import Outcome
from pairmill.workers.errors import Malformed
from support.database import CRAWLED, Database, outcomes, page_row, pair_rows
from support.states import newest_submission

SAID = ("meta robots", "noai")
PAGE = "http://page.example/"
REFUSAL = (*SAID, PAGE, CRAWLED)
URLS = [f"http://h.example/{i}.jpg" for i in range(4)]
OPT_OUTS = "select url, signal, value, source, read_at from report.opt_out order by url"


def extract(db: Database, urls: list[str], refused: int, location: str = "a.wat") -> None:
    """An accepted extraction, the pages of whose first URLs opt out; its batch is closed."""
    db.add_wat(location)
    claim = db.claim("extract")
    assert claim
    queue, _ = db.queue("extract")
    refusing = page_row(claim.lease_id, 0, PAGE, SAID)
    queue.copy_pages([refusing, page_row(claim.lease_id, 1, "http://page.example/2")])
    pages = [0] * refused + [1] * (len(urls) - refused)
    queue.copy_pairs(pair_rows(claim.lease_id, urls, pages=pages))
    counts = [("image", "links", "", len(urls)), ("image", "attribute", "src", len(urls))]
    queue.submit_extract(claim.lease_id, len(urls), counts)
    db.accept_all()
    db.close_batches()


def asked(db: Database) -> list[str]:
    """The URLs that a download worker is given; its lease is given back."""
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    urls = sorted(url for _, url in queue.urls(claim.lease_id))
    queue.release(claim.lease_id)
    return urls


def test_a_page_that_opts_out_is_heard_before_any_worker_asks(db: Database) -> None:
    """Fault: the image is fetched, or the refusal is kept without the page's words."""
    extract(db, URLS, 2)
    assert asked(db) == URLS[2:]
    assert db.admin.execute(OPT_OUTS).fetchall() == [(url, *REFUSAL) for url in URLS[:2]]
    db.download()
    found = db.admin.execute("select url, outcome from report.pair order by url").fetchall()
    assert found == [*((u, "opted_out") for u in URLS[:2]), *((u, "success") for u in URLS[2:])]
    assert db.value("select state from mill.task where kind = 'download'") == "done"


def test_a_batch_of_refusing_pages_alone_completes(db: Database) -> None:
    """Fault: its task is claimed again and again, since nothing of it can be submitted."""
    extract(db, URLS, 4)
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    assert queue.urls(claim.lease_id) == []
    queue.complete(claim.lease_id)
    assert db.value("select state from mill.task where kind = 'download'") == "done"


@pytest.mark.parametrize("outcome", [Outcome.SUCCESS, Outcome.HTTP_ERROR])
def test_no_worker_can_answer_for_a_pair_whose_page_opts_out(
    db: Database, outcome: Outcome
) -> None:
    """Fault: a worker that asks all the same puts an image, or a dead link, beside the refusal."""
    extract(db, URLS, 2)
    claim = db.claim("download")
    assert claim
    queue, _ = db.queue("download")
    refused = set(range(4)) - {n for n, _ in queue.urls(claim.lease_id)}
    with pytest.raises(Malformed):
        queue.submit_download(claim.lease_id, 0, outcomes(sorted(refused), outcome))


def test_no_retry_asks_for_it(db: Database) -> None:
    """Fault: `pairmill retry --outcome opted_out`, or a discarded task downloaded anew, fetches it."""
    extract(db, URLS, 2)
    db.download(Outcome.OPT_OUT_UNKNOWN)
    retried = db.admin.execute(
        "select urls from mill.retry_outcomes(array['opted_out'], 0, 9, true)"
    ).fetchone()
    assert retried == (0,)
    db.admin.execute(
        "update mill.task set state = 'discarded', slot = null where kind = 'download'"
    )
    db.admin.execute("select mill.retry_task(task_id) from mill.task where kind = 'download'")
    assert asked(db) == URLS[2:]


def test_a_withdrawn_extraction_takes_its_refusals_along(db: Database) -> None:
    """Fault: the URL stays refused by a row of an extraction that counts no more."""
    extract(db, URLS, 2)
    db.admin.execute("select mill.withdraw(%s, 'test')", (newest_submission(db, "extract"),))
    assert db.admin.execute(OPT_OUTS).fetchall() == []
    extract(db, URLS[:2], 0, "b.wat")  # and none of these waits for anything but its download
    assert db.admin.execute("select distinct outcome from report.pair").fetchall() == [(None,)]


def test_links_are_counted_by_the_attribute_that_gave_their_url(db: Database) -> None:
    """Fault: the counts are taken for links that were dropped, and the file is refused."""
    extract(db, URLS, 0)
    assert db.value("select attributes from report.wat") == {"src": 4}
    assert db.value("select attributes from report.crawl") == {"src": 4}
