"""Statistics of a release's files: nulls, ranges, histograms, the commonest values, repeats.

They are exact and of the files alone: the same files give the same bytes of JSON. Nulls and ranges
are those of the files' footers. The rest is a query a column in DuckDB, 3·10^6 rows in about 4 s on
two cores, half of it for the hosts of the URLs.
"""

import math
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pairmill.ops.errors import UserError, extra
from pairmill.ops.release.meanings import meaning

if TYPE_CHECKING:
    import duckdb

Statistics = dict[str, Any]  # as it stands in statistics.json
MEMORY = "2GB"  # DuckDB's limit; it spills beyond that
TOP = 50  # values a column
LEAST = 10  # rows: a value of fewer is named by nobody, it would tell of one site or one person
TAG_BINS = 50
# of a URL's authority: the host in lower case, without user, port and www.
DOMAIN = (
    "regexp_replace(lower(split_part(split_part(split_part(split_part(value, '?', 1), '#', 1),"
    " '@', -1), ':', 1)), '^www[.]', '')"
)


@dataclass(frozen=True)
class Histogram:
    """Bins of an expression over a release's columns: ``low`` + i·``step`` up to ``bins``; of its
    binary logarithm where ``log2``."""

    name: str
    title: str
    expression: str
    low: float
    step: float
    bins: int
    log2: bool = False

    def edges(self) -> list[float]:
        """The bounds of the bins, one more than there are."""
        at = [self.low + i * self.step for i in range(self.bins + 1)]
        return [float(f"{2**x if self.log2 else x:.6g}") for x in at]

    def query(self) -> str:
        """Rows (bin or null, count). A NaN is a null: there is no bin for it."""
        value = f"log2({self.expression})" if self.log2 else self.expression
        place = f"try_cast(floor(({value} - {self.low}) / {self.step} + 1e-9) as integer)"
        # the logarithm of 0 is an error in DuckDB
        known = f"case when {self.expression} > 0 then {place} end" if self.log2 else place
        bounded = f"greatest(-1, least({self.bins}, place))"
        return (
            f"select case when place is not null then {bounded} end, count(*)"
            f" from (select {known} as place from release) group by 1"
        )


SCALES = {"similarity": (-1, 0.02, 100), "probability": (0, 0.02, 50), "aesthetic": (0, 0.25, 40)}


def statistics(
    files: Sequence[Path],
    *,
    memory: str | None = None,
    threads: int | None = None,
    spill: Path | None = None,
) -> Statistics:
    """The statistics of a release's Parquet files, JSON; see ``docs/releases.md`` for its keys.

    memory: DuckDB's limit, as ``4GB``; None: MEMORY. threads: None: all cores. spill: the folder
    for what memory does not hold; None: the system's. Raises UserError if a file cannot be read.
    """
    with _opened(files, memory, threads, spill) as db:
        schema, columns, rows = _footers(files)
        return {
            "rows": rows,
            "bytes": sum(path.stat().st_size for path in files),
            "columns": columns,
            "histograms": {h.name: _counts(db, h) for h in histograms(schema, columns)},
            "top": {name: _top(db, *how) for name, *how in _tops(schema)},
            "repeats": {name: _repeats(db, name) for name in _digests(schema)},
        }


def repeated(
    files: Sequence[Path], column: str, *, memory: str | None = None, threads: int | None = None
) -> tuple[str, int] | None:
    """The first value of a column that stands in several rows, and how many rows repeat another
    one's; None: no value does. Raises UserError as above."""
    name = _quoted(column)
    with _opened(files, memory, threads) as db:
        # hashes first, 8 bytes a row; then the values of the few that are there twice
        row = db.execute(
            f"select min(value), sum(n - 1)::bigint from (select {name} as value, count(*) as n"
            f" from release where hash({name}) in (select hash({name}) from release"
            " group by 1 having count(*) > 1) group by 1 having count(*) > 1)"
        ).fetchone()
    return None if row is None or row[0] is None else (row[0], row[1])


