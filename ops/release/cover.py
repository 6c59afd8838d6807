"""The secret of cover rows, and what is published of the list of removals.

Whoever has two versions of a release and knows by its punsafe, words or host why a row would have
gone, knows the removed rows of those that went. So with each removed row others go that are like it
(``cover_draw``), chosen by HMAC-SHA256 under a key that never leaves the database; for good, and
labelled nowhere that is published.
"""

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.errors import UserError
from pairmill.ops.queries import rows

FETCH = 10_000
COARSE = 100  # below it a count is "under 100"


@dataclass(frozen=True)
class CoverSetting:
    """The row of ``mill.cover_setting``. key: 32 bytes. covers: for each removed row, at least.
    min_removals: of a draw, at least. days_between: two draws for the releases of a name."""

    key: bytes
    covers: int
    min_removals: int
    days_between: int


def setting(connection: psycopg.Connection) -> CoverSetting:
    """Raises UserError if the login may not read it."""
    query = "select key, covers_per_removal, min_removals, days_between from mill.cover_setting"
    try:
        (row,) = connection.execute(query).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        raise UserError(
            "the key of cover rows is the owner's: run this with an admin's login"
        ) from None
    return CoverSetting(bytes(row[0]), *row[1:])


def public_version(connection: psycopg.Connection) -> dict[str, Any]:
    """The version of the list of removals, as manifests have it.

    hmac: HMAC-SHA256 of the list's sources, sorted, a line each: it changes with the list, and
    without the key nobody can try whether a guessed entry makes it. entries: about how many, see
    ``coarse``.
    """
    signed = hmac.new(setting(connection).key, b"removals\n", hashlib.sha256)
    count = 0
    query = 'select source from mill.removal where spelling_of is null order by source collate "C"'
    with connection.transaction(), connection.cursor("removals_version") as cursor:
        cursor.itersize = FETCH
        cursor.execute(query)
        for (source,) in cursor:
            signed.update(f"{source}\n".encode())
            count += 1
    return {"hmac": signed.hexdigest(), "entries": coarse(count)}


def coarse(count: int) -> str:
    """A count to one digit, rounded down: two versions' counts would tell how many came between."""
    if count < COARSE:
        return f"under {COARSE}" if count else "none"
    unit = 10 ** (len(str(count)) - 1)
    return f"{count // unit * unit:,} or more"


def last_draw(connection: psycopg.Connection, name: str) -> Any:
    """When covers were last drawn for a release of this name, and from how many days ago; None
    where they never were."""
    found = rows(
        connection,
        "select max(drawn_at) as drawn_at,"
        " extract(epoch from now() - max(drawn_at)) / 86400 as days"
        " from mill.cover_draw where release_name = %s",
        name,
    )
    return found[0] if found[0]["drawn_at"] else None
