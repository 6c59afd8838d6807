-- The row that a duplicate stands back for; its URL is null where a removal names it.

select case when r.n is null then p.url end as url
  from mill.pair p
  left join mill.removed_pair r on r.batch_id = p.batch_id and r.n = p.n
 where p.batch_id = %(batch_id)s and p.n = %(n)s
 limit 1
