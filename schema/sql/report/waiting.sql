-- Views of what stands still, and why.

create view report.waiting as
select kind, purpose, model, waits_for, count(*) as tasks, min(ready_at) as first_ready_at, max(ready_at) as last_ready_at,
       max(claimant_seen_at) as claimant_seen_at, min(task_id) as first_task_id
  from report.task
 where state = 'ready'
 group by kind, purpose, model, waits_for;
comment on view report.waiting is 'The ready tasks, by what they wait for.';
comment on column report.waiting.kind is 'The kind of work';
comment on column report.waiting.purpose is 'As report.task.purpose';
comment on column report.waiting.model is 'The model, of a kind that needs one and of backfills';
comment on column report.waiting.waits_for is 'As report.task.waits_for';
comment on column report.waiting.tasks is 'How many';
comment on column report.waiting.first_ready_at is 'Earliest time of the next claim of any of them';
comment on column report.waiting.last_ready_at is 'The same of the last one';
comment on column report.waiting.claimant_seen_at is 'As report.task.claimant_seen_at';
comment on column report.waiting.first_task_id is 'One of them';

create view report.open_batch as
select b.batch_id, b.link_kind, b.pair_count as pairs, b.opened_at, b.dealt_at,
       least(b.opened_at + make_interval(secs => s.batch_open_seconds), b.dealt_at + make_interval(secs => s.batch_idle_seconds)) as closes_at,
       (select count(*) from mill.awaited_extraction) as awaited_files,
       array(select wat_id from mill.awaited_extraction order by state <> 'leased', wat_id limit 5) as awaited_wat_ids
  from mill.batch b cross join mill.setting s
 where b.closed_at is null and b.pair_count > 0;
comment on view report.open_batch is 'Batches that are open: their pairs are not downloaded yet, since more may come.';
comment on column report.open_batch.batch_id is 'The batch';
comment on column report.open_batch.link_kind is 'The kind of its links';
comment on column report.open_batch.pairs is 'Pairs in it';
comment on column report.open_batch.opened_at is 'When it was opened';
comment on column report.open_batch.dealt_at is 'When pairs came in last';
comment on column report.open_batch.closes_at is 'When it is closed at the latest: setting.batch_open_seconds after it was opened, batch_idle_seconds after pairs came last';
comment on column report.open_batch.awaited_files is
    'WAT files that may give it pairs: waiting, in work or to be accepted, and never failed. With none left it is closed at once';
comment on column report.open_batch.awaited_wat_ids is 'The first five of those, files in work before files that wait';

create view report.stopped as
select state, kind, coalesce((array_agg(reason order by task_id))[1], '') as reason, count(*) as tasks,
       max(changed_at) as changed_at, (array_agg(task_id order by task_id))[:5] as task_ids
  from report.task
 where state in ('discarded', 'parked')
 group by state, kind, regexp_replace(coalesce(reason, ''), '\d+', 'N', 'g');
comment on view report.stopped is 'Tasks that were given up, or parked by an admin, by reason.';
comment on column report.stopped.state is 'discarded or parked';
comment on column report.stopped.kind is 'The kind of work';
comment on column report.stopped.reason is 'The reason of the first: tasks whose reasons differ in numbers alone are counted together';
comment on column report.stopped.tasks is 'How many';
comment on column report.stopped.changed_at is 'When the last of them was given up or parked';
comment on column report.stopped.task_ids is 'The first five';
