-- Rows that this transaction has changed or deleted so far, by table: partitions count for the whole.

select coalesce(pg_partition_root(s.relid::regclass), s.relid)::regclass::text as "table",
       sum(s.n_tup_upd)::bigint as changed, sum(s.n_tup_del)::bigint as deleted
  from pg_stat_xact_all_tables s
 where s.schemaname in ('mill', 'inbox') and s.relname <> 'migration'
 group by 1
 order by 1
