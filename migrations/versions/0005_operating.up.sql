-- Quarantine and new passwords for workers; what a restore needs; the queue in numbers; nobody waits for a
-- transaction that a worker leaves open.

create or replace function mill.take_slot() returns smallint
language plpgsql
as $$
declare
    taken smallint;
begin
    update mill.thumbnail_slot t
       set batches = t.batches + 1,
           state = case when t.batches + 1 >= s.batches_per_slot then 'full' else 'filling' end
      from mill.setting s
     where t.slot = (select slot from mill.thumbnail_slot
                      where state <> 'full' order by state desc, slot limit 1
                        for update skip locked)  -- who claims and never commits keeps one slot, not the ring
    returning t.slot into taken;
    return taken;
end
$$;
comment on function mill.take_slot is 'A slot for one more batch of thumbnails: the one that is filling, else an empty one, else null.';

create or replace function api.accept_next_v2(
    p_submission_id bigint, p_merge_number bigint, p_unknown bytea, p_trusted boolean,
    out submission_id bigint, out kind text, out row_count integer, out rejected_because text, out filtered boolean
)
returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    s mill.submission;
    t mill.task;
    unknown uuid[];
begin
    -- task before submission: the order in which every function locks. A task that its holder keeps locked is
    -- passed over, or one open transaction would stop the acceptance of everybody's work
    select x.* into s
      from mill.submission x join mill.task y using (task_id)
     where x.state = 'received' order by x.submission_id limit 1
       for update of y skip locked;
    if not found then
        return;
    end if;
    select * into t from mill.task x where x.task_id = s.task_id;
    select * into s from mill.submission x where x.submission_id = s.submission_id for update;
    submission_id := s.submission_id;
    kind := t.kind;
    row_count := s.row_count;
    filtered := false;
    if s.state = 'received' then
        begin
            case t.kind
                when 'extract' then
                    lock table mill.seen_url in share row exclusive mode;  -- the number stands still from here on
                    if p_submission_id = s.submission_id and p_merge_number = (select last_value from mill.merge_number) then
                        filtered := true;
                        unknown := array(select encode(substr(p_unknown, 1 + 16 * i, 16), 'hex')::uuid
                                           from generate_series(0, length(p_unknown) / 16 - 1) i);
                    end if;
                    perform mill.accept_extract(s, t, unknown, p_trusted);
                when 'download' then perform mill.accept_download(s, t);
                when 'score' then perform mill.accept_score(s, t);
            end case;
            update mill.submission x set state = 'accepted', decided_at = now() where x.submission_id = s.submission_id;
            perform mill.settle(t.task_id);
        exception when data_exception or integrity_constraint_violation then
            -- a filter that was wrong after all is no fault of the submission's: it is looked up in full next
            if filtered then
                filtered := null;
                return next;
                return;
            end if;
            rejected_because := sqlerrm;
            perform mill.reject(s, sqlerrm);
        end;
    end if;
    return next;
end
$$;
comment on function api.accept_next_v2 is
    'Accepts the oldest received submission in one transaction: expands it into rows, credits it, ends its task. '
    'No row when nothing waits. Data that no constraint lets in is rejected, with the reason. '
    'filtered: whether p_unknown was used; null where it was wrong, and nothing was accepted.';

create or replace function api.expire_leases_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    t record;
    expired integer := 0;
begin
    for t in
        select x.task_id, l.lease_id
          from mill.task x join mill.lease l using (task_id)
         where l.ended_at is null and l.expires_at <= clock_timestamp()
         order by x.task_id
           for update of x, l skip locked  -- a heartbeat that does not commit holds l
    loop
        -- looked at again under the lock: it may have been completed meanwhile
        if exists (select from mill.lease l where l.lease_id = t.lease_id and l.ended_at is null and l.expires_at <= clock_timestamp()) then
            perform mill.end_lease(t.lease_id, 'expired');
            perform mill.put_back(t.task_id, format('lease %s was lost: no heartbeat in time', t.lease_id), true);
            update mill.task set ready_at = now() where task_id = t.task_id;  -- another may try at once
            expired := expired + 1;
        end if;
    end loop;
    return expired;
end
$$;
comment on function api.expire_leases_v1 is 'Returns the tasks of late leases to the queue; what was submitted under them stays.';

create or replace function mill.disable_worker(p_name text) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    select login into l from mill.worker where name = p_name;
    if not found then
        return false;
    end if;
    -- first, since an open transaction of its own may hold its rows; and again for who came in meanwhile
    perform pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = l;
    update mill.worker set disabled_at = coalesce(disabled_at, now()) where name = p_name;
    execute format('alter role %I nologin', l);
    perform pg_terminate_backend(pid) from pg_stat_activity where usename = l;
    return true;
end
$$;
comment on function mill.disable_worker is 'Ends a worker''s login and its sessions. Its leases run out; what was accepted stays.';

