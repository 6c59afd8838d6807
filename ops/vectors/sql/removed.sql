-- Of these positions of one batch: those that a removal names, and cover rows, or an export would tell which are which.

select r.n
  from mill.removed r
 where r.batch_id = %(batch_id)s and r.n = any (%(positions)s)
union
select (c.sample_id & 16383)::integer
  from mill.cover_row c
 where c.sample_id = any (array(select %(batch_id)s::bigint << 14 | n from unnest(%(positions)s::integer[]) n))
 order by 1
