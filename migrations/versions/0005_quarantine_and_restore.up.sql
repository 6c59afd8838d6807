-- Quarantine and new passwords for workers; what a restore needs.

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

revoke all on all functions in schema mill, api from public;