create function mill.rotate_worker(p_name text, p_password text, out login name)
language plpgsql
as $$
begin
    select w.login into login from mill.worker w where w.name = p_name and w.disabled_at is null;
    if login is null then
        return;
    end if;
    execute format('alter role %I password %L', login, p_password);
    -- who is logged in was let in by the old password
    perform pg_terminate_backend(pid) from pg_stat_activity a where a.usename = login;
end
$$;
comment on function mill.rotate_worker is
    'Gives a worker another password (a SCRAM verifier) and ends its sessions; its leases stay. Null where there is no such worker that may work.';

create function mill.login_of(p_name text) returns name
language sql stable
as $$
    select login from mill.worker where name = p_name and disabled_at is null
$$;
comment on function mill.login_of is 'The login of a worker that may work; null where there is none.';

create function mill.quarantine_worker(
    p_name text, p_since timestamptz, why text,
    out leases integer, out rejected integer, out withdrawn integer, out rows bigint, out tasks integer
)
language plpgsql
as $$
#variable_conflict use_column
declare
    w mill.worker;
    t mill.task;
    s mill.submission;
    n integer;
begin
    select * into w from mill.worker where name = p_name;
    if not found then
        return;
    end if;
    leases := 0;
    rejected := 0;
    tasks := 0;
    -- tasks before leases and submissions, in order of their number: as every function locks
    for t in
        select x.* from mill.task x
         where exists (select from mill.lease l join mill.instance i using (instance_id)
                        where l.task_id = x.task_id and l.ended_at is null and i.worker_id = w.worker_id)
         order by x.task_id for update
    loop
        perform mill.end_lease(l.lease_id, 'expired')
           from mill.lease l join mill.instance i using (instance_id)
          where l.task_id = t.task_id and l.ended_at is null and i.worker_id = w.worker_id;
        update mill.task set state = 'ready', ready_at = now(), changed_at = now() where task_id = t.task_id and state = 'leased';
        leases := leases + 1;
    end loop;
    for s in
        select x.* from mill.submission x
         where x.worker_id = w.worker_id and x.state = 'received' and x.received_at >= coalesce(p_since, '-infinity')
         order by x.submission_id
    loop
        perform from mill.task where task_id = s.task_id for update;
        select * into s from mill.submission where submission_id = s.submission_id for update;
        if s.state = 'received' then
            perform mill.reject(s, why);
            rejected := rejected + 1;
        end if;
    end loop;
    select count(*), coalesce(sum(x.row_count), 0) into withdrawn, rows
      from mill.submission x
     where x.worker_id = w.worker_id and x.state = 'accepted' and x.received_at >= coalesce(p_since, '-infinity')
       and not exists (select from mill.withdrawn y where y.submission_id = x.submission_id);
    -- downloads all at once: one new task a batch, and not one a part
    perform from mill.task x
      where x.task_id in (select y.task_id from mill.submission y where y.worker_id = w.worker_id and y.state = 'accepted')
        and x.kind = 'download' order by x.task_id for update;
    insert into mill.withdrawn (submission_id, reason)
    select x.submission_id, why from mill.submission x join mill.task y using (task_id)
     where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind = 'download'
       and x.received_at >= coalesce(p_since, '-infinity')
    on conflict do nothing;
    with gone as (
        select y.batch_id, y.attempt, x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind = 'download'
           and x.received_at >= coalesce(p_since, '-infinity')
    ), again as (
        select g.batch_id, array_agg(distinct d.n) as positions
          from gone g
          join mill.download d on d.batch_id = g.batch_id and d.attempt = g.attempt and d.submission_id = g.submission_id
         where not exists (select from mill.current_download c where c.batch_id = d.batch_id and c.n = d.n)
           and not exists (select from mill.task o where o.kind = 'download' and o.batch_id = d.batch_id and o.attempt > g.attempt
                              and o.state <> 'done' and (o.positions is null or d.n = any (o.positions)))
         group by g.batch_id
    )
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', a.batch_id, (select max(attempt) + 1 from mill.task x where x.kind = 'download' and x.batch_id = a.batch_id), a.positions
      from again a order by a.batch_id;
    get diagnostics tasks = row_count;
    for s in
        select x.* from mill.submission x join mill.task y using (task_id)
         where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind <> 'download'
           and x.received_at >= coalesce(p_since, '-infinity')
           and not exists (select from mill.withdrawn z where z.submission_id = x.submission_id)
         order by x.submission_id
    loop
        perform mill.withdraw(s.submission_id, why);
        tasks := tasks + 1;
    end loop;
end
$$;
comment on function mill.quarantine_worker is
    'Takes back all that a worker contributed since then (null: ever): ends its leases, rejects what awaits acceptance, withdraws what was '
    'accepted, and queues it again. All null where there is no such worker. The worker itself is ended by disable_worker.';

create function mill.restored(out epoch integer, out leases integer)
language plpgsql
as $$
declare
    t mill.task;
