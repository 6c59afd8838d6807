-- The logins stay; their names are lost.

drop function mill.add_researcher(name, text, text);
drop table mill.researcher;

create function mill.add_researcher(p_login name, p_password text) returns void
language plpgsql
as $$
begin
    execute format('create role %I login password %L connection limit 4 in role %I',
                   p_login, p_password, left(current_database(), 40) || '_researcher');
    execute format('alter role %I set default_transaction_read_only = on', p_login);
    execute format('alter role %I set statement_timeout = %L', p_login, '30min');
end
$$;
comment on function mill.add_researcher is 'Makes a login that reads the views in report.';

revoke all on function mill.add_researcher from public;
