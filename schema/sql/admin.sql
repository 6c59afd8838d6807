-- Functions of the admin's commands. Only the owner and its members have EXECUTE.

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
    -- views of pairs are joined whole, never row by row; the batches that they are made of need a loop all the same
    execute format('alter role %I set enable_nestloop = off', p_login);
    execute format('alter role %I set work_mem = %L', p_login, '32MB');
    execute format('alter role %I set jit = off', p_login);
end
$$;
comment on function mill.add_researcher is 'Makes a login that reads the views in report.';

-- Attributes, other roles, and rights or objects of its own in any database: no group's membership holds these.
create function mill.has_own_rights(p_login name) returns boolean
language sql stable
as $$
    select l.rolsuper or l.rolcreaterole or l.rolcreatedb or l.rolreplication or l.rolbypassrls
        or exists (select from pg_catalog.pg_auth_members m
                    where m.member = l.oid and not starts_with(pg_get_userbyid(m.roleid), left(current_database(), 40) || '_'))
        or exists (select from pg_catalog.pg_shdepend d where d.refclassid = 'pg_catalog.pg_authid'::regclass and d.refobjid = l.oid)
      from pg_catalog.pg_roles l where l.rolname = p_login
$$;
comment on function mill.has_own_rights is 'Whether a login may do or has more than its groups say.';

-- A login that may not log in cannot be told why: PostgreSQL ends the attempt. So it is left with a group that may ask for
-- that and nothing else; but a login that has rights of its own would keep them, and is closed.
create function mill.disable_login(p_login name, p_close boolean) returns void
language plpgsql
as $$
declare
    m record;
begin
    if not exists (select from pg_catalog.pg_roles where rolname = p_login) then
        return;  -- a dump was restored without its logins
    end if;
    if p_close or mill.has_own_rights(p_login) then
        execute format('alter role %I nologin', p_login);
        return;
    end if;
    execute format('alter role %I connection limit 2', p_login);
    execute format('grant %I to %I', left(current_database(), 40) || '_disabled', p_login);
    for m in select g.rolname as role, a.grantor::regrole as grantor
               from pg_catalog.pg_auth_members a join pg_catalog.pg_roles g on g.oid = a.roleid
              where a.member = p_login::regrole and g.rolname <> left(current_database(), 40) || '_disabled' loop
        -- since 16 each grantor's grant is one of its own, and only named is another's revoked
        execute format('revoke %I from %I %s', m.role, p_login,
                       case when current_setting('server_version_num')::integer >= 160000 then format('granted by %s', m.grantor) end);
    end loop;
end
$$;
comment on function mill.disable_login is
    'Moves a login into the group whose members are told why they may not work; ends it (NOLOGIN) where p_close, or where it has rights of its own.';

create function mill.disable_worker(p_name text, p_why text default null, p_close boolean default false) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    select login into l from mill.worker where name = p_name;
    if not found then
        return false;
    end if;
    -- first, since an open transaction of the worker may hold its rows; and again for sessions that came meanwhile
    perform pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = l;
    update mill.worker
       set disabled_at = coalesce(disabled_at, now()), disabled_because = coalesce(nullif(p_why, ''), disabled_because)
     where name = p_name;
    perform mill.disable_login(l, p_close);
    perform pg_terminate_backend(pid) from pg_stat_activity where usename = l;
    return true;
end
$$;
comment on function mill.disable_worker is
    'Takes a worker''s rights, and ends its sessions. Its leases run out; what was accepted stays. Its login is told why, or with p_close not let in at all.';

create function mill.enable_worker(p_name text) returns boolean
language plpgsql
as $$
declare
    w mill.worker;
begin
    select * into w from mill.worker where name = p_name;
    if not found then
        return false;
    elsif not exists (select from pg_catalog.pg_roles where rolname = w.login) then
        raise exception 'the login of worker % is not on this server', p_name using errcode = 'undefined_object';
    end if;
    if w.disabled_at is not null then
        execute format('alter role %I login connection limit 8', w.login);
        execute format('grant %I to %I', left(current_database(), 40) || '_' || w.kind, w.login);
        execute format('revoke %I from %I', left(current_database(), 40) || '_disabled', w.login);
        update mill.worker
           set disabled_at = null, disabled_because = null, stopped_because = null, streak = 0, proven_at = null
         where worker_id = w.worker_id;
    end if;
    return true;
end
$$;
comment on function mill.enable_worker is
    'Gives a disabled or stopped worker its rights again, as an unproven one: its streak begins anew, and nobody vouches for it. Its agreement stays, so a '
    'stopped worker is stopped again by the first check that fails. What was withdrawn stays withdrawn.';

