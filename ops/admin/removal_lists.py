"""Lists of removals by source: a new one takes the place of the old."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from pairmill.ops.admin import removal
from pairmill.ops.admin.removal import Report
from pairmill.ops.admin.removal_entries import Entry
from pairmill.ops.admin.removal_formats import ADAPTERS, Adapter
from pairmill.ops.admin.removal_search import Detached, Progress, silent
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text


@dataclass(frozen=True)
class RemovalList:
    """A file to import. source: who gives it, as recipes require it. format: a key of ADAPTERS.
    dated: when its source made it; None: the file's own time. expires: after that no release may
    rest on it; None: never."""

    path: Path
    source: str
    format: str
    dated: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class Imported:
    """entries: removals that the list names. report: of these. gone: removals that an earlier list
    of the source names, and this one does not. undone: those of them that were taken back;
    allowed: pairs that no removal names any more."""

    source: str
    dated: datetime
    entries: int
    report: Report
    gone: int
    undone: int
    allowed: int


def import_list(
    connection: psycopg.Connection,
    given: RemovalList,
    *,
    reason: str = "",
    replace: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    detached: Detached | None = None,
) -> Imported:
    """Add the removals of a list, all of them or, if a line of it is wrong, none. replace: those of
    the source's earlier lists that it does not name are taken back, unless somebody added them by
    hand, or another source names them."""
    adapter, dated, digest = _checked(connection, given)
    outcome: dict[str, int] = {}

    def also() -> None:
        outcome.update(_list(connection, given, dated, digest, replace=replace))

    report = removal.add_entries(
        connection, _entries(given, adapter), reason, dry_run, progress,
        detached=detached, also=also,
    )  # fmt: skip
    return Imported(given.source, dated, report=report, **outcome)


def _checked(connection: psycopg.Connection, given: RemovalList) -> tuple[Adapter, datetime, bytes]:
    """Its adapter, date and digest. Raises UserError where one of them cannot be."""
    if given.format not in ADAPTERS:
        raise UserError(f"--format is one of {', '.join(ADAPTERS)}, not {given.format!r}")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,49}", given.source):
        raise UserError(
            f"{given.source[:60]!r} is no source's name: up to 50 lower-case letters, digits, dots,"
            " hyphens and underscores"
        )
    try:
        with given.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        dated = given.dated or datetime.fromtimestamp(given.path.stat().st_mtime, UTC)
    except OSError as error:
        raise UserError(f"cannot read {given.path}: {error.strerror}") from None
    ((now, newest),) = connection.execute(
        "select now(), (select dated from mill.removal_list where source = %s"
        " order by list_id desc limit 1)",
        (given.source,),
    ).fetchall()
    if dated > now:
        raise UserError(f"the list is dated {dated:%Y-%m-%d %H:%M}, which is to come: see --dated")
    if newest and dated < newest:
        raise UserError(
            f"the list is of {dated:%Y-%m-%d %H:%M}, and a newer one of {given.source} was imported"
            f" already, of {newest:%Y-%m-%d %H:%M}: --dated says what a file's time does not"
        )
    if given.expires and given.expires <= now:
        raise UserError(f"the list expired on {given.expires:%Y-%m-%d}: get a newer one")
    return ADAPTERS[given.format], dated, digest


def _entries(given: RemovalList, adapter: Adapter) -> Iterator[Entry]:
    count = 0
    try:
        with given.path.open(encoding="utf-8", errors="strict", newline="") as text:
            for entry in adapter(text):
                count += 1
                yield entry
    except UserError as problem:
        raise UserError(f"{given.path}, {problem}; nothing was changed") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{given.path} is no UTF-8: {error}; nothing was changed") from None
    if not count:
        raise UserError(f"{given.path} names nothing: an empty list would replace a full one")


def _list(
    connection: psycopg.Connection,
    given: RemovalList,
    dated: datetime,
    digest: bytes,
    *,
    replace: bool,
) -> dict[str, int]:
    """In the transaction that added its removals: the list, and what it says of them."""
    ((list_id, entries),) = connection.execute(
        "insert into mill.removal_list (source, format, dated, expires_at, digest, entries)"
        " select %s, %s, %s, %s, %s, count(*) from named returning list_id, entries",
        (given.source, given.format, dated, given.expires, digest),
    ).fetchall()
    values = {"list_id": list_id, "source": given.source}
    connection.execute(query_text("admin", "list_removals"), values)
    gone = connection.execute(query_text("admin", "removals_gone"), values).fetchall()
    undone = allowed = 0
    if replace and gone:
        connection.execute(
            "delete from mill.removal_listed m using mill.removal_list l"
            " where l.list_id = m.list_id and l.source = %(source)s and l.list_id < %(list_id)s",
            values,
        )
        ids = [number for number, is_free in gone if is_free]
        why = f"no list of {given.source} names it any more"
        back = removal.undo(connection, ids, why, False)
        undone, allowed = back.removals, back.pairs
    return {"entries": entries, "gone": len(gone), "undone": undone, "allowed": allowed}
