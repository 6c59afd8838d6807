-- What the admin's commands call. No EXECUTE for anyone but the owner and its members.

create function mill.add_wat(p_crawl text, p_locations text[], p_link_kinds text[] default '{image}') returns integer
language sql
as $$
    with the_crawl as (
        insert into mill.crawl (name) select p_crawl where p_crawl is not null
        on conflict (name) do update set name = excluded.name
        returning crawl_id
    ), added as (
        insert into mill.wat_file (crawl_id, location, link_kinds)
        select (select crawl_id from the_crawl), l.location, p_link_kinds
          from (select location, min(ordinality) as place from unnest(p_locations) with ordinality u (location, ordinality)
                 group by location) l
         order by l.place
        on conflict (location) do nothing
        returning wat_id
    ), queued as (
        insert into mill.task (kind, wat_id) select 'extract', wat_id from added order by wat_id returning 1
    )
    select count(*)::integer from queued
$$;
comment on function mill.add_wat is 'Adds WAT files, and their extract tasks; those known already are left alone. Returns how many were new.';

create function mill.add_model(
    p_name text, p_pretrained text, p_digest text, p_dims integer, p_kind text default 'clip', p_base_id integer default null,
    p_labels text[] default null, p_revision text default '', p_licence text default '', p_metrics jsonb default '{}',
    p_weights bytea default null,
    out model_id integer, out queued integer, out unreachable integer
)
language plpgsql
as $$
#variable_conflict use_column
begin
    -- a task that is being finished looks for taggers: before this transaction, or after it
    perform from mill.model m where m.model_id = p_base_id for no key update;
    insert into mill.model (name, pretrained, digest, dims, kind, base_model_id, labels, revision, licence, metrics, weights)
    values (p_name, p_pretrained, p_digest, p_dims, p_kind, p_base_id, p_labels, p_revision, p_licence, p_metrics, p_weights)
    on conflict (digest) do update
       set name = excluded.name, pretrained = excluded.pretrained,
           -- who adds it again to queue what is left says less of it
           revision = coalesce(nullif(excluded.revision, ''), model.revision),
           licence = coalesce(nullif(excluded.licence, ''), model.licence),
           metrics = coalesce(nullif(excluded.metrics, '{}'), model.metrics),
           retired_at = null
    returning model.model_id into model_id;
    update mill.task t set state = 'ready', tries = 0, ready_at = now(), changed_at = now()
     where t.model_id = add_model.model_id and t.state = 'parked' and t.reason = 'its model was retired';
    perform mill.queue_scoring(t.batch_id, t.attempt, add_model.model_id)
       from mill.task t where t.kind = 'download' and t.state = 'done' and t.slot is not null and p_kind = 'clip';
    insert into mill.task (kind, batch_id, attempt, model_id)
    select 'score', t.batch_id, t.attempt, add_model.model_id
      from mill.task t
      join mill.task d on d.kind = 'download' and d.batch_id = t.batch_id and d.attempt = t.attempt
     where t.kind = 'score' and t.model_id = p_base_id and t.state = 'done'
       and (p_kind <> 'pixels' or d.slot is not null)
     order by t.task_id
    on conflict do nothing;
    select count(*) into queued from mill.task t where t.model_id = add_model.model_id and t.state = 'ready';
    select count(*) into unreachable
      from mill.task d
     where d.kind = 'download' and d.state = 'done' and d.slot is null and not d.is_check and p_kind in ('clip', 'pixels')
       and not exists (select from mill.task s
                        where s.kind = 'score' and s.batch_id = d.batch_id and s.attempt = d.attempt and s.model_id = add_model.model_id);
end
$$;
comment on function mill.add_model is
    'Makes a model or a tagger known, and queues the batches that it can be computed for: those whose thumbnails are still there, '
    'or for a head those that have embeddings of its clip model. unreachable: downloads that only a new download could give it.';

