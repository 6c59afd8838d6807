"""What two releases have in common: rows of one alone, rows of both, and rows that changed.

Rows are the same pair where their SAMPLE_IDs are, or uids, whatever the layouts; of two layouts
without either, where ``hash`` is the same. Reasons come from the database's records of the two.
"Gone" is one reason for removed, withdrawn and cover rows, and small counts are one, too: a diff
that told more would name the removed ones.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError
from pairmill.ops.files import atomic_folder
from pairmill.ops.queries import query_text
from pairmill.ops.release.cover_draw import database
from pairmill.ops.release.folder import ReleaseFolder, read_release
from pairmill.ops.release.keep_list import lineage

if TYPE_CHECKING:
    import duckdb

GONE, NEW, OTHER, UNKNOWN = "gone", "new", "other", "not recorded"
SMALL = 100  # rows: counts below it are one
BITS = 14  # SAMPLE_ID = batch_id << 14 | n
FETCH = 100_000
WHERE = ("only_in_a", "only_in_b", "changed")


@dataclass(frozen=True)
class ReleaseDiff:
    """Counts of rows. changed_by_column: of those in both, by the columns that both layouts have.
    reasons: why rows are not in the other one, see the module; {} where nothing is known."""

    only_in_a: int
    only_in_b: int
    changed: int
    same: int
    changed_by_column: dict[str, int]
    reasons_a: dict[str, int]
    reasons_b: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diff(
    a: Path,
    b: Path,
    out: Path | None = None,
    *,
    connection: psycopg.Connection | None = None,
    memory: str = "2GB",
) -> ReleaseDiff:
    """Compare the releases in two folders.

    out: a folder for the ids, only_in_a.parquet, only_in_b.parquet and changed.parquet.
    connection: of the database that recorded them, for the reasons. memory: DuckDB's limit; ids
    and a hash of each row spill to the disk beside ``out``, or in the temporary folder. Raises
    UserError if one is no release, or if they have no key in common.
    """
    releases = read_release(a), read_release(b)
    beside = out.absolute().parent if out else None
    if beside:
        beside.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".diff-", dir=beside) as work,
        database(Path(work), memory) as db,
    ):
        names = _read(db, releases)
        counts = Counter(dict(db.execute(
            "select place, count(*) from joined group by place"
        ).fetchall()))  # fmt: skip
        columns = _by_column(db, names) if counts["changed"] else {}
        reasons = [_reasons(db, connection, releases, side) for side in (0, 1)]
        if out is not None:
            with atomic_folder(out) as half:
                for place in WHERE:
                    _write_ids(db, place, half / f"{place}.parquet")
    return ReleaseDiff(
        counts["only_in_a"], counts["only_in_b"], counts["changed"], counts["same"],
        columns, *reasons,
    )  # fmt: skip


def _key(names: list[dict[str, str]]) -> list[str]:
    """An expression of each release's key."""
    found = []
    for own in names:
        if "sample_id" in own:
            found.append(own["sample_id"])
        elif "uid" in own:
            found.append(f"('0x' || right({own['uid']}, 16))::bigint")
    if len(found) < len(names):
        if not all("hash" in own for own in names):
            raise UserError("one of the releases has neither SAMPLE_ID nor uid, nor have both hash")
        found = [own["hash"] for own in names]
    return found


def _read(
    db: "duckdb.DuckDBPyConnection", releases: tuple[ReleaseFolder, ReleaseFolder]
) -> list[str]:
    """Make the views ``a`` and ``b``, and ``joined`` of both. Returns the columns to compare."""
    names = []
    for found in releases:
        schema = pq.read_schema(found.parts[0]) if found.parts else None
        names.append({name.lower(): f'"{name}"' for name in (schema.names if schema else ())})
    keys = _key(names)
    common = [n for n in names[0] if n in names[1] and n not in ("sample_id", "uid")]
    for side, found, own, key in zip("ab", releases, names, keys, strict=True):
        columns = "".join(f', {own[n]} as "{n}"' for n in common)
        files = ", ".join("'" + str(p).replace("'", "''") + "'" for p in found.parts)
        db.execute(
            f"create view {side} as select {key} as key{columns} from read_parquet([{files}])"
        )
    hashed = f"hash({', '.join(f'{chr(34)}{n}{chr(34)}' for n in common)})" if common else "0"
    db.execute(query_text("release", "diff_joined").format(hash=hashed))
    return common


def _by_column(db: "duckdb.DuckDBPyConnection", names: list[str]) -> dict[str, int]:
    counts = ", ".join(f'count(*) filter (a."{n}" is distinct from b."{n}")' for n in names)
    (row,) = db.execute(
        f"select {counts} from a join b using (key)"
        " where key in (select key from joined where place = 'changed')"
    ).fetchall()
    return {name: count for name, count in zip(names, row, strict=True) if count}


def _reasons(
    db: "duckdb.DuckDBPyConnection",
    connection: psycopg.Connection | None,
    releases: tuple[ReleaseFolder, ReleaseFolder],
    side: int,
) -> dict[str, int]:
    """Why rows of one release are not in the other one: a newer one that was made of it has all
    that did not have to go; else as the other one's record says."""
    place = WHERE[side]
    (row,) = db.execute("select count(*) from joined where place = $1", [place]).fetchall()
    if not row[0]:
        return {}
    own, other = releases[side], releases[1 - side]
    if lineage(own.folder)[0] in lineage(other.folder)[1:]:
        return {GONE: row[0]}
    if lineage(other.folder)[0] in lineage(own.folder)[1:]:
        return {NEW: row[0]}
    if connection is None:
        return {}
    counts = Counter(_recorded(db, connection, place, lineage(other.folder)[0]))
    return merged(counts)


def merged(counts: Counter[str]) -> dict[str, int]:
    """Counts of fewer than SMALL as one."""
    large = {name: n for name, n in sorted(counts.items()) if n >= SMALL}
    rest = counts.total() - sum(large.values())
    return large | ({OTHER: rest} if rest else {})


def _recorded(
    db: "duckdb.DuckDBPyConnection", connection: psycopg.Connection, place: str, digest: str
) -> Iterator[str]:
    """What the record of a release says of each of these rows."""
    found = connection.execute(
        "select release_id, words from mill.release where manifest_sha256 = %s"
        " order by release_id desc limit 1",
        (digest,),
    ).fetchone()
    cursor = db.execute("select key from joined where place = $1 order by key", [place])
    while rows := cursor.fetchmany(FETCH):
        if found is None:
            yield from [UNKNOWN] * len(rows)
            continue
        keys = np.array([key for (key,) in rows], np.int64)
        batches = np.unique(keys >> BITS)
        decisions: dict[int, bytes] = dict(connection.execute(
            "select batch_id, decisions from mill.release_batch"
            " where release_id = %s and batch_id = any (%s)",
            (found[0], batches.tolist()),
        ).fetchall())  # fmt: skip
        for key in keys.tolist():
            of_batch, n = decisions.get(key >> BITS, b""), key & ((1 << BITS) - 1)
            # what it had not seen is new; 0 was withdrawn before
            code = of_batch[n] if n < len(of_batch) else -1
            word = NEW if code < 0 else GONE if code == 0 else found[1][code - 1]
            yield GONE if word in ("removed", "withdrawn") else word


def _write_ids(db: "duckdb.DuckDBPyConnection", place: str, path: Path) -> None:
    quoted = str(path).replace("'", "''")
    db.execute(
        f"copy (select key as SAMPLE_ID from joined where place = '{place}' order by key)"
        f" to '{quoted}' (format parquet, compression zstd)"
    )
