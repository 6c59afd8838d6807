-- The tables that know logins: each has a column login.

select format('%I.%I', n.nspname, c.relname)
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'mill'
  join pg_attribute a on a.attrelid = c.oid and a.attname = 'login' and a.atttypid = 'name'::regtype and not a.attisdropped
 where c.relkind in ('r', 'p') and not c.relispartition
 order by 1
