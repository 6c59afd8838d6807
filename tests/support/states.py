"""The arrows of docs/states.md, the changes of state that a database records, and what must always hold."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from pairmill.workers.queue import Claim
from support.database import Database

PAGE = Path(__file__).parents[2] / "docs" / "states.md"


# ---- the page, and what happens ----------------------------------------------------------------


class Arrow(NamedTuple):
    machine: str
    old: str
    new: str
    function: str


def arrows_of_the_page() -> set[Arrow]:
    """The rows of the tables whose head is from, to, function, when."""
    found, machine, inside = set(), "", False
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            machine = line[3:].lower()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        inside = line.startswith("|") and (inside or cells == ["from", "to", "function", "when"])
        if inside and len(cells) == 4 and cells[2].startswith("`"):
            found.add(Arrow(machine, cells[0], cells[1], cells[2].strip("`")))
    return found


RECORDER = """
create schema seen;
create table seen.change (machine text, old text, new text, stack text);
create function seen.state(machine text, r jsonb) returns text language sql immutable as $$
    select case machine
        when 'lease' then coalesce(r ->> 'ended_as', 'live')
        when 'batch' then case when r ->> 'closed_at' is null then 'open' else 'closed' end
        when 'worker' then case when r ->> 'disabled_at' is null then 'active' else 'disabled' end
        else r ->> 'state' end
$$;
create function seen.note() returns trigger language plpgsql security definer as $$
declare
    machine text := tg_argv[0];
    old_state text := '(new)';
    new_state text := '(gone)';
    stack text;
begin
    get diagnostics stack = pg_context;
    if tg_table_name = 'withdrawn' then
        select state into old_state from mill.submission where submission_id = new.submission_id;
        new_state := 'withdrawn';
    else
        if tg_op <> 'INSERT' then old_state := seen.state(machine, to_jsonb(old)); end if;
        if tg_op <> 'DELETE' then new_state := seen.state(machine, to_jsonb(new)); end if;
    end if;
    if old_state is distinct from new_state then
        insert into seen.change values (machine, old_state, new_state, stack);
    end if;
    return null;
end
$$;
"""
RECORDED = {
    "task": "task", "lease": "lease", "submission": "submission", "withdrawn": "submission",
    "thumbnail_slot": "thumbnail slot", "batch": "batch", "worker": "worker", "replication": "replication",
}  # fmt: skip


def record(db: Database) -> None:
    """Have a database keep each change of state, and the functions that made it."""
    db.admin.execute(RECORDER)
    for table, machine in RECORDED.items():
        events = "insert" if table == "withdrawn" else "insert or update or delete"
        db.admin.execute(
            f"create trigger seen after {events} on mill.{table}"
            f" for each row execute function seen.note('{machine}')"
        )


def seen(db: Database) -> set[tuple[str, str, str, frozenset[str]]]:
    """(machine, from, to, the functions that were at work, without their schemas)."""
    return {
        (machine, old, new, functions(stack))
        for machine, old, new, stack in db.rows(
            "select distinct machine, old, new, stack from seen.change"
        )
    }


def functions(stack: str) -> frozenset[str]:
    # of a function in SQL PostgreSQL gives the name without its schema
    found = re.findall(
        r'^(?:PL/pgSQL function (?:\w+\.)?(\w+)\(|SQL function "(\w+)")', stack, re.M
    )
    return frozenset(a or b for a, b in found) - {"note"}


def walked(db: Database, page: set[Arrow]) -> set[Arrow]:
    """The arrows of the page that were seen; fails where one was seen that is not on it."""
    found, strange = set(), []
    for machine, old, new, stack in seen(db):
        these = {
            a for a in page
            if a[:3] == (machine, old, new) and a.function.partition(".")[2] in stack
        }  # fmt: skip
        found |= these
        if not these:
            strange.append(f"{machine}: {old} -> {new} by {sorted(stack) or 'nobody'}")
    assert not strange, f"not in {PAGE.name}: {strange}"
    return found


# What must hold between any two calls; each query gives what breaks it.
BROKEN = """
select 'a task with two live leases', task_id from mill.lease where ended_at is null group by task_id having count(*) > 1
union all
select 'a task is leased and has no live lease, or the other way round', task_id
  from mill.task t
 where (state = 'leased') <> exists (select from mill.lease l where l.task_id = t.task_id and l.ended_at is null)
