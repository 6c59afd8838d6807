"""Kinds of work: what a declaration says, the database does."""

from collections.abc import Iterator

import psycopg
import pytest

from pairmill.schema import kinds, routines
from pairmill.schema.kinds import KINDS, Kind
from pairmill.workers.errors import Refused
from support.database import Database, empty_database, make_schema


@pytest.fixture
def declare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two kinds of items more: one that the scorers' logins claim, with leases of its own length."""
    more = (Kind("describe", "item", worker_kind="score", lease_seconds=7, lease_max_seconds=9),)
    monkeypatch.setattr(kinds, "KINDS", (*KINDS, *more, Kind("measure", "item")))
    monkeypatch.setattr(
        routines,
        "sql",
        lambda part, sql=routines.sql: (
            "" if part in ("kinds/describe", "kinds/measure") else sql(part)
        ),
    )
    routines._body.cache_clear()
    yield
    routines._body.cache_clear()


def test_the_declarations_are_rows(db: Database) -> None:
    rows = db.rows("select to_jsonb(k) from mill.task_kind k order by name")
    assert [row for (row,) in rows] == sorted(
        (kind.row for kind in KINDS), key=lambda row: row["name"]
    )
    assert {name for (name,) in db.rows("select name from mill.worker_kind")} == set(
        kinds.worker_kinds()
    )


@pytest.mark.parametrize(
    "task",
    [
        "(kind, wat_id) values ('download', 1)",
        "(kind, batch_id) values ('extract', 0)",
        "(kind, batch_id) values ('score', 0)",  # of no model
        "(kind, batch_id, model_id) values ('download', 0, 1)",
        "(kind, wat_id) values ('invented', 1)",
    ],
)
def test_a_task_that_its_kind_does_not_allow_is_refused(db: Database, task: str) -> None:
    """Would catch: a task that no worker of its kind could do."""
    db.add_model()
    db.extract(["http://a.example/1.jpg"])
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="task_kind_fkey"):
        db.admin.execute(f"insert into mill.task {task}")


def test_a_task_is_about_one_thing(db: Database) -> None:
    db.extract(["http://a.example/1.jpg"])
    for columns, values in (("kind", "'extract'"), ("kind, wat_id, batch_id", "'extract', 1, 0")):
        with pytest.raises(psycopg.errors.CheckViolation, match="task_subject_check"):
            db.admin.execute(f"insert into mill.task ({columns}) values ({values})")


def test_a_kind_is_claimed_by_the_logins_that_it_names(server: str, declare: None) -> None:
    with empty_database(server) as dsn:
        make_schema(dsn)
        db = Database(dsn)
        add = "select mill.add_items(%s, array['{\"a\": 1}', '{\"a\": 2}']::jsonb[])"
        for kind in ("describe", "measure"):
            assert db.value(add, kind) == 2
        score, instance = db.queue("score")
        with pytest.raises(
            Refused, match="is of kind score, which claims no tasks of kind measure"
        ):
            score.claim(instance, kind="measure")
        with pytest.raises(Refused, match="weights"):  # its own kind needs a model, the other none
            score.claim(instance)
        claim = score.claim(instance, kind="describe")
        assert claim
        lived = (
            "select extract(epoch from {} - claimed_at)::int from mill.lease where lease_id = %s"
        )
        assert db.value(lived.format("expires_at"), claim.lease_id) == 7
        assert db.value(lived.format("deadline"), claim.lease_id) == 9
        assert 6 <= score.heartbeat(claim.lease_id) <= 7
        assert not score.drained(kind="describe")
        download, instance = db.queue("download")
        with pytest.raises(Refused, match="claims no tasks of kind describe"):
            download.claim(instance, kind="describe")
        assert download.drained()  # what is upstream of it is empty
        queue = dict(db.rows("select kind, ready from report.queue"))
        assert queue == {"extract": 0, "download": 0, "score": 0, "describe": 1, "measure": 2}
        db.close()


def test_a_kind_without_a_function_that_it_needs_is_named(
    server: str, monkeypatch: pytest.MonkeyPatch, declare: None
) -> None:
    monkeypatch.setattr(kinds, "KINDS", (*kinds.KINDS, Kind("describe_all", "batch")))
    monkeypatch.setattr(
        routines,
        "sql",
        lambda part, sql=routines.sql: "" if part == "kinds/describe_all" else sql(part),
    )
    routines._body.cache_clear()
    with (
        empty_database(server) as dsn,
        pytest.raises(
            Exception, match=r"kind describe_all has no function mill.describe_all_payload"
        ),
    ):
        make_schema(dsn)


def test_every_table_by_batch_has_its_partitions(db: Database) -> None:
    """Would catch: a new kind's table whose partitions nobody makes."""
    db.admin.execute(
        "create table mill.caption (batch_id bigint, n int, primary key (batch_id, n)) partition by range (batch_id)"
    )
    db.admin.execute("select mill.ensure_partitions(1500)")
    assert db.rows(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'mill.caption'::regclass order by 1"
    ) == [("mill.caption_b000000",), ("mill.caption_b000001",)]