create function mill.retire_model(p_model_id integer, out busy bigint, out parked bigint)
language plpgsql
as $$
begin
    perform from mill.model where model_id = p_model_id for no key update;
    perform from mill.task where model_id = p_model_id and state in ('ready', 'leased', 'submitted') order by task_id for update;
    select count(*) filter (where state <> 'ready'), count(*) filter (where state = 'ready') into busy, parked
      from mill.task where model_id = p_model_id and state in ('ready', 'leased', 'submitted');
    if busy = 0 then
        update mill.model set retired_at = coalesce(retired_at, now()) where model_id = p_model_id;
        update mill.task set state = 'parked', reason = 'its model was retired', changed_at = now()
         where model_id = p_model_id and state = 'ready';
    end if;
end
$$;
comment on function mill.retire_model is
    'Nothing is scored by a model or tagger any more, and its ready tasks are parked; what was scored stays. Nothing is done while tasks of '
    'it are leased or await acceptance (busy). add_model makes it active again.';

create function mill.add_worker(p_login name, p_name text, p_kind text, p_password text) returns void
language plpgsql
as $$
begin
    insert into mill.worker (login, name, kind) values (p_login, p_name, p_kind);
    execute format('create role %I login password %L connection limit 8 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_' || p_kind);
    execute format('alter role %I set statement_timeout = %L', p_login, '10min');
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', p_login, '5min');
    if p_kind <> 'steward' and has_parameter_privilege('temp_file_limit', 'set') then
        execute format('alter role %I set temp_file_limit = %L', p_login, '1GB');
    end if;
end
$$;
comment on function mill.add_worker is 'Makes a worker and its login. The password is a SCRAM verifier, so that no log holds it.';

create function mill.add_researcher(p_login name, p_name text, p_password text) returns void
language plpgsql
as $$
begin
    insert into mill.researcher (login, name) values (p_login, p_name);
    execute format('create role %I login password %L connection limit 4 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_researcher');
    execute format('alter role %I set default_transaction_read_only = on', p_login);
    execute format('alter role %I set statement_timeout = %L', p_login, '30min');
end
$$;
comment on function mill.add_researcher is 'Makes a login that reads the views in report.';

create function mill.disable_worker(p_name text) returns boolean
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

create function mill.withdraw_downloads(p_submissions bigint[], why text) returns integer
language plpgsql
as $$
declare
    queued integer;
begin
    perform from mill.task x
      where x.task_id in (select y.task_id from mill.submission y where y.submission_id = any (p_submissions))
      order by x.task_id for update;
    insert into mill.withdrawn (submission_id, reason)
    select x, why from unnest(p_submissions) x
    on conflict do nothing;
    with gone as (
        select y.batch_id, y.attempt, x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.submission_id = any (p_submissions) and not y.is_check
    ), again as (
        select g.batch_id, array_agg(distinct d.n) as positions
          from gone g
          join mill.download d on d.batch_id = g.batch_id and d.attempt = g.attempt and d.submission_id = g.submission_id
         where not exists (select from mill.current_download c where c.batch_id = d.batch_id and c.n = d.n)
           and not exists (select from mill.task o where o.kind = 'download' and o.batch_id = d.batch_id and o.attempt > g.attempt
                              and o.state <> 'done' and not o.is_check and (o.positions is null or d.n = any (o.positions))
                              -- what it was given and lost again it does not ask for
                              and not exists (select from mill.download e
                                               where e.batch_id = d.batch_id and e.n = d.n and e.attempt = o.attempt))
         group by g.batch_id
    )
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', a.batch_id, mill.next_attempt(a.batch_id), a.positions
      from again a order by a.batch_id;
    get diagnostics queued = row_count;
    return queued;
end
$$;
comment on function mill.withdraw_downloads is
    'Withdraws accepted download submissions and queues their URLs again, one task a batch and not one a submission. Returns the tasks queued.';

