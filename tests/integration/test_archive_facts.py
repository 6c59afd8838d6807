"""Facts: the files say what the database says, and give it all back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pairmill.ops.archive.catalogue import current, partitions
from pairmill.ops.archive.columns import ARCHIVED
from pairmill.ops.archive.detach import detach
from pairmill.ops.archive.export import export
from pairmill.ops.archive.facts import Facts
from pairmill.ops.archive.generations import archive, to_archive
from pairmill.ops.archive.restore import restore
from support.database import Database
from support.random_history import RandomHistory
from support.template import Template

SAMPLE = "mill.sample_id(x.batch_id, x.n)"
NOT_WITHDRAWN = "not exists (select from mill.withdrawn w where w.submission_id = x.submission_id)"
# of each file: its columns in SQL, and the condition under which a row counts, independently told
TABLES: dict[str, tuple[str, str]] = {
    "pair": (
        "url, text, language, language_probability, (select f.language_detector from mill.wat_file f"
        " where f.wat_id = x.wat_id), license, (select b.link_kind from mill.batch b"
        " where b.batch_id = x.batch_id), wat_id, page, (select g.url from mill.page g"
        " where (g.wat_id, g.submission_id, g.page) = (x.wat_id, x.submission_id, x.page)), submission_id",
        NOT_WITHDRAWN,
    ),
    "download": (
        "attempt, outcome, http_status, bytes, width, height, uuid_send(md5), sha1, sha256, dhash,"
        " pdq, submission_id",
        "exists (select from mill.current_download c where c.batch_id = x.batch_id and c.n = x.n"
        " and c.attempt = x.attempt)",
    ),
    "score": (
        "attempt, outcome, similarity, text_tokens, submission_id",
        "exists (select from mill.current_score c where c.batch_id = x.batch_id and c.n = x.n"
        " and c.model_id = x.model_id and c.attempt = x.attempt and c.submission_id = x.submission_id)",
    ),
    "tag": (
        "attempt, label, value, text, submission_id",
        "exists (select from mill.current_tag c where c.batch_id = x.batch_id and c.n = x.n"
        " and c.model_id = x.model_id and c.attempt = x.attempt and c.submission_id = x.submission_id)",
    ),
    "embedding": (
        "attempt, image, text, submission_id",
        "exists (select from mill.current_score c where c.batch_id = x.batch_id and c.n = x.n"
        " and c.model_id = x.model_id and c.attempt = x.attempt and c.submission_id = x.submission_id)",
    ),
    "opt_out": (
        "attempt, signal, value, source, read_at, submission_id",
        f"{NOT_WITHDRAWN} and exists (select from mill.current_download c where c.batch_id = x.batch_id"
        " and c.n = x.n and c.attempt = x.attempt)",
    ),
    "refetch": ("attempt, outcome, of_attempt, submission_id", NOT_WITHDRAWN),
}  # fmt: skip
# what no line makes, and a file must give back all the same
ODD = (
    "update mill.pair set text = E'\"quoted\", back\\\\slash, \\U0001F99C and ' || n,"
    " license = '', language_probability = 'NaN' where n % 7 = 1",
    "update mill.download set sha1 = substr(sha256, 1, 20), pdq = sha256,"
    " dhash = case when n % 2 = 0 then -9223372036854775808 end where n % 3 = 1",
    "update mill.score set similarity = '-0'::real where n % 5 = 1",
    "update mill.score set similarity = 1e-45::real, text_tokens = null where n % 5 = 2",
    "update mill.tag set value = 'Infinity', text = 'words', label = -1 where n % 5 = 2",
    "insert into mill.refetch select batch_id, n, 9, outcome, nullif(attempt, 2), submission_id"
    " from mill.download where n % 4 = 0 and attempt < 9 on conflict do nothing",
)


@pytest.fixture(scope="module")
def db(template: Template) -> Iterator[Database]:
    with template.copy() as database:
        RandomHistory(database, 1).run()
        for statement in ODD:
            database.admin.execute(statement)
        yield database


def same(value: Any) -> Any:
    """Values that compare by their bits: -0 is not 0, and NaN is NaN."""
    if isinstance(value, list):
        return np.array(value, np.float16).tobytes()
    return np.float32(value).tobytes() if isinstance(value, float) else value


def read(facts: Facts, table: str, model_id: int | None) -> list[tuple[Any, ...]]:
    if not facts.has(table, model_id):
        return []
    rows = pq.read_table(facts.path(table, model_id)).to_pylist()
    return [tuple(same(value) for value in row.values()) for row in rows]


def expected(db: Database, table: str, model_id: int | None) -> list[tuple[Any, ...]]:
    columns, counts = TABLES[table]
    model = "" if model_id is None else f" where x.model_id = {model_id}"
    order = "x.batch_id, x.n" + (", x.attempt, x.submission_id" if table != "pair" else "")
    rows = db.rows(
        f"select {SAMPLE}, {counts}, {columns} from mill.{table} x{model} order by {order}"
    )
    return [tuple(same(value) for value in row) for row in rows]


def test_files_have_every_row_and_say_which_count(db: Database, tmp_path: Path) -> None:
    """Would catch: a value of the next row, a null in its place, bits of a float lost, an attempt
    that was withdrawn or superseded taken for the one that counts, rows in another order."""
    facts = export(db.admin, tmp_path, 0, 10_000, tables=ARCHIVED)
    of_models = [("score", 1), ("score", 2), ("tag", 3), ("embedding", 1), ("embedding", 2)]
    for table, model_id in [
        (t, None) for t in ("pair", "download", "opt_out", "refetch")
    ] + of_models:
        rows = expected(db, table, model_id)
        assert rows
        assert read(facts, table, model_id) == rows
    counting = [{row[1] for row in read(facts, t, None)} for t in ("pair", "download", "opt_out")]
    assert counting == [{True, False}] * 3


def test_an_export_of_a_few_samples_has_their_rows_alone(db: Database, tmp_path: Path) -> None:
    """Would catch: rows of other positions, or which of the sample's rows count told anew."""
    chosen = {row[0] for row in expected(db, "pair", None)[3::17]}
    facts = export(db.admin, tmp_path, 0, 10_000, samples=chosen, model_ids=[1])
    for table, model_id in (("pair", None), ("download", None), ("score", 1)):
        rows = [row for row in expected(db, table, model_id) if row[0] in chosen]
        assert rows
        assert read(facts, table, model_id) == rows
    assert not facts.has("score", 2)


