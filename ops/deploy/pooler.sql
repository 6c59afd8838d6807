-- For PgBouncer: how it learns a login's secret. Run once in the database, as a superuser:
--
--   psql "$DATABASE_URL" -f ops/deploy/pooler.sql
--
-- then give the role a password, \password pairmill_pooler, and put it into PgBouncer's userlist.txt.
-- Workers, researchers and pages only: an admin logs in at the server itself. A disabled worker is let in, to be told why;
-- pg_shadow has no login that may not log in.

create role pairmill_pooler login connection limit 4;

create schema pooler;

create function pooler.secret_of(wanted text, out name text, out secret text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.usename, s.passwd
      from pg_shadow s
     where s.usename = wanted and not s.usesuper
       and (exists (select from mill.worker w where w.login = s.usename)
            or exists (select from mill.researcher r where r.login = s.usename)
            or exists (select from mill.page_login p where p.login = s.usename))
$$;
comment on function pooler.secret_of is 'The SCRAM verifier of a worker''s, researcher''s or page''s login, for PgBouncer''s auth_query.';

revoke all on function pooler.secret_of from public;
grant usage on schema pooler to pairmill_pooler;
grant execute on function pooler.secret_of to pairmill_pooler;
do $$
begin
    execute format('grant connect on database %I to pairmill_pooler', current_database());
end
$$;
