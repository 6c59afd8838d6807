-- Views of the queue: tasks, its depth, rates, sizes; and its numbers for the metrics.

do $$
begin
    execute format('create function mill.kinds_of_code() returns text[] language sql immutable return %L::text[]',
                   string_to_array(current_setting('pairmill.kinds'), ','));
end
$$;
comment on function mill.kinds_of_code is 'The kinds of work that this version knows; mill.task_kind has those of earlier versions, too.';

create view mill.worker_seen as
select w.worker_id, w.kind, max(i.last_seen_at) as seen_at
  from mill.worker w join mill.instance i using (worker_id)
 where w.disabled_at is null
 group by w.worker_id, w.kind;
comment on view mill.worker_seen is 'When each worker that may work was seen last.';
comment on column mill.worker_seen.worker_id is 'The worker';
comment on column mill.worker_seen.kind is 'Its kind of login';
comment on column mill.worker_seen.seen_at is 'As report.worker.last_seen_at';

-- A scorer that is at work asks for nothing, and for a tagger's tasks only once its model has none.
create view mill.claimant as
select s.kind as worker_kind, 0 as model_id, max(s.seen_at) as seen_at from mill.worker_seen s group by s.kind
union all
select s.kind, p.model_id, max(case when h.worker_id is null then p.asked_at else s.seen_at end)
  from mill.presence p
  join mill.worker_seen s using (worker_id)
  join mill.model m using (model_id)
  left join (select distinct i.worker_id, t.model_id
               from mill.lease l join mill.instance i using (instance_id) join mill.task t using (task_id)
              where l.ended_at is null and t.model_id is not null) h
         on h.worker_id = p.worker_id and h.model_id in (m.model_id, m.base_model_id)
 group by s.kind, p.model_id;
comment on view mill.claimant is 'When a worker of a kind, of a model (0: any) one that has it, was seen last.';
comment on column mill.claimant.worker_kind is 'The kind of login';
comment on column mill.claimant.model_id is 'The model or tagger that it has; 0: whatever it has';
comment on column mill.claimant.seen_at is 'When such a worker was seen last, or asked for tasks of the model';

create function mill.has_stranger(p_worker_kind text, p_avoid integer[], p_is_replica boolean) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select exists (select from mill.worker_seen s
                    where s.kind = p_worker_kind and s.seen_at > now() - interval '10 minutes'
                      and (p_avoid is null or mill.is_stranger(s.worker_id, p_avoid, p_is_replica))
                      and (not p_is_replica or mill.may_replicate(s.worker_id)))
$$;
comment on function mill.has_stranger is 'Whether a worker that was seen in the last ten minutes may claim a task that some workers must not do.';

do $$
begin
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.kinds_of_code, mill.has_stranger to %I', left(current_database(), 40) || '_researcher');
end
$$;

create view report.task as
select t.task_id, t.kind, t.state, t.wat_id, t.batch_id, t.attempt, m.name as model, t.attempts, t.ready_at, t.reason, t.changed_at,
       w.name as worker, l.expires_at as lease_expires_at, t.item_id,
       case when t.is_replica then 'check'
            when t.for_model_id is not null then 'backfill'
            when t.kind = 'download' then case when t.attempt > 1 then 'retry' else 'work' end
            when t.batch_id is not null
            then coalesce((select case when d.for_model_id is not null or d.state = 'done' and d.changed_at < m.active_since then 'backfill'
                                       when d.attempt > 1 then 'retry' end
                             from mill.task d where d.batch_id = t.batch_id and d.attempt = t.attempt and d.kind = 'download'), 'work')
            else 'work' end as purpose,
       case when t.state <> 'ready' then null
            when t.kind <> all (mill.kinds_of_code()) then 'a version that knows its kind'
            when m.retired_at is not null then 'its model, which was retired'
            when t.ready_at > now() then 'its back-off'
            when c.seen_at is null or c.seen_at < now() - interval '10 minutes'
            then case when t.model_id is null then 'a worker' else 'a worker with its model' end
            when (t.is_replica or t.avoid_workers is not null) and not mill.has_stranger(k.worker_kind, t.avoid_workers, t.is_replica)
            then 'another worker or network'
            when k.writes_thumbnails and t.slot is null and not t.is_replica and not exists (select from mill.thumbnail_slot where state <> 'full')
            then 'scoring: the ring is full'
            else 'its turn' end as waits_for,
       case when t.state = 'ready' then c.seen_at end as claimant_seen_at
  from mill.task t
  left join mill.model m on m.model_id = coalesce(t.model_id, t.for_model_id)
  left join mill.lease l on l.task_id = t.task_id and l.ended_at is null
  left join mill.instance i on i.instance_id = l.instance_id
  left join mill.worker w on w.worker_id = i.worker_id
  left join mill.task_kind k on k.name = t.kind
  left join mill.claimant c on c.worker_kind = k.worker_kind and c.model_id = coalesce(t.model_id, 0);
