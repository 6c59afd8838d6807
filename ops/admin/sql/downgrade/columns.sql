-- Columns of the tables that hold data, by numbers that outlive a renaming.

select c.oid::bigint as relation, a.attnum::integer as number, format('%I.%I', n.nspname, c.relname) as "table", a.attname as name,
       format_type(a.atttypid, a.atttypmod) as type, pg_get_expr(d.adbin, d.adrelid) as "default",
       a.attidentity <> '' as is_identity
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
  left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
 where n.nspname in ('mill', 'inbox') and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'migration'
 order by 3, 2
