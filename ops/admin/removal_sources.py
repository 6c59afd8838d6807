"""The sources of removals that a recipe requires: where one is missing, no release is made."""

from datetime import datetime, timedelta
from typing import Any

import psycopg

from pairmill.ops.admin.removal_search import require_searched
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

AGAIN = "import a newer one (`pairmill removal import`)"


def sources(connection: psycopg.Connection) -> list[dict[str, Any]]:
    """Of each source the newest list: source, format, dated, expires_at, digest (hexadecimal),
    entries, imported_at, imported_by, present (of the entries those that are removals), expired,
    age_days (since it was made)."""
    return rows(connection, query_text("admin", "removal_sources"))


def require_removals(connection: psycopg.Connection, recipe: Any) -> None:
    """Raises UserError, one sentence, where a release by this recipe could hold what has to be
    removed: a source of ``required_removals`` has no list, an empty or incomplete one, one that is
    expired or older than ``max_removals_age_days`` (0: any age), or a search is not over."""
    known = {row["source"]: row for row in sources(connection)}
    now = _now(connection)
    most = recipe.max_removals_age_days
    for source in recipe.required_removals:
        if source not in known:
            raise UserError(
                f"the recipe requires the removals of {source}, and no list of it was imported:"
                f" `pairmill removal import FILE --source {source}`"
            )
        _require_usable(known[source], most, now)
    require_searched(connection)


def _require_usable(row: dict[str, Any], most_days: int, now: datetime) -> None:
    source, dated = row["source"], row["dated"]
    if not row["entries"]:
        raise UserError(f"the list of {source} is empty: {AGAIN}")
    if row["present"] != row["entries"]:
        raise UserError(
            f"the list of {source} has {row['entries']:,} entries, and {row['present']:,} of them"
            " are in the database: import it again (`pairmill removal import`)"
        )
    if row["expires_at"] is not None and row["expires_at"] <= now:
        raise UserError(f"the list of {source} expired on {row['expires_at']:%Y-%m-%d}: {AGAIN}")
    if most_days and now - dated > timedelta(days=most_days):
        raise UserError(
            f"the list of {source} is of {dated:%Y-%m-%d}, and the recipe wants one of the last"
            f" {most_days} days: {AGAIN}"
        )


def _now(connection: psycopg.Connection) -> datetime:
    """The database's clock: it is the one by which lists are dated."""
    ((now,),) = connection.execute("select now()").fetchall()
    return now  # type: ignore[no-any-return]