-- Nothing here asks whether the worker is disabled: a rehearsal in a transaction that is rolled back must
-- not end its sessions, which no rollback brings back.
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
    perform from mill.task x
      where x.task_id in (
            select l.task_id from mill.lease l join mill.instance i using (instance_id) where l.ended_at is null and i.worker_id = w.worker_id
            union
            select y.task_id from mill.submission y
             where y.worker_id = w.worker_id and y.state in ('received', 'accepted') and y.received_at >= coalesce(p_since, '-infinity')
            union  -- with scores go the tags that others made of them
            select g.task_id
              from mill.submission y
              join mill.task b using (task_id)
              join mill.model m on m.base_model_id = b.model_id
              join mill.task g on g.kind = 'score' and g.batch_id = b.batch_id and g.attempt = b.attempt and g.model_id = m.model_id
             where y.worker_id = w.worker_id and y.state = 'accepted' and y.received_at >= coalesce(p_since, '-infinity') and b.kind = 'score')
      order by x.task_id for update;
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
    tasks := mill.withdraw_downloads(array(
        select x.submission_id from mill.submission x join mill.task y using (task_id)
         where x.worker_id = w.worker_id and x.state = 'accepted' and y.kind = 'download'
           and x.received_at >= coalesce(p_since, '-infinity')), why);
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
    perform mill.check_again(w.worker_id);
end
$$;
comment on function mill.quarantine_worker is
    'Takes back all that a worker contributed since then (null: ever): ends its leases, rejects what awaits acceptance, withdraws what was '
    'accepted, and queues it again; what it had found right in checks is checked again. All null where there is no such worker. The worker itself is ended by disable_worker.';

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

-- A parked task whose thumbnails are gone cannot go on where it stopped: what it lacks is fetched anew.
create function mill.retry_task(p_task_id bigint) returns text
language plpgsql
as $$
declare
    t mill.task;
    d mill.task;
    anew integer[];
begin
    select * into t from mill.task where task_id = p_task_id for update;
    if not found or t.state <> 'parked' or t.is_check then  -- a check that was parked is void
        return null;
    end if;
    select * into d from mill.task x where x.kind = 'download' and x.batch_id = t.batch_id and x.attempt = t.attempt;
    if t.kind = 'extract' or d.slot is not null
       or t.kind = 'score' and (select m.kind from mill.model m where m.model_id = t.model_id) in ('head', 'zero-shot')
       or t.kind = 'download' and not exists (select from mill.download x where x.batch_id = t.batch_id and x.attempt = t.attempt) then
        update mill.task set state = 'ready', tries = 0, excused = 0, ready_at = now(), changed_at = now() where task_id = p_task_id;
        return t.kind;
    end if;
    select array_agg(n order by n) into anew
      from (select n from mill.left_to_score(t) n where t.kind = 'score'
            union all
            select p.n from mill.pair p
             where t.kind = 'download' and p.batch_id = t.batch_id and (t.positions is null or p.n = any (t.positions))) x;
    update mill.task set state = 'done', reason = 'its thumbnails are gone: downloaded again', changed_at = now() where task_id = p_task_id;
    if t.kind = 'score' then
        perform mill.queue_tagging(t);  -- of what was scored of it
    end if;
    insert into mill.task (kind, batch_id, attempt, positions)
    select 'download', t.batch_id, mill.next_attempt(t.batch_id), anew where anew is not null;
    return 'download';
end
$$;
comment on function mill.retry_task is
    'Queues a parked task again. Returns the kind of work that was queued, or null where the task is not parked.';

-- Later, and not in a loop: the same minute's second try meets the same trouble.
create function mill.retry_outcomes(
    p_outcomes text[], p_first_batch bigint, p_last_batch bigint, p_at_once boolean,
    out batches bigint, out urls bigint, out busy bigint
)
language plpgsql
as $$
#variable_conflict use_column
begin
    with found as (
        select d.batch_id, array_agg(d.n order by d.n) as positions
          from mill.current_download d
          join mill.outcome o on o.code = d.outcome
          join mill.pair p on p.batch_id = d.batch_id and p.n = d.n
         where d.batch_id between p_first_batch and p_last_batch
           and case when p_outcomes is null then o.retry else o.name = any (p_outcomes) end
           -- what a check tried, or was taken back, was not tried
           and (select count(*) from mill.download x where x.batch_id = d.batch_id and x.n = d.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               < (select url_attempts from mill.setting)
           and not exists (select from mill.withdrawn w where w.submission_id = p.submission_id)
           and not exists (select from mill.removal r where r.md5 = p.url_key)
         group by d.batch_id
    ), planned as (
        select f.batch_id, f.positions, t.attempt, t.busy,
               t.ended_at + make_interval(secs => s.url_retry_seconds * 2 ^ least(t.attempts - 1, 20)) as ready_at
          from found f, mill.setting s, lateral (
              select max(x.attempt) as attempt, count(*) filter (where not x.is_check) as attempts,
                     max(x.changed_at) filter (where not x.is_check) as ended_at, bool_or(x.state <> 'done' and not x.is_check) as busy
                from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id) t
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, ready_at)
        select 'download', batch_id, attempt + 1, positions, case when p_at_once then now() else greatest(now(), ready_at) end
          from (select p.*, mill.next_attempt(p.batch_id) as next from planned p where not p.busy order by p.batch_id) q
         where next = attempt + 1  -- else another's retry came first, or a check
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where planned.busy)
      into batches, urls, busy
      from queued;
