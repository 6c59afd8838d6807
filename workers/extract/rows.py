"""Pairs as the rows of a COPY: of inbox.page and inbox.pair."""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, NamedTuple

from pairmill.workers.extract.extract import Pair
from pairmill.workers.extract.page import PageFacts

PAIRS_PER_PART = 20_000  # as rows about 5 MB; a COPY pins xmin as long as it lasts
NO_OPT_OUT = (None, None)


class Rows(NamedTuple):
    """pages: of these pairs, but for one that an earlier part had. Both as ``ExtractQueue`` copies
    them."""

    pages: list[tuple[Any, ...]]
    pairs: list[tuple[Any, ...]]


def rows_in_parts(
    pairs: Iterator[Pair],
    lease_id: int,
    detect: Callable[[str], tuple[str | None, float]],
    new: Callable[[list[Pair]], list[Pair]] = list,
) -> Iterator[Rows]:
    """A file's pairs, in parts of ``PAIRS_PER_PART`` at most; a page is in one part alone.

    detect: the language of a text, and its probability. new: of the pairs of a part those that are
    worth the language and the COPY, in their order.
    """
    ordinal = count()
    page: PageFacts | None = None
    while chunk := list(islice(pairs, PAIRS_PER_PART)):
        part = Rows([], [])
        for pair in new(chunk):
            if pair.page is not page:
                page = pair.page
                refusal = page.opt_out or NO_OPT_OUT
                part.pages.append((lease_id, page.number, page.url, page.crawled_at, *refusal))
            part.pairs.append(
                (
                    lease_id, next(ordinal), pair.url_key, pair.url, pair.text, *detect(pair.text),
                    page.license, pair.kind, page.number,
                )
            )  # fmt: skip
        del chunk  # as large as the rows, and not needed while they are sent
        yield part
