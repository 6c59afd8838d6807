"""Every table of Pairmill, as SQLAlchemy Core, with a comment on each table and column.

``mill`` holds the tables, in which workers have no rights; ``inbox`` holds the four
tables that trusted workers COPY into.
"""

from pairmill.schema.tables import (
    archive,
    audit,
    counters,
    covers,
    credit,
    history,
    inbox,
    presence,
    reference,
    refetches,
    releases,
    removals,
    results,
    subjects,
    tasks,
    workers,
)
from pairmill.schema.tables.base import metadata

__all__ = ["archive", "audit", "counters", "covers", "credit", "history", "inbox", "metadata", "presence", "reference", "refetches", "releases", "removals", "results", "subjects", "tasks", "workers"]
