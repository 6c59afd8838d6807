-- Of these positions of one batch: those that a removal names.

select r.n
  from mill.removed r
 where r.batch_id = %(batch_id)s and r.n = any (%(positions)s)
 order by r.n
