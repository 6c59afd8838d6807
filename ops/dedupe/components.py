"""From pairs to groups, with a diameter cap: a row goes only next to the row that stays.

Connected components alone would chain: at radius 3, a path of ten rows joins images 27 bits apart.
Here the first row by rank stays and takes its neighbours along, then the first of the rest, to the
end (greedy independent set by rank; Blelloch, Fineman and Shun, 2012). So no two rows that stay are
neighbours, each that goes is a neighbour of its representative, and the result depends on the
ranks alone. Removed rows are no neighbours of one another: each of them takes its own along.
"""

import duckdb
import numpy as np
import numpy.typing as npt

from pairmill.ops.dedupe import tables
from pairmill.ops.dedupe.tables import Longs

# Of 16 bytes; more go round by round in DuckDB, about log² of the rows in number (the same paper)
IN_MEMORY = 20_000_000
KEPT = 2**95  # ranks from here on are of rows that are not removed


def gone(a: Longs, b: Longs, count: int) -> npt.NDArray[np.bool_]:
    """bool[count]: the vertices that go. a, b: int64[n], edges with a < b, sorted by a; vertices
    are numbered by rank, from 0."""
    goes = np.zeros(count, np.bool_)
    if not len(a):
        return goes
    firsts, starts = np.unique(a, return_index=True)
    ends = np.append(starts[1:], len(a))
    for first, start, end in zip(firsts.tolist(), starts.tolist(), ends.tolist(), strict=True):
        if not goes[first]:
            goes[b[start:end]] = True
    return goes


def group(
    db: duckdb.DuckDBPyConnection,
    pairs: str,
    ranks: str,
    found: str,
    *,
    in_memory: int = IN_MEMORY,
) -> None:
    """Make the table ``found`` (sample_id BIGINT, of BIGINT): the rows that go and, of each, the
    neighbour of the lowest rank that stays.

    pairs: a table (a, b) of sample_ids, each pair at least once, in any order. ranks: a table
    (sample_id, rank), of which the lowest rank is the best, as ``exact.make_rows`` makes them.
    """
    vertex, edge = f"{found}_vertex", f"{found}_edge"
    db.execute(
        f"CREATE OR REPLACE TABLE {vertex} AS"
        f" SELECT row_number() OVER (ORDER BY rank) - 1 AS v, sample_id, rank < {KEPT} AS removed"
        f" FROM {ranks} WHERE sample_id IN (SELECT a FROM {pairs} UNION SELECT b FROM {pairs})"
    )
    db.execute(
        f"CREATE OR REPLACE TABLE {edge} AS"
        " SELECT DISTINCT least(x.v, y.v) AS a, greatest(x.v, y.v) AS b"
        f" FROM {pairs} p JOIN {vertex} x ON x.sample_id = p.a JOIN {vertex} y ON y.sample_id = p.b"
        " WHERE x.v <> y.v AND NOT (x.removed AND y.removed)"
    )
    db.execute(f"CREATE OR REPLACE TABLE {found}_gone (v BIGINT)")
    left = f"{found}_left"
    db.execute(f"CREATE OR REPLACE TABLE {left} AS FROM {edge}")
    while tables.count(db, left) > in_memory:
        _round(db, left, f"{found}_gone")
    _rest(db, left, f"{found}_gone", tables.count(db, vertex))
    db.execute(
        f"CREATE OR REPLACE TABLE {found} AS SELECT y.sample_id, x.sample_id AS of FROM ("
        f" SELECT b, min(a) AS a FROM {edge} WHERE b IN (FROM {found}_gone)"
        f" AND a NOT IN (FROM {found}_gone) GROUP BY b"
        f") e JOIN {vertex} x ON x.v = e.a JOIN {vertex} y ON y.v = e.b"
    )
    tables.drop(db, found, "vertex", "edge", "left", "gone")


def _round(db: duckdb.DuckDBPyConnection, left: str, gone_table: str) -> None:
    """A vertex without a better neighbour stays; its neighbours go, and the edges of both."""
    db.execute(
        f"CREATE OR REPLACE TABLE {left}_now AS SELECT DISTINCT b AS v FROM {left}"
        f" WHERE a NOT IN (SELECT b FROM {left})"
    )
    db.execute(f"INSERT INTO {gone_table} FROM {left}_now")
    db.execute(
        f"CREATE OR REPLACE TABLE {left} AS FROM {left}"
        f" WHERE a NOT IN (FROM {left}_now) AND b NOT IN (FROM {left}_now)"
    )
    db.execute(f"DROP TABLE {left}_now")


def _rest(db: duckdb.DuckDBPyConnection, left: str, gone_table: str, count: int) -> None:
    edges = db.execute(f"SELECT a, b FROM {left} ORDER BY a, b").fetchnumpy()
    a, b = (np.asarray(edges[name], np.int64) for name in ("a", "b"))
    names = np.unique(np.concatenate([a, b]))  # of the vertices that are left, which may be few
    goes = names[gone(np.searchsorted(names, a), np.searchsorted(names, b), len(names))]
    tables.insert(db, gone_table, {"v": goes})