comment on view report.task is 'Every task, with the worker that holds it, or what it waits for.';
comment on column report.task.task_id is 'Key';
comment on column report.task.kind is 'The kind of work: extract, download, score and so on';
comment on column report.task.state is 'ready, leased, submitted, done, discarded or parked';
comment on column report.task.wat_id is 'The WAT file that it is about';
comment on column report.task.batch_id is 'The batch that it is about';
comment on column report.task.attempt is 'Which download of the batch, from 1, as in report.pair.attempt; how often this task failed is attempts';
comment on column report.task.model is 'The model, of a kind that needs one';
comment on column report.task.attempts is
    'How often a lease of this task failed or was lost, or a submission was rejected; which download of the batch it is: attempt';
comment on column report.task.ready_at is 'Earliest time of the next claim';
comment on column report.task.reason is 'Reason of the last failure';
comment on column report.task.changed_at is 'When its state changed last';
comment on column report.task.worker is 'The worker that holds its lease';
comment on column report.task.lease_expires_at is 'When that lease will be late';
comment on column report.task.item_id is 'The item that it is about; see report.item';
comment on column report.task.purpose is
    'work; retry, a new download of URLs that failed or were withdrawn, and the scoring of what it gave; check, a repeat of a sample by another '
    'worker; or backfill, for a model or tagger that came after the download';
comment on column report.task.waits_for is
    'Of a ready task: its turn; its back-off, until ready_at; a worker, or a worker with its model: none was seen for ten minutes; another worker or '
    'network, since those at work may not do it; scoring: the ring is full; its model, which was retired; a version that knows its kind';
comment on column report.task.claimant_seen_at is 'Of a ready task: when a worker of its kind, of a model one with the model, was seen last; null: never';

create view report.item as
select i.item_id, i.kind, i.spec, t.state, t.attempts, t.reason, r.result, i.added_at
  from mill.item i
  join mill.task t on t.item_id = i.item_id and t.kind = i.kind
  left join mill.item_result r on r.item_id = i.item_id
        and not exists (select from mill.withdrawn w where w.submission_id = r.submission_id);
comment on view report.item is 'Items, subjects of tasks that are neither WAT files nor batches, with the result that counts.';
comment on column report.item.item_id is 'Key';
comment on column report.item.kind is 'The kind of work';
comment on column report.item.spec is 'The work to do, as JSON of the kind''s own form';
comment on column report.item.state is 'ready, leased, submitted, done, discarded or parked';
comment on column report.item.attempts is 'How often a lease of its task failed or was lost, or the submission was rejected';
comment on column report.item.reason is 'Reason of the last failure';
comment on column report.item.result is 'The result, as JSON of the kind''s own form; null while none counts';
comment on column report.item.added_at is 'When it was added';

create view report.queue as
select k.name as kind,
       coalesce(t.ready, 0) as ready, coalesce(t.leased, 0) as leased, coalesce(t.submitted, 0) as submitted,
       coalesce(t.discarded, 0) as discarded, coalesce(t.parked, 0) as parked, coalesce(d.done, 0) as done,
       t.oldest_ready_at, coalesce(l.late, 0) as late_leases, coalesce(s.waiting, 0) as waiting_submissions
  from mill.task_kind k
  left join (select u.kind,
                    count(*) filter (where u.state = 'ready') as ready,
                    count(*) filter (where u.state = 'leased') as leased,
                    count(*) filter (where u.state = 'submitted') as submitted,
                    count(*) filter (where u.state = 'discarded') as discarded,
                    count(*) filter (where u.state = 'parked') as parked,
                    min(u.ready_at) filter (where u.state = 'ready') as oldest_ready_at
               from mill.undone u group by u.kind) t on t.kind = k.name
  left join (select x.kind, sum(x.count)::bigint as done from mill.done x group by x.kind) d on d.kind = k.name
  left join (select x.kind, count(*) as late
               from mill.lease e join mill.task x using (task_id) where e.ended_at is null and e.expires_at <= now() group by x.kind) l on l.kind = k.name
  left join (select x.kind, count(*) as waiting
               from mill.submission e join mill.task x using (task_id) where e.state = 'received' group by x.kind) s on s.kind = k.name;
