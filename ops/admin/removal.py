"""Removals: URLs, hosts and images that no release may contain and no ingest may let in."""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg

from pairmill.ops.admin.removal_entries import Entry, parse, read_entries
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text, rows

__all__ = [
    "Report", "Undone", "add", "named_by", "of_pages", "read_entries", "require_found", "undo",
]  # fmt: skip

CHUNK = 100  # batches, a million pairs, that are searched in one transaction
Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """No progress is shown."""


@dataclass(frozen=True)
class Report:
    """added: new entries; known: entries that were there before; matching_pairs: pairs in the
    database that the entries name, and of those by_url, by_host, by_image (a pair may be in
    several); embeddings: those of them that were deleted."""

    added: int
    known: int
    matching_pairs: int
    by_url: int = 0
    by_host: int = 0
    by_image: int = 0
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


def add(
    connection: psycopg.Connection,
    entries: Iterable[str],
    reason: str,
    dry_run: bool,
    progress: Progress = _silent,
) -> Report:
    """Add URLs (http, https; a fragment is dropped), hosts, md5s (of a URL or of an image's bytes)
    and sha256s (of an image's bytes), find the pairs that they name, and delete those pairs'
    embeddings. With dry_run, only say what would be.

    Removals are committed first, so that nothing comes in while the known pairs are searched; a
    search that was interrupted is finished by the next call. Hosts and image hashes have no index:
    all pairs or downloads are read. progress is called with (ranges of batches read, ranges).
    """
    parsed = list({e.source: e for e in map(parse, entries)}.values())
    with ExitStack() as rehearsal:
        if dry_run:
            rehearsal.enter_context(connection.transaction(force_rollback=True))
        with connection.transaction():
            if not dry_run:
                # whatever is being accepted ends first, and what comes later sees the removals
                connection.execute("lock table mill.removal in exclusive mode")
            known = _known(connection, parsed)
            fresh = [e for e in parsed if e.source not in known]
            ids = [*known.values(), *_insert(connection, fresh, reason)]
        embeddings = _find(connection, ids, dry_run, progress)
        counts = query_text("admin", "removal_counts")
        (row,) = connection.execute(counts, {"ids": ids}).fetchall()
        pairs, by_url, by_host, by_image = row
    return Report(len(fresh), len(known), pairs, by_url, by_host, by_image, embeddings)


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


def _known(connection: psycopg.Connection, entries: Sequence[Entry]) -> dict[str, int]:
    """The entries, by source, that are there already, as such or as another's spelling."""
    query = (
        "select x.source, coalesce(r.spelling_of, r.removal_id) from unnest(%s::text[]) x (source)"
        " join mill.removal r on md5(r.source) = md5(x.source) and r.source = x.source"
        " order by r.spelling_of nulls last"
    )
    return dict(connection.execute(query, ([e.source for e in entries],)).fetchall())


def _insert(connection: psycopg.Connection, entries: Sequence[Entry], reason: str) -> list[int]:
    def inserted(several: Sequence[Entry], of: Sequence[int | None]) -> list[int]:
        values = [
            (e.source, e.md5, e.sha256, e.host, e.subdomains, main)
            for e, main in zip(several, of, strict=True)
        ]
        query = query_text("admin", "add_removals")
        columns = [list(column) for column in zip(*values, strict=True)] or [[]] * 6
        return [number for (number,) in connection.execute(query, (reason, *columns)).fetchall()]

    mains = inserted(entries, [None] * len(entries))
    spelled = [(s, main) for e, main in zip(entries, mains, strict=True) for s in e.spellings]
    return mains + inserted([s for s, _ in spelled], [main for _, main in spelled])


def _find(
    connection: psycopg.Connection, named: list[int], dry_run: bool, progress: Progress
) -> int:
    """Find the pairs of every removal whose search is not over, and delete their embeddings; how
    many those are."""
    # an interrupted search is another's: a rehearsal leaves it alone
    waiting = connection.execute(
        "select removal_id, source !~ '://' from mill.removal"
        " where found_at is null and (not %s or removal_id = any(%s) or spelling_of = any(%s))",
        (dry_run, named, named),
    ).fetchall()
    ids = [number for number, _ in waiting]
    embeddings = 0
    if ids:
        connection.execute("select mill.find_removed_urls(%s)", (ids,))
        chunks = _chunks(connection) if any(scan for _, scan in waiting) else []
        for done, (first, last) in enumerate(chunks):
            progress(done, len(chunks))
            connection.execute("select mill.find_removed(%s, %s, %s)", (ids, first, last))
        embeddings = _forget(connection, ids, dry_run)
        connection.execute(
            "update mill.removal set found_at = now() where removal_id = any(%s)", (ids,)
        )
    return embeddings


def require_found(connection: psycopg.Connection) -> None:
    """Raises UserError while a removal's pairs are not all found: a release would hold them."""
    (row,) = connection.execute(
        "select count(*) from mill.removal where found_at is null and spelling_of is null"
    ).fetchall()
    if row[0]:
        raise UserError(
            f"the search for the pairs that {row[0]:,} removals name is not over: wait for the"
            " `pairmill removal add` that is at it, or run one again if it was interrupted"
        )


def _chunks(connection: psycopg.Connection) -> list[tuple[int, int]]:
    (row,) = connection.execute("select coalesce(max(batch_id), -1) from mill.batch").fetchall()
    return [(first, first + CHUNK - 1) for first in range(0, row[0] + 1, CHUNK)]


def _forget(connection: psycopg.Connection, ids: list[int], dry_run: bool) -> int:
    """Delete the pairs' embeddings; how many."""
    if not dry_run:
        # scores that are being accepted did not see the pairs: they end first
        with connection.transaction():
            connection.execute("lock table mill.removal in exclusive mode")
    gone = 0
    for first, last in _chunks(connection):
        query = "select mill.forget_embeddings(%s, %s, %s)"
        (row,) = connection.execute(query, (ids, first, last)).fetchall()
        gone += row[0]
    return gone


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


def undo(connection: psycopg.Connection, ids: Sequence[int], reason: str, dry_run: bool) -> Undone:
    """Take removals back, by number. With dry_run, only say what would be."""
    with connection.transaction(force_rollback=dry_run):
        (row,) = rows(connection, "select * from mill.undo_removals(%s, %s)", list(ids), reason)
    return Undone(**row)
