"""Drawing cover rows of a release: like the removed ones in site, language, size and punsafe.

The draw is a function of the release's rows, of those that must go, and of the key: the same again
is the same covers. Rows of the same site are taken where it has enough; else sites like it lose
rows as it does, so that a site which is emptied is not alone in that; what is then wanting comes
from rows of the same language, size and punsafe, of the same language and punsafe, of the same
punsafe, in this order. The number of covers holds in each band of punsafe, or there is no draw.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError, extra
from pairmill.ops.queries import query_text
from pairmill.ops.release.keep_list_ids import id_column

if TYPE_CHECKING:
    import duckdb

# what covers and removed rows have in common, best first
EMPTIED_ALIKE = (
    ("magnitude", "language", "punsafe"), ("magnitude", "punsafe"), ("magnitude",),
)  # fmt: skip
ROWS_ALIKE = (
    ("magnitude", "language", "size", "punsafe"), ("magnitude", "language", "punsafe"),
    ("magnitude", "punsafe"),
)  # fmt: skip
TOP_UPS = (
    ("magnitude", "language", "size", "punsafe"), ("magnitude", "punsafe"),
    ("language", "size", "punsafe"), ("language", "punsafe"), ("punsafe",),
)  # fmt: skip
FETCH = 1_000_000
BLOCK = 64  # bytes of SHA-256's block: HMAC pads its key to them
# the HMAC's first 8 bytes as a number; HMAC-SHA256 as RFC 2104 writes it
PRF = """
create macro prf(message) as ('0x' || left(sha256(
    getvariable('outer_key') || unhex(sha256(getvariable('inner_key') || encode(message)))
), 16))::ubigint
"""


@dataclass(frozen=True)
class Drawn:
    """removed, withdrawn, covers: rows of the release. by_level: covers by how they were matched,
    0 best, see sql/cover_draw.sql; of the top-ups from 3."""

    removed: int
    withdrawn: int
    covers: int
    by_level: dict[int, int]


@contextmanager
def database(work: Path, memory: str) -> "Iterator[duckdb.DuckDBPyConnection]":
    """A DuckDB that spills into a folder. memory: its limit, as "2GB"."""
    with extra("release"):
        import duckdb
    work.mkdir(parents=True, exist_ok=True)
    path = str(work / "update.duckdb")
    with duckdb.connect(path, config={"memory_limit": memory}) as db:
        db.execute("set temp_directory = $1", [str(work / "spill")])
        db.execute("set preserve_insertion_order = false")
        db.execute("begin")  # nothing is to last, and a commit waits for the disk
        yield db


def read_rows(db: "duckdb.DuckDBPyConnection", parts: list[Path]) -> None:
    """Make ``old_row`` of a release's files. Raises UserError for a layout without SAMPLE_ID or
    uid, of which the database would not know which pairs they are."""
    names = pq.read_schema(parts[0]).names if parts else []
    lower = {name.lower(): f'"{name}"' for name in names}
    name = id_column(names)
    if name is None:
        raise UserError(
            f"{parts[0].parent} has neither SAMPLE_ID nor uid: build the next version by `pairmill"
            " release build`, with --set with_sample_id=true, so that it can be updated"
        )

    def column(*known: str, otherwise: str = "null") -> str:
        return next((lower[each] for each in known if each in lower), otherwise)

    sample = f'"{name}"'
    if name.lower() == "uid":
        # 16 digits of zeros, and the SAMPLE_ID
        sample = f"('0x' || right({sample}, 16))::bigint"
    text = query_text("release", "cover_rows").format(
        id=sample,
        url=column("url"),
        language=column("language", otherwise="''"),
        width=column("width", "original_width"),
        height=column("height", "original_height"),
        punsafe=column("punsafe", otherwise="null::float"),
    )
    db.execute(text, {"files": [str(part) for part in parts]})


def fill(db: "duckdb.DuckDBPyConnection", table: str, values: Iterable[tuple[Any, ...]]) -> None:
    """Make a table of one column, sample_id, of the rows of ``old_row`` that these name."""
    db.execute("create or replace temp table given (sample_id bigint)")
    waiting: list[int] = []

    def flush() -> None:
        db.register("block", pa.table({"sample_id": pa.array(waiting, pa.int64())}))
        db.execute("insert into given select sample_id from block")
        db.unregister("block")
        waiting.clear()

    for (value,) in values:
        waiting.append(value)
        if len(waiting) == FETCH:
            flush()
    flush()
    db.execute(
        f"create table if not exists {table} (sample_id bigint);"
        f" insert into {table} select sample_id from old_row semi join given using (sample_id)"
        f" anti join {table} using (sample_id)"
    )


def draw(db: "duckdb.DuckDBPyConnection", key: bytes, covers: int) -> Drawn:
    """Make ``cover`` for the rows in ``gone``: covers for each, at least. ``withdrawn``: rows that
    go, and are no covers. Raises UserError where the release has too few rows like those."""
    padded = np.frombuffer(key.ljust(BLOCK, b"\0"), np.uint8)
    for name, byte in (("inner_key", 0x36), ("outer_key", 0x5C)):
        db.execute(f"set variable {name} = $1::blob", [(padded ^ byte).tobytes()])
    db.execute(PRF)
    if covers:
        _require_enough(db, covers)
        _run(db, "cover_draw", covers=covers)
        for query, demand, relaxed in (
            ("cover_emptied_twins", "site_demand", EMPTIED_ALIKE),
            ("cover_rows_of_twins", "cell_demand", ROWS_ALIKE),
        ):
            for alike in relaxed:
                if db.execute(f"select 1 from {demand} where wanting > 0 limit 1").fetchall():
                    _run(db, query, alike=", ".join(alike))
        for level, cells in enumerate(TOP_UPS, 3):
            _run(db, "cover_top_up", cells=", ".join(cells), level=level, covers=covers)
    else:
        db.execute("create table cover (sample_id bigint, level tinyint)")
    counts = db.execute("select (select count(*) from gone), (select count(*) from withdrawn)")
    (row,) = counts.fetchall()
    levels = dict(
        db.execute("select level, count(*) from cover group by level order by level").fetchall()
    )
    return Drawn(row[0], row[1], sum(levels.values()), levels)


def _run(db: "duckdb.DuckDBPyConnection", name: str, **parts: Any) -> None:
    db.execute(query_text("release", name).format(**parts))


def _require_enough(db: "duckdb.DuckDBPyConnection", covers: int) -> None:
    (row,) = db.execute(
        "with band as (select punsafe, count(*) filter (where sample_id in (from gone)) as lost,"
        " count(*) filter (where sample_id in (from withdrawn)) as other, count(*) as n"
        " from old_row group by punsafe)"
        " select min((n - lost - other) // lost) from band where lost > 0"
    ).fetchall()
    reach = row[0]
    if reach is not None and reach < covers:
        raise UserError(
            f"the release has too few rows of the same punsafe as those that must go for {covers:,}"
            f" covers of each: {reach:,} at most; --covers {reach} takes so many"
        )


def dropped(db: "duckdb.DuckDBPyConnection", out: Path) -> npt.NDArray[np.int64]:
    """The SAMPLE_IDs of all that goes, sorted, in a file: int64[n], mapped."""
    reader = db.sql(
        "select sample_id from gone union select sample_id from withdrawn"
        " union select sample_id from cover order by sample_id"
    ).to_arrow_reader(FETCH)
    with out.open("wb") as file:
        for batch in reader:
            file.write(batch.column(0).to_numpy().astype("<i8").tobytes())
    if not out.stat().st_size:
        return np.zeros(0, np.int64)
    return np.memmap(out, np.int64, "r")
