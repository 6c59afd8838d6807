-- Of these positions of one batch: those that a removal names.

select p.n
  from mill.pair p
  left join mill.current_download d on d.batch_id = p.batch_id and d.n = p.n
 where p.batch_id = %(batch_id)s and p.n = any (%(positions)s)
   and exists (select from mill.removal r where r.md5 in (p.url_key, d.md5) or r.sha256 = d.sha256)
 order by p.n
