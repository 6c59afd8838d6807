"""Addresses of pairs' pages, read once a WAT file: batches that were dealt together share them.

Joined by the server batch by batch, they were three quarters of the cost of a pair.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa

from pairmill.ops.archive import packed
from pairmill.ops.queries import query_text

KEPT = 64  # extractions, of some 15,000 pages and 2 MB each; 32 open batches are of about a dozen
SCHEMA = pa.schema([pa.field("page", pa.int32(), nullable=False), ("url", pa.string())])
Pages = tuple[npt.NDArray[np.int32], pa.Array]


@dataclass
class PageUrls:
    """The addresses of pages, of the extractions that were asked for last."""

    connection: psycopg.Connection[Any]
    _kept: OrderedDict[int, Pages] = field(default_factory=OrderedDict)

    def of(self, pairs: pa.Table) -> pa.Array:
        """string[n]: the address of each pair's page, null where there is none.

        pairs: with page, wat_id and submission_id.
        """
        submissions = pairs["submission_id"].to_numpy()
        numbers = pairs["page"].fill_null(-1).to_numpy()
        wat_ids = pairs["wat_id"].to_numpy()
        parts, places = [], []
        for submission_id in np.unique(submissions):
            at = np.flatnonzero(submissions == submission_id)
            pages, urls = self._pages(int(submission_id), int(wat_ids[at[0]]))
            found = np.searchsorted(pages, numbers[at])
            none = (found == len(pages)) | (np.append(pages, -2)[found] != numbers[at])
            parts.append(urls.take(pa.array(found, mask=none)))
            places.append(at)
        if not parts:
            return pa.array([], pa.string())
        order = np.empty(len(submissions), np.int64)
        order[np.concatenate(places)] = np.arange(len(submissions))
        return pa.concat_arrays(parts).take(pa.array(order))

    def _pages(self, submission_id: int, wat_id: int) -> Pages:
        if submission_id in self._kept:
            self._kept.move_to_end(submission_id)
            return self._kept[submission_id]
        values = {"wat_id": wat_id, "submission_id": submission_id}
        made = packed.read(self.connection, query_text("archive", "page"), SCHEMA, values)
        pages = made["page"].to_numpy(), made["url"].combine_chunks()
        self._kept[submission_id] = pages
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return pages
