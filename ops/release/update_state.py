"""The rows of a release that must go, by the state of a database, as tables in DuckDB."""

from collections.abc import Iterator
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.parquet as pq

from pairmill.ops.admin.removal_sources import require_removals
from pairmill.ops.errors import UserError
from pairmill.ops.queries import query_text
from pairmill.ops.release import cover_draw
from pairmill.ops.release.decisions import duplicate_of
from pairmill.ops.release.folder import ReleaseFolder
from pairmill.ops.release.keep_list import lineage
from pairmill.ops.release.update_detached import DetachedRows

if TYPE_CHECKING:
    import duckdb

FETCH = 10_000
BITS = 14  # SAMPLE_ID = batch_id << 14 | n


def require_lists(connection: psycopg.Connection, found: ReleaseFolder) -> None:
    """Raises UserError where a list of removals that a release's recipe requires is missing."""
    recipe = found.manifest["recipe"]
    wanted = SimpleNamespace(
        required_removals=recipe.get("required_removals", []),
        max_removals_age_days=recipe.get("max_removals_age_days", 0),
    )
    require_removals(connection, wanted)


def read_state(
    connection: psycopg.Connection, db: "duckdb.DuckDBPyConnection", found: ReleaseFolder
) -> None:
    """Make the tables ``gone``, ``withdrawn`` and ``known`` of the rows of the release that a
    removal names, of which something was withdrawn, and that are covers already."""

    def asked(name: str, values: dict[str, Any] | None = None) -> Iterator[tuple[Any, ...]]:
        with connection.cursor(name) as cursor:
            cursor.itersize = FETCH
            cursor.execute(query_text("release", f"update_{name}"), values)
            yield from cursor

    ancestors = lineage(found.folder)
    _require_record(connection, found, ancestors)
    cover_draw.fill(db, "gone", asked("removed"))
    recorded = asked("duplicates", {"lineage": ancestors})
    cover_draw.fill(db, "gone", _in_their_place(recorded))
    archived = DetachedRows(connection, db)
    _add_copies(db, found, chain(asked("image_keys"), archived.image_keys()))
    first, last = db.execute("select min(sample_id), max(sample_id) from old_row").fetchall()[0]
    models = (found.manifest.get("model"), found.manifest.get("multilingual_model"))
    batches = (first or 0) >> BITS, (last or 0) >> BITS
    digests = [model["digest"] for model in models if model]
    values = {"first": batches[0], "last": batches[1], "digests": digests}
    db.execute("create table withdrawn (sample_id bigint)")
    cover_draw.fill(db, "withdrawn", asked("withdrawn", values))
    cover_draw.fill(db, "withdrawn", archived.withdrawn(*batches, digests))
    db.execute("delete from withdrawn where sample_id in (from gone)")
    cover_draw.fill(db, "known", asked("covers"))
    db.execute("delete from known where sample_id in (from gone) or sample_id in (from withdrawn)")


def _require_record(
    connection: psycopg.Connection, found: ReleaseFolder, ancestors: list[str]
) -> None:
    """Raises UserError where nothing says which rows stayed for the duplicates that are removed."""
    if not found.manifest["recipe"].get("dedupe"):
        return
    query = "select from mill.release where manifest_sha256 = any (%s) limit 1"
    if not connection.execute(query, (ancestors,)).fetchall():
        raise UserError(
            f"{found.folder} is deduplicated, and the database has no record of it (--no-record, or"
            " `pairmill release forget`), by which rows go that stayed for a removed duplicate:"
            " build the next version by `pairmill release build`"
        )


def _in_their_place(recorded: Iterator[tuple[Any, ...]]) -> Iterator[tuple[int]]:
    """The rows that stayed for duplicates, by what the build of the release recorded."""
    for packed, positions in recorded:
        for n in positions:
            of = duplicate_of(packed, n)
            if of is not None:
                yield (of[0],)


def _add_copies(
    db: "duckdb.DuckDBPyConnection", found: ReleaseFolder, keys: Iterator[tuple[Any, ...]]
) -> None:
    """Into ``gone``: rows whose image, or URL, has a hash that is to go. A layout without hashes
    has URLs."""
    names = pq.read_schema(found.parts[0]).names if found.parts else []
    lower = {name.lower(): f'"{name}"' for name in names}
    db.execute("create temp table hash (md5 varchar, sha256 varchar)")
    waiting: list[tuple[Any, ...]] = []
    for row in keys:
        waiting.append(row)
        if len(waiting) == FETCH:
            db.executemany("insert into hash values ($1, $2)", waiting)
            waiting.clear()
    if waiting:
        db.executemany("insert into hash values ($1, $2)", waiting)
    sample = lower.get("sample_id") or f"('0x' || right({lower['uid']}, 16))::bigint"
    kinds = [kind for kind in ("md5", "sha256") if kind in lower]
    files = {"files": [str(part) for part in found.parts]}
    tests = [f"md5({lower['url']}) in (select md5 from hash where md5 is not null)"]
    tests += [f"{lower[k]} in (select {k} from hash where {k} is not null)" for k in kinds]
    copies = f"select {sample} from read_parquet($files) where {' or '.join(tests)}"
    before, now = -1, 0
    while before != now:  # a copy may have a copy: by its md5, and that one by its URL
        before = now
        cover_draw.fill(db, "gone", db.execute(copies, files).fetchall())
        for kind in kinds:
            # of a removed row of which the database has no image any more, too
            db.execute(
                f"insert into hash ({kind}) select {lower[kind]} from read_parquet($files)"
                f" where {sample} in (from gone)",
                files,
            )
        ((now,),) = db.execute("select count(*) from gone").fetchall()
