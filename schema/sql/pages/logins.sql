-- Logins of the processes that serve pages: `pairmill web`. Each page has a group role, whose rights are in the file of its name
-- beside this one.

create function mill.add_page_login(p_login name, p_page text, p_name text, p_password text) returns void
language plpgsql
as $$
begin
    insert into mill.page_login (login, page, name) values (p_login, p_page, p_name);
    execute format('create role %I login password %L connection limit 16 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_' || p_page);
    execute format('alter role %I set statement_timeout = %L', p_login, '30s');
    execute format('alter role %I set lock_timeout = %L', p_login, '2s');
    execute format('alter role %I set idle_in_transaction_session_timeout = %L', p_login, '1min');
    execute format('alter role %I set jit = off', p_login);
    if p_page <> 'explore' then  -- which takes requests for removal
        execute format('alter role %I set default_transaction_read_only = on', p_login);
    end if;
    if has_parameter_privilege('temp_file_limit', 'set') then
        execute format('alter role %I set temp_file_limit = %L', p_login, '1GB');
    end if;
end
$$;
comment on function mill.add_page_login is 'Makes a login for a page. The password is a SCRAM verifier, so that no log holds it.';

create function mill.rotate_page_login(p_name text, p_password text, out login name)
language plpgsql
as $$
begin
    select p.login into login from mill.page_login p where p.name = p_name;
    if login is null then
        return;
    end if;
    execute format('alter role %I password %L', login, p_password);
    -- open sessions were let in by the old password
    perform pg_terminate_backend(pid) from pg_stat_activity a where a.usename = login;
end
$$;
comment on function mill.rotate_page_login is 'Gives a page''s login another password (a SCRAM verifier) and ends its sessions. Null where there is none of that name.';

-- Dropped, and not disabled as a worker: no result bears its name.
create function mill.remove_page_login(p_name text) returns boolean
language plpgsql
as $$
declare
    l name;
begin
    delete from mill.page_login where name = p_name returning login into l;
    if not found then
        return false;
    elsif exists (select from pg_catalog.pg_roles where rolname = l) then
        execute format('alter role %I nologin', l);  -- committed or not, nobody comes in behind the sessions that end now
        perform pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = l;
        execute format('drop role %I', l);
    end if;
    return true;
end
$$;
comment on function mill.remove_page_login is 'Ends a page''s login and its sessions. False where there is none of that name.';
