-- Maintenance by the steward: late leases, rows nobody submitted, partitions, idle sessions.

-- An outage shows in the silence of other logins: a holder beats every quarter of lease_seconds, so in half of them every
-- holder that is able to is heard. Logins are counted and not leases: a crash loses all leases of a login. The silence of the
-- login itself proves nothing, and that of one other little.
create function mill.cut_off(p_at timestamptz) returns integer[]
language sql
as $$
    with late as materialized (
        select i.worker_id, max(l.expires_at) as expired_at,
               max(greatest(l.claimed_at, l.expires_at - make_interval(secs => s.lease_seconds))) + make_interval(secs => s.lease_seconds) / 2 as silent_from
          from mill.lease l join mill.instance i using (instance_id) cross join mill.setting s
         where l.ended_at is null and l.expires_at <= p_at
           and l.expires_at < l.deadline  -- at its deadline a lease ends, outage or not
         group by i.worker_id, s.lease_seconds
    ), held as materialized (
        select i.worker_id, l.claimed_at, l.expires_at, l.ended_at,
               case when l.expires_at = l.deadline then l.expires_at
                    when l.ended_as in ('released', 'failed') then l.ended_at
                    else greatest(l.claimed_at, l.expires_at - make_interval(secs => s.lease_seconds)) end as heard_at
          from (select * from mill.lease where ended_at is null
                union all
                select * from mill.lease where ended_as <> 'completed' and ended_at > (select min(silent_from) from late)) l
          join mill.instance i using (instance_id) cross join mill.setting s
    )
    select coalesce(array_agg(late.worker_id), '{}')
      from late,
           lateral (select count(*) as all_of, count(*) filter (where not heard) as silent
                      from (select bool_or(h.heard_at > late.silent_from) as heard
                              from held h
                             where h.worker_id <> late.worker_id and h.claimed_at <= late.expired_at
                               and h.expires_at > late.silent_from and (h.ended_at is null or h.ended_at > late.silent_from)
                             group by h.worker_id) each_login) others
     where late.silent_from < late.expired_at and others.silent >= 2 and 2 * others.silent > others.all_of
$$;
comment on function mill.cut_off is
    'Workers whose leases are late at this moment because of an outage of the network, a pooler or the server: of the other logins that held leases then, '
    'two at least and more than half gave no sign of life either in the last half of lease_seconds.';

create function api.expire_leases_v1() returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    moment constant timestamptz := clock_timestamp();
    -- by key from here on: the planner expects a share of all leases that there ever were, and would read every task
    late constant bigint[] := array(select lease_id from mill.lease where ended_at is null and expires_at <= moment);
    cut_off integer[];
    t record;
    outage text;
    expired integer := 0;
begin
    perform mill.saw((select max(instance_id) from mill.instance where worker_id = w.worker_id));  -- a steward claims nothing
    if late = '{}' then
        return 0;
    end if;
    cut_off := mill.cut_off(moment);
    for t in
        select x.task_id, x.excused < max_attempts as excusable, l.lease_id, i.worker_id = any (cut_off) as is_cut_off,
               greatest(l.claimed_at, l.expires_at - make_interval(secs => lease_seconds)) as seen_at
          from mill.task x join mill.lease l using (task_id) join mill.instance i using (instance_id) cross join mill.setting
         where l.lease_id = any (late) and l.ended_at is null and l.expires_at <= moment
         order by x.task_id
           for update of x, l skip locked  -- an uncommitted heartbeat holds l
    loop
        -- asked again under the lock: the lease may have ended meanwhile
        if exists (select from mill.lease l where l.lease_id = t.lease_id and l.ended_at is null and l.expires_at <= clock_timestamp()) then
            perform mill.end_lease(t.lease_id, 'expired');
            outage := case when t.seen_at < pg_postmaster_start_time() then 'while the server was away'
                           when t.is_cut_off then 'in an outage, like those of most others' end;
            -- not for ever: a file that takes the whole machine down looks like an outage, too
            if outage is not null and t.excusable then
                update mill.task
                   set state = 'ready', changed_at = now(), excused = excused + 1, reason = format('lease %s was lost %s', t.lease_id, outage)
                 where task_id = t.task_id;
            else
                perform mill.requeue(t.task_id, format('lease %s was lost: no heartbeat in time', t.lease_id), true);
            end if;
            update mill.task set ready_at = now() where task_id = t.task_id;  -- no back-off: another worker may claim it at once
            expired := expired + 1;
        end if;
    end loop;
    return expired;
end
$$;
comment on function api.expire_leases_v1 is
    'Returns the tasks of late leases to the queue; submitted parts stay. Counts an attempt, unless the server started after the '
    'holder''s last sign of life, or most others were cut off with it; a task is excused max_attempts times at most.';

create function api.sweep_inbox_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    inbox record;
    swept bigint := 0;
    more bigint;
