-- Partitions of the results that are in the database, by size.

select n.nspname || '.' || c.relname as partition, n.nspname || '.' || p.relname as "table", pg_total_relation_size(c.oid)::bigint as bytes,
       c.reltuples::bigint as rows, pg_get_expr(c.relpartbound, c.oid) as bounds
  from pg_inherits i
  join pg_class c on c.oid = i.inhrelid
  join pg_class p on p.oid = i.inhparent
  join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'mill' and c.relkind = 'r' and c.reltuples <> 0
 order by bytes desc, 1
 limit 60
