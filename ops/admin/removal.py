"""Removals: what no release may contain and no ingest may let in."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.admin.removal_entries import Entry, parse, read_entries
from pairmill.ops.admin.removal_search import (
    Detached,
    Progress,
    finish,
    forget_embeddings,
    newest,
    search,
    silent,
)
from pairmill.ops.admin.removal_search import require_searched as require_found
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

__all__ = [
    "Report", "Undone", "add", "add_entries", "finish_search", "named_by", "of_pages",
    "read_entries", "require_found", "undo",
]  # fmt: skip

MANY = 1000  # removals
GIVEN = (
    "source", "md5", "sha1", "sha256", "dhash", "pdq", "pdq_distance", "sample_id", "host",
    "prefix", "subdomains",
)  # fmt: skip


@dataclass(frozen=True)
class Report:
    """added: new entries; known: entries that were there before; matching_pairs: pairs in the
    database that the entries name, and of those by_url and so on (a pair may be in several);
    embeddings: those of them that were deleted."""

    added: int
    known: int
    matching_pairs: int
    by_url: int = 0
    by_prefix: int = 0
    by_host: int = 0
    by_image: int = 0
    by_sample: int = 0
    embeddings: int = 0


@dataclass(frozen=True)
class Undone:
    """removals: taken back; pairs: those that no removal names any more; urls, in batches: those of
    them that are queued for download; unscored: those that were downloaded and not scored;
    unembedded: those whose embeddings were deleted."""

    removals: int
    pairs: int
    urls: int
    batches: int
    unscored: int
    unembedded: int


# Asked before anything is deleted, with what was found; raises UserError for no
Confirm = Callable[[Report], None]


def add(
    connection: psycopg.Connection,
    entries: Iterable[str],
    reason: str,
    dry_run: bool,
    progress: Progress = silent,
    **how: Any,
) -> Report:
    """Add what ``removal_entries.parse`` reads, find the pairs that it names, and delete those
    pairs' embeddings. With dry_run, only say what would be. how: as ``add_entries``."""
    return add_entries(connection, map(parse, entries), reason, dry_run, progress, **how)


def add_entries(
    connection: psycopg.Connection,
    entries: Iterable[Entry],
    reason: str,
    dry_run: bool,
    progress: Progress = silent,
    *,
    detached: Detached | None = None,
    confirm: Confirm | None = None,
    also: Callable[[], None] | None = None,
) -> Report:
    """Add removals, find the pairs that they name, and delete those pairs' embeddings.

    Removals are committed first, so that nothing comes in while the known pairs are searched; a
    search that was interrupted is finished by the next call. confirm: see there; if it raises, the
    new removals are taken back. also: done in the transaction that adds the removals, in which the
    temporary table named has their numbers; they stand by that then, and not by_hand.
    """
    with ExitStack() as rehearsal:
        if dry_run:
            rehearsal.enter_context(connection.transaction(force_rollback=True))
        with connection.transaction():
            added, given, first = _insert(connection, entries, reason, by_hand=also is None)
            ids = [i for (i,) in connection.execute("select removal_id from named").fetchall()]
            if also:
                also()
            if not dry_run:
                # whatever is being accepted ends first, and what comes later sees the removals
                connection.execute("lock table mill.removal in exclusive mode")
        # an interrupted search is another's: a rehearsal leaves it alone
        start = first if dry_run else 0
        last = newest(connection)
        if added or not dry_run:
            search(connection, start, detached, progress)
        report = Report(added, given - added, **_counts(connection, ids))
        if confirm and added and not dry_run:
            _confirmed(connection, confirm, report, [number for number in ids if number >= first])
        if added or not dry_run:
            embeddings = forget_embeddings(connection, start, dry_run)
            finish(connection, start, last)
            report = Report(**vars(report) | {"embeddings": embeddings})
    return report


def _insert(
    connection: psycopg.Connection, entries: Iterable[Entry], reason: str, *, by_hand: bool
) -> tuple[int, int, int]:
    """How many are new, how many were given, and the first new one's number. Leaves the temporary
    table named."""
    # one after another, and acceptances go on meanwhile: the lock that ends them comes at the end
    connection.execute("select pg_advisory_xact_lock(hashtext('mill.removal'))")
    connection.execute(query_text("admin", "given"))
    columns = ", ".join(GIVEN)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"copy given (place, is_spelling, {columns}) from stdin") as copy,
    ):
        for place, entry in enumerate(entries):
            copy.write_row((place, False, *_row(entry)))
            for spelling in entry.spellings:
                copy.write_row((place, True, *_row(spelling)))
    connection.execute("analyze given")
    _require_samples(connection)
    values = {"reason": reason, "by_hand": by_hand}
    query = query_text("admin", "add_removals")
    ((added, given, first),) = connection.execute(query, values).fetchall()
    if added > MANY:
        connection.execute("analyze mill.removal")  # or the search is planned for a few
    connection.execute(query_text("admin", "named_removals"))
    connection.execute("analyze named")
    if by_hand:
        connection.execute(
            "update mill.removal r set by_hand = true from named"
            " where r.removal_id = named.removal_id and not r.by_hand"
        )
    return added, given, first