union all
select 'a task awaits acceptance of nothing', task_id
  from mill.task t
 where state = 'submitted' and not exists (select from mill.submission s where s.task_id = t.task_id and s.state = 'received')
union all
select 'two rows of one attempt', batch_id from mill.download group by batch_id, n, attempt having count(*) > 1
union all
select 'two rows of a pair count', batch_id from mill.current_download group by batch_id, n having count(*) > 1
union all
select 'rows of a download submission are not there, or are there too early', s.submission_id
  from mill.submission s join mill.task t using (task_id)
 where t.kind = 'download'
   and (s.row_count <> case s.state when 'received' then (select cardinality(positions) from mill.submission_download d where d.submission_id = s.submission_id)
                                    when 'rejected' then s.row_count else 0 end
                     + (select count(*) from mill.download d where d.submission_id = s.submission_id)
                     + (select count(*) from mill.refetch f where f.submission_id = s.submission_id)
        or s.state <> 'received' and exists (select from mill.submission_download d where d.submission_id = s.submission_id))
union all
-- withdrawn later or not: what is done has been given once
select 'a position of a done download has not one row', t.task_id
  from mill.task t
  join mill.pair p on p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))
 where t.kind = 'download' and t.state = 'done'
   and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
   and not exists (select from mill.removed_pair r where r.batch_id = p.batch_id and r.n = p.n)
   and 1 <> (select count(*) from mill.download d where d.batch_id = p.batch_id and d.n = p.n and d.attempt = t.attempt)
            + (select count(*) from mill.refetch f where f.batch_id = p.batch_id and f.n = p.n and f.attempt = t.attempt)
union all
-- a row of this attempt that counts no more is not asked for again: the task does not stand for its position
select 'a pair is lost', p.batch_id
  from mill.pair p
  join mill.batch b on b.batch_id = p.batch_id and b.closed_at is not null
 where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
   and not exists (select from mill.removed_pair r where r.batch_id = p.batch_id and r.n = p.n)
   and not exists (select from mill.current_download d where d.batch_id = p.batch_id and d.n = p.n)
   and not exists (
       select from mill.task t
        where t.kind = 'download' and t.batch_id = p.batch_id and t.state <> 'done' and not t.is_replica and t.for_model_id is null
          and (t.positions is null or p.n = any (t.positions))
          and not exists (select from mill.download d where d.batch_id = p.batch_id and d.n = p.n and d.attempt = t.attempt))
union all
select 'two scores of a pair by one model count', batch_id from mill.current_score group by batch_id, n, model_id having count(*) > 1
union all
select 'two tags of a pair by one tagger count', batch_id from mill.current_tag group by batch_id, n, model_id having count(*) > 1
union all
select 'a URL has two pairs that count', min(batch_id)
  from mill.pair p where not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
 group by url having count(*) > 1
union all
select 'credit is not what was accepted and counts', w.worker_id
  from report.worker r
  join mill.worker w using (name)
 where w.kind = 'download'
   and r.rows_accepted <> (select count(*)
                             from (select submission_id from mill.download union all select submission_id from mill.refetch) d
                             join mill.submission s using (submission_id)
                            where s.worker_id = w.worker_id
                              and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id))
"""


def batches(db: Database, count: int, size: int = 2) -> None:
    """So many download tasks, each of so many URLs."""
    for i in range(count):
        db.extract([f"http://b{i}.example/{n}.jpg" for n in range(size)], f"batch-{i}.wat")
        db.close_batches()


def leased(db: Database, kind: str, name: str | None = None) -> tuple[Any, Claim]:
    claim = db.claim(kind, name, "d1" if kind == "score" else None)
    assert claim
    return db.queue(kind, name)[0], claim


def late(db: Database) -> None:
    db.admin.execute("update mill.lease set expires_at = now() where ended_at is null")
    db.queue("steward")[0].maintain("expire_leases")


def newest_submission(db: Database, kind: str) -> int:
    return int(
        db.value(
            "select max(submission_id) from mill.submission join mill.task using (task_id) where kind = %s",
            kind,
        )
    )


def withdraw(db: Database, kind: str) -> None:
    db.admin.execute("select mill.withdraw(%s, 'it lied')", (newest_submission(db, kind),))
