"""What the page of releases asks the database, by the login of its own: functions, never tables."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from starlette.exceptions import HTTPException

from pairmill.ops.errors import UserError
from pairmill.ops.web.database import pool

REFUSED, TOO_MANY = "PM003", "PM007"  # schema/sql/core/guards.sql
IDS_AT_ONCE, KEYS_AT_ONCE = 1000, 500  # as the functions bound them
Row = TypeVar("Row")


@dataclass(frozen=True)
class KnownUrl:
    """A URL that a pair has. state: waiting, downloaded, failed or opted_out. outcome: of the
    download that counts. signal: of an opt-out. since: when its batch was opened."""

    url_key: UUID
    sample_id: int
    state: str
    outcome: str | None
    signal: str | None
    since: datetime


@dataclass(frozen=True)
class AskedRemoval:
    """A request for removal as whoever has its token may see it. pairs: that its removals name by
    now."""

    request_id: int
    state: str
    entries: list[str]
    of_pages: bool
    received_at: datetime
    due_at: datetime
    decided_at: datetime | None
    why: str | None
    pairs: int


@dataclass(frozen=True)
class Likeness:
    """How a visitor's image differs from a pair's: in bits of 64 (dHash) and 256 (PDQ), None where
    one of the two has none."""

    sample_id: int
    dhash_bits: int | None
    pdq_bits: int | None


class ExploreCalls:
    """The functions of schema/sql/pages/explore.sql. Raises psycopg.OperationalError where the
    database is away, which a page answers by 503."""

    def __init__(self, dsn: str) -> None:
        self._reading = pool(dsn)
        self._writing = pool(dsn, size=1, read_only=False)

    def close(self) -> None:
        self._reading.close()
        self._writing.close()

    def hidden(self, ids: Sequence[int]) -> set[int]:
        """Of these SAMPLE_IDs those that nothing may show any more."""
        found: set[int] = set()
        with self._reading.connection() as connection:
            for first in range(0, len(ids), IDS_AT_ONCE):
                query = "select api.hidden_v1(%s::bigint[])"
                some = list(ids[first : first + IDS_AT_ONCE])
                found.update(number for (number,) in connection.execute(query, (some,)))
        return found

    def known_urls(self, keys: Sequence[UUID]) -> list[KnownUrl]:
        """What became of the URLs with these md5s, those that a pair has."""
        query = "select * from api.known_urls_v1(%s::uuid[])"
        return self._rows(KnownUrl, query, list(keys[:KEYS_AT_ONCE]))

    def compare_image(self, ids: Sequence[int], dhash: int, pdq: bytes) -> list[Likeness]:
        """How an image differs from those of these pairs, 200 at most. pdq: b"" of a flat image."""
        query = "select * from api.compare_image_v1(%s::bigint[], %s, %s)"
        return self._rows(Likeness, query, list(ids), dhash, pdq or None)

    def evidence(self, url_key: UUID, manifests: Sequence[str]) -> dict[str, Any] | None:
        """api.evidence_v1: what is known of the pair with a URL of this md5; None where that is
        nothing, or is hidden."""
        with self._reading.connection() as connection:
            query = "select api.evidence_v1(%s, %s)"
            row = connection.execute(query, (url_key, list(manifests))).fetchone()
        return row[0] if row else None

    def request_removal(
        self,
        entries: Sequence[str],
        *,
        of_pages: bool,
        requester: str,
        evidence: str,
        attachment: Sequence[str],
        token_sha256: bytes,
    ) -> tuple[int, datetime]:
        """Note a request; its number, and when it is due. Raises UserError where it is too long,
        and HTTPException 503 where too many came within a day."""
        query = "select * from api.request_removal_v1(%s, %s, %s, %s, %s, %s)"
        values = (list(entries), of_pages, requester, evidence, list(attachment), token_sha256)
        with _told(), self._writing.connection() as connection:
            ((number, due),) = connection.execute(query, values).fetchall()
        return number, due

    def removal_request(self, token_sha256: bytes) -> AskedRemoval | None:
        query = "select * from api.removal_request_v1(%s)"
        found = self._rows(AskedRemoval, query, token_sha256)
        return found[0] if found else None

    def _rows(self, kind: type[Row], query: str, *values: Any) -> list[Row]:
        with self._reading.connection() as connection:
            return connection.cursor(row_factory=class_row(kind)).execute(query, values).fetchall()


@contextmanager
def _told() -> Iterator[None]:
    """The database's refusals as a visitor is told them."""
    try:
        yield
    except psycopg.Error as error:
        said = error.diag.message_primary or ""
        if error.sqlstate == REFUSED:
            raise UserError(said) from None
        if error.sqlstate == TOO_MANY:
            again = {"Retry-After": "3600"}
            raise HTTPException(503, f"{said}: come back tomorrow", again) from None
        raise
