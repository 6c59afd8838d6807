-- WAT files, by number, by location or by crawl, with what their removal takes along.

select f.wat_id, t.state,
       exists (select from mill.lease l where l.task_id = t.task_id) as begun,
       (select count(*) from mill.submission s where s.task_id = t.task_id and s.state = 'received') as submissions,
       (select coalesce(sum(c.count), 0)::bigint from mill.wat_count c where c.wat_id = f.wat_id and c.stage = 'pair') as pairs
  from mill.wat_file f
  join mill.task t on t.wat_id = f.wat_id and t.kind = 'extract'
  left join mill.crawl c using (crawl_id)
 where f.removed_at is null
   and (f.wat_id = any (%(ids)s::bigint[]) or f.location ~ %(locations)s or c.name = %(crawl)s)
 order by f.wat_id