def test_a_range_without_rows_makes_no_file(db: Database, tmp_path: Path) -> None:
    facts = export(db.admin, tmp_path, 10_000, 10_999)
    assert not list(tmp_path.iterdir())
    assert not facts.has("pair")


def everything(db: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that has partitions by batch, with the bits of its floats."""
    found = {}
    for (table,) in db.rows(
        "select c.relname from pg_partitioned_table p join pg_class c on c.oid = p.partrelid join pg_attribute a"
        " on a.attrelid = c.oid and a.attnum = p.partattrs[0] where a.attname = 'batch_id' order by 1"
    ):
        reals = db.rows(
            "select attname from pg_attribute where attrelid = %s::regclass and atttypid = 'real'::regtype",
            f"mill.{table}",
        )
        bits = "".join(f", float4send({name})" for (name,) in reals)
        found[table] = db.rows(f"select x::text{bits} from mill.{table} x order by 1")
    return found


def test_a_partition_leaves_the_database_and_comes_back_bit_for_bit(
    db: Database, tmp_path: Path
) -> None:
    """Would catch: a table or a column that restore forgets, a row that it changes; one that detach
    leaves; and a table with batches that came later and neither knows."""
    db.admin.execute(
        "insert into mill.batch (batch_id, bucket, closed_at) overriding system value"
        " values (1000, 0, now())"
    )
    before = everything(db)
    assert all(before.values())
    (written,) = archive(db.admin, to_archive(db.admin, 0, 999, partial=False), str(tmp_path))
    assert current(db.admin) == [written.facts()]
    detach(db.admin, written)
    assert not any(everything(db).values())
    (gone,) = partitions(db.admin, 0, 999)
    assert gone.is_current
    assert gone.detached_at
    assert current(db.admin) == [written.facts()]
    assert restore(db.admin, gone) == 0
    assert everything(db) == before
    assert current(db.admin) == [written.facts()]
