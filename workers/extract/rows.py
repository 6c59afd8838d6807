"""Pairs as the rows of a COPY: of inbox.page and inbox.pair."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from pairmill.workers.extract.extract import Pair
from pairmill.workers.extract.page import PageFacts

ROWS_PER_COPY = 20_000  # about 5 MB; a COPY pins xmin as long as it lasts
NO_OPT_OUT = (None, None)


class Rows(NamedTuple):
    """pages: of these pairs, but for one that an earlier part had. Both as ``ExtractQueue`` copies
    them."""

    pages: list[tuple[Any, ...]]
    pairs: list[tuple[Any, ...]]


def rows_in_parts(pairs: Iterator[Pair], lease_id: int) -> Iterator[Rows]:
    """All of a file's pairs, in parts of ``ROWS_PER_COPY`` at most; a page is in one part alone."""
    ordinal = 0
    page: PageFacts | None = None
    while chunk := list(islice(pairs, ROWS_PER_COPY)):
        part = Rows([], [])
        for pair in chunk:
            if pair.page is not page:
                page = pair.page
                refusal = page.opt_out or NO_OPT_OUT
                part.pages.append((lease_id, page.number, page.url, page.crawled_at, *refusal))
            key, url, text, language, probability, kind, _ = pair
            part.pairs.append(
                (
                    lease_id, ordinal, key, url, text, language, probability, page.license, kind,
                    page.number,
                )
            )  # fmt: skip
            ordinal += 1
        yield part
