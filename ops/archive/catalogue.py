"""What the archive has: its partitions, and which of them are up to date with the database."""

import json
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.archive.facts import Facts
from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows


@dataclass(frozen=True)
class Partition:
    """A partition of the results, as the view mill.partition has it, which says more."""

    first_batch: int
    last_batch: int
    batches: int
    pairs: int
    is_full: bool
    open_tasks: int
    generation: int | None
    folder: str | None
    files: list[dict[str, Any]] | None
    archived_at: Any
    detached_at: Any
    is_current: bool | None
    removed_pairs_then: int | None
    removed_pairs: int

    @property
    def name(self) -> str:
        return f"{self.first_batch}-{self.last_batch}"

    @property
    def is_finished(self) -> bool:
        return self.is_full and not self.open_tasks

    @property
    def wants_archiving(self) -> bool:
        """Whether its newest generation is not what would be written now."""
        return not self.is_current or self.removed_pairs != self.removed_pairs_then

    def facts(self) -> Facts:
        if self.folder is None:
            raise UserError(f"batches {self.name} are not archived: `pairmill archive` does it")
        digests = {entry["name"]: entry["sha256"] for entry in self.files or ()}
        version = json.dumps(digests, sort_keys=True)
        return Facts(self.folder, self.first_batch, self.last_batch, frozenset(digests), version)


def partitions(
    connection: psycopg.Connection[Any], first: int = 0, last: int = 2**62
) -> list[Partition]:
    """The partitions that have one of the batches first..last, in order."""
    found = rows(
        connection,
        "select * from mill.partition where last_batch >= %s and first_batch <= %s order by 1",
        first,
        last,
    )
    return [Partition(**row) for row in found]


def current(connection: psycopg.Connection[Any]) -> list[Facts]:
    """The partitions of which the archive's newest generation has what the database has, in order.

    Raises UserError where one is detached and its files are not up to date: they alone have its
    rows, so that whoever reads neither would leave them out, and say nothing.
    """
    found = [each for each in partitions(connection) if each.generation is not None]
    for each in found:
        if each.detached_at is not None and not each.is_current:
            raise UserError(
                f"batches {each.name} are detached, and submissions of theirs were withdrawn"
                f" since: `pairmill archive restore {each.name}` brings the rows back"
            )
    return [each.facts() for each in found if each.is_current]


def detached(
    connection: psycopg.Connection[Any], first: int = 0, last: int = 2**62
) -> list[Partition]:
    """The partitions, of the batches first..last, whose rows are in the archive alone."""
    if not rows(connection, "select from mill.archive where detached_at is not null limit 1"):
        return []
    return [each for each in partitions(connection, first, last) if each.detached_at is not None]