@contextmanager
def _opened(
    files: Sequence[Path], memory: str | None, threads: int | None, spill: Path | None = None
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A DuckDB whose view ``release`` has the rows of the files."""
    with extra("ops"):
        import duckdb
    try:
        with duckdb.connect() as db, tempfile.TemporaryDirectory(prefix=".", dir=spill) as spilled:
            db.execute("set enable_progress_bar = false")  # it would stand in front of --json
            db.execute("set memory_limit = $1", [memory or MEMORY])
            db.execute("set temp_directory = $1", [spilled])
            if threads:
                db.execute("set threads = $1", [threads])
            db.read_parquet([_literal(path) for path in files]).create_view("release")
            yield db
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise UserError(f"the rows of the release cannot be counted: {error}") from None


def _literal(path: Path) -> str:
    """A path in which DuckDB finds no pattern."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


def _quoted(column: str) -> str:
    doubled = column.replace('"', '""')
    return f'"{doubled}"'


def _footers(files: Sequence[Path]) -> tuple[pa.Schema, dict[str, dict[str, Any]], int]:
    """Schema, and nulls and range of each flat column, by the footers of the files; rows."""
    found: dict[str, dict[str, Any]] = {}
    schema, rows = None, 0
    for path in files:
        with path.open("rb") as file:
            footer = pq.ParquetFile(file)
            schema = schema or footer.schema_arrow
            rows += footer.metadata.num_rows
            for group in range(footer.metadata.num_row_groups):
                _add_footer(found, schema, footer.metadata.row_group(group))
    if schema is None:
        raise UserError("a release has a file at least, and this one has none")
    known = {field.name: {"type": str(field.type), "nulls": 0} | found.get(field.name, {})
             for field in schema}  # fmt: skip
    return schema, known, rows


def _add_footer(found: dict[str, dict[str, Any]], schema: pa.Schema, group: Any) -> None:
    for i in range(group.num_columns):
        column = group.column(i)
        name = column.path_in_schema
        statistics = column.statistics
        if name not in schema.names or statistics is None:
            continue  # within a list, or written without statistics
        kept = found.setdefault(name, {"nulls": 0})
        kept["nulls"] += statistics.null_count or 0
        kind = schema.field(name).type
        if statistics.has_min_max and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            for key, pick in (("min", min), ("max", max)):
                value = getattr(statistics, key)
                if math.isfinite(value):
                    kept[key] = pick(kept.get(key, value), value)


def histograms(schema: pa.Schema, columns: Mapping[str, dict[str, Any]]) -> Iterator[Histogram]:
    """The histograms that a schema has; a tagger's is over the range that its values have."""
    names = {meaning(name).role: name for name in reversed(schema.names)}
    for field in schema:
        role, column = meaning(field.name).role, _quoted(field.name)
        if role in SCALES:
            low, step, bins = SCALES[role]
            yield Histogram(field.name, field.name, column, low, step, bins)
        elif role == "tag" and pa.types.is_floating(field.type):
            least, most = (columns[field.name].get(key) for key in ("min", "max"))
            if least is not None and most is not None and most > least:
                step = (most - least) / TAG_BINS
                yield Histogram(field.name, field.name, column, least, step, TAG_BINS)
        elif role == "text":
            yield Histogram(f"{field.name} length", f"characters of {field.name}",
                            f"length({column})", 0, 10, 50)  # fmt: skip
    if "width" in names and "height" in names:
        sides = _quoted(names["width"]), _quoted(names["height"])
        for name, expression in zip((names["width"], names["height"]), sides, strict=True):
            yield Histogram(name, f"{name}, pixels", expression, 0, 0.25, 56, log2=True)
        ratio = f"{sides[0]} / nullif({sides[1]}, 0)"
        yield Histogram("aspect", "width / height", ratio, -3, 0.25, 24, log2=True)


def _counts(db: "duckdb.DuckDBPyConnection", wanted: Histogram) -> dict[str, Any]:
    found = dict(db.execute(wanted.query()).fetchall())
    filled = [i for i in range(wanted.bins) if i in found] or [0]
    used = range(filled[0], filled[-1] + 1)
    return {
        "title": wanted.title,
        "edges": wanted.edges()[used.start : used.stop + 1],
        "log": wanted.log2,
        "counts": [found.get(i, 0) for i in used],
        "below": found.get(-1, 0),
        "above": found.get(wanted.bins, 0),
        "missing": found.get(None, 0),
    }


def _tops(schema: pa.Schema) -> Iterator[tuple[str, str, str]]:
    """What the commonest values of are told: name, expression, and that of the value shown."""
    for name in schema.names:
        role, column = meaning(name).role, _quoted(name)
        if role == "url":
            # grouped as it is written first: the rest is then done for each host, not each row
            yield "domains", f"split_part({column}, '/', 3)", DOMAIN
        elif role in ("language", "licence", "label"):
            yield {"language": "languages", "licence": "licences"}.get(role, name), column, "value"


def _top(db: "duckdb.DuckDBPyConnection", expression: str, shown: str) -> dict[str, Any]:
    each = f"select {expression} as value, count(*) as n from release group by 1"
    db.execute(
        "create or replace temp table counted as"
        f" select {shown} as value, sum(n)::bigint as n from ({each}) group by 1"
    )
    first = db.execute(
        f"select value, n from counted where value is not null and n >= {LEAST}"
        f" order by n desc, value limit {TOP}"
    ).fetchall()
    row = db.execute(
        "select count(value), coalesce(sum(n) filter (value is not null), 0)::bigint,"
        " coalesce(sum(n) filter (value is null), 0)::bigint from counted"
    ).fetchone()
    assert row is not None
    values, rows, missing = row
    return {
        "values": [{"value": value, "rows": n} for value, n in first],
        "others": {"values": values - len(first), "rows": rows - sum(n for _, n in first)},
        "missing": missing,
        "least": LEAST,
    }


def _digests(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if meaning(name).role in ("md5", "sha256")]


def _repeats(db: "duckdb.DuckDBPyConnection", column: str) -> list[dict[str, int]]:
    """How many digests of an image stand in 1 row, 2, up to 4, up to 8 and so on."""
    return _sizes(db, "release", column, "images")


def group_sizes(db: "duckdb.DuckDBPyConnection") -> list[dict[str, int]]:
    """How many groups of duplicates have up to 2 rows, 4, 8 and so on, and their rows, by the table
    ``duplicate_group`` that a build has; for ``Manifest.duplicate_groups``."""
    return _sizes(db, "duplicate_group", "representative", "groups")


def _sizes(
    db: "duckdb.DuckDBPyConnection", table: str, column: str, what: str
) -> list[dict[str, int]]:
    name = _quoted(column)
    found = db.execute(
        "select ceil(log2(n))::integer as size, count(*), sum(n)::bigint from (select count(*) as n"
        f" from {table} where {name} is not null group by {name}) group by 1 order by 1"
    ).fetchall()
    return [{"up_to": 2**size, what: groups, "rows": rows} for size, groups, rows in found]