comment on view report.queue is 'The depth of the queue, by kind of work. Reads the tasks that are not done, and a counter of those that are.';
comment on column report.queue.kind is 'The kind of work: extract, download, score and so on';
comment on column report.queue.ready is 'Tasks that may be claimed, now or after a back-off';
comment on column report.queue.leased is 'Tasks that a worker holds';
comment on column report.queue.submitted is 'Tasks that await the acceptance of what was submitted';
comment on column report.queue.discarded is 'Tasks that were given up';
comment on column report.queue.parked is 'Tasks that an admin took out of the queue for the moment';
comment on column report.queue.done is 'Tasks that are done';
comment on column report.queue.oldest_ready_at is 'Since when the oldest ready task may be claimed';
comment on column report.queue.late_leases is 'Leases whose time is over and that no steward has ended yet';
comment on column report.queue.waiting_submissions is 'Submissions that no steward has accepted or rejected yet';

create view report.rate as
select date_trunc('hour', s.decided_at) as hour, t.kind, count(*) as submissions, sum(s.row_count)::bigint as rows
  from mill.submission s
  join mill.task t using (task_id)
 where s.state = 'accepted' and s.decided_at > now() - interval '2 days'
   and not exists (select from mill.withdrawn w where w.submission_id = s.submission_id)
 group by 1, 2;
comment on view report.rate is 'Submissions and rows accepted in each hour of the last two days.';
comment on column report.rate.hour is 'The hour''s beginning';
comment on column report.rate.kind is 'The kind of work: extract, download, score and so on';
comment on column report.rate.submissions is 'Submissions accepted and not withdrawn';
comment on column report.rate.rows is 'Their rows: links, outcomes or scores';

create view report.table_size as
select n.nspname || '.' || coalesce(p.relname, c.relname) as "table",
       count(*) as partitions,
       sum(pg_total_relation_size(c.oid))::bigint as bytes,
       sum(s.n_live_tup)::bigint as live_rows,
       sum(s.n_dead_tup)::bigint as dead_rows,
       max(s.last_autovacuum) as last_autovacuum
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  left join pg_inherits i on i.inhrelid = c.oid
  left join pg_class p on p.oid = i.inhparent
  left join pg_stat_all_tables s on s.relid = c.oid
 where n.nspname in ('mill', 'inbox') and c.relkind = 'r'
 group by 1;
comment on view report.table_size is 'Tables with their partitions, indexes and TOAST; rows as the statistics estimate them.';
comment on column report.table_size."table" is 'Schema and name';
comment on column report.table_size.partitions is '1 for a table without partitions';
comment on column report.table_size.bytes is 'On disk, with indexes and TOAST';
comment on column report.table_size.live_rows is 'Estimate of the rows';
comment on column report.table_size.dead_rows is 'Estimate of the rows that wait for a vacuum';
comment on column report.table_size.last_autovacuum is 'Last autovacuum of any of the partitions';

create function api.metrics_v1() returns table (kind text, what text, value double precision)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    return query
    select q.kind, x.what, x.value::double precision
      from report.queue q,
           lateral (values ('ready', q.ready), ('leased', q.leased), ('submitted', q.submitted), ('discarded', q.discarded), ('parked', q.parked), ('done', q.done),
                           ('late_leases', q.late_leases), ('waiting_submissions', q.waiting_submissions),
                           ('oldest_ready_seconds', greatest(0, extract(epoch from now() - q.oldest_ready_at))::bigint)) x (what, value)
    union all
    select 'thumbnails', 'slots_in_use', count(*)::double precision from mill.thumbnail_slot where state <> 'empty';
end
$$;
comment on function api.metrics_v1 is 'The queue in numbers, for the steward''s metrics.';