def _row(entry: Entry) -> list[Any]:
    return [getattr(entry, name) for name in GIVEN]


def _require_samples(connection: psycopg.Connection) -> None:
    missing = connection.execute(
        "select g.sample_id from given g where g.sample_id is not null and not exists"
        " (select from mill.batch b"
        "   where b.batch_id = g.sample_id >> 14 and b.pair_count > g.sample_id & 16383)"
        " order by g.place limit 1"
    ).fetchone()
    if missing:
        raise UserError(f"no pair has SAMPLE_ID {missing[0]}: nothing was changed")


def _counts(connection: psycopg.Connection, ids: Sequence[int]) -> dict[str, int]:
    (row,) = rows(connection, query_text("admin", "removal_counts"), ids=ids)
    return row


def _confirmed(
    connection: psycopg.Connection, confirm: Confirm, report: Report, fresh: Sequence[int]
) -> None:
    """fresh: the numbers of what was added, of which none is another admin's."""
    try:
        confirm(report)
    except BaseException:
        undo(connection, fresh, "it was not confirmed", False)
        raise


def finish_search(
    connection: psycopg.Connection, detached: Detached | None, progress: Progress = silent
) -> int:
    """End every search that was interrupted; how many removals' that were."""
    ((count,),) = connection.execute(
        "select count(*) from mill.removal where found_at is null and spelling_of is null"
    ).fetchall()
    if count:
        last = newest(connection)
        search(connection, 0, detached, progress)
        forget_embeddings(connection, 0, False)
        finish(connection, 0, last)
    return int(count)


def of_pages(connection: psycopg.Connection, pages: Sequence[str]) -> list[str]:
    """The URLs of all known pairs of these pages, given by URL in any spelling. Raises UserError
    where one of them has no pair."""
    query = query_text("admin", "urls_of_pages")
    found: list[str] = []
    for page in pages:
        entry = parse(page)
        values = {"urls": entry.sources}
        urls = [url for (url,) in connection.execute(query, values).fetchall()]
        if not urls:
            raise UserError(f"no known pair is of a page {entry.source}: nothing was changed")
        found += urls
    return found


def named_by(connection: psycopg.Connection, what: Sequence[str]) -> list[int]:
    """The numbers of the removals that these numbers, URLs, hosts or hashes mean. Raises UserError,
    with all of those that mean none."""
    ids, missing = [], []
    value: list[Any]
    for one in what:
        if re.fullmatch(r"\d{1,18}", one):
            condition, value = "removal_id = %s", [one]
        else:
            # any of its spellings may be the one that was added
            condition = "md5(source) = any(select md5(x) from unnest(%s::text[]) x)"
            value = [parse(one).sources]
        row = connection.execute(
            "select coalesce(spelling_of, removal_id) from mill.removal"
            f" where {condition} order by spelling_of nulls first limit 1",
            value,
        ).fetchone()
        if row:
            ids.append(row[0])
        else:
            missing.append(one)
    if missing:
        raise UserError(
            f"no removal is {', '.join(missing)}: see `pairmill removal list`; nothing was changed"
        )
    return list(dict.fromkeys(ids))


def require_unlisted(connection: psycopg.Connection, ids: Sequence[int]) -> None:
    """Raises UserError where a list names one of these: its next import would bring it back."""
    row = connection.execute(
        "select r.removal_id, l.source from mill.removal_listed m join mill.removal_list l"
        " using (list_id) join mill.removal r using (removal_id)"
        " where r.removal_id = any(%s) order by 1, 2 limit 1",
        (list(ids),),
    ).fetchone()
    if row:
        raise UserError(
            f"removal {row[0]} is of the list of {row[1]}: import a list without it, with"
            " --replace; nothing was changed"
        )


def undo(connection: psycopg.Connection, ids: Sequence[int], reason: str, dry_run: bool) -> Undone:
    """Take removals back, by number. With dry_run, only say what would be."""
    with connection.transaction(force_rollback=dry_run):
        (row,) = rows(connection, "select * from mill.undo_removals(%s, %s)", list(ids), reason)
    return Undone(**row)
