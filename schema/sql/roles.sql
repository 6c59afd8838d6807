-- Roles and namespaces. Idempotent, and outside the migrations: roles belong to the cluster, not
-- to the database. Their names carry the database's name, so that two databases can share a server.
--
--   <db>_owner       owns every object; nobody logs in as it
--   <db>_extract …   group roles of the worker kinds, as schema/kinds.py declares them; a worker's login is a member of one
--   <db>_worker      has them all as members: the logins that the watchdog watches
--   <db>_researcher  reads the views in report
--   <db>_live, <db>_explore, <db>_viewer  of the processes that serve pages, each with the functions of its page
--   <db>_disabled    logins that were disabled: they are told why, and may do nothing else

do $$
declare
    kind text;
    role text;
begin
    foreach kind in array array['owner', 'worker', 'researcher', 'live', 'explore', 'viewer', 'disabled'] || string_to_array(current_setting('pairmill.worker_kinds'), ',') loop
        role := left(current_database(), 40) || '_' || kind;
        if not exists (select from pg_catalog.pg_roles where rolname = role) then
            execute format('create role %I nologin', role);
        end if;
    end loop;
    foreach kind in array array['disabled'] || string_to_array(current_setting('pairmill.worker_kinds'), ',') loop
        execute format('grant %I to %I', left(current_database(), 40) || '_worker', left(current_database(), 40) || '_' || kind);
    end loop;
    role := left(current_database(), 40) || '_owner';
    -- a superuser needs no membership; a CREATEROLE user must be a member to act as the owner.
    -- Not asked with pg_has_role: since PostgreSQL 16 the maker of a role is a member of it that
    -- may grant it and may not act as it
    if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
        execute format('grant %I to current_user', role);
    end if;
    execute format('create schema if not exists mill authorization %I', role);
    execute format('create schema if not exists api authorization %I', role);
    execute format('create schema if not exists report authorization %I', role);
    execute format('create schema if not exists inbox authorization %I', role);
end
$$;