create function mill.disable_researcher(p_name text, p_why text default null) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    update mill.researcher
       set disabled_at = coalesce(disabled_at, now()), disabled_because = coalesce(nullif(p_why, ''), disabled_because)
     where name = p_name returning login into l;
    if not found then
        return false;
    elsif exists (select from pg_catalog.pg_roles where rolname = l) then
        execute format('alter role %I nologin', l);
    end if;
    perform pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = l;
    return true;
end
$$;
comment on function mill.disable_researcher is
    'Ends a researcher''s login, and its sessions. No group that is told why: their programs call no function of ours, and PostgreSQL''s refusal is plain.';

create function mill.enable_researcher(p_name text) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    update mill.researcher set disabled_at = null, disabled_because = null where name = p_name returning login into l;
    if not found then
        return false;
    end if;
    if not exists (select from pg_catalog.pg_roles where rolname = l) then
        raise exception 'the login of researcher % is not on this server', p_name using errcode = 'undefined_object';
    end if;
    execute format('alter role %I login', l);
    return true;
end
$$;
comment on function mill.enable_researcher is 'Lets a disabled researcher log in again.';

create function mill.rotate_worker(p_name text, p_password text, out login name)
language plpgsql
as $$
begin
    select w.login into login from mill.worker w where w.name = p_name and w.disabled_at is null;
    if login is null then
        return;
    end if;
    execute format('alter role %I password %L', login, p_password);
    -- open sessions were let in by the old password
    perform pg_terminate_backend(pid) from pg_stat_activity a where a.usename = login;
end
$$;
comment on function mill.rotate_worker is
    'Gives a worker another password (a SCRAM verifier) and ends its sessions; its leases stay. Null where there is no such worker that may work.';

create function mill.rotate_researcher(p_name text, p_password text) returns void
language plpgsql
as $$
declare
    l constant name := (select login from mill.researcher where name = p_name and disabled_at is null);
begin
    execute format('alter role %I password %L', l, p_password);
    perform pg_terminate_backend(pid) from pg_stat_activity where usename = l;
end
$$;
comment on function mill.rotate_researcher is 'Gives a researcher another password (a SCRAM verifier) and ends their sessions.';

create function mill.login_of(p_name text) returns name
language sql stable
as $$
    select login from mill.worker where name = p_name and disabled_at is null
$$;
comment on function mill.login_of is 'The login of a worker that may work; null where there is none.';

-- A worker need not be disabled first: a rehearsal in a transaction that is rolled back must not end its
-- sessions, which no rollback brings back.
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
    -- lock order of every function: tasks, by number, before leases and submissions
    perform from mill.task x
      where x.task_id in (
            select l.task_id from mill.lease l join mill.instance i using (instance_id) where l.ended_at is null and i.worker_id = w.worker_id
            union
            select y.task_id from mill.submission y
             where y.worker_id = w.worker_id and y.state in ('received', 'accepted') and y.received_at >= coalesce(p_since, '-infinity')
            union  -- tags that other workers made of its scores go with them
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
    perform mill.replicate_again(w.worker_id);
end
$$;
comment on function mill.quarantine_worker is
    'Takes back all that a worker contributed since then (null: ever): ends its leases, rejects submissions that await acceptance, withdraws '
    'accepted ones, and queues their work again; downloads that agreed with its replicas are replicated again. All null where there is no such '
    'worker. disable_worker ends the worker itself.';

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
    -- the backup knows nothing of who was logged out, nor of links that were used, after it was made
    update mill.admin_session set ended_at = clock_timestamp() where ended_at is null;
    delete from mill.admin_link;
end
$$;
comment on function mill.restored is
    'After a restore, before workers connect: raises the epoch, so that no lease number from before is given out or held again, returns leased '
    'tasks to the queue, and ends the sessions and links of the admin''s page.';

create function mill.set_network(p_name text, p_network text) returns boolean
language sql
as $$
    update mill.worker set network = nullif(p_network, '') where name = p_name returning true
$$;
comment on function mill.set_network is 'Notes the network that a worker connects from; empty: not known. Null where there is no such worker.';

create function mill.prove_worker(p_name text, p_proven boolean) returns boolean
language sql
as $$
    update mill.worker
       set proven_at = case when p_proven then coalesce(proven_at, now()) end,
           streak = case when not p_proven then 0 end
     where name = p_name returning true
$$;
comment on function mill.prove_worker is
    'Notes that an admin vouches for a worker, or no longer: its work is not replicated, and others rely on the robots.txt that it read. Null where '
    'there is no such worker.';
