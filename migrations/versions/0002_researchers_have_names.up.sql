-- A table for the names, and the function that fills it.

CREATE TABLE mill.researcher (
	login name NOT NULL, 
	name TEXT NOT NULL, 
	added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
	CONSTRAINT researcher_pkey PRIMARY KEY (login), 
	CONSTRAINT researcher_name_key UNIQUE (name)
);
comment on table mill.researcher is 'A researcher''s login, which reads the views in report and nothing else.';
comment on column mill.researcher.login is 'The PostgreSQL role that they log in as';
comment on column mill.researcher.name is 'What people call them';
comment on column mill.researcher.added_at is 'When it was added';

drop function mill.add_researcher(name, text);

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

revoke all on function mill.add_researcher from public;
