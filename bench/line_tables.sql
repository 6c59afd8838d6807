-- bytes of each table with its indexes and TOAST; of a partitioned one, with all of its partitions
select s.nspname || '.' || coalesce(r.relname, c.relname) as name,
       sum(pg_total_relation_size(c.oid))::bigint as bytes
  from pg_class c
  join pg_namespace s on s.oid = c.relnamespace
  left join pg_class r on r.oid = pg_partition_root(c.oid)
 where s.nspname in ('mill', 'inbox') and c.relkind = 'r'
 group by 1
 order by 1
