"""The history by day: its sums are the rows that count, and stewards that count wait in one order. The
counters of the funnel over the same history."""

from collections.abc import Iterator
from datetime import date
from typing import Any

import psycopg
import pytest

from support.counted import miscounted
from support.database import Database
from support.random_history import RandomHistory
from support.template import Template

# each stage's rows that count now, by name and model: read from the rows, not from any count
COUNTED = {
    "download": "select o.name, null, count(*) from mill.download d join mill.outcome o on o.code = d.outcome"
    " join mill.submission s using (submission_id) join mill.task t on t.task_id = s.task_id and t.kind = 'download' and not t.is_replica"
    " where not exists (select from mill.withdrawn w where w.submission_id = d.submission_id) group by 1",
    "opt_out": "select x.signal, null, count(*) from mill.opt_out x"
    " join mill.submission s using (submission_id) join mill.task t on t.task_id = s.task_id and t.kind = 'download'"
    " where not exists (select from mill.withdrawn w where w.submission_id = x.submission_id) group by 1",
    "opted_out": "select x.signal, null, count(*) from mill.opt_out x"
    " join mill.submission s using (submission_id) join mill.task t on t.task_id = s.task_id and t.kind = 'extract'"
    " where not exists (select from mill.withdrawn w where w.submission_id = x.submission_id) group by 1",
    "score": "select o.name, m.name, count(*) from mill.score s join mill.score_outcome o on o.code = s.outcome join mill.model m using (model_id)"
    " where not exists (select from mill.withdrawn w where w.submission_id = s.submission_id) group by 1, 2",
    "pair": "select coalesce(p.language, ''), null, count(*) from mill.pair p"
    " where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id) group by 1",
    "files": "select '', null, count(distinct wat_id) from mill.wat_count",
    "removed_pair": "select '', null, count(distinct (batch_id, n)) from mill.removed_pair",
}


class Checked(RandomHistory):
    """A history that is counted before and after each withdrawal."""

    def _withdraw(self, kind: str) -> None:
        assert miscounted(self.db) == {}, f"before {kind} is withdrawn"
        super()._withdraw(kind)
        assert miscounted(self.db) == {}, f"after {kind} is withdrawn"


@pytest.fixture(scope="module", params=[1])
def line(template: Template, request: pytest.FixtureRequest) -> Iterator[Database]:
    with template.copy() as db:
        Checked(db, request.param).run()
        yield db


def sums(db: Database, stage: str) -> set[tuple[Any, ...]]:
    return set(
        db.rows(
            "select name, model, sum(added - withdrawn)::bigint from report.history where stage = %s"
            " group by 1, 2 having sum(added - withdrawn) > 0",
            stage,
        )
    )


@pytest.mark.parametrize("stage", COUNTED)
def test_sums_are_the_rows_that_count(line: Database, stage: str) -> None:
    expected = set(line.rows(COUNTED[stage]))
    assert expected, "the history has none of it"
    assert sums(line, stage) == expected


def test_every_withdrawal_is_counted_once(line: Database) -> None:
    taken = line.value(
        "select sum(withdrawn) from report.history where stage in ('download', 'score')"
    )
    assert taken == line.value(
        "select sum(row_count) from mill.submission s join mill.withdrawn using (submission_id)"
        " join mill.task t using (task_id) where t.kind in ('download', 'score')"
    )


def test_a_withdrawal_counts_on_its_own_day(line: Database) -> None:
    with line.admin.transaction(force_rollback=True):
        line.admin.execute("update mill.daily_count set day = '2024-02-29'")
        line.admin.execute("update mill.withdrawn set withdrawn_at = '2024-03-01 23:59+00'")
        days = line.rows(
            "select day, sum(added) > 0, sum(withdrawn) > 0 from report.history"
            " where stage = 'download' group by 1 order by 1"
        )
    assert days == [(date(2024, 2, 29), True, False), (date(2024, 3, 1), False, True)]


def test_undone_removals_go_on_their_own_day(line: Database) -> None:
    with line.admin.transaction(force_rollback=True):
        line.admin.execute("delete from mill.removed_pair")
        line.admin.execute("delete from mill.daily_count where stage = 'removed_pair'")
        line.admin.execute(
            "insert into mill.removal (source, host, reason) values ('x.example', 'x.example', '')"
        )
        line.admin.execute(
            "insert into mill.removed_pair (batch_id, n, removal_id, found_at)"
            " select 0, n, max(removal_id), '2024-02-29 12:00Z' from mill.removal, generate_series(0, 2) n group by n"
        )
        line.admin.execute(
            "select mill.undo_removals(array[max(removal_id)], '') from mill.removal"
        )
        line.admin.execute("delete from mill.removal_undone where source <> 'x.example'")
        line.admin.execute("update mill.removal_undone set undone_at = '2024-03-01 12:00Z'")
        days = line.rows(
            "select day, added, withdrawn from report.history where stage = 'removed_pair' order by 1"
        )
    assert days == [(date(2024, 2, 29), 3, 0), (date(2024, 3, 1), 0, 3)]


def test_stewards_lock_counts_in_one_order(line: Database) -> None:
    """Two that counted in the orders of their arrays would each wait for the other."""
    counts = '[{{"stage": "{}", "count": 1}}, {{"stage": "{}", "count": 1}}]'
    call = (
        "select mill.count_day(s, t, %s::jsonb) from mill.submission s join mill.task t using (task_id)"
        " where t.kind = 'download' and not t.is_replica limit 1"
    )
    row = "select from mill.daily_count where stage = %s for update nowait"
    with psycopg.connect(line.dsn) as one, psycopg.connect(line.dsn) as two:
        one.execute(call, (counts.format("zz", "aa"),))
        one.commit()
        one.execute(row, ("zz",))
        two.execute("set lock_timeout = '50ms'")
        two.execute("savepoint waiting")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute(call, (counts.format("zz", "aa"),))  # it has aa, and waits for zz
        two.execute("rollback to waiting")
        one.rollback()
        one.execute(row, ("aa",))
        two.execute("savepoint waiting")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute(call, (counts.format("zz", "aa"),))  # it waits for aa,
        one.execute(row, ("zz",))  # and has not locked zz before


INTERFERENCE = {
    "nothing": "select 1",
    "sums are added up": "select mill.fold_counts()",
    "pairs are fetched again for a model": "select * from mill.backfill_model(2, 0, 1000)",
    "tasks are parked": "select mill.park_task(task_id, '') from mill.task where state = 'ready' and task_id % 2 = 0",
    "tasks are given up": "select mill.discard_task(task_id, '') from mill.task where state = 'ready'",
    "a model is retired": "select * from mill.retire_model(1)",
    "a worker is put into quarantine": "select * from mill.quarantine_worker('bob', null, 'it lied')",
    "a file is taken back": "select * from mill.remove_wats(array[2], 'not wanted')",
    "all is put into quarantine": "select mill.quarantine_worker(name, null, 'it lied') from mill.worker",
}  # fmt: skip


@pytest.mark.parametrize("what", INTERFERENCE)
def test_counters_are_the_rows_after(line: Database, what: str) -> None:
    """Each after those before it: a change that counts what another had taken away shows here."""
    line.admin.execute(INTERFERENCE[what])
    assert miscounted(line) == {}
