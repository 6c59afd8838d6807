"""What a recipe decides of every pair: counts for the manifest, a byte a pair for the record."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text
from pairmill.ops.release.selection import Selection

KEPT = "kept"
FETCH = 1000  # rows of decisions.sql: at 12 a batch and 20 KB a batch, less than 2 MB


@dataclass
class Decisions:
    """kept_by_language, excluded: pairs by language, and by the first reason that holds. words:
    the meaning of a byte of a batch's decisions, from 1; 0 is no candidate."""

    kept_by_language: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=lambda: [KEPT])

    @property
    def kept(self) -> int:
        return self.kept_by_language.total()

    @property
    def candidates(self) -> int:
        return self.kept + self.excluded.total()

    def add(self, found: list[tuple[Any, ...]]) -> bytes:
        """Count the rows of a batch, and return its decisions: a byte for each position."""
        positions = [np.frombuffer(row[4], ">i2") for row in found]
        decisions = np.zeros(1 + max(int(each.max()) for each in positions), np.uint8)
        for (_, reason, language, pairs, _), each in zip(found, positions, strict=True):
            if reason is None:
                self.kept_by_language[language] += pairs
            else:
                self.excluded[reason] += pairs
            decisions[each] = self._code(reason or KEPT)
        return decisions.tobytes()

    def _code(self, word: str) -> int:
        if word not in self.words:
            self.words.append(word)
        code = 1 + self.words.index(word)
        if code > 255:
            raise UserError("a release is recorded with at most 254 reasons: leave out some tags")
        return code


def hurry(connection: psycopg.Connection) -> None:
    """Settings of a transaction that reads every pair: joins of whole tables, partition by
    partition. Estimates of what counts are far off, and nested loops over 93,000 pairs took ten
    minutes where hashes take a second."""
    connection.execute("set local enable_nestloop = off")
    connection.execute("set local enable_partitionwise_join = on")
    connection.execute("set local jit = off")


def decide(
    connection: psycopg.Connection,
    selection: Selection,
    keep: Callable[[int, bytes], None] = lambda batch_id, decisions: None,
) -> Decisions:
    """Decide every pair, in a transaction. keep is called with each batch and its decisions, in
    the order of batches."""
    decisions = Decisions()
    text = query_text("release", "decisions")
    with connection.cursor("decisions", binary=True) as cursor:
        cursor.itersize = FETCH
        cursor.execute(text.format(query=selection.query), selection.values)
        for batch_id, found in groupby(_rows(cursor), itemgetter(0)):
            keep(batch_id, decisions.add(list(found)))
    return decisions


def _rows(cursor: "psycopg.ServerCursor[tuple[Any, ...]]") -> Iterator[tuple[Any, ...]]:
    yield from cursor
