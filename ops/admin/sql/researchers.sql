-- Researchers with their sessions. A login that is not there, as after the restore of a dump, is of no use either.

select r.name, r.login, r.added_at,
       (select count(*) from pg_stat_activity a where a.usename = r.login) as sessions,
       not coalesce(l.rolcanlogin, false) as disabled, r.disabled_at, r.disabled_because
  from mill.researcher r
  left join pg_roles l on l.rolname = r.login
 order by r.name
