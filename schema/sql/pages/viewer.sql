-- Rights of <db>_viewer: the admin's page for somebody who may look and change nothing. The tables of the queue, without the logins
-- of workers; of requests for removal not who asked, nor why they may; of pairs, URLs and texts nothing.

create function mill.long_sessions(p_seconds integer) returns table (worker text, state text, seconds double precision, is_waiting boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select w.name, a.state, extract(epoch from clock_timestamp() - a.xact_start)::double precision, a.wait_event_type = 'Lock'
      from pg_stat_activity a
      left join mill.worker w on w.login = a.usename
     where a.datname = current_database() and a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
       and a.xact_start < clock_timestamp() - make_interval(secs => p_seconds)
     order by a.xact_start
     limit 20
$$;
comment on function mill.long_sessions is
    'Sessions that have had a transaction open for so long, the oldest first; a worker''s by name. Sees what `pairmill db secure` lets the owner see.';

create function mill.watchdog_can() returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select pg_has_role(current_user, 'pg_signal_backend', 'usage') and pg_has_role(current_user, 'pg_read_all_stats', 'usage')
$$;
comment on function mill.watchdog_can is 'Whether the watchdog may see and end sessions: `pairmill db secure` has been run.';

do $$
declare
    role constant text := left(current_database(), 40) || '_viewer';
    name text;
begin
    execute format('grant usage on schema mill, report to %I', role);
    foreach name in array array['task', 'queue', 'waiting', 'open_batch', 'stopped', 'worker', 'replication', 'crawl', 'model', 'release',
                                'table_size', 'rate', 'history', 'ended_session'] loop
        execute format('grant select on report.%I to %I', name, role);
    end loop;
    foreach name in array array['task', 'lease', 'instance', 'submission', 'withdrawn', 'thumbnail_slot', 'archive', 'setting', 'audit'] loop
        execute format('grant select on mill.%I to %I', name, role);
    end loop;
    execute format('grant select (worker_id, name, kind, added_at, disabled_at, proven_at, network, streak, agreement, stopped_because, disabled_because)'
                   ' on mill.worker to %I', role);
    execute format('grant select (request_id, entries, of_pages, received_at, due_at, state, decided_at, decided_by, why) on mill.removal_request to %I',
                   role);
    execute format('grant select (removal_id, source, spelling_of, added_at, found_at) on mill.removal to %I', role);
    execute format('grant select (session_id, name, role, made_at, last_seen_at, expires_at, ended_at, network) on mill.admin_session to %I', role);
    -- a view's functions are called with its reader's rights
    execute format('grant execute on function mill.kinds_of_code, mill.has_stranger, mill.long_sessions, mill.watchdog_can to %I', role);
end
$$;