end
$$;
comment on function mill.retry_outcomes is
    'Queues the URLs whose download ended with one of these outcomes (null: with one that a retry can help) as new attempts. '
    'busy: batches left out, since a download of theirs is not done.';

-- Not by whoever found it dead, nor from their network.
create function mill.retry_doubted(p_first_batch bigint, p_last_batch bigint, out batches bigint, out urls bigint, out busy bigint)
language plpgsql
as $$
begin
    with found as (
        select l.batch_id, array_agg(l.n order by l.n) as positions,
               (select array_agg(distinct s.worker_id)
                  from mill.download x join mill.submission s using (submission_id)
                 where x.batch_id = l.batch_id and x.n = any (array_agg(l.n))) as finders
          from report.dead_link l
         where l.batch_id between p_first_batch and p_last_batch and not l.believed
           and (select count(*) from mill.download x where x.batch_id = l.batch_id and x.n = l.n
                   and not exists (select from mill.withdrawn w where w.submission_id = x.submission_id))
               < (select url_attempts from mill.setting)
           and not exists (select from mill.removal r join mill.pair p on p.url_key = r.md5 where p.batch_id = l.batch_id and p.n = l.n)
         group by l.batch_id
    ), planned as (
        select f.*, exists (select from mill.task x where x.kind = 'download' and x.batch_id = f.batch_id
                               and x.state <> 'done' and not x.is_check) as is_busy
          from found f
    ), queued as (
        insert into mill.task (kind, batch_id, attempt, positions, avoid_workers)
        select 'download', batch_id, mill.next_attempt(batch_id), positions, finders
          from planned where not is_busy
         order by batch_id
        returning positions
    )
    select count(*), coalesce(sum(cardinality(positions)), 0), (select count(*) from planned where is_busy)
      into batches, urls, busy
      from queued;
end
$$;
comment on function mill.retry_doubted is
    'Queues the dead links that only one network has seen, for workers of another. busy: batches left out, since a download of theirs is not done.';

create function mill.set_network(p_name text, p_network text) returns boolean
language sql
as $$
    update mill.worker set network = nullif(p_network, '') where name = p_name returning true
$$;
comment on function mill.set_network is 'Notes where a worker connects from; empty: not known. Null where there is no such worker.';

create function mill.prove_worker(p_name text, p_proven boolean) returns boolean
language sql
as $$
    update mill.worker
       set proven_at = case when p_proven then coalesce(proven_at, now()) end,
           streak = case when not p_proven then 0 end
     where name = p_name returning true
$$;
comment on function mill.prove_worker is
    'An admin vouches for a worker, or no longer: it is not checked, and others rely on what it says a host allows. Null where there is no such worker.';

create function mill.park_task(p_task_id bigint, why text) returns boolean
language plpgsql
as $$
begin
    perform from mill.task where task_id = p_task_id for update;
    update mill.task set state = 'parked', reason = why, changed_at = now()
     where task_id = p_task_id and state in ('ready', 'leased');
    if not found then
        return false;
    end if;
    perform mill.end_lease(lease_id, 'expired') from mill.lease where task_id = p_task_id and ended_at is null;
    return true;
end
$$;
comment on function mill.park_task is 'Takes a ready or leased task out of the queue; its holder''s next call is refused.';
