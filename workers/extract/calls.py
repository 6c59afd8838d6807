"""The functions of schema ``api`` that an extract worker calls."""

from collections.abc import Iterable, Sequence
from typing import Any

from pairmill.workers.queue import Queue

# url_key is a uuid there: its 16 bytes are the same, and a UUID object costs 1 µs a row
PAIR_TYPES = (
    "int8", "int4", "bytea", "text", "text", "text", "float4", "text", "text", "int4",
)  # fmt: skip
COPY_PAIRS = (
    "copy inbox.pair (lease_id, ordinal, url_key, url, text, language,"
    " language_probability, license, link_kind, page) from stdin (format binary)"
)
PAGE_TYPES = ("int8", "int4", "text", "timestamptz", "text", "text")
COPY_PAGES = (
    "copy inbox.page (lease_id, page, url, crawled_at, opt_out_signal, opt_out_value)"
    " from stdin (format binary)"
)
# of each byte of a bitmap of unknown keys whether its eight keys are known, the lowest bit first
KNOWN = [tuple(not byte >> bit & 1 for bit in range(8)) for byte in range(256)]


class ExtractQueue(Queue):
    """The queue as an extract worker's login may use it."""

    def probe(self, lease_id: int, keys: Sequence[bytes]) -> list[bool]:
        """Of each URL key (16 bytes) whether it is known: its link is a duplicate, and need not be
        copied. 25,000 keys at most, and 2,000,000 a lease: Malformed. False where the merge has to
        see the link; that alone decides, and a repeat after a lost answer counts twice.

        Never True of a URL that a removal names. Where an extraction is withdrawn between this
        and the merge, the database asks for the file again.
        """
        call = "select api.probe_v1(%s, %b)"
        unknown: bytes = self._one(call, (lease_id, b"".join(keys)))[0]
        known = [bit for byte in unknown for bit in KNOWN[byte]]
        return known[: len(keys)]

    def copy_pairs(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.pair: (lease_id, ordinal, url_key (16 bytes), url, text, language,
        probability, license, link_kind, page: one of copy_pages, or None). A repeat after a lost
        answer would double them; submit_extract finds out."""
        self._copy_in(COPY_PAIRS, PAIR_TYPES, rows)

    def copy_pages(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of inbox.page: (lease_id, page, url, crawled_at, and of its opt-out signal and
        value). Each page once; of a repeat submit_extract finds out."""
        self._copy_in(COPY_PAGES, PAGE_TYPES, rows)

    def submit_extract(
        self, lease_id: int, rows: int, counts: Iterable[tuple[str, str, str, int]]
    ) -> int:
        """counts: (link kind, stage, name, count), as mill.wat_count keeps them."""
        kinds, stages, names, numbers = map(list, zip(*counts, strict=True))
        call = (
            "select api.submit_extract_v1(%s, %s, %s::text[], %s::text[], %s::text[], %s::bigint[])"
        )
        return int(self._one(call, (lease_id, rows, kinds, stages, names, numbers))[0])
