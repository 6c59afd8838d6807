-- Revokes rights of a bare PostgreSQL login that no worker needs. Idempotent. Needs a superuser, since it
-- changes catalogs, and is per database: so it is no migration, but `pairmill db secure`.

do $$
declare
    f record;
    prefix constant text := left(current_database(), 40) || '_';
    role text;
begin
    execute format('revoke all on database %I from public', current_database());
    for role in select name from mill.worker_kind union all values ('researcher'), ('live'), ('explore'), ('viewer'), ('disabled') loop
        execute format('grant connect on database %I to %I', current_database(), prefix || role);
    end loop;
    -- for the watchdog, which sees how long sessions are at work, and ends them (never a superuser's)
    execute format('grant pg_signal_backend, pg_read_all_stats to %I', prefix || 'owner');
    -- DO blocks and temporary functions; functions that exist go on working
    revoke usage on language plpgsql from public;
    execute format('grant usage on language plpgsql to %I', prefix || 'owner');
    for f in
        select p.oid::regprocedure as signature
          from pg_catalog.pg_proc p
         where p.pronamespace = 'pg_catalog'::regnamespace
           and (p.proname like 'lo\_%' or p.proname in ('loread', 'lowrite')
                or p.proname like 'pg\_advisory%' or p.proname like 'pg\_try\_advisory%'
                or p.proname like 'pg\_sleep%' or p.proname = 'pg_logical_emit_message')
           and has_function_privilege('public', p.oid, 'execute')
    loop
        execute format('revoke execute on function %s from public', f.signature);
    end loop;
    -- as mill.add_worker does from now on, for any admin; no login can take it off
    execute format('grant set on parameter temp_file_limit to %I', prefix || 'owner');
    for role in
        select l.login from (select login from mill.worker where kind <> 'steward' union all select login from mill.page_login) l
          join pg_catalog.pg_roles on rolname = l.login
    loop
        execute format('alter role %I set temp_file_limit = %L', role, '1GB');
    end loop;
end
$$;
revoke all on schema public from public;
