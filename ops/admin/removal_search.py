"""The search for the pairs that removals name."""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text

CHUNK = 100  # batches, a million pairs, that are searched in one transaction
Progress = Callable[[int, int], None]
# Finds what removals from a number on, whose search is not over, name in partitions that were
# detached, notes it by mill.note_images and mill.removed_pair, and shows its progress
Detached = Callable[[psycopg.Connection, int, Progress], None]


def silent(done: int, total: int) -> None:
    """No progress is shown."""


def search(
    connection: psycopg.Connection, first: int, detached: Detached | None, progress: Progress
) -> None:
    """Find the pairs of the removals from this number on whose search is not over. URLs are looked
    up; hosts, prefixes and images have no index: all pairs, or all downloads, are read.
    progress is called with (ranges of batches read, ranges)."""
    kinds = _kinds(connection, first)
    connection.execute("select mill.find_removed_urls(%s)", (first,))
    pdqs = _PdqSearch(connection, first) if kinds["pdqs"] else None
    calls = [
        name
        for name, count in (("hosts", kinds["hosts"]), ("images", kinds["images"]))
        if count
    ]  # fmt: skip
    chunks = _chunks(connection) if calls or pdqs else []
    for done, (low, high) in enumerate(chunks):
        progress(done, len(chunks))
        for name in calls:
            query = f"select mill.find_removed_{name}(%s, %s, %s)"
            connection.execute(query, (first, low, high))
        if pdqs:
            pdqs.search(low, high)
    if detached and (calls or pdqs):
        detached(connection, first, progress)


def _kinds(connection: psycopg.Connection, first: int) -> dict[str, int]:
    """How many removals there are to search for, by what has to be read."""
    row = connection.execute(
        "select count(*) filter (where host is not null),"
        " count(*) filter (where num_nonnulls(sha1, sha256, dhash) > 0"
        " or md5 is not null and source !~ '://'), count(pdq)"
        " from mill.removal where removal_id >= %s and found_at is null",
        (first,),
    ).fetchone()
    return dict(zip(("hosts", "images", "pdqs"), row or (0, 0, 0), strict=True))


def _chunks(connection: psycopg.Connection) -> list[tuple[int, int]]:
    (row,) = connection.execute("select coalesce(max(batch_id), -1) from mill.batch").fetchall()
    return [(first, first + CHUNK - 1) for first in range(0, row[0] + 1, CHUNK)]


class _PdqSearch:
    """The images within the distance of some removals' PDQs: removals from a number on whose search
    is not over, or all of them."""

    def __init__(self, connection: psycopg.Connection, first: int | None) -> None:
        from pairmill.ops.admin.removal_pdq import PdqIndex  # numpy takes 0.1 s

        self._connection = connection
        named = connection.execute(
            "select removal_id, pdq, pdq_distance from mill.removal where pdq is not null"
            " and (%(first)s::bigint is null or removal_id >= %(first)s and found_at is null)"
            " order by removal_id",
            {"first": first},
        ).fetchall()
        self._removals = [number for number, _, _ in named]
        self._index = PdqIndex([pdq for _, pdq, _ in named], [most for _, _, most in named])

    def search(self, low: int, high: int) -> None:
        """Those of a range of batches."""
        self.note(
            "select batch_id, n, submission_id, pdq from mill.download"
            " where batch_id between %s and %s and pdq is not null",
            (low, high),
        )

    def note(self, query: str, values: Sequence[Any]) -> list[tuple[int, int]]:
        """Note the pairs of the query's rows (batch, n, submission, pdq) that are named."""
        with self._connection.cursor(binary=True) as cursor:
            images = cursor.execute(query, values).fetchall()
        near = self._index.near([row[3] for row in images])
        found = [images[i] for i in near.images]
        if found:
            removals = [self._removals[i] for i in near.removals]
            batches, positions, submissions, _ = map(list, zip(*found, strict=True))
            self._connection.execute(
                "select mill.note_images(%s::bigint[], %s::integer[], %s::bigint[], %s::bigint[])",
                (batches, positions, removals, submissions),
            )
        return [row[:2] for row in found]


def forget_embeddings(connection: psycopg.Connection, first: int, dry_run: bool) -> int:
    """Delete the embeddings of the pairs that removals from this number on, whose search is not
    over, name; how many."""
    if not dry_run:
        _let_acceptances_end(connection)
    gone = 0
    for low, high in _chunks(connection):
        query = "select mill.forget_embeddings(%s, %s, %s)"
        gone += connection.execute(query, (first, low, high)).fetchall()[0][0]
    return gone


def _let_acceptances_end(connection: psycopg.Connection) -> None:
    """Scores that are being accepted did not see the pairs: they end first."""
    with connection.transaction():
        connection.execute("lock table mill.removal in exclusive mode")


def waiting(connection: psycopg.Connection) -> int:
    """How many accepted parts of downloads have images that no PDQ was compared with."""
    (row,) = connection.execute("select count(*) from mill.pdq_waiting").fetchall()
    return int(row[0])


def compare_waiting(connection: psycopg.Connection, progress: Progress = silent) -> int:
    """Compare the images that were accepted since the last time with the removals' PDQs, and delete
    the embeddings of those that are named; how many pairs those are."""
    parts = connection.execute(
        "select submission_id, batch_id from mill.pdq_waiting order by batch_id, submission_id"
    ).fetchall()
    pdqs = _PdqSearch(connection, None) if parts else None
    found = 0
    for done in range(0, len(parts), PARTS):
        progress(done, len(parts))
        some = parts[done : done + PARTS]
        submissions = [submission for submission, _ in some]
        with connection.transaction():
            assert pdqs
            query = query_text("admin", "waiting_images")
            named = pdqs.note(query, ([batch for _, batch in some], submissions))
            found += len(set(named))
        if named:
            _let_acceptances_end(connection)
            connection.execute(
                "select mill.forget_embeddings_of(%s::bigint[], %s::integer[])",
                ([batch for batch, _ in named], [n for _, n in named]),
            )
        # last: an interrupted comparison is made again
        connection.execute(
            "delete from mill.pdq_waiting where submission_id = any(%s)", (submissions,)
        )
    return found


PARTS = 100  # of downloads, 100,000 images, that are compared in one transaction


def require_searched(connection: psycopg.Connection) -> None:
    """Raises UserError while not all pairs are found that removals name: a release would hold
    them."""
    (row,) = connection.execute(
        "select count(*) from mill.removal where found_at is null and spelling_of is null"
    ).fetchall()
    if row[0]:
        raise UserError(
            f"the search for the pairs that {row[0]:,} removals name is not over: wait for the"
            " `pairmill removal add` or `import` that is at it, or run `pairmill removal search`"
            " if it was interrupted"
        )
    if count := waiting(connection):
        raise UserError(
            f"the images of {count:,} parts of downloads were not compared with the removals'"
            " PDQs: run `pairmill removal search`"
        )


def newest(connection: psycopg.Connection) -> int:
    """The highest number of a removal, 0 where there is none. Additions wait for one another, so
    that none of a lower number comes later."""
    ((number,),) = connection.execute(
        "select coalesce(max(removal_id), 0) from mill.removal"
    ).fetchall()
    return int(number)


def finish(connection: psycopg.Connection, first: int, last: int) -> None:
    """The search of these numbers is over. last: the newest when it began: what another admin added
    meanwhile was not looked for."""
    connection.execute(
        "update mill.removal set found_at = now()"
        " where removal_id between %s and %s and found_at is null",
        (first, last),
    )