begin
    for inbox in
        select c.oid::regclass as "table", exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'part') as has_parts
          from pg_class c where c.relnamespace = 'inbox'::regnamespace and c.relkind = 'r' order by c.relname
    loop
        -- a lease number that does not exist was invented: no submission will ever name it
        execute format('delete from %s i'
                       ' where not exists (select from mill.lease l where l.lease_id = i.lease_id and l.ended_at is null)'
                       '   and not exists (select from mill.submission s where s.lease_id = i.lease_id and s.state = ''received''%s)',
                       inbox."table", case when inbox.has_parts then ' and s.part = i.part' else '' end);
        get diagnostics more = row_count;
        swept := swept + more;
    end loop;
    -- a login that comes again and again is ended 37,000 times a day
    delete from mill.ended_session
     where at < now() - interval '30 days' or ended_session_id <= (select max(ended_session_id) from mill.ended_session) - 10000;
    return swept;
end
$$;
comment on function api.sweep_inbox_v1 is
    'Deletes rows of the inboxes that were not submitted before their lease ended, and what the watchdog noted more than 30 days or 10,000 sessions ago.';

create function api.sweep_host_files_v1() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
    swept bigint;
begin
    delete from mill.host_file where read_at <= now() - interval '1 day';
    get diagnostics swept = row_count;
    return swept;
end
$$;
comment on function api.sweep_host_files_v1 is 'Deletes rules of hosts'' files that were read more than a day ago (RFC 9309, 2.4).';

create function api.ensure_partitions_v1() returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    w mill.worker := mill.me('steward');
begin
    -- half a partition ahead of the newest batch, and of the newest WAT file that was extracted
    perform mill.ensure_partitions(coalesce((select max(batch_id) from mill.batch), 0) + 500);
    perform mill.ensure_partitions(coalesce((select max(wat_id) from mill.wat_count), 0) + 500, 'wat_id');
    perform mill.fold_counts();
    perform mill.fold_credit();
    perform mill.note_progress();
end
$$;
comment on function api.ensure_partitions_v1 is 'Makes the partitions that the next batches, and extractions, will need, adds changes of the counters and of credit up, and notes how far the line has come.';

-- 15 s: a worker's call is one statement. 10 minutes: a submission over a slow line counts from its first byte.
-- Before it has ended the sessions the watchdog reads the catalogs and no table of ours, not even mill.worker: behind the
-- session that it must end a migration may wait for a table, and behind the migration every reader of that table.
create function api.watchdog_v1(p_idle_seconds integer default 15, p_busy_seconds integer default 600) returns integer
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '0'  -- so that it is the caller's again at the end
as $$
declare
    prefix constant text := left(current_database(), 40) || '_';
    a record;
    logins text[] := '{}';
    states text[] := '{}';
    seconds double precision[] := '{}';
begin
    if not (pg_has_role(current_user, 'pg_signal_backend', 'usage') and pg_has_role(current_user, 'pg_read_all_stats', 'usage')) then
        return null;  -- secure.sql grants both
    end if;
    for a in
        select s.pid, s.usename, s.state, extract(epoch from clock_timestamp() - coalesce(s.xact_start, s.backend_start)) as seconds
          from pg_stat_activity s
         where s.backend_type = 'client backend'
           and pg_has_role(s.usesysid, (prefix || 'worker')::name, 'member')
           -- a superuser is a member of every role, another admin of the owner's
           and not pg_has_role(s.usesysid, (prefix || 'steward')::name, 'member')
           and not pg_has_role(s.usesysid, current_user, 'member')
           and (s.state like 'idle in transaction%' and s.state_change < clock_timestamp() - make_interval(secs => p_idle_seconds)
                or s.xact_start < clock_timestamp() - make_interval(secs => p_busy_seconds)
                -- a disabled login has one question to ask
                or s.backend_start < clock_timestamp() - make_interval(secs => p_idle_seconds)
                   and pg_has_role(s.usesysid, (prefix || 'disabled')::name, 'member'))
    loop
        if pg_terminate_backend(a.pid) then
            logins := logins || a.usename::text;
            states := states || coalesce(a.state, '');
            seconds := seconds || a.seconds::double precision;
        end if;
    end loop;
    if cardinality(logins) > 0 then
        begin
            perform set_config('lock_timeout', '500ms', true);
            insert into mill.ended_session (login, state, seconds)
            select * from unnest(logins, states, seconds);
        exception when others then
            null;  -- the note is lost (a lock, a full disk), and not that sessions were ended
        end;
    end if;
    return cardinality(logins);
end
$$;
comment on function api.watchdog_v1 is
    'Ends sessions of workers that are idle in a transaction, or at work in one, for too long: they keep locks, and dead rows from vacuum; and those of disabled logins. '
    'Returns how many, and notes each in mill.ended_session; null where `pairmill db secure` has not given it the right.';
