"""Detaching: a partition's rows leave the database once its files are proved to have them."""

import time
from collections.abc import Callable
from typing import Any

import psycopg

from pairmill.ops.archive import compare, store
from pairmill.ops.archive.catalogue import Partition
from pairmill.ops.errors import UserError

TRIES = 60  # for the locks, of half a second each: a longer wait would hold every worker up
Progress = Callable[[int, int], None]


def why_not(partition: Partition) -> str | None:
    """The reason for which a partition cannot be detached; None: it can."""
    if partition.generation is None or partition.wants_archiving:
        return "not archived as it is now"
    if not partition.is_finished:
        return "not finished"
    return None


def detach(
    connection: psycopg.Connection[Any],
    partition: Partition,
    progress: Progress = lambda done, total: None,
) -> None:
    """Read the files back, compare their digests and all their rows, and drop the partition.

    Raises UserError where a file is damaged, where rows differ (the generation counts no more then,
    and the next `pairmill archive` writes another), or where the tables stay in use.
    """
    if reason := why_not(partition):
        raise UserError(f"batches {partition.name} cannot be detached: {reason}")
    try:
        verify(connection, partition, rows=True, progress=progress)
    except UserError as error:
        distrust(connection, partition)
        raise UserError(f"{error}; the next `pairmill archive` writes these batches anew") from None
    for last in (False,) * (TRIES - 1) + (True,):
        try:
            with connection.transaction():
                # shorter than deadlock_timeout: of the two it is this session that gives way
                connection.execute("set local lock_timeout = '500ms'")
                connection.execute(
                    "select mill.detach_partition(%s, %s)",
                    (partition.first_batch, partition.generation),
                )
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            if last:
                raise UserError(
                    f"batches {partition.name} were not detached: other sessions read or write the"
                    " tables all the time; try again when `pairmill status` shows less work"
                ) from None
            time.sleep(0.5)


def verify(
    connection: psycopg.Connection[Any],
    partition: Partition,
    *,
    rows: bool,
    progress: Progress = lambda done, total: None,
) -> None:
    """Compare the files' digests with the catalogue's and, if ``rows``, their rows with the
    database's. Raises UserError for the first difference."""
    row = connection.execute(
        "select manifest_sha256 from mill.archive where first_batch = %s and generation = %s",
        (partition.first_batch, partition.generation),
    ).fetchone()
    files = partition.files or []
    total = sum(entry["bytes"] for entry in files)
    facts = partition.facts()
    store.check(facts.folder, files, row[0] if row else b"", lambda done: progress(done, total))
    if rows:
        with connection.transaction():
            connection.execute("set transaction isolation level repeatable read")
            compare.require_same(connection, facts, progress=progress)


def distrust(connection: psycopg.Connection[Any], partition: Partition) -> None:
    """Of a partition whose rows are here: its newest generation counts no more."""
    connection.execute(
        "update mill.archive set state = '{}' where first_batch = %s and generation = %s"
        " and detached_at is null",
        (partition.first_batch, partition.generation),
    )
