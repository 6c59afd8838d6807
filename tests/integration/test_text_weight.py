"""The weight of a text in SQL and in Python."""

import random

import duckdb
import pyarrow as pa

from pairmill.ops.release import filters
from pairmill.workers.extract.text import weight
from support.database import Database

# two of each range's ends and their neighbours outside, and a few of other scripts
ENDS = (
    0x3005, 0x3007, 0x3400, 0x4DBF, 0x4E00, 0x9FFF, 0xF900, 0xFAFF, 0x20000, 0x3FFFF, 0xAC00,
    0xD7A3, 0x30A1, 0x30FA, 0x30FC, 0x30FF, 0x31F0, 0x31FF, 0xFF66, 0xFF9D, 0x3041, 0x3096, 0x309D,
    0x309F, 0x05D0, 0x05EA, 0x1200, 0x139F, 0x2D80, 0x2DDF, 0xAB00, 0xAB2F,
)  # fmt: skip
OTHERS = "aZ 7é.ßжαกາကཀअ\u0301🦊\U0010ffff\n'\\%"


def test_sql_and_python_weigh_alike(db: Database) -> None:
    """Fault: a pair that the extractor kept for a recipe is too short for it, or the reverse; of a
    release, which weighs by DuckDB, other than in the database."""
    rng = random.Random(5)
    near = [chr(end + step) for end in ENDS for step in (-1, 0, 1)]
    texts = [*near, *(f"a{one}" for one in near), "", *OTHERS]
    texts += ["".join(rng.choices([*near, *OTHERS], k=rng.randint(0, 12))) for _ in range(2_000)]
    found = db.rows(
        "select text, mill.text_weight(text) from unnest(%s::text[]) with ordinality u (text, place)"
        " order by place", texts,
    )  # fmt: skip
    assert found == [(text, weight(text)) for text in texts]
    with duckdb.connect() as engine:
        engine.register("given", pa.table({"text": texts}))
        answers = engine.execute(f"select text, {filters.weight('text')} from given").fetchall()
    assert [(text, float(each)) for text, each in answers] == found
