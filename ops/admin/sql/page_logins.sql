-- Logins of pages with their sessions.

select p.name, p.page, p.login, p.added_at, (select count(*) from pg_stat_activity a where a.usename = p.login) as sessions
  from mill.page_login p
 order by p.page, p.name
