"""The records of releases: ``mill.release``, and a byte a pair in ``mill.release_batch``."""

import hashlib
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows
from pairmill.ops.release.decisions import Decisions, OfBatch
from pairmill.ops.release.folder import manifest_text
from pairmill.ops.release.manifest import Manifest
from pairmill.ops.release.recipe import Recipe

AT_ONCE = 100  # batches a statement: 1 MB


def _sql(name: str) -> str:
    return query_text("release", name)


def require_writable(connection: psycopg.Connection) -> None:
    """Raises UserError if the session may only read: before the hours of a build."""
    (row,) = connection.execute("show transaction_read_only").fetchall()
    if row[0] == "on":
        raise UserError(
            "this session may only read (is the server a standby?), and a release is recorded in"
            " the database: --no-record builds it without that"
        )


class ReleaseRecord:
    """The record of a release that is being built, in the transaction of the build: it is there
    once that is committed, and only then."""

    def __init__(self, connection: psycopg.Connection, recipe: Recipe) -> None:
        self._connection = connection
        self._waiting: list[OfBatch] = []
        values = {
            "name": recipe.name, "version": recipe.version, "recipe": Jsonb(recipe.as_dict()),
        }  # fmt: skip
        row = connection.execute(_sql("record_begin"), values).fetchone()
        assert row is not None
        self.release_id = int(row[0])

    def add(self, of_batch: OfBatch) -> None:
        self._waiting.append(of_batch)
        if len(self._waiting) == AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        values = {
            "release_id": self.release_id,
            "batches": [each.batch_id for each in self._waiting],
            "decisions": [each.decisions for each in self._waiting],
            "duplicates": [each.duplicates for each in self._waiting],
        }
        self._connection.execute(_sql("record_batches"), values)
        self._waiting = []

    def end(self, manifest: Manifest, decisions: Decisions, folder: Path) -> None:
        """Keep what the manifest says, which is written."""
        self._flush()
        values = {
            "release_id": self.release_id,
            "sha256": hashlib.sha256(manifest_text(folder)).hexdigest(),
            "candidates": manifest.candidates,
            "kept": manifest.kept,
            "excluded": Jsonb(manifest.excluded),
            "unfinished": Jsonb(manifest.unfinished),
            "words": decisions.words,
            "methods": decisions.methods,
        }
        self._connection.execute(_sql("record_end"), values)


def find(connection: psycopg.Connection, wanted: list[str]) -> list[dict[str, Any]]:
    """The records of these numbers and names (a name: all of it), newest last. Raises UserError
    for one that there is not."""
    known = rows(connection, "select * from report.release order by release_id")
    chosen = []
    for word in wanted:
        number = int(word) if word.isascii() and word.isdecimal() else None
        found = [r for r in known if number == r["release_id"] or word == r["name"]]
        if not found:
            names = ", ".join(sorted({r["name"] for r in known})) or "none"
            raise UserError(f"no release {word!r} is recorded; recorded are: {names}")
        chosen += found
    return sorted({r["release_id"]: r for r in chosen}.values(), key=lambda r: r["release_id"])


def forget(connection: psycopg.Connection, release_ids: list[int]) -> None:
    """Delete records. The folders stay."""
    connection.execute("delete from mill.release where release_id = any (%s)", (release_ids,))
