-- Tables and partitions that hold data. storage is another once a table was rewritten or emptied.

select c.oid::bigint as relation, coalesce(pg_partition_root(c.oid), c.oid)::bigint as root, format('%I.%I', n.nspname, c.relname) as name,
       c.relkind = 'p' as has_partitions, pg_relation_filenode(c.oid)::bigint as storage
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
 where n.nspname in ('mill', 'inbox') and c.relkind in ('r', 'p') and c.relname <> 'migration'
 order by 3