begin
    -- above every number that may have been given out after the backup was made
    update mill.setting s set epoch = greatest(s.epoch, coalesce((select max(l.lease_id) >> 40 from mill.lease l), 0)::integer) + 1
    returning s.epoch into epoch;
    leases := 0;
    for t in select * from mill.task where state = 'leased' order by task_id for update loop
        perform mill.end_lease(l.lease_id, 'expired') from mill.lease l where l.task_id = t.task_id and l.ended_at is null;
        update mill.task set state = 'ready', ready_at = now(), changed_at = now() where task_id = t.task_id;
        leases := leases + 1;
    end loop;
end
$$;
comment on function mill.restored is
    'After a restore, before workers connect: raises the epoch, so that no lease number from before is given out or held again, and returns '
    'what was leased to the queue.';

create view report.queue as
select k.kind,
       count(*) filter (where t.state = 'ready') as ready,
       count(*) filter (where t.state = 'leased') as leased,
       count(*) filter (where t.state = 'submitted') as submitted,
       count(*) filter (where t.state = 'parked') as parked,
       count(*) filter (where t.state = 'done') as done,
       min(t.ready_at) filter (where t.state = 'ready') as oldest_ready_at,
       (select count(*) from mill.lease l join mill.task x using (task_id)
         where x.kind = k.kind and l.ended_at is null and l.expires_at <= now()) as late_leases,
       (select count(*) from mill.submission s join mill.task x using (task_id)
         where x.kind = k.kind and s.state = 'received') as waiting_submissions
  from (values ('extract'), ('download'), ('score')) k (kind)
  left join mill.task t on t.kind = k.kind
 group by k.kind;
comment on view report.queue is 'The depth of the queue, by kind of work. Reads every task.';
comment on column report.queue.kind is 'extract, download or score';
comment on column report.queue.ready is 'Tasks that may be claimed, now or after a back-off';
comment on column report.queue.leased is 'Tasks that a worker holds';
comment on column report.queue.submitted is 'Tasks that await the acceptance of what was submitted';
comment on column report.queue.parked is 'Tasks that were given up';
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
comment on view report.rate is 'What was accepted in each hour of the last two days.';
comment on column report.rate.hour is 'The hour''s beginning';
comment on column report.rate.kind is 'extract, download or score';
comment on column report.rate.submissions is 'Submissions accepted and not withdrawn';
comment on column report.rate.rows is 'Their rows: links, outcomes or scores';

create view report.leaderboard as
select rank() over (order by u.urls desc) as rank, u.name, u.urls, u.urls_last_day
  from (select w.name, sum(s.row_count)::bigint as urls,
               coalesce(sum(s.row_count) filter (where s.decided_at > now() - interval '1 day'), 0)::bigint as urls_last_day
          from mill.worker w
          join mill.submission s using (worker_id)
         where w.kind = 'download' and s.state = 'accepted'
           and not exists (select from mill.withdrawn x where x.submission_id = s.submission_id)
         group by w.worker_id) u;
comment on view report.leaderboard is 'Download workers by the URLs that were accepted of them and still count.';
comment on column report.leaderboard.rank is '1 is who has most';
comment on column report.leaderboard.name is 'The worker''s name';
comment on column report.leaderboard.urls is 'URLs accepted and not withdrawn';
comment on column report.leaderboard.urls_last_day is 'Of these, in the last 24 hours';

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
comment on view report.table_size is 'Tables with their partitions, indexes and TOAST; rows as the statistics guess them.';
comment on column report.table_size."table" is 'Schema and name';
comment on column report.table_size.partitions is '1 for a table without partitions';
comment on column report.table_size.bytes is 'On disk, with indexes and TOAST';
comment on column report.table_size.live_rows is 'About how many rows';
comment on column report.table_size.dead_rows is 'About how many rows wait for a vacuum';
comment on column report.table_size.last_autovacuum is 'When autovacuum last came by any of them';

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
           lateral (values ('ready', q.ready), ('leased', q.leased), ('submitted', q.submitted), ('parked', q.parked), ('done', q.done),
                           ('late_leases', q.late_leases), ('waiting_submissions', q.waiting_submissions),
                           ('oldest_ready_seconds', greatest(0, extract(epoch from now() - q.oldest_ready_at))::bigint)) x (what, value)
    union all
    select 'thumbnails', 'slots_in_use', count(*)::double precision from mill.thumbnail_slot where state <> 'empty';
end
$$;
comment on function api.metrics_v1 is 'The queue in numbers, for the steward''s metrics.';

revoke all on all functions in schema mill, api from public;

do $$
declare
    prefix constant text := left(current_database(), 40) || '_';
begin
    execute format('grant execute on function api.metrics_v1 to %I', prefix || 'steward');
    execute format('grant select on report.queue, report.rate, report.leaderboard, report.table_size to %I', prefix || 'researcher');
end
$$;
