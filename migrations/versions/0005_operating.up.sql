-- Quarantine and new passwords for workers; what a restore needs; the queue in numbers; nobody waits for a
-- transaction that a worker leaves open; a full ring keeps nobody from tasks that have their slot.

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

drop function mill.pick(text, integer);

create function mill.pick(p_kind text, p_model_id integer, p_has_slot boolean default false) returns mill.task
language sql
as $$
    with picked as materialized (
        select task_id
          from mill.task
         where state = 'ready' and kind = p_kind and ready_at <= now()
           and model_id is not distinct from p_model_id
           and (slot is not null or not p_has_slot)
         order by task_id
         limit 1
           for update skip locked
    )
    update mill.task t
       set state = 'leased', changed_at = now()
      from picked
     where t.task_id = picked.task_id
    returning t.*
$$;
comment on function mill.pick is 'Marks the oldest ready task of a kind leased and returns it; p_has_slot: of those that have a slot of the ring.';

create or replace function api.claim_v1(
    p_instance_id bigint,
    p_model_digest text default null,
    out lease_id bigint,
    out task_id bigint,
    out payload jsonb
) returns setof record
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me();
    s mill.setting;
    t mill.task;
    m integer;
begin
    select * into s from mill.setting;
    if not exists (select from mill.instance i where i.instance_id = p_instance_id and i.worker_id = w.worker_id) then
        perform mill.refuse('PM003', format('instance %s is not this worker''s: call hello_v1 first', p_instance_id));
    end if;
    -- one worker's claims are counted one after another, or two at once would pass the limit together
    perform from mill.worker where worker_id = w.worker_id for no key update;
    if (select count(*) from mill.lease l join mill.instance i using (instance_id)
         where i.worker_id = w.worker_id and l.ended_at is null) >= s.leases_per_worker then
        perform mill.refuse('PM003', format('this login holds %s live leases, the most that it may', s.leases_per_worker));
    end if;
    if w.kind = 'score' then
        select model_id into m from mill.model where digest = p_model_digest;
        if not found then
            perform mill.refuse('PM006', 'the database does not know a model with these weights; an admin adds it with: pairmill model add');
        end if;
    end if;
    t := mill.pick(w.kind, m);
    if t.task_id is null then
        return;
    end if;
    if w.kind = 'download' and t.slot is null then
        t.slot := mill.take_slot();
        if t.slot is null then  -- the ring is full: scoring has to catch up
            update mill.task set state = 'ready' where mill.task.task_id = t.task_id;
            t := mill.pick(w.kind, m, true);  -- one that has its slot already: a retry, a lost lease
            if t.task_id is null then
                return;
            end if;
        else
            update mill.task set slot = t.slot where mill.task.task_id = t.task_id;
        end if;
    end if;
    task_id := t.task_id;
    lease_id := (s.epoch::bigint << 40) + nextval('mill.lease_number');
    insert into mill.lease (lease_id, task_id, instance_id, expires_at, deadline)
    values (lease_id, t.task_id, p_instance_id,
            clock_timestamp() + make_interval(secs => s.lease_seconds),
            clock_timestamp() + make_interval(secs => s.lease_max_seconds));
    payload := case w.kind
        when 'extract' then (select jsonb_build_object('wat_id', wat_id, 'location', location,
                                                           'link_kinds', link_kinds, 'last_try', t.tries + 1 >= s.max_tries) from mill.wat_file where wat_id = t.wat_id)
        when 'download' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt)
        when 'score' then jsonb_build_object('batch_id', t.batch_id, 'attempt', t.attempt,
                                             'count', (select count(*) from mill.to_score(t)))
    end;
    return next;
end
$$;
comment on function api.claim_v1 is
    'Leases the oldest ready task of the caller''s kind: no row where there is none. payload: extract {wat_id, location, link_kinds, last_try}; '
    'download {batch_id, attempt}; score {batch_id, attempt, count}, count being the rows that thumbnails_v1 must give.';

create or replace function mill.slot_is_done(p_slot smallint) returns boolean
language sql stable
as $$
    select exists (select from mill.model)
       and not exists (
        select
          from mill.task d
          left join mill.task s on s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt
          cross join mill.setting
         where d.kind = 'download' and d.slot = p_slot
           and (exists (select from mill.submission r where r.task_id = d.task_id and r.state = 'received')
                or 'ready' in (d.state, s.state) or 'leased' in (d.state, s.state) or 'submitted' in (d.state, s.state)
                or d.state = 'parked' and d.changed_at > now() - make_interval(secs => parked_hold_seconds)
                or s.state = 'parked' and s.changed_at > now() - make_interval(secs => parked_hold_seconds)))
$$;
comment on function mill.slot_is_done is
    'Whether nobody needs a slot''s thumbnails any more: its downloads and their score tasks are done, or parked for long. '
    'False while there is no model: they were fetched to be scored.';

create or replace function mill.withdraw(p_submission_id bigint, why text) returns void
language plpgsql
as $$
declare
    s mill.submission;
    t mill.task;
begin
    select x.* into t from mill.task x join mill.submission y using (task_id) where y.submission_id = p_submission_id for update of x;
    select * into s from mill.submission where submission_id = p_submission_id for update;
    if s.state is distinct from 'accepted' then
        perform mill.refuse('PM003', format('submission %s is not an accepted one', p_submission_id));
    end if;
    insert into mill.withdrawn (submission_id, reason) values (p_submission_id, why) on conflict do nothing;
    if not found then
        return;
    end if;
    case t.kind
        when 'extract' then
            -- its pairs stay, marked out; their URLs may come in again
            lock table mill.seen_url in share row exclusive mode;  -- as a merge does
            perform nextval('mill.merge_number');
            delete from mill.seen_url k using mill.pair p
             where p.submission_id = p_submission_id and k.url_key = p.url_key and k.batch_id = p.batch_id and k.n = p.n;
            perform mill.count_crawl(p_submission_id, -1);
            delete from mill.wat_count where submission_id = p_submission_id;
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id;
        when 'download' then
            perform from mill.batch where batch_id = t.batch_id for no key update;  -- one new attempt after another
            insert into mill.task (kind, batch_id, attempt, positions)
            select 'download', t.batch_id,
                   (select max(attempt) + 1 from mill.task where batch_id = t.batch_id and kind = 'download'),
                   array_agg(d.n order by d.n)
              from mill.download d
             where d.batch_id = t.batch_id and d.attempt = t.attempt and d.submission_id = p_submission_id;
        when 'score' then
            update mill.task set state = 'ready', tries = 0, ready_at = now(), reason = why, changed_at = now()
             where task_id = t.task_id and state in ('done', 'parked');
    end case;
end
$$;
comment on function mill.withdraw is
    'Withdraws an accepted submission: nothing it gave counts any more, and its task is done again '
    '(a download as a new attempt at its positions).';

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
        if found then
            update mill.task set state = 'ready', ready_at = now(), changed_at = now() where task_id = t.task_id;
            leases := leases + 1;
        end if;
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
