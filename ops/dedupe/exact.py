"""Rows as the methods read them: a rank and a key for each method; and rows with an equal key."""

from collections.abc import Sequence

import duckdb

from pairmill.ops.dedupe import texts
from pairmill.ops.dedupe.components import KEPT
from pairmill.ops.dedupe.spec import Dedupe
from pairmill.ops.dedupe.url_keys import normalised

# 128 bits of a key: of 10^10 rows two others agree with a chance of 10^-19
KEYS = {
    "url": f"md5_number({normalised('url')})",
    "bytes": "md5_number(hex(sha256))",
    "url_text": "md5_number(md5(url) || md5(coalesce(text, '')))",
}
# Lower is better, in 32 bits
PREFERENCES = {
    "oldest": "0",
    "largest": "4294967295 - least(4294967295, coalesce(width::BIGINT * height, 0))",
    "highest_similarity": """2000000000 - (1e9 * CASE WHEN coalesce(isnan(similarity), true) THEN -1
        ELSE greatest(-1, least(1, similarity)) + 0.0 END + 1e9)::BIGINT""",
}


def make_rows(db: duckdb.DuckDBPyConnection, pool: str, spec: Dedupe, rows: str) -> None:
    """Make the table ``rows`` (sample_id, rank, removed, dhash, and a column each of key_url,
    key_bytes, key_url_text, key_text that the spec asks for) of a pool.

    rank: HUGEINT, unique, the lowest is the best: what is removed first, so that it takes
    its neighbours along; then the recipe's representative; then the oldest.
    """
    columns = [f"{KEYS[method]} AS key_{method}" for method in dict.fromkeys(spec.exact)]
    if spec.text != "none":
        texts.register(db)
        columns.append(f"{texts.key('text', spec.min_text_length)} AS key_text")
    preference = PREFERENCES[spec.representative]
    db.execute(
        f"CREATE OR REPLACE TABLE {rows} AS SELECT sample_id,"
        f" (coalesce(removed, false) = false)::INT::HUGEINT * {KEPT}"
        f" + ({preference})::HUGEINT * 9223372036854775808 + sample_id AS rank,"
        f" coalesce(removed, false) AS removed, dhash {''.join(f', {c}' for c in columns)}"
        f" FROM {pool}"
    )


def equal(
    db: duckdb.DuckDBPyConnection, rows: str, key: str, found: str, where: Sequence[str] = ()
) -> None:
    """Make the table ``found`` (sample_id, of) of rows whose ``key`` an earlier one by rank has;
    NULL is no key."""
    among = " AND ".join([f"{key} IS NOT NULL", *where])
    db.execute(
        f"CREATE OR REPLACE TABLE {found} AS SELECT r.sample_id,"
        " (first.rank % 9223372036854775808)::BIGINT AS of"
        f" FROM {rows} r JOIN (SELECT {key} AS key, min(rank) AS rank FROM {rows}"
        f" WHERE {among} GROUP BY key HAVING count(*) > 1) first ON first.key = r.{key}"
        f" WHERE {among} AND r.rank <> first.rank"
    )
